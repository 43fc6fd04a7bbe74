"""
TLS of the gRPC port from files (XA-117), read again when they change (XA-120).

A broken pair keeps the last good one.
"""

import logging
import ssl
from pathlib import Path

import grpc

from authz.core.errors import SettingsError
from authz.identity.pem import refuse_encrypted_key
from authz.settings.sections import TlsSettings

_log = logging.getLogger("authz.tls")


class ServerCertificate:
    """Certificate, key and, for mTLS, the bundle that vouches for clients. Existing connections are untouched."""

    @classmethod
    def of(cls, tls: TlsSettings) -> "ServerCertificate | None":
        """Read the files of the settings; None where they name none. Raises SettingsError as the constructor does."""
        if tls.certificate is None or tls.key is None:
            return None
        return cls(tls.certificate, tls.key, tls.client_ca)

    def __init__(self, certificate: Path, key: Path, client_ca: Path | None = None) -> None:
        """Raises SettingsError when the files do not make a usable pair."""
        self._certificate = certificate
        self._key = key
        self._client_ca = client_ca
        self._seen = self._signature()
        self.problem = ""
        """Why the files as they are now are not in use, as seen at the last new connection; empty when they are."""
        try:
            self._initial = self._read()
        except (OSError, ssl.SSLError) as error:
            raise SettingsError(f"`{certificate}` and `{key}` are not a usable certificate: {_cause(error)}") from error

    def credentials(self) -> grpc.ServerCredentials:
        """Credentials that look for renewed files at each new connection."""
        return grpc.dynamic_ssl_server_credentials(
            self._initial,
            self._fetch,  # type: ignore[arg-type]  # the stubs do not know that None means "no change"
            require_client_authentication=self._client_ca is not None,
        )

    def _fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """Called by gRPC for each new connection; None keeps what is in use."""
        signature = self._signature()
        if signature == self._seen:
            return None
        self._seen = signature
        try:
            found = self._read()
        except (OSError, ssl.SSLError) as error:
            files = ", ".join(f"`{file}`" for file in (self._certificate, self._key, self._client_ca) if file)
            self.problem = f"{files} cannot be used as they are now: {_cause(error)}"
            _log.error("the server certificate was not replaced: %s", self.problem)
            return None
        self.problem = ""
        return found

    def _read(self) -> grpc.ServerCertificateConfiguration:
        refuse_encrypted_key(self._key)
        certificate, key = self._certificate.read_bytes(), self._key.read_bytes()
        roots = self._client_ca.read_bytes() if self._client_ca is not None else None
        probe = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)  # gRPC would only say so when the first client fails
        probe.load_cert_chain(self._certificate, self._key)
        if self._client_ca is not None:
            probe.load_verify_locations(self._client_ca)
        return grpc.ssl_server_certificate_configuration([(key, certificate)], roots)

    def _signature(self) -> tuple[tuple[int, ...] | None, ...]:
        return tuple(_state(file) for file in (self._certificate, self._key, self._client_ca) if file is not None)


def _state(file: Path) -> tuple[int, ...] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _cause(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or "not readable as PEM").lower().replace("_", " ")
    return error.strerror or type(error).__name__
