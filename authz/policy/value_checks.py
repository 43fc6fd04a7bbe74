"""
Checks of single values: each takes the text as written and returns a ``Fault`` or None.

What a value means is core's business; where core can say that a value is unusable, it is asked. The clauses are the
rows of the validation table (VA). Lints of our own (VA-47) warn, or only remark where people may mean it.
"""

import ipaddress
import re
from functools import lru_cache

from authz.core import catalog, matchers, networks
from authz.core.errors import Severity
from authz.documents.schema import Check, Fault, nearest
from authz.policy.path_shapes import path_shape

WARNING, INFO = Severity.WARNING, Severity.INFO
_TEMPLATE_LITERAL = re.compile(r"[A-Za-z0-9._~%!$&'()+,;:@=-]+")
_ORDINARY_PATH = re.compile(r"(?:/[A-Za-z0-9_-]+)+/?\*?")
_OBJECT_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")
MAX_ACCOUNT = 320


def not_empty(code: str) -> Check:
    """The value may not be the empty string."""

    def check(value: str) -> Fault | None:
        return None if value else Fault(code, "an empty string is not a value", "remove it or give a value")

    return check


def object_name(value: str) -> Fault | None:
    """A Kubernetes name, as far as rule names and paths of metrics need it (RE-2)."""
    if _OBJECT_NAME.fullmatch(value):
        return None
    return Fault("RE-2", f"`{value}` is not a name: expected letters, digits, `-` and `.`, at most 253")


_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


def is_dns_name(value: str) -> bool:
    """Dot-separated DNS labels, at most 255 characters; one trailing dot is allowed."""
    return 0 < len(value) <= 255 and all(_DNS_LABEL.fullmatch(label) for label in value.removesuffix(".").split("."))


def is_dns_label(value: str) -> bool:
    """A single label: a name of a namespace or of an extension provider."""
    return bool(_DNS_LABEL.fullmatch(value))


# --- source ----------------------------------------------------------------------------------------------------------


def principal(value: str) -> Fault | None:
    """Warn of a principal written with its scheme, or with a star inside (VA-47, AP-26)."""
    if value.startswith("spiffe://"):
        short = value.removeprefix("spiffe://")
        return Fault("VA-47", f"`{value}` never matches: principals are written without the scheme",
                     f"write `{short}`", WARNING)  # fmt: skip
    return middle_star(value)


def request_principal(value: str) -> Fault | None:
    """Warn of ``*/*``, which is not any principal, and of a star inside (VA-47, AP-39)."""
    if value == "*/*":
        return Fault("VA-47", "`*/*` is any issuer with the subject `*`, not any principal", "write `*`", WARNING)
    return middle_star(value)


def middle_star(value: str) -> Fault | None:
    """A star that is an ordinary character (VA-47, AP-20)."""
    inner = value[1:] if value.startswith("*") else value[:-1]
    if "*" in inner:
        return Fault("VA-47", f"a star in `{value}` is an ordinary character, not a wildcard",
                     "a star is a wildcard only at one end", INFO)  # fmt: skip
    return None


def service_account(value: str) -> Fault | None:
    """VA-19: a service account is a name, or ``namespace/name``, without wildcards."""
    if not value:
        return Fault("VA-19", "an empty string is not a service account")
    if "*" in value:
        return Fault("VA-19", f"`{value}` has a star; service accounts have no wildcards", "name each account")
    parts = value.split("/")
    if len(parts) > 2 or not all(parts):
        return Fault("VA-19", f"`{value}` is not a service account", "expected `<namespace>/<account>` or `<account>`")
    if len(value) > MAX_ACCOUNT:
        return Fault("VA-19", f"a service account has at most {MAX_ACCOUNT} characters, got {len(value)}")
    return None


def trust_domain_stars(code: str) -> Check:
    """VA-22 and VA-23: one star, at an end."""

    def check(value: str) -> Fault | None:
        if value.count("*") > 1:
            return Fault(code, f"`{value}` has more than one star", "one star, at the beginning or at the end")
        if "*" in value[1:-1]:
            return Fault(code, f"`{value}` has a star in the middle", "one star, at the beginning or at the end")
        return None

    return check


def trust_domain_slash(value: str) -> Fault | None:
    """VA-22: a trust domain has no slash."""
    if "/" in value:
        return Fault("VA-22", f"`{value}` has a slash; a trust domain has none", "write the part before the slash")
    return None


@lru_cache(maxsize=4096)
def ip_block(value: str) -> Fault | None:
    """VA-24: an address or a network in CIDR form."""
    try:
        networks.parse_network(value)
    except ValueError:
        address, slash, length = value.partition("/")
        try:
            most = ipaddress.ip_address(address).max_prefixlen
        except ValueError:
            return Fault("VA-24", f"`{value}` is not an IP address or CIDR block", "for example `10.0.0.0/8` or `::1`")
        if not slash or "%" in value:
            return Fault("VA-24", f"`{value}` is not an IP address or CIDR block", "a zone is not supported")
        return Fault("VA-24", f"`{value}` is not a CIDR block", f"a prefix length is 0 to {most}, got `{length}`")
    return None


# --- operation -------------------------------------------------------------------------------------------------------


def port(value: str) -> Fault | None:
    """VA-25: a number up to 65535, in decimal digits."""
    if value.isascii() and value.isdigit() and len(value.lstrip("0")) <= 5 and int(value[-5:]) <= 65535:
        return None
    return Fault("VA-25", f"`{value}` is not a port", "a port is a decimal number from 0 to 65535, without wildcards")


def method(value: str) -> Fault | None:
    """Warn of a method that is a path, is not in capital letters, or has a star inside (VA-47, AP-44)."""
    if "/" in value:
        name = f"/{value.lstrip('/')}"
        return Fault("VA-47", f"`{value}` never matches: this is a path, as gRPC's methods are, not an HTTP method",
                     f'write `paths: ["{name}"]`; the method of gRPC is always `POST`', WARNING)  # fmt: skip
    if value != value.upper():
        return Fault("VA-47", f"`{value}` is not `{value.upper()}`: methods are case-sensitive",
                     f"write `{value.upper()}`", WARNING)  # fmt: skip
    return middle_star(value)


@lru_cache(maxsize=4096)
def path(value: str) -> Fault | None:
    """Check a path: a template by VA-26, VA-27 and VA-48, any other by VA-47."""
    if _ORDINARY_PATH.fullmatch(value):
        return None  # nearly every path, and faster than by the questions below
    if "{" in value or "}" in value:
        return _template(value)
    shape = path_shape(value)
    if shape is not None:
        return shape
    if value[:1] not in "/*":
        return Fault("VA-47", f"`{value}` never matches: a path begins with a slash", f"write `/{value}`", WARNING)
    if "?" in value or "#" in value:
        return Fault("VA-47", f"`{value}` never matches: the query is cut off before paths are compared",
                     "match the path alone, or `request.headers[:path]`", WARNING)  # fmt: skip
    return None


def _template(value: str) -> Fault | None:
    for segment in value.split("/"):
        if ("{" in segment or "}" in segment) and segment not in ("{*}", "{**}"):
            advice = "braces stand only as a whole segment, `{*}` or `{**}`"
            return Fault("VA-26", f"`{value}` is not a path template: `{segment}`", advice)
    open_ended = False
    for segment in value.strip("/").split("/"):
        if segment in ("{*}", "{**}"):
            if open_ended:
                return Fault(
                    "VA-27", f"`{value}` has a wildcard after `{{**}}`", "`{**}` may stand once, after every `{*}`"
                )
            open_ended = segment == "{**}"
        elif not segment:
            return Fault("VA-27", f"`{value}` has an empty segment", "a template has no `//`")
        elif not _TEMPLATE_LITERAL.fullmatch(segment):
            advice = "in a template only `{*}` and `{**}` are wildcards" if "*" in segment else ""
            return Fault("VA-27", f"`{value}` has the segment `{segment}`, which no template may have", advice)
    if not value.startswith("/") or "//" in value:
        return Fault("VA-48", f"`{value}` is not a path template the proxy accepts",
                     "a template begins with one slash and has no `//`")  # fmt: skip
    try:
        matchers.compile_template(value)
    except ValueError as error:
        return Fault("VA-48", str(error))
    return None


# --- when ------------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=4096)
def condition_key(key: str) -> Fault | None:
    """Check that the key of a condition names an attribute (VA-28, VA-30, VA-31, VA-48)."""
    if not key:
        return Fault("VA-28", "a condition without a key", "name the attribute, for example `request.headers[x-role]`")
    try:
        catalog.condition_attribute(key)
    except ValueError:
        return _bad_key(key)
    return None


_FORMS = {
    "request.headers": "request.headers[<name>]",
    "request.auth.claims": "request.auth.claims[<name>]",
    "experimental.envoy.filters.": "experimental.envoy.filters.<filter>[<key>]",
}


def _bad_key(key: str) -> Fault:
    for prefix, form in _FORMS.items():
        if key.startswith(prefix):
            code = "VA-48" if "[" in key[len(prefix) + 1 :] and key.endswith("]") and key[-2] != "[" else "VA-31"
            return Fault(code, f"`{key}` is not a condition key", f"expected `{form}`")
    known = [*catalog.CONDITION_KEYS, *_FORMS.values()]
    close = nearest(key.partition("[")[0], [name.partition("[")[0] for name in known])
    advice = next((f"did you mean `{name}`?" for name in known if name.partition("[")[0] == close), "")
    if not advice:
        advice = f"expected one of {', '.join(known)}"
    return Fault("VA-30", f"unknown condition key `{key}`", advice)


def server_name(value: str) -> Fault | None:
    """Warn of a server name with capital letters, or with a star inside (VA-47, AP-57)."""
    if value != value.lower():
        return Fault("VA-47", f"`{value}` never matches: server names are compared in lower case",
                     f"write `{value.lower()}`", WARNING)  # fmt: skip
    return middle_star(value)
