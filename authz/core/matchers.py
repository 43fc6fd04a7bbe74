"""
The values of a policy as data that matches. Every matcher answers ``matches(values)``: does at least one of these
values match? Absent is the empty tuple, so a missing header, a missing claim and a list claim are one case, and
negation exists once, in ``rules.Predicate``. A matcher also tells its ``terms``: what a value must look like for a
match, in a form that ``index`` can look up.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

TEMPLATE_CHARACTERS = r"[A-Za-z0-9\-._~%!$&'()+,;:@=*]"
"""The set P of AP-50, as a regular expression."""
MAX_TEMPLATE_BYTES = 256
_PIECE = re.compile(r"\{\*\*\}|\{\*\}")
_ASCII_LOWER = {code: code + 32 for code in range(ord("A"), ord("Z") + 1)}


def ascii_lower(text: str) -> str:
    """Lower-case ASCII letters only: ``str.lower`` would fold the Kelvin sign into ``k`` (AP-23)."""
    return text.lower() if text.isascii() else text.translate(_ASCII_LOWER)


@dataclass(frozen=True, slots=True)
class Network:
    """An IPv4 or IPv6 range; ``value`` is the network address shifted right by the host bits (AP-40)."""

    version: int
    prefix_length: int
    value: int


@dataclass(frozen=True, slots=True)
class Terms:
    """
    A necessary condition in indexable form: a value that matches equals one of ``exact``, or begins with one of
    ``prefixes``, or ends with one of ``suffixes``, or lies in one of ``networks``.
    """

    exact: frozenset[str] = frozenset()
    prefixes: tuple[str, ...] = ()
    suffixes: tuple[str, ...] = ()
    networks: tuple[Network, ...] = ()

    def union(self, other: "Terms") -> "Terms":
        """Return what is necessary for either of the two."""
        return Terms(
            self.exact | other.exact,
            tuple(dict.fromkeys(self.prefixes + other.prefixes)),
            tuple(dict.fromkeys(self.suffixes + other.suffixes)),
            tuple(dict.fromkeys(self.networks + other.networks)),
        )


class Matcher(Protocol):
    """Written values compiled. ``terms`` is None when some value matches what no index can look up."""

    @property
    def written(self) -> tuple[str, ...]:
        """The values as they were written, for people."""

    @property
    def terms(self) -> Terms | None:
        """The values in a form that an index can file; None when there is none."""

    def matches(self, values: tuple[str, ...]) -> bool:
        """Whether one of the request's values matches; an absent attribute has none."""


@dataclass(frozen=True, slots=True)
class Strings:
    """
    Exact values, prefixes, suffixes and regular expressions, ORed (AP-12).

    ``non_empty`` is the star of the plain form: any non-empty value without a line feed (AP-19). ``present`` is the
    star of the header form: any value, the empty one included (AP-22). With ``fold`` values are lower-cased first.
    """

    written: tuple[str, ...]
    exact: frozenset[str] = frozenset()
    prefixes: tuple[str, ...] = ()
    suffixes: tuple[str, ...] = ()
    patterns: tuple[re.Pattern[str], ...] = ()
    non_empty: bool = False
    present: bool = False
    fold: bool = False
    terms: Terms | None = None

    def matches(self, values: tuple[str, ...]) -> bool:
        """Whether one of the values is exact, begins or ends as written; or is present, where presence is enough."""
        for written in values:
            value = ascii_lower(written) if self.fold else written
            if value in self.exact or self.present:
                return True
            if self.prefixes and value.startswith(self.prefixes):
                return True
            if self.suffixes and value.endswith(self.suffixes):
                return True
            if self.non_empty and value and "\n" not in value:
                return True
            for pattern in self.patterns:
                if pattern.fullmatch(value):
                    return True
        return False


def plain_strings(values: Iterable[str]) -> Strings:
    """Compile the plain form: ``*``, ``*x``, ``x*``, ``x``; a leading star wins (AP-19, AP-20)."""
    return _strings(tuple(values))


def header_strings(values: Iterable[str], *, fold: bool = False) -> Strings:
    """Compile the header form (AP-22), with ``fold`` the host form (AP-23)."""
    return _strings(tuple(values), header=True, fold=fold)


def _strings(values: tuple[str, ...], *, header: bool = False, fold: bool = False) -> Strings:
    exact, prefixes, suffixes = set(), [], []
    star = False
    for written in values:
        value = ascii_lower(written) if fold else written
        if value == "*":
            star = True
        elif value.startswith("*"):
            suffixes.append(value[1:])
        elif value.endswith("*"):
            prefixes.append(value[:-1])
        else:
            exact.add(value)
    terms = None if star else Terms(frozenset(exact), tuple(prefixes), tuple(suffixes))
    return Strings(
        values,
        frozenset(exact),
        tuple(prefixes),
        tuple(suffixes),
        non_empty=star and not header,
        present=star and header,
        fold=fold,
        terms=terms,
    )


def path_strings(values: Iterable[str]) -> Strings:
    """Compile ``paths``: templates by AP-50 to AP-55, everything else in the plain form (AP-46, AP-49)."""
    values = tuple(values)
    templates = tuple(value for value in values if "{*}" in value or "{**}" in value)
    plain = plain_strings(value for value in values if value not in templates)
    if not templates:
        return plain
    terms = plain.terms
    for template in templates:
        terms = terms and terms.union(_template_terms(template))
    return Strings(
        values,
        plain.exact,
        plain.prefixes,
        plain.suffixes,
        tuple(compile_template(template) for template in templates),
        non_empty=plain.non_empty,
        terms=terms,
    )


def compile_template(template: str) -> re.Pattern[str]:
    """Translate a path template (AP-50). Raises ValueError when the proxy would refuse it (AP-55)."""
    if not template.startswith("/") or template.startswith("//"):
        raise ValueError(f"the path template `{template}` must begin with exactly one slash")
    if len(template.replace("{*}", "*").replace("{**}", "**").encode()) > MAX_TEMPLATE_BYTES:
        raise ValueError(f"the path template is longer than {MAX_TEMPLATE_BYTES} bytes")
    translated, position = [], 0
    for piece in _PIECE.finditer(template):
        translated.append(re.escape(template[position : piece.start()]))
        repeat = f"(?:{TEMPLATE_CHARACTERS}|/)*" if piece[0] == "{**}" else f"{TEMPLATE_CHARACTERS}+"
        translated.append(repeat)
        position = piece.end()
    translated.append(re.escape(template[position:]))
    return re.compile("".join(translated))


def _template_terms(template: str) -> Terms:
    """A path that matches a template begins with its first literal and ends with its last: take the longer one."""
    pieces = _PIECE.split(template)
    if len(pieces[-1]) > len(pieces[0]):
        return Terms(suffixes=(pieces[-1],))
    return Terms(prefixes=(pieces[0],))


def port_strings(values: Iterable[str]) -> Strings:
    """Compile ``ports``: decimal, leading zeros allowed (AP-45, VA-25). Raises ValueError."""
    values = tuple(values)
    for value in values:
        if not (value.isascii() and value.isdigit()) or int(value) > 65535:
            raise ValueError(f"`{value}` is not a port: expected a decimal number from 0 to 65535")
    exact = frozenset(str(int(value)) for value in values)
    return Strings(values, exact, terms=Terms(exact))


SCALAR, LISTED = "=", "["
"""How ``catalog`` marks a metadata member: a string, or one string element of a list (AP-66)."""


@dataclass(frozen=True, slots=True)
class MetadataStrings:
    """``experimental.envoy.filters``: ``[v]`` matches a list element, ``v`` only a string member (AP-66)."""

    written: tuple[str, ...]
    scalar: Strings
    listed: Strings
    terms: Terms | None = None

    def matches(self, values: tuple[str, ...]) -> bool:
        """Whether one of the values matches, scalars and members of lists each by their own patterns."""
        for value in values:
            strings = self.scalar if value.startswith(SCALAR) else self.listed
            if strings.matches((value[1:],)):
                return True
        return False


def metadata_strings(values: Iterable[str]) -> MetadataStrings:
    """Compile the values of an ``experimental.envoy.filters`` key (AP-66)."""
    values = tuple(values)
    listed = tuple(value[1:-1] for value in values if value.startswith("[") and value.endswith("]"))
    scalar = tuple(value for value in values if not (value.startswith("[") and value.endswith("]")))
    return MetadataStrings(values, plain_strings(scalar), plain_strings(listed))
