"""
Variables and placeholders that nobody replaced: such a value is compared as it stands, and so never matches.

The shapes are those of envsubst, make, GitHub and Azure, Ansible and Jinja, Ant and Maven, Octopus, Concourse and Bosh,
ERB, Terraform, Windows, and what people write by hand. A path may rightly hold much of that (`/odata/$metadata`,
`/__health__`, `/%AB%CD`), so each shape asks for what a path cannot mean.
"""

import re
from collections.abc import Iterator

from authz.core.errors import Problem
from authz.documents import reading
from authz.documents.reading import Document, Node, Scalar, Sequence
from authz.documents.schema import Notes

_NAME = r"[A-Za-z_][A-Za-z0-9_.-]*"
_ANYWHERE = (
    r"\$\{\{?[ ]*[A-Za-z_][A-Za-z0-9_.]*(?::?[-=?+][^}]*)?[ ]*\}\}?",  # ${A}, ${A:-b}, ${{A}}
    r"\$\([A-Za-z_][A-Za-z0-9_.]*\)",  # $(A)
    r"(?<![A-Za-z0-9])\$[A-Z_][A-Z0-9_]+\b",  # $NAME
    r"\{\{.*?\}\}",  # {{ a }}
    rf"%%{_NAME}%%",
    r"%(?![0-9A-Fa-f]{2})[A-Z_][A-Z0-9_]+%",  # %NAME%, which no encoded octet begins
    rf"%[({{]{_NAME}[)}}]s?",  # %(a)s, %{a}
    r"(?<![A-Za-z0-9_])__[A-Z][A-Z0-9_]*__(?![A-Za-z0-9_])",
    rf"<<[ ]*{_NAME}[ ]*>>",
    r"<%.*?%>",
    rf"#\{{{_NAME}\}}#?",  # #{A}, #{A}#
    rf"\(\({_NAME}\)\)",
    rf"\[\[[ ]*{_NAME}[ ]*\]\]",
    rf"\$\[{_NAME}\]",
    rf"(?<![A-Za-z0-9.@])@@?{_NAME}@@?(?![A-Za-z0-9.@])",
)
_OUTSIDE_OF_PATHS = (
    r"<[A-Za-z][A-Za-z0-9_. -]*>",
    r"\{[A-Za-z_][A-Za-z0-9_.-]*\}",
    r"(?<![A-Za-z0-9])_*(?:REPLACE[_-]?ME|CHANGE[_-]?ME|YOUR[_-][A-Z][A-Z_-]*)_*(?![A-Za-z0-9])",
)
"""Forms that in a path are a finding of their own, or a word like any other."""
_ALONE = re.compile(r"\$[a-z_][a-z0-9_]*|__[a-z][a-z0-9_]*__|replace[_-]?me|change[_-]?me|TODO|FIXME|TBD")
"""Forms that must be the whole value, and no path."""

_IN_PATHS = re.compile("|".join(_ANYWHERE))
_ELSEWHERE = re.compile("|".join((*_ANYWHERE, *_OUTSIDE_OF_PATHS)))
_MARKS = (b"$", b"YOUR", b"FIXME", b"TBD")
_PAIRS = (b"%%", b"%(", b"%{", b"<<", b"<%", b"#{", b"((", b"__", b"[[", b"{{", b"{%")
"""Searched for by their first byte first, which costs a thirtieth where there is none."""
_SHAPES = (
    (b"@", re.compile(rb"@[A-Za-z_][A-Za-z0-9_.-]*@")),
    (b"%", re.compile(rb"%[A-Z_][A-Z0-9_]+%")),
    (b"<", re.compile(rb"<[A-Za-z][A-Za-z0-9_. -]*>")),
    (b"{", re.compile(rb"\{[A-Za-z_][A-Za-z0-9_.-]*\}")),
    (b"REPLACE", re.compile(rb"REPLACE[_-]?ME")),
    (b"CHANGE", re.compile(rb"CHANGE[_-]?ME")),
    (b"replace", re.compile(rb"replace[_-]?me")),
    (b"change", re.compile(rb"change[_-]?me")),
    (b"TODO", re.compile(rb"TODO[\"']?\s*[,}\]\n]")),
)
"""Patterns that are searched for; each begins with its most telling character, which makes the search fast."""
_MAX_VALUE = 4_096
"""Longer values are key sets and certificates."""


def may_hold_variables(data: bytes) -> bool:
    """Say cheaply whether it is worth looking at every value."""
    return (
        any(mark in data for mark in _MARKS)
        or any(pair[:1] in data and pair in data for pair in _PAIRS)
        or any(mark in data and shape.search(data) is not None for mark, shape in _SHAPES)
    )


def warn_of_variables(documents: list[Document], problems: list[Problem]) -> None:
    """One warning for a file whose policies hold variables that look as if somebody should have replaced them."""
    found = [(document, node, name) for document in documents for node, name in variables(document.root)]
    if not found:
        return
    names = list(dict.fromkeys(name for _, _, name in found))
    document, node, _ = found[0]
    shown = ", ".join(f"`{name}`" for name in names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    verb = "looks like a variable" if len(names) == 1 else "look like variables"
    advice = "replace it first" + (", for example with `envsubst`" if names[0].startswith("$") else "")
    Notes(document, problems).warn("file", node, f"{shown} {verb} that nobody replaced", advice)


def variables(root: Node) -> Iterator[tuple[Node, str]]:
    """Every value and key below a node with what looks like a variable in it."""
    waiting: list[Node] = [root]
    while waiting:
        node = waiting.pop()
        if isinstance(node, Scalar):
            yield from ((node, name) for name in _in_text(node.value))
        elif isinstance(node, Sequence):
            waiting.extend(reversed(node.items))
        elif isinstance(node, reading.Mapping):
            # Formats of access logs are full of Envoy's own commands, which look like variables and are none.
            values = [value for key, value in node.entries.items() if key != "logFormat"]
            waiting.extend(reversed([*node.keys, *values]))


def _in_text(text: str) -> Iterator[str]:
    if len(text) > _MAX_VALUE:
        return
    if text.startswith("/"):
        yield from (match[0] for match in _IN_PATHS.finditer(text))
    elif _ALONE.fullmatch(text):
        yield text
    else:
        yield from (match[0] for match in _ELSEWHERE.finditer(text))
