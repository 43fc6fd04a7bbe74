"""The TLS of a gateway's server: certificates, what is demanded of clients, versions and ciphers."""

import re
from dataclasses import dataclass
from typing import Any

from authz.documents.accessors import Part
from authz.mesh.gateway_server import CertificatePaths, ClientChecks, TlsMode
from authz.mesh.quantities import read_boolean
from authz.mesh.traffic_entry_fields import FIELDS
from authz.mesh.value_parts import only_fields

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,252}[A-Za-z0-9])?")
_PATH = re.compile(r"(?!/)[A-Za-z0-9._/-]{1,255}")
_SPKI = re.compile(r"[A-Za-z0-9+/]{43}=")
_HASH = re.compile(r"[0-9A-Fa-f]{64}|[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){31}")
_VERSIONS = ("TLSV1_2", "TLSV1_3")
CIPHERS = (
    *("ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-RSA-AES128-GCM-SHA256"),
    *("ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-RSA-AES256-GCM-SHA384"),
    *("ECDHE-ECDSA-CHACHA20-POLY1305", "ECDHE-RSA-CHACHA20-POLY1305"),
    *("ECDHE-ECDSA-AES128-SHA", "ECDHE-RSA-AES128-SHA", "AES128-GCM-SHA256", "AES128-SHA"),
    *("ECDHE-ECDSA-AES256-SHA", "ECDHE-RSA-AES256-SHA", "AES256-GCM-SHA384", "AES256-SHA"),
)
"""The ciphers of TLS 1.2 that Istio takes and Envoy has; those of TLS 1.3 are not chosen."""


@dataclass(frozen=True, slots=True)
class ServerTls:
    """What ``tls`` of a server says, as arguments of ``GatewayServer``."""

    mode: TlsMode = TlsMode.DISABLE
    arguments: dict[str, Any] | None = None


def read_server_tls(tls: Part | None, *, is_http: bool) -> ServerTls:
    """Read ``tls``; ``is_http``: the port is plaintext HTTP, where only a redirect may be asked for."""
    if tls is None:
        return ServerTls()
    only_fields(tls, FIELDS["ServerTLSSettings"])
    redirect = read_boolean(tls, "httpsRedirect") is True
    if is_http:
        for key in tls.node.keys:
            if key.value != "httpsRedirect" and key.value in FIELDS["ServerTLSSettings"] and tls.has(key.value):
                help_text = "write `protocol: HTTPS`, or `httpsRedirect` alone"
                tls.note("ME-1", f"`{key.value}` on a port that speaks plaintext HTTP", key.value, help_text, key)
        return ServerTls(TlsMode.DISABLE, {"https_redirect": redirect})
    if redirect:
        tls.note("ME-1", "only requests without TLS can be redirected", "httpsRedirect", "write it at the HTTP server")
    if tls.text("mode") == "AUTO_PASSTHROUGH":
        help_text = "it joins the networks of one mesh, and here there is one; write PASSTHROUGH and `tls` routes"
        tls.note("ME-6", "`AUTO_PASSTHROUGH` is not done here", "mode", help_text)
        return ServerTls(TlsMode.PASSTHROUGH, {})
    if not tls.has("mode"):
        tls.note("ME-3", "`mode` is missing", "mode", "without it Istio takes PASSTHROUGH; most want SIMPLE")
    mode = tls.choice("mode", TlsMode, TlsMode.SIMPLE)
    if mode is TlsMode.DISABLE:
        tls.note("ME-1", "`DISABLE` is no mode of a server", "mode", "leave `tls` out")
    if mode in (TlsMode.PASSTHROUGH, TlsMode.ISTIO_MUTUAL, TlsMode.DISABLE):
        _refuse_others(tls, mode)
        return ServerTls(mode, {})
    return ServerTls(mode, {**_certificates(tls), "client": _client(tls, mode), **_parameters(tls)})


def _refuse_others(tls: Part, mode: TlsMode) -> None:
    for key in tls.node.keys:
        if key.value not in ("mode", "httpsRedirect") and key.value in FIELDS["ServerTLSSettings"]:
            why = "it uses the mesh's own certificates" if mode is TlsMode.ISTIO_MUTUAL else "it opens no TLS"
            tls.note("ME-1", f"`{key.value}` means nothing with `mode: {mode}`", key.value, f"{why}; leave it out", key)


def _certificates(tls: Part) -> dict[str, Any]:
    """Exactly one source of certificates, as Istio demands."""
    names = _names(tls, "credentialNames")
    single = read_name(tls, "credentialName")
    pairs = [_pair(one) for one in tls.parts("tlsCertificates")]
    files = tls.has("serverCertificate") or tls.has("privateKey")
    sources = [f for f in ("credentialName", "credentialNames", "tlsCertificates") if tls.has(f)]
    sources += ["serverCertificate"] if files else []
    if len(sources) > 1:
        tls.note("ME-1", f"`{sources[0]}` and `{sources[1]}` exclude each other", sources[1], "keep one of them")
    if not sources:
        help_text = "name a directory below certs/ with tls.crt and tls.key"
        tls.note("ME-3", "`credentialName` is missing", "credentialName", help_text)
    if files:
        pairs = [_pair(tls)]
    for field, count in (("credentialNames", len(names)), ("tlsCertificates", len(pairs))):
        if tls.has(field) and not 1 <= count <= 2:
            tls.note("ME-1", "expected one or two", field, "two with different kinds of keys, as in Istio")
    every = [single, *names] if single else names
    return {
        "credential": every[0] if every else "",
        "more_credentials": tuple(every[1:]),
        "certificates": tuple(pair for pair in pairs if pair is not None) if not every else (),
    }


def _pair(part: Part) -> CertificatePaths | None:
    if part.path.rpartition(".")[2].startswith("tlsCertificates"):
        only_fields(part, FIELDS["TLSCertificate"])
    certificate, key = (read_path(part, field, required=True) for field in ("serverCertificate", "privateKey"))
    return CertificatePaths(certificate, key) if certificate and key else None


def _client(tls: Part, mode: TlsMode) -> ClientChecks:
    fields = ("caCertificates", "caCertCredentialName", "caCrl", "subjectAltNames")
    if mode is TlsMode.SIMPLE:
        for field in (*fields, "verifyCertificateSpki", "verifyCertificateHash"):
            if tls.has(field):
                help_text = "write MUTUAL or OPTIONAL_MUTUAL, or leave it out"
                tls.note("ME-1", f"`SIMPLE` asks for no certificate, so `{field}` means nothing", field, help_text)
        return ClientChecks()
    found = ClientChecks(
        ca_certificates=read_path(tls, "caCertificates"),
        ca_credential=read_name(tls, "caCertCredentialName"),
        crl=read_path(tls, "caCrl"),
        subject_alt_names=tls.texts("subjectAltNames"),
        spki=_digests(tls, "verifyCertificateSpki", _SPKI, "the SHA-256 of a public key in Base64"),
        hashes=_digests(tls, "verifyCertificateHash", _HASH, "the SHA-256 of a certificate in hexadecimal digits"),
    )
    if "" in found.subject_alt_names:
        tls.note("ME-1", "an empty name fits no certificate", "subjectAltNames", "leave it out")
    is_named = tls.has("credentialName") or tls.has("credentialNames") or found.ca_credential
    if found.ca_certificates and is_named:
        help_text = "write the name of a directory or the path of a file"
        tls.note(
            "ME-1", "`caCertificates` and the name of a credential exclude each other", "caCertificates", help_text
        )
    elif not found.ca_certificates and not is_named:
        tls.note("ME-3", "`caCertificates` is missing", "caCertificates", "name who vouches for clients")
    return found


def _digests(tls: Part, field: str, form: re.Pattern[str], what: str) -> tuple[str, ...]:
    found = tls.texts(field)
    for i, one in enumerate(found):
        if not form.fullmatch(one):
            tls.note("ME-1", f"`{one}` is not {what}", f"{field}[{i}]")
    return tuple(one for one in found if form.fullmatch(one))


def _parameters(tls: Part) -> dict[str, Any]:
    minimum, maximum = _version(tls, "minProtocolVersion"), _version(tls, "maxProtocolVersion")
    if minimum and maximum and minimum > maximum:
        tls.note("ME-1", f"`{maximum}` is older than `{minimum}`", "maxProtocolVersion", "turn them round")
        maximum = ""
    ciphers = tls.texts("cipherSuites")
    for i, cipher in enumerate(ciphers):
        if cipher not in CIPHERS:
            message = f"`{cipher}` is not a cipher of TLS 1.2 that Envoy has"
            tls.note("ME-1", message, f"cipherSuites[{i}]", f"one of {', '.join(CIPHERS)}")
    known = tuple(dict.fromkeys(cipher for cipher in ciphers if cipher in CIPHERS))
    return {"minimum_protocol": minimum or "TLSV1_2", "maximum_protocol": maximum or "TLSV1_3", "ciphers": known}


def _version(tls: Part, field: str) -> str:
    written = tls.text(field)
    if written in ("", "TLS_AUTO", *_VERSIONS):
        return written if written in _VERSIONS else ""
    tls.note("ME-1", f"`{written}` is not one of TLS_AUTO, {', '.join(_VERSIONS)}", field, "older versions are unsafe")
    return ""


def read_name(part: Part, field: str) -> str:
    """The name of a directory below ``certs/``; empty, and noted, where it is none."""
    written = part.text(field)
    if written and not _NAME.fullmatch(written):
        help_text = "it names a directory below certs/: write a-z, 0-9, `-` and `.`"
        part.note("ME-1", f"`{written}` is not a name", field, help_text)
        return ""
    if part.has(field) and not written:
        part.note("ME-1", f"`{field}` is empty", field, "name a directory below certs/, or leave it out")
    return written


def _names(part: Part, field: str) -> list[str]:
    found = part.texts(field)
    for i, one in enumerate(found):
        if not _NAME.fullmatch(one):
            help_text = "it names a directory below certs/: write a-z, 0-9, `-` and `.`"
            part.note("ME-1", f"`{one}` is not a name", f"{field}[{i}]", help_text)
    return [one for one in found if _NAME.fullmatch(one)]


def read_path(part: Part, field: str, *, required: bool = False) -> str:
    """A path within the state directory; empty, and noted, where it is none."""
    written = part.text(field, required=required)
    if written and _PATH.fullmatch(written) and ".." not in written.split("/"):
        return written
    if written or part.has(field):
        help_text = "Envoy runs in the state directory: write for instance certs/web/tls.crt"
        part.note("ME-1", f"`{written}` is not a path within the state directory", field, help_text)
    return ""
