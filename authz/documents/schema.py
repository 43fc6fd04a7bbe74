"""
How YAML nodes become values: declarative shapes of fields, and the notes taken on the way.

A ``Shape`` is a table of field names with a decoder each; every resource is read by walking its tables. Types are
strict (RE-10), unknown fields are errors with the nearest name offered (RE-6), null elements are errors (RE-11).
Decoders of single fields are in ``decoders``.
"""

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

from authz.core.errors import Location, Problem, Severity
from authz.documents import reading
from authz.documents.reading import Document, Kind, Node, Scalar, Sequence, one_line

T = TypeVar("T")


class Fault(NamedTuple):
    """The objection of a check to a value; the decoder adds the place."""

    code: str
    message: str
    help: str = ""
    severity: Severity = Severity.ERROR


Check = Callable[[str], Fault | None]


class Notes:
    """Collects the problems of one document; field paths are looked up only when there is a problem."""

    def __init__(
        self,
        document: Document,
        problems: list[Problem],
        resource: str = "",
        checked: dict[int, tuple[Scalar, list[Check]]] | None = None,
        *,
        code: str = "",
    ) -> None:
        """
        ``checked`` receives each text that only has to pass some checks, by the ``id`` of its node.

        ``code`` is that of problems in files whose fields have no clause of their own each (``fields``).
        """
        self.code = code
        self.document = document
        self.checked = checked
        self.problems = problems
        self.resource = resource
        self._paths: dict[int, str] | None = None

    def passed(self, node: Node, checks: Iterable[Check]) -> None:
        """Remember that a text has passed checks: any other that passes them can stand in its place."""
        if self.checked is not None and isinstance(node, Scalar):
            self.checked.setdefault(id(node), (node, []))[1].extend(checks)

    def place(self, node: Node) -> Location:
        """File, line and column of a node."""
        return Location(self.document.file, node.line, node.column)

    def path(self, node: Node) -> str:
        """The path of a node's field, ``spec.rules[0]``; empty for the document itself."""
        if self._paths is None:
            self._paths = self.document.paths()
        return self._paths.get(id(node), "")

    def add(
        self, severity: Severity, code: str, node: Node, message: str, advice: str = "", path: str | None = None
    ) -> None:
        """Note a problem at a node; ``advice`` says what to do, ``path`` is given where the field has no node."""
        place, number = self.place(node), self.document.number
        resource, path = one_line(self.resource), one_line(self.path(node) if path is None else path)
        message, advice = one_line(message), one_line(advice)
        self.problems.append(Problem(severity, code, message, place, number, resource, path, advice))

    def error(self, code: str, node: Node, message: str, advice: str = "") -> None:
        """Note what refuses the whole set."""
        self.add(Severity.ERROR, code, node, message, advice)

    def info(self, code: str, node: Node, message: str, advice: str = "") -> None:
        """Note what is worth knowing."""
        self.add(Severity.INFO, code, node, message, advice)

    def warn(self, code: str, node: Node, message: str, advice: str = "") -> None:
        """Note what is valid but probably not meant."""
        self.add(Severity.WARNING, code, node, message, advice)

    def fault(self, node: Node, fault: Fault) -> None:
        """Note what a check of a single value found."""
        self.add(fault.severity, fault.code, node, fault.message, fault.help)


Decoder = Callable[[Node, Notes], T]


@dataclass(frozen=True, slots=True)
class Field:
    """``attribute`` is the keyword handed to the shape's ``build``; empty for a field that is only checked."""

    attribute: str
    decode: Decoder[Any]
    null_is_silent: bool = False
    """Whether a null is read as absent without a word; otherwise with a warning."""


@dataclass(frozen=True, slots=True)
class Shape(Generic[T]):
    """A mapping with known fields, decoded by calling ``build`` with the attributes that are present."""

    what: str
    """For messages: ``a source``."""
    fields: Mapping[str, Field]
    build: Callable[..., T]
    check: Callable[[reading.Mapping, Notes], None] | None = None
    """Looks at the written mapping as a whole, whatever its fields decoded to."""
    is_located: bool = False
    """Whether ``build`` takes a ``location``."""
    negation: str = ""
    """How to negate, for whoever writes `notSource`: the nearest name would say the opposite."""
    elsewhere: Mapping[str, str] = field(default_factory=dict)
    """Names of fields that belong to another mapping, with where."""

    def decode(self, node: Node, notes: Notes) -> T:
        """Read a mapping by the table of its fields; every problem goes to ``notes``."""
        if not isinstance(node, reading.Mapping):
            notes.error("RE-10", node, f"expected {self.what}, a mapping, got {describe(node)}")
            return self.build(**({"location": notes.place(node)} if self.is_located else {}))
        values: dict[str, Any] = {}
        fields = self.fields
        for name, child in node.entries.items():
            known = fields.get(name)
            if known is None:
                if name in self.elsewhere:
                    notes.error("RE-6", key_of(node, name), f"unknown field `{name}`", self.elsewhere[name])
                elif self.negation and _is_negation(name, fields):
                    notes.error("RE-6", key_of(node, name), f"unknown field `{name}`", self.negation)
                else:
                    note_unknown(name, node, fields, notes)
            elif child.is_null:
                if not known.null_is_silent:
                    notes.warn("RE-8", child, f"`{name}` is null, which is read as absent", "remove it or give a value")
            elif known.attribute:
                values[known.attribute] = known.decode(child, notes)
            else:
                known.decode(child, notes)
        if self.check is not None:
            self.check(node, notes)
        if self.is_located:
            values["location"] = notes.place(node)
        return self.build(**values)


# --- what is written -------------------------------------------------------------------------------------------------


def describe(node: Node) -> str:
    """Say what a node is: ``the number `8080```."""
    if isinstance(node, Scalar):
        if node.kind is Kind.NULL:
            return "null"
        return f"the {node.kind} `{node.value}`" if node.value else "an empty string"
    return "a list" if isinstance(node, Sequence) else "a mapping"


def key_of(node: reading.Mapping, name: str) -> Node:
    """The key itself, for problems that concern the presence of a field; the mapping where the key is merged in."""
    return next((key for key in node.keys if key.value == name), node)


def given(node: reading.Mapping, name: str) -> Node | None:
    """The value of a field, None when it is absent or null."""
    child = node.entries.get(name)
    return None if child is None or child.is_null else child


def filled(node: Node | None, *names: str) -> list[str]:
    """Those of the named fields (all when none is named) that are present and no empty list (RE-8)."""
    if not isinstance(node, reading.Mapping):
        return []
    return [
        name
        for name, child in node.entries.items()
        if (not names or name in names) and not child.is_null and not (isinstance(child, Sequence) and not child.items)
    ]


def elements(node: Node | None) -> list[Node]:
    """The elements of a list, none when it is no list."""
    return node.items if isinstance(node, Sequence) else []


def text_of(node: Node | None) -> str | None:
    """The text of a string, None when it is something else."""
    return node.value if isinstance(node, Scalar) and node.kind is Kind.TEXT else None


def nearest(name: str, names: Iterable[str]) -> str:
    """The name meant by a misspelt one; empty when none is near."""
    by_folded = {known.replace("_", "").lower(): known for known in sorted(names, reverse=True)}  # `aB` before `a_b`
    close = difflib.get_close_matches(name.replace("_", "").lower(), by_folded, 1, 0.7)
    return by_folded[close[0]] if close else ""


_NEGATIONS = ("not", "no", "non", "except", "exclude", "excluded", "unless", "without", "negate", "!")


def _is_negation(name: str, known: Iterable[str]) -> bool:
    """Whether an unknown name negates, and no known negation is near it."""
    folded = name.replace("_", "").replace("-", "").lower()
    begins = folded in _NEGATIONS or folded.startswith(("not", "except", "exclude", "!"))
    return begins and not nearest(name, known).startswith("not")


def note_unknown(
    name: str, node: reading.Mapping, known: Iterable[str], notes: Notes, code: str = "RE-6", what: str = "field"
) -> None:
    """Note an unknown field and offer the nearest name (RE-6, RE-7)."""
    names = list(known)
    close = nearest(name, names)
    if "_" in name and close.lower() == name.replace("_", "").lower():
        code = "RE-7" if code == "RE-6" else code
    if close:
        notes.error(code, key_of(node, name), f"unknown {what} `{name}`; did you mean `{close}`?")
    else:
        notes.error(code, key_of(node, name), f"unknown {what} `{name}`", f"expected one of {', '.join(sorted(names))}")
