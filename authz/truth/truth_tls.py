"""TLS between a client and the servers of the truth, and the name below which the client is answered."""

import ssl
from urllib.parse import urlsplit

from cryptography import x509

from authz.core.errors import SettingsError
from authz.truth.truth_address import TruthAccess

API = "$JS.API"
"""Below it JetStream is asked, in the account where it is."""
API_OF_ROLES = "truth"
"""And in those of roles, which have it from there."""


def inbox_prefix(path: str) -> str:
    """Below this name go answers to those whose SPIFFE ID has this path: that of a role, or of one of its members."""
    return f"_INBOX_authz.{[*path.split('/'), '', ''][2] or 'local'}"


def path_of(access: TruthAccess) -> str:
    """That of the SPIFFE ID in the client's certificate; empty without one. Read again, for it may be a new one."""
    if access.certificate is None:
        return ""
    try:
        certificate = x509.load_pem_x509_certificate(access.certificate.read_bytes())
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, OSError, x509.ExtensionNotFound):
        return ""
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    return urlsplit(uris[0]).path if uris else ""


def tls_context(access: TruthAccess) -> ssl.SSLContext | None:
    """
    What a client asks of the servers, and shows them; None without TLS.

    Raises:
        SettingsError: a file cannot be used.
    """
    if access.ca is None:
        return None
    try:
        context = ssl.create_default_context(cafile=str(access.ca))
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        if access.certificate is not None:
            context.load_cert_chain(access.certificate, access.key)
    except OSError as error:  # ssl.SSLError is one
        raise SettingsError(f"TLS to the truth: {error.strerror or error}") from error
    return context
