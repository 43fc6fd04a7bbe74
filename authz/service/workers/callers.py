"""The caller of a worker that Envoy hosts, by the header that this Envoy writes about its client (XFCC)."""

import re
from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import unquote_to_bytes

from authz.service.streams import JudgeCaller

_URI = re.compile(r'(?:^|;)URI=(?:"([^"]*)"|([^;,"]*))')
_CERTIFICATE = re.compile(rb'(?:^|[;,])Cert="([^"]*)"')
MAX_REMEMBERED = 4096


def caller_identity(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """
    The identity by which the caller asks, as the hosting Envoy saw it; empty without mutual TLS.

    Envoy removes the header that a caller sends itself and, where it asks for certificates, writes its own. Several
    identities together are nobody's.
    """
    for name, value in headers:
        if name == b"x-forwarded-client-cert":
            found = (uri or bare for uri, bare in _URI.findall(value.decode("latin-1")))
            return " ".join(uri for uri in found if uri.startswith("spiffe://"))
    return ""


def caller_refusal(headers: Iterable[tuple[bytes, bytes]], judge: JudgeCaller, now: float) -> str:
    """Why the caller's certificate is not believed, as the hosting Envoy passed it on; empty where there is none."""
    for name, value in headers:
        if name == b"x-forwarded-client-cert":
            for quoted in _CERTIFICATE.findall(value):
                if refusal := judge(_pem(quoted), now):
                    return refusal
    return ""


@lru_cache(maxsize=MAX_REMEMBERED)
def _pem(quoted: bytes) -> str:
    return unquote_to_bytes(quoted).decode("ascii", "replace")
