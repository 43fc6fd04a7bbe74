"""
``tokenIntrospection`` of the mesh settings: issuers that are asked about their tokens (RFC 7662).

Istio has none, so this is ours. It stands in the mesh settings and not at a RequestAuthentication because it names a
file with a secret and an address that gets it: those belong to the operator, not to whoever writes a policy.
"""

from collections import Counter
from pathlib import PurePosixPath
from urllib.parse import urlsplit

from authz.core.introspection import Introspection
from authz.documents import reading
from authz.documents.decoders import objects, read_text, text
from authz.documents.reading import Node, Sequence
from authz.documents.schema import Decoder, Fault, Field, Notes, Shape, given, text_of
from authz.policy import jwt_values

CODE = "introspection"
"""Code of our own problems, for which Istio has no clause."""
MAX_AGE_SECONDS = 3600
_REQUIRED = ("issuer", "endpoint", "clientId", "clientSecretFile")


def _not_empty(value: str) -> Fault | None:
    return None if value else Fault(CODE, "the value is empty", "")


def _endpoint(value: str) -> Fault | None:
    """Credentials go there, so plaintext is only for this machine."""
    fault = jwt_values.jwks_uri(value)
    if fault is not None or not value:
        return Fault(CODE, f"`{value}` is not an address of an endpoint", "expected `https://`, a host, and a path")
    parts = urlsplit(value)
    if parts.username is not None or parts.fragment:
        return Fault(CODE, "the endpoint has a user or a fragment", "the credentials are `clientId` and its file")
    if parts.scheme != "https" and parts.hostname not in ("127.0.0.1", "::1", "localhost"):
        return Fault(CODE, f"`{value}` would get the client secret in plaintext", "use `https://`")
    return None


def _secret_file(value: str) -> Fault | None:
    if PurePosixPath(value).is_absolute():
        return None
    return Fault(CODE, f"`{value}` is not an absolute path", "name the file that holds the client secret from `/` on")


def _seconds(most: int, default: float) -> Decoder[float]:
    def decode(node: Node, notes: Notes) -> float:
        value = read_text(node, notes)
        if text_of(node) is None:
            return default
        fault = jwt_values.duration(value)
        seconds = float(jwt_values.parse_duration(value) or 0)
        if fault is None and seconds > most:
            fault = Fault(CODE, f"`{value}` is longer than {most} s", "")
        if fault is not None:
            notes.fault(node, fault)
            return default
        return seconds

    return decode


def _check(node: reading.Mapping, notes: Notes) -> None:
    for name in _REQUIRED:
        if given(node, name) is None:
            notes.error(CODE, node, f"an entry of `tokenIntrospection` without `{name}`", "give it")


_DEFAULTS = Introspection()
_ENTRY: Shape[Introspection] = Shape(
    "an entry of `tokenIntrospection`",
    {
        "issuer": Field("issuer", text(_not_empty)),
        "endpoint": Field("endpoint", text(_endpoint)),
        "clientId": Field("client_id", text(_not_empty)),
        "clientSecretFile": Field("client_secret_file", text(_secret_file)),
        "timeout": Field("timeout_seconds", _seconds(60, _DEFAULTS.timeout_seconds)),
        "maxAge": Field("max_age_seconds", _seconds(MAX_AGE_SECONDS, _DEFAULTS.max_age_seconds)),
        "refusedMaxAge": Field("refused_max_age_seconds", _seconds(MAX_AGE_SECONDS, _DEFAULTS.refused_max_age_seconds)),
    },
    Introspection,
    _check,
    is_located=True,
)
_ENTRIES = objects(_ENTRY, null_code=CODE)


def decode_introspections(node: Node, notes: Notes) -> tuple[Introspection, ...]:
    """Decode the list; an issuer may stand in it only once."""
    found = _ENTRIES(node, notes)
    issuers = Counter(one.issuer for one in found if one.issuer)
    for item in node.items if isinstance(node, Sequence) else ():
        issuer = given(item, "issuer") if isinstance(item, reading.Mapping) else None
        if issuer is not None and issuers[text_of(issuer) or ""] > 1:
            notes.error(CODE, issuer, f"the issuer `{text_of(issuer)}` has several entries", "keep one of them")
    return found
