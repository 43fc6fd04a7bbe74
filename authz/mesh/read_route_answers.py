"""The reader of what a proxy answers by itself: ``redirect`` and ``directResponse`` of a VirtualService."""

import base64
import binascii
import re

from authz.documents.accessors import Part
from authz.mesh.quantities import read_whole
from authz.mesh.value_parts import only_fields
from authz.mesh.virtual_service import DirectResponse, HttpRedirect
from authz.mesh.virtual_service_fields import FIELDS

REDIRECT_CODES = (301, 302, 303, 307, 308)
MOST_BODY_BYTES = 1024 * 1024
LEAST_STATUS, MOST_STATUS = 200, 599
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def read_redirect(http: Part) -> HttpRedirect | None:
    """``redirect``; one that changes nothing is noted."""
    part = http.part("redirect")
    if part is None:
        return None
    only_fields(part, FIELDS["HTTPRedirect"])
    code = read_whole(part, "redirectCode") or 301
    if code not in REDIRECT_CODES:
        is_other = 300 <= code <= 399
        message = f"`{code}` is not a status of a redirect that Envoy sends" if is_other else f"`{code}` is no redirect"
        help_text = f"one of {', '.join(map(str, REDIRECT_CODES))}"
        part.note("ME-6" if is_other else "ME-1", message, "redirectCode", help_text)
        code = 301
    derived = part.text("derivePort")
    if derived not in ("", "FROM_PROTOCOL_DEFAULT", "FROM_REQUEST_PORT"):
        part.note("ME-1", f"`{derived}` is not FROM_PROTOCOL_DEFAULT or FROM_REQUEST_PORT", "derivePort")
    if part.has("port") and part.has("derivePort"):
        part.note("ME-1", "`port` and `derivePort` exclude each other", "derivePort")
    found = HttpRedirect(
        uri=part.text("uri"),
        prefix_rewrite=part.text("prefixRewrite"),
        authority=part.text("authority"),
        scheme=part.text("scheme"),
        port=part.port("port"),
        from_request_port=derived == "FROM_REQUEST_PORT",
        code=code,
    )
    for field in ("uri", "prefixRewrite", "authority"):
        if _CONTROL.search(part.text(field)):
            part.note("ME-1", "it has a control character", field)
    if found.uri and found.prefix_rewrite:
        part.note("ME-1", "`uri` and `prefixRewrite` exclude each other", "prefixRewrite")
    if found.scheme not in ("", "http", "https"):
        part.note("ME-1", f"`{found.scheme}` is not http or https", "scheme")
    named = (found.uri, found.prefix_rewrite, found.authority, found.scheme)
    if not any(named) and not part.has("port") and not part.has("derivePort"):
        part.note("ME-3", "the redirect changes nothing", help_text="write `uri`, `authority`, `scheme` or `port`")
    return found


def read_direct_response(http: Part) -> DirectResponse | None:
    """``directResponse``: a status, and a body in plain or in base 64."""
    part = http.part("directResponse")
    if part is None:
        return None
    only_fields(part, FIELDS["HTTPDirectResponse"])
    status = read_whole(part, "status") or 0
    if not part.has("status"):
        part.note("ME-3", "`status` is missing", "status")
    elif not LEAST_STATUS <= status <= MOST_STATUS:
        part.note("ME-1", f"`{status}` is not a status from {LEAST_STATUS} to {MOST_STATUS}", "status")
    return DirectResponse(status, _body(part))


def _body(response: Part) -> bytes:
    part = response.part("body")
    if part is None:
        return b""
    only_fields(part, FIELDS["HTTPBody"])
    if part.has("string") and part.has("bytes"):
        part.note("ME-1", "`string` and `bytes` exclude each other", "bytes")
    found = part.text("string").encode("utf-8", "replace")
    if part.has("bytes"):
        try:
            found = base64.b64decode(part.text("bytes"), validate=True)
        except (binascii.Error, ValueError):
            part.note("ME-1", "it is not base 64", "bytes")
    if len(found) > MOST_BODY_BYTES:
        part.note(
            "ME-1", f"the body has more than {MOST_BODY_BYTES} bytes", "string" if part.has("string") else "bytes"
        )
    return found
