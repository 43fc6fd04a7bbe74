"""The reader of ``retries``, ``fault`` and ``corsPolicy`` of a VirtualService."""

import re
from http import HTTPStatus

from authz.documents.accessors import Part
from authz.mesh.quantities import read_boolean, read_duration, read_percent, read_whole
from authz.mesh.read_http_match import string_match
from authz.mesh.read_route_answers import LEAST_STATUS, MOST_STATUS
from authz.mesh.value_parts import only_fields, warn_of_deprecated
from authz.mesh.virtual_service import GRPC_STATUSES, CorsRules, FaultInjection, HttpRetry, MatchKind, StringMatch
from authz.mesh.virtual_service_fields import FIELDS

RETRY_CONDITIONS = (
    *("5xx", "gateway-error", "reset", "reset-before-request", "connect-failure", "retriable-4xx", "refused-stream"),
    *("retriable-status-codes", "retriable-headers", "envoy-ratelimited", "http3-post-connect-failure", "cancelled"),
    *("deadline-exceeded", "internal", "resource-exhausted", "unavailable"),
)
CORS_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE", "*")
_CODES = frozenset(str(int(status)) for status in HTTPStatus)
_HEADER_NAME = re.compile(r"[!#$%&'*+\-.^_`|~A-Za-z0-9]+")


def read_retries(http: Part) -> HttpRetry | None:
    """``retries``; ``attempts: 0`` switches them off."""
    part = http.part("retries")
    if part is None:
        return None
    only_fields(part, FIELDS["HTTPRetry"])
    attempts, retry_on = read_whole(part, "attempts") or 0, part.text("retryOn")
    for condition in retry_on.split(",") if retry_on else ():
        if condition not in RETRY_CONDITIONS and condition not in _CODES:
            help_text = f"a status, or one of {', '.join(RETRY_CONDITIONS)}, without blanks"
            part.note("ME-1", f"`{condition}` is not a reason to retry", "retryOn", help_text)
    if not attempts:
        for field in ("perTryTimeout", "retryOn", "retryRemoteLocalities"):
            if part.has(field):
                part.note("ME-1", f"`{field}` is of no use without `attempts`", field, "write `attempts: 2`")
    ignore = read_boolean(part, "retryIgnorePreviousHosts")
    return HttpRetry(
        attempts=attempts,
        per_try_timeout=read_duration(part, "perTryTimeout"),
        retry_on=retry_on,
        remote_localities=read_boolean(part, "retryRemoteLocalities") or False,
        ignore_previous_hosts=True if ignore is None else ignore,
        backoff=read_duration(part, "backoff"),
    )


def read_fault(http: Part) -> FaultInjection | None:
    """``fault``: a delay, an abort, or both."""
    part = http.part("fault")
    if part is None:
        return None
    only_fields(part, FIELDS["HTTPFaultInjection"])
    delay, abort = part.part("delay"), part.part("abort")
    if not part.has("delay") and not part.has("abort"):
        part.note("ME-3", "`delay` or `abort` is missing", "delay")
    wait, share = _delay(delay) if delay else (0.0, 0.0)
    status, grpc, percent = _abort(abort) if abort else (0, "", None)
    return FaultInjection(wait, share, status, grpc, percent)


def _delay(part: Part) -> tuple[float, float]:
    only_fields(part, FIELDS["Delay"])
    wait = read_duration(part, "fixedDelay")
    if not part.has("fixedDelay") and not part.has("exponentialDelay"):
        part.note("ME-3", "`fixedDelay` is missing", "fixedDelay", "for instance 5s")
    if part.has("percentage"):
        _warn_of_unheeded(part, "percent", "percentage")
        return wait or 0.0, read_percent(part, "percentage") or 0.0
    warn_of_deprecated(part, "percent", "`percentage: {value: …}`")
    return wait or 0.0, float(read_whole(part, "percent", most=100) or 0)


def _warn_of_unheeded(part: Part, old: str, new: str) -> None:
    if part.has(old):
        part.warn("ME-2", f"`{old}` is not heeded beside `{new}`", old, "leave it out")


def _abort(part: Part) -> tuple[int, str, float | None]:
    only_fields(part, FIELDS["Abort"])
    status, grpc = read_whole(part, "httpStatus") or 0, part.text("grpcStatus")
    if part.has("httpStatus") and part.has("grpcStatus"):
        part.note("ME-1", "`httpStatus` and `grpcStatus` exclude each other", "grpcStatus")
    if not any(part.has(field) for field in ("httpStatus", "grpcStatus", "http2Error")):
        part.note("ME-3", "`httpStatus` or `grpcStatus` is missing", "httpStatus", "for instance 503")
    if part.has("httpStatus") and not LEAST_STATUS <= status <= MOST_STATUS:
        part.note("ME-1", f"`{status}` is not a status from {LEAST_STATUS} to {MOST_STATUS}", "httpStatus")
    if grpc and grpc not in GRPC_STATUSES:
        part.note("ME-1", f"`{grpc}` is not a status of gRPC", "grpcStatus", f"one of {', '.join(GRPC_STATUSES)}")
    return status, grpc, read_percent(part, "percentage")


def read_cors(http: Part) -> CorsRules | None:
    """Which other origins a browser may let call, as ``corsPolicy`` says it."""
    part = http.part("corsPolicy")
    if part is None:
        return None
    only_fields(part, FIELDS["CorsPolicy"])
    origins = [match for match in (string_match(one) for one in part.parts("allowOrigins")) if match]
    for i, one in enumerate(part.parts("allowOrigins")):
        if not any(one.text(kind) for kind in MatchKind if one.has(kind)):
            part.note("ME-3", "an origin is empty", f"allowOrigins[{i}]", "write `exact: https://example.com`")
    if part.has("allowOrigins"):
        _warn_of_unheeded(part, "allowOrigin", "allowOrigins")
    else:
        warn_of_deprecated(part, "allowOrigin", "`allowOrigins: [{exact: …}]`")
        origins = [StringMatch(MatchKind.EXACT, text) for text in part.texts("allowOrigin")]
    methods = part.texts("allowMethods")
    for method in methods:
        if method not in CORS_METHODS:
            part.note("ME-1", f"`{method}` is not a method", "allowMethods", f"one of {', '.join(CORS_METHODS)}")
    for field in ("allowHeaders", "exposeHeaders"):
        for name in part.texts(field):
            if not _HEADER_NAME.fullmatch(name):
                part.note("ME-1", f"`{name}` is not the name of a header", field)
    max_age = read_duration(part, "maxAge")
    if max_age is not None and max_age != int(max_age):
        part.note("ME-1", "the age is not a whole number of seconds", "maxAge")
    unmatched = part.text("unmatchedPreflights", "UNSPECIFIED")
    if unmatched not in ("UNSPECIFIED", "FORWARD", "IGNORE"):
        part.note("ME-1", f"`{unmatched}` is not FORWARD or IGNORE", "unmatchedPreflights")
    return CorsRules(
        allow_origins=tuple(origins),
        allow_methods=methods,
        allow_headers=part.texts("allowHeaders"),
        expose_headers=part.texts("exposeHeaders"),
        max_age=max_age,
        allow_credentials=read_boolean(part, "allowCredentials"),
        ignore_unmatched_preflights=unmatched == "IGNORE",
    )
