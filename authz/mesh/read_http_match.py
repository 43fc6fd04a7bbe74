"""The reader of what a VirtualService compares requests with, and of what it changes in their headers."""

import re

from authz.documents.accessors import Part
from authz.mesh.header_values import header_value_fault
from authz.mesh.quantities import read_boolean
from authz.mesh.re2_syntax import regex_fault
from authz.mesh.value_parts import entries_of, is_label, only_fields
from authz.mesh.virtual_service import (
    AUTHORITY,
    MESH,
    HeaderChanges,
    HeaderOperations,
    HttpMatch,
    MatchKind,
    StringMatch,
)
from authz.mesh.virtual_service_fields import FIELDS

_HEADER_NAME = re.compile(r"[!#$%&'*+\-.^_`|~A-Za-z0-9]+")
_PSEUDO = (":method", ":scheme", ":authority", ":path", ":status")
_CLAIMS = "@request.auth.claims"
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


def read_http_match(match: Part, namespace: str) -> HttpMatch:
    """One ``http[].match[]``."""
    only_fields(match, FIELDS["HTTPMatchRequest"])
    headers, without = read_matches(match, "headers"), read_matches(match, "withoutHeaders")
    for field in ("headers", "withoutHeaders"):
        _check_names(match.part(field))
    scheme, method = read_string_match(match, "scheme"), read_string_match(match, "method")
    return HttpMatch(
        name=match.text("name"),
        uri=read_string_match(match, "uri", can_be_empty=True),
        ignore_uri_case=read_boolean(match, "ignoreUriCase") or False,
        scheme=scheme,
        method=method,
        authority=read_string_match(match, "authority"),
        headers=headers,
        without_headers=without,
        query_params=read_matches(match, "queryParams"),
        port=match.port("port"),
        source_labels=match.strings("sourceLabels"),
        source_namespace=read_namespace(match),
        gateways=read_gateways(match, namespace),
        stat_prefix=match.text("statPrefix"),
        location=match.location,
    )


def read_namespace(match: Part) -> str:
    """The namespace of the callers that a match is for; empty for all."""
    written = match.text("sourceNamespace")
    if written and not is_label(written):
        match.note("ME-1", f"`{written}` is not the name of a namespace", "sourceNamespace")
    return written


def read_gateways(part: Part, namespace: str) -> tuple[str, ...]:
    """``gateways`` as ``namespace/name`` or ``mesh``; a name alone is one of the VirtualService's own namespace."""
    found = []
    for written in part.texts("gateways"):
        home, slash, name = written.partition("/")
        if written == MESH:
            found.append(MESH)
            continue
        if not slash:
            name, dot, rest = written.partition(".")
            home = rest.partition(".")[0] if dot else namespace
        elif home == ".":
            home = namespace
        if not is_label(home) or not is_label(name):
            part.note("ME-1", f"`{written}` is not the name of a Gateway", "gateways", "write `namespace/name`")
        found.append(f"{home}/{name}")
    return tuple(found)


def read_string_match(part: Part, field: str, *, can_be_empty: bool = False) -> StringMatch | None:
    """``exact``, ``prefix`` or ``regex``; None where nothing is written. Only an empty prefix can be meant."""
    return string_match(part.part(field, help_text=_AS_WRITTEN), can_be_empty=can_be_empty)


def string_match(match: Part | None, *, can_be_empty: bool = False, star: bool = False) -> StringMatch | None:
    """The one comparison that a mapping holds; None where it holds none. ``star`` admits the regex ``*``: any value."""
    if match is None:
        return None
    only_fields(match, FIELDS["StringMatch"])
    kinds = [kind for kind in MatchKind if match.has(kind)]
    if len(kinds) > 1:
        match.note("ME-1", f"{' and '.join(f'`{kind}`' for kind in kinds)} exclude each other", kinds[1], _ONE_KIND)
    if not kinds:
        return None
    kind = kinds[0]
    value = match.text(kind)
    if kind is MatchKind.PREFIX and not value and not can_be_empty:
        match.note("ME-1", "an empty prefix is no comparison", kind, "leave the match out, or write a prefix")
    if kind is MatchKind.REGEX and not (star and value == "*"):
        check_regex(match, kind, value)
    if kind is not MatchKind.REGEX and value.endswith(("*", ".+", "$")):
        help_text = (
            "leave the end out" if kind is MatchKind.PREFIX else "write `prefix`, or `regex` in the syntax of RE2"
        )
        match.warn("ME-1", f"`{value}` is no pattern: it is compared as it is written", kind, help_text)
    if "\x00" in value or (kind is MatchKind.EXACT and _CONTROL.search(value)):
        match.note("ME-1", "it has a control character, which no request has", kind)
    return StringMatch(kind, value)


_AS_WRITTEN = "write how it is compared: `exact: …`, `prefix: …` or `regex: …`"
_ONE_KIND = "write one of exact, prefix, regex"


def check_regex(part: Part, field: str, value: str) -> None:
    """Note what RE2 would refuse."""
    fault = regex_fault(value)
    if fault:
        part.note("ME-1", f"the regular expression cannot be used: {fault}", field, "write it in the syntax of RE2")


def read_matches(part: Part, field: str) -> dict[str, StringMatch | None]:
    """A mapping of names to comparisons; an empty one asks only whether it is there."""
    names = part.part(field)
    found = {}
    for name, match in entries_of(names, _AS_WRITTEN):
        found[name] = string_match(match, star=field == "withoutHeaders")
        if names is not None and (not name or len(name) > 1024):
            names.note("ME-1", "a name has from 1 to 1024 characters", name)
    return found


def _check_names(names: Part | None) -> None:
    for key in names.node.keys if names else ():
        assert names is not None
        if key.value.startswith(_CLAIMS):
            help_text = "write an AuthorizationPolicy with `request.auth.claims`"
            names.note("ME-6", "claims are not known before the route is chosen", key.value, help_text, key)
        elif key.value not in _PSEUDO and not _HEADER_NAME.fullmatch(key.value):
            names.note("ME-1", f"`{key.value}` is not the name of a header", key.value, at=key)


def read_header_changes(part: Part) -> HeaderChanges | None:
    """``headers`` of a route or of a destination."""
    headers = part.part("headers")
    if headers is None:
        return None
    only_fields(headers, FIELDS["Headers"])
    return HeaderChanges(_operations(headers, "request"), _operations(headers, "response"))


def _operations(headers: Part, field: str) -> HeaderOperations:
    part = headers.part(field)
    if part is None:
        return HeaderOperations()
    only_fields(part, FIELDS["HeaderOperations"])
    found = HeaderOperations(part.strings("set"), part.strings("add"), part.texts("remove"))
    for way in ("set", "add"):
        values = part.part(way)
        for name, value in (values.node.entries if values else {}).items():
            assert values is not None
            may_name = field == "request" and name.lower() in AUTHORITY
            _check_change(values, name, may_name)
            fault = header_value_fault(values.text(name)) if not value.is_null else ""
            if fault:
                values.note("ME-1", fault, name)
    for i, name in enumerate(found.remove):
        _check_change(part, name, False, f"remove[{i}]")
    return found


_FRAMING = frozenset(("content-length", "transfer-encoding"))
"""What follows a message that ends elsewhere than its sender meant would be another one, that no policy saw."""


def _check_change(part: Part, name: str, is_authority: bool, field: str = "") -> None:
    if is_authority:
        return
    if name.lower() in _FRAMING:
        help_text = "they say where a message ends, and a proxy knows that by itself"
        part.note("ME-6", f"`{name}` is not changed here", field or name, help_text)
    elif name.startswith(":") or name.lower() == "host":
        help_text = "to change the host, write `rewrite.authority`"
        part.note("ME-1", f"`{name}` cannot be changed here", field or name, help_text)
    elif not _HEADER_NAME.fullmatch(name):
        part.note("ME-1", f"`{name}` is not the name of a header", field or name)


def authorities(changes: HeaderChanges | None) -> list[str]:
    """Every value that header operations give the host of a request."""
    if changes is None:
        return []
    ways = (changes.request.set, changes.request.add)
    return [value for way in ways for name, value in way.items() if name.lower() in AUTHORITY]
