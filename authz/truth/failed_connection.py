"""Why a server of the truth cannot be reached, in words that say what to do."""

import logging
import socket
import ssl

from nats.errors import Error

from authz.truth.server_version import old_server

log = logging.getLogger("authz.truth")
_OF_SERVER = {62: "name", 64: "name", 10: "expired", 9: "early"}
"""OpenSSL's codes of what is wrong with a server's certificate: X509_V_ERR_HOSTNAME_MISMATCH and others."""
_WORDS_OF_SERVER = {
    "name": "its certificate is not for the name that it was asked by: `--truth-name` says which one it has",
    "expired": "its certificate has expired",
    "early": "its certificate is not valid yet: is this machine's clock right?",
    "": "nobody in `--truth-ca` vouches for its certificate",
}
_ALERTS = {
    "CERTIFICATE_REQUIRED": "it asks for a certificate: `--truth-cert` and `--truth-key`",
    "CERTIFICATE_EXPIRED": "the certificate of `--truth-cert` has expired, or is not valid yet",
    "CERTIFICATE_REVOKED": "the certificate of `--truth-cert` was revoked",
    "UNKNOWN_CA": "it does not trust the authority of `--truth-cert`",
    "BAD_CERTIFICATE": "it refuses the certificate of `--truth-cert`",
    "WRONG_VERSION_NUMBER": "it does not begin with TLS: is it a server of the truth?",
}
"""By the end of OpenSSL's reason; the server's word comes after our side of the handshake, with TLS 1.3."""


def failure_of(error: BaseException, *, tls: bool) -> str:
    """What a failed attempt to connect says; empty if it says nothing more than that there was no answer."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _WORDS_OF_SERVER[_OF_SERVER.get(error.verify_code, "")]
    if isinstance(error, ssl.SSLError):
        reason = error.reason or "no TLS"
        known = (words for end, words in _ALERTS.items() if reason.endswith(end))
        return next(known, f"TLS failed: {reason.lower().replace('_', ' ')}")
    if isinstance(error, socket.gaierror):
        return "its name is not known here"
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens there"
    if isinstance(error, TimeoutError):
        return (
            "" if tls else "it says nothing, as servers do that want TLS: `--truth-ca`, `--truth-cert`, `--truth-key`"
        )
    if isinstance(error, Error) and "authorization violation" in str(error).lower():
        return "it gives the SPIFFE ID of `--truth-cert` no role" if tls else "it lets nobody in without a certificate"
    return ""


class FailedConnections:
    """Why there has been no connection since there last was one; each reason is logged once."""

    def __init__(self, address: str, *, tls: bool) -> None:
        self._address, self._tls = address, tls
        self._reasons: dict[str, None] = {}

    def note(self, error: BaseException) -> None:
        """An attempt to connect has failed."""
        reason = failure_of(error, tls=self._tls)
        if reason and reason not in self._reasons:
            log.warning("%s does not answer: %s", self._address, reason)
            self._reasons[reason] = None

    def end(self, version: str) -> None:
        """There is a connection, to a server that says this of itself."""
        self._reasons.clear()
        if old := old_server(version):
            log.warning("%s: %s", self._address, old)

    def __str__(self) -> str:
        """For whoever asks meanwhile."""
        return f"{self._address} does not answer{': ' if self._reasons else ''}{'; '.join(self._reasons)}"
