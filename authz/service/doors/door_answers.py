"""
A CheckResponse as an HTTP answer: 200 accepts, everything else refuses.

To an Envoy with ``failure_mode_allow`` a server's error is no refusal (XA-95), and nginx knows only 401 and 403,
so a door answers with what its proxy takes for a refusal.
"""

from dataclasses import dataclass

from authz._proto import ext_authz_pb2 as pb
from authz.core.decision import FORBIDDEN_BODY
from authz.settings.http_doors import HttpForm

HEADERS_TO_REMOVE = "x-envoy-auth-headers-to-remove"
"""The header that tells an Envoy to remove headers of the client."""


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """Status, headers and body."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


FORBIDDEN = HttpAnswer(403, (("content-type", "text/plain"),), FORBIDDEN_BODY.encode())


def write_door_answer(kind: HttpForm, message: bytes, upstream_headers: frozenset[str]) -> HttpAnswer:
    """
    Write the answer for a decision.

    Args:
        message: the serialised CheckResponse.
        upstream_headers: what the proxy takes from the answer; where nothing sets such a header, it is given an
                empty one if the client's must not survive.
    """
    response = pb.CheckResponse.FromString(message)
    if response.status.code != 0:
        denied = response.denied_response
        headers = tuple((option.header.key, option.header.value) for option in denied.headers)
        return HttpAnswer(
            _refusal_status(kind, denied.status.code), (("content-type", "text/plain"), *headers), denied.body.encode()
        )
    ok = response.ok_response
    told = {option.header.key: option.header.value for option in ok.headers}
    removed = [name for name in ok.headers_to_remove if name not in told]
    if kind == "envoy-http":
        told |= {HEADERS_TO_REMOVE: ",".join(removed)} if removed else {}
    else:
        told |= {name: "" for name in removed if name in upstream_headers}
    return HttpAnswer(200, tuple(told.items()))


def _refusal_status(kind: HttpForm, status: int) -> int:
    if kind == "nginx":
        return status if status == 401 else 403
    if kind == "envoy-http" and status >= 500:
        return 403
    return status if 300 <= status <= 599 else 403
