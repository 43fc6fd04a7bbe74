"""
``extensionProviders`` of MeshConfig (VA-50 to VA-56).

A provider that Istio would not use is kept with its problems, which are warnings: policies that name it deny (AP-80).
VA-56 asks whether a registry knows the service; there is no registry here, so the host is resolved when it is asked.
A misspelt field or a wrong type is an error like everywhere else.
"""

import ipaddress
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from authz.core.errors import Location, Problem, Severity
from authz.core.resources import ExtensionProvider
from authz.documents import reading
from authz.documents.decoders import anything, boolean, integer, read_text, text, text_map, texts
from authz.documents.reading import Kind, Node, Scalar, Sequence
from authz.documents.schema import Check, Fault, Field, Notes, Shape, describe, given, nearest, note_unknown, text_of
from authz.policy import jwt_values, value_checks

_MAKES_UNUSABLE = frozenset(f"VA-{number}" for number in range(50, 57)) | {"AP-79"}
_OTHER_TYPES = (
    *("zipkin", "lightstep", "datadog", "stackdriver", "opencensus", "skywalking", "opentelemetry", "prometheus"),
    *("envoyFileAccessLog", "envoyHttpAls", "envoyTcpAls", "envoyOtelAls", "sds"),
)
_STATUSES = frozenset(
    [100, *range(200, 209), 226, *range(300, 306), 307, 308, *range(400, 418), *range(421, 425), 426, 428, 429, 431]
).union(range(500, 509), (510, 511))
"""HTTP statuses Envoy knows (envoy.type.v3.StatusCode)."""


# --- values ----------------------------------------------------------------------------------------------------------


def _service(value: str) -> Fault | None:
    """Check the host of a provider, with or without a namespace (VA-51)."""
    namespace, slash, host = value.rpartition("/")
    if value_checks.is_dns_name(host) and (value_checks.is_dns_label(namespace) if slash else True):
        return None
    if not slash and _is_address(host):
        return None
    advice = "expected `[<namespace>/]<host name>` or an IP address"
    return Fault("VA-51", f"`{value}` is not a service" if value else "the service is empty", advice)


def _is_address(value: str) -> bool:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return False
    return "%" not in value


def _path_prefix(value: str) -> Fault | None:
    """Check a path prefix, which may be empty (VA-54)."""
    if not value or (value.startswith("/") and not any(c <= " " or c in "?#\x7f" for c in value)):
        return None
    return Fault("VA-54", f"`{value}` is not a path prefix", "begin it with `/`, without query or fragment")


def _not_star(value: str) -> Fault | None:
    """Refuse a star alone in a list of headers (VA-55)."""
    if value == "*":
        return Fault("VA-55", "`*` alone is not allowed in a list of headers", "name the headers, or write `x-*`")
    return None


def _status(node: Node, notes: Notes) -> int:
    """VA-53: a number, in Istio's API written as a string."""
    written = node.value if isinstance(node, Scalar) and node.kind in (Kind.TEXT, Kind.NUMBER) else ""
    if written.isascii() and written.isdigit() and len(written) <= 4 and int(written) in _STATUSES:
        return int(written)
    notes.error("VA-53", node, f"expected an HTTP status that Envoy knows, got {describe(node)}", 'for example `"503"`')
    return ExtensionProvider("").status_on_error


def _timeout(node: Node, notes: Notes) -> float:
    value = read_text(node, notes)
    fault = jwt_values.duration(value) if text_of(node) is not None else None
    if fault is not None:
        notes.fault(node, fault)
    return float(jwt_values.parse_duration(value) or 0)


# --- tables ----------------------------------------------------------------------------------------------------------


class _Body(NamedTuple):
    max_request_bytes: int = 0
    allow_partial_message: bool = False
    pack_as_bytes: bool = False


_BODY: Shape[_Body] = Shape(
    "an `includeRequestBodyInCheck`",
    {
        "maxRequestBytes": Field("max_request_bytes", integer(0, 2**32 - 1, "RE-10")),
        "allowPartialMessage": Field("allow_partial_message", boolean),
        "packAsBytes": Field("pack_as_bytes", boolean),
    },
    _Body,
)


def _check_authorizer(node: reading.Mapping, notes: Notes) -> None:
    if given(node, "service") is None:
        notes.error("VA-51", node, "the provider has no `service`", "name the host of the authorizer")
    if given(node, "port") is None:
        notes.error("VA-52", node, "the provider has no `port`", "give the port of the authorizer")


def _authorizer(body: _Body = _Body(), deprecated: tuple[str, ...] = (), **others: Any) -> dict[str, Any]:  # noqa: B008  # a frozen value
    if deprecated and not others.get("include_request_headers_in_check"):
        others["include_request_headers_in_check"] = deprecated
    return {**others, **body._asdict()}


def _headers(attribute: str) -> Field:
    return Field(attribute, texts(_not_star))


_COMMON: Mapping[str, Field] = {
    "service": Field("service", text(_service)),
    "port": Field("port", integer(1, 65535, "VA-52")),
    "timeout": Field("timeout_seconds", _timeout),
    "failOpen": Field("fail_open", boolean),
    "statusOnError": Field("status_on_error", _status),
    "clearRouteCache": Field("clear_route_cache", boolean),
    "includeRequestBodyInCheck": Field("body", _BODY.decode),
}
_PATH_PREFIX: Check = _path_prefix
_TYPES: Mapping[str, tuple[str, Shape[dict[str, Any]]]] = {
    "envoyExtAuthzGrpc": ("grpc", Shape("a gRPC authorizer", _COMMON, _authorizer, _check_authorizer)),
    "envoyExtAuthzHttp": (
        "http",
        Shape(
            "an HTTP authorizer",
            {
                **_COMMON,
                "pathPrefix": Field("path_prefix", text(_PATH_PREFIX)),
                "includeHeadersInCheck": _headers("deprecated"),
                "includeRequestHeadersInCheck": _headers("include_request_headers_in_check"),
                "includeAdditionalHeadersInCheck": Field("include_additional_headers_in_check", text_map()),
                "headersToUpstreamOnAllow": _headers("headers_to_upstream_on_allow"),
                "headersToDownstreamOnDeny": _headers("headers_to_downstream_on_deny"),
                "headersToDownstreamOnAllow": _headers("headers_to_downstream_on_allow"),
            },
            _authorizer,
            _check_authorizer,
        ),
    ),
}
_FIELDS = ("name", *_TYPES, *_OTHER_TYPES)


# --- providers -------------------------------------------------------------------------------------------------------


def decode_providers(node: Node, notes: Notes) -> tuple[ExtensionProvider, ...]:
    """Decode the list; what makes a provider unusable becomes a warning and is kept with the provider."""
    if not isinstance(node, Sequence):
        notes.error("RE-10", node, f"expected a list of providers, got {describe(node)}")
        return ()
    names = Counter(text_of(given(item, "name")) for item in node.items if isinstance(item, reading.Mapping))
    providers = []
    for item in node.items:
        if not isinstance(item, reading.Mapping):
            notes.error("RE-11", item, f"expected a provider, a mapping, got {describe(item)}")
            continue
        own: list[Problem] = []
        provider = _decode_provider(item, Notes(notes.document, own, notes.resource), names)
        unusable = [problem for problem in own if problem.code in _MAKES_UNUSABLE]
        others = [problem for problem in own if problem.code not in _MAKES_UNUSABLE]
        notes.problems.extend(others)
        notes.problems.extend(replace(problem, severity=Severity.WARNING) for problem in unusable)
        reasons = tuple(dict.fromkeys((*provider.problems, *(problem.message for problem in unusable))))
        providers.append(replace(provider, problems=reasons))
    return tuple(providers)


def _decode_provider(node: reading.Mapping, notes: Notes, names: Counter[str | None]) -> ExtensionProvider:
    name = _name(node, notes, names)
    for field in node.entries:
        if field not in _FIELDS:
            note_unknown(field, node, _FIELDS, notes)
    place = notes.place(node)
    types = [field for field in (*_TYPES, *_OTHER_TYPES) if given(node, field) is not None]
    if len(types) != 1:
        message = f"the provider has {len(types)} types, expected one"
        if types or not any(nearest(field, _TYPES) for field in node.entries if field not in _FIELDS):
            notes.error("AP-79", node, message, f"give one of {', '.join(_TYPES)}")
        return ExtensionProvider(name, location=place, problems=(message,))
    if types[0] not in _TYPES:
        return _other(name, types[0], place, node, notes)
    protocol, shape = _TYPES[types[0]]
    settings = shape.decode(node.entries[types[0]], notes)
    return ExtensionProvider(name, protocol, location=place, **settings)


def _other(name: str, kind: str, place: Location, node: reading.Mapping, notes: Notes) -> ExtensionProvider:
    """A provider of logs or traces: fine as such, useless to a CUSTOM policy."""
    anything(node, notes)
    return ExtensionProvider(name, location=place, problems=(f"a provider of type `{kind}` does not authorize",))


def _name(node: reading.Mapping, notes: Notes, names: Counter[str | None]) -> str:
    """Read the name of a provider, and refuse one that is given twice (VA-50)."""
    written = given(node, "name")
    name = read_text(written, notes) if written is not None else ""
    if not value_checks.is_dns_label(name):
        advice = "expected a-z, 0-9 and `-`, at most 63 characters, no `-` at the ends"
        wrong = f"`{name}` is not a provider name" if name else "a provider without a name"
        notes.error("VA-50", written or node, wrong, advice)
    elif names[name] > 1:
        notes.error("VA-50", written or node, f"the provider name `{name}` is given {names[name]} times", "rename one")
    return name
