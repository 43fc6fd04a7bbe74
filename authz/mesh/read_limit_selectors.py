"""The selectors of a rate limit's rule: headers, methods, path, addresses, and what is proven of the caller."""

import ipaddress
import re

from authz.core.matchers import compile_template
from authz.documents.accessors import Part
from authz.mesh.quantities import read_boolean
from authz.mesh.rate_limits import (
    CLAIMS,
    NAMESPACE,
    PRINCIPAL,
    AddressMatch,
    AddressSelector,
    AttributeSelector,
    HeaderSelector,
    LimitScope,
    MethodSelector,
    PathMatch,
    PathSelector,
    Selector,
    ValueMatch,
)
from authz.mesh.re2_syntax import regex_fault

_CLAIM = re.compile(rf"{re.escape(CLAIMS)}(\[[^\[\]]+\])+")
_ATTRIBUTES = f"one of {PRINCIPAL}, {NAMESPACE}, {CLAIMS}[NAME]"
_METHOD = re.compile(r"[A-Z]+(-[A-Z]+)*")


def read_selectors(part: Part, scope: LimitScope) -> list[Selector]:
    """One of `clientSelectors`; what it says holds together."""
    part.only("headers", "methods", "path", "sourceCIDR", "attributes", "queryParams")
    if part.has("queryParams"):
        part.note("ME-6", "the query is not looked at here", "queryParams", "choose requests by `path` or `headers`")
    if not any(part.has(name) for name in ("headers", "methods", "path", "sourceCIDR", "attributes")):
        part.note("ME-3", "the selector selects by nothing", help_text="write for instance `path`, or leave it out")
    found: list[Selector] = [_header(header) for header in part.parts("headers")]
    found += _methods(part)
    if (path := part.part("path")) is not None:
        found.append(_path(path))
    if (source := part.part("sourceCIDR")) is not None:
        found.append(_address(source))
    found += [_attribute(attribute, scope) for attribute in part.parts("attributes")]
    return found


def _header(part: Part) -> HeaderSelector:
    part.only("type", "name", "value", "invert")
    name = part.text("name", required=True).lower()
    match = part.choice("type", ValueMatch, ValueMatch.EXACT)
    if name.startswith(":"):
        part.note("ME-6", f"`{name}` is no header of the client's", "name", "write `path` or `methods`")
    _check_value(part, match)
    return HeaderSelector(name, match, part.text("value"), read_boolean(part, "invert") is True)


def _check_value(part: Part, match: ValueMatch) -> None:
    if match is ValueMatch.DISTINCT:
        for field in ("value", "invert"):
            if part.has(field):
                part.note("ME-1", f"`Distinct` takes every value, so `{field}` says nothing", field, "leave it out")
    elif not part.has("value"):
        part.note("ME-3", "`value` is missing", "value")
    elif match is ValueMatch.REGULAR_EXPRESSION:
        _check_regex(part)


def _check_regex(part: Part) -> None:
    written = part.text("value")
    if fault := regex_fault(written) or regex_fault(f"(?:{written})"):  # more is put around that of a path
        part.note("ME-1", f"`{written}` is not a regular expression: {fault}", "value", "Envoy reads RE2")


def _methods(part: Part) -> list[Selector]:
    methods, inverted = [], []
    for one in part.parts("methods"):
        one.only("value", "invert")
        name = one.text("value", required=True)
        if name and not _METHOD.fullmatch(name):
            one.note("ME-1", f"`{name}` is not a method", "value", "write for instance GET")
        methods.append(name)
        inverted.append(read_boolean(one, "invert") is True)
    if any(inverted) and len(methods) > 1:
        message = "one of several methods, and one of them inverted, is every method"
        part.note("ME-6", message, "methods", "write one inverted method for each selector; selectors hold together")
    return [MethodSelector(tuple(methods), any(inverted))] if methods else []


def _path(part: Part) -> PathSelector:
    part.only("type", "value", "invert")
    match = part.choice("type", PathMatch, PathMatch.PREFIX)
    value = part.text("value", "/")
    if match is PathMatch.REGULAR_EXPRESSION:
        _check_regex(part)
    elif not value.startswith("/") or "?" in value or "#" in value:
        part.note("ME-1", f"`{value}` is not a path", "value", "a path begins with a slash and has no query")
    elif match is PathMatch.TEMPLATE:
        try:
            compile_template(value)
        except ValueError as error:
            part.note("ME-1", str(error), "value", "`{*}` is one segment, `{**}` any number")
    return PathSelector(match, value, read_boolean(part, "invert") is True)


def _address(part: Part) -> AddressSelector:
    part.only("type", "value", "invert")
    if part.has("invert"):
        part.note("ME-6", "a range of addresses cannot be inverted here", "invert", "write the other ranges")
    written = part.text("value", required=True)
    try:
        network = ipaddress.ip_network(written, strict=False)
    except ValueError:
        if written:
            part.note("ME-1", f"`{written}` is not a range of addresses", "value", "write for instance 192.0.2.0/24")
        network = ipaddress.ip_network("0.0.0.0/0")
    match = part.choice("type", AddressMatch, AddressMatch.EXACT)
    return AddressSelector(str(network.network_address), network.prefixlen, match)


def _attribute(part: Part, scope: LimitScope) -> AttributeSelector:
    part.only("name", "type", "value", "invert", "default")
    key = part.text("name", required=True)
    if key and key not in (PRINCIPAL, NAMESPACE) and not _CLAIM.fullmatch(key):
        part.note("ME-1", f"`{key}` is not proven of a caller", "name", _ATTRIBUTES)
        key = PRINCIPAL
    match = part.choice("type", ValueMatch, ValueMatch.EXACT)
    _check_value(part, match)
    if match is ValueMatch.REGULAR_EXPRESSION:
        part.note("ME-6", "what is proven is compared as a whole", "type", "write Exact or Distinct")
    if scope is LimitScope.LOCAL:
        help_text = "write it below `global`"
        if key == NAMESPACE:
            part.note("ME-6", "a proxy cannot tell the namespace from the identity", "name", help_text)
        for field in ("invert", "default"):
            if part.has(field):
                part.note("ME-6", f"a proxy that counts for itself cannot do `{field}` here", field, help_text)
    return AttributeSelector(key, match, part.text("value"), read_boolean(part, "invert") is True, part.text("default"))
