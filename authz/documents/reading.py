"""
YAML text read into light nodes that remember where they stand.

PyYAML's parser events become nodes directly, because composing and resolving tags costs four times as much.
Wrong text is a ``Problem``, never an exception.
Bounded: size of a file, depth, and the number of nodes that aliases stand for (a "billion laughs").
"""

import codecs
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import yaml
from yaml.events import MappingEndEvent, MappingStartEvent, ScalarEvent, SequenceEndEvent, SequenceStartEvent

from authz.core.errors import Location, Problem, Severity
from authz.documents.nodes import Document, Kind, Mapping, Node, Scalar, Sequence, kind_of_plain, one_line
from authz.documents.strays import stray_in, without_marks
from authz.documents.unfolding import unfold

__all__ = ["Document", "Kind", "Mapping", "Node", "Scalar", "Sequence", "kind_of_plain", "one_line", "read_documents"]

MAX_FILE_BYTES = 64 * 1024 * 1024
"""Some hundred thousand policies; beyond it a file was given by mistake."""
MAX_DEPTH = 64
"""Twice what the deepest resource of Istio needs."""
MAX_ALIASED_NODES = 100_000
"""Nodes that the aliases of one file may stand for altogether."""

_Parser: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""Only its events are used; libyaml's are thirty times faster where it is present."""

_TAG = "tag:yaml.org,2002:"

_ADVICE = (
    ("find expected <document start>", "begin every document with a line `---`"),
    ("parsing a flow", "close every bracket, and quote text that holds one of `,` `:` `[` `]` `{` `}`"),
    ("parsing a block", "indent alike what belongs together, and quote text as a whole"),
    ("mapping values are not allowed", "quote text that holds a colon and a space, and check the indentation"),
    ("cannot start any token", "quote text that begins with one of `@` `%` and the backquote"),
    ("scanning an alias", "quote text that begins with `*`"),
    ("scanning a quoted scalar found unexpected end", "close the quote"),
)
"""Advice for libyaml's complaints: the first entry whose words are in the complaint applies."""


@dataclass(slots=True)
class Extent:
    """The state of reading a text, for readers of a file in pieces."""

    documents: int = 0
    """Documents begun, empty ones too."""
    has_aliases: bool = False
    is_broken: bool = False
    """Whether reading ended before the text did."""


def read_documents(
    file: str,
    data: bytes,
    problems: list[Problem],
    *,
    max_bytes: int = MAX_FILE_BYTES,
    origin: tuple[int, int] = (1, 1),
    number: int = 0,
    extent: Extent | None = None,
) -> Iterator[Document]:
    """
    Yield the documents of a file, empty ones left out and lists unfolded; after a syntax error, those before it.

    One at a time, so that the nodes of a large file never live together: the garbage collector would walk them all.
    ``problems`` receives what is wrong with the text. ``origin`` is the line and column at which the text begins,
    for YAML that stands inside another document. ``number`` documents of the file stand before the text.
    ``extent`` is told how far reading got.
    """
    reading = _Reading(file, problems, *origin)
    reading.number = number
    extent = extent if extent is not None else Extent()
    extent.is_broken = True
    if len(data) > max_bytes:
        reading.note(0, 0, f"the file has {len(data)} bytes, more than the {max_bytes} allowed")
        return
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        line, column = reading.shift(*_place_of(data, error.start))
        message = f"the file is not UTF-8: byte 0x{data[error.start]:02x} is an {error.reason}"
        looks = "it looks like UTF-16; " if data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else ""
        reading.note(line, column, message, f"{looks}save the file as UTF-8")
        return
    data = without_marks(data)
    stray = stray_in(data)
    if stray is not None:
        reading.note(*reading.shift(*_place_of(data, stray.offset)), stray.message, stray.advice)
        return
    try:
        yield from reading.run(data)
        extent.is_broken, extent.documents = False, reading.number - number
        extent.has_aliases = reading.aliased > 0
    except yaml.reader.ReaderError as error:
        line, column = _place_of(data, error.position if isinstance(error.position, int) else 0)
        line, column = reading.shift(line, column)
        reading.note(line, column, f"not YAML: {error.reason}")
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
        message = " ".join(part for part in (error.context, error.problem) if part)
        advice = next((advice for words, advice in _ADVICE if words in message), "")
        if _is_tab(data, line, column):
            advice = "indent with spaces, YAML allows no tabs"
        reading.note(*reading.shift(line, column), f"not YAML: {message}", advice)
    except _TooMuch as error:
        reading.note(error.line, error.column, error.message)


def _place_of(data: bytes, offset: int) -> tuple[int, int]:
    before = data[:offset]
    return before.count(b"\n") + 1, len(before[before.rfind(b"\n") + 1 :].decode("utf-8", "replace")) + 1


def _is_tab(data: bytes, line: int, column: int) -> bool:
    """Whether a tab stands at the place, or begins its line."""
    lines = data.decode("utf-8").splitlines()
    text = lines[line - 1] if 0 < line <= len(lines) else ""
    return text[column - 1 : column] == "\t" or "\t" in text[: len(text) - len(text.lstrip())]


class _TooMuch(Exception):
    """Ends the reading of a file that exceeds a bound."""

    def __init__(self, line: int, column: int, message: str) -> None:
        super().__init__(message)
        self.line, self.column, self.message = line, column, message


class _Reading:
    """Builds nodes from parser events; children of every open collection wait on a stack."""

    def __init__(self, file: str, problems: list[Problem], first_line: int = 1, first_column: int = 1) -> None:
        self.file = file
        self.first_line = first_line
        self.first_column = first_column
        self.problems = problems
        self.number = 0
        self.anchors: dict[str, Node] = {}
        self.weights: dict[int, int] = {}
        self.aliased = 0

    def shift(self, line: int, column: int) -> tuple[int, int]:
        """Turn a place in the text into a place in the file; no place stays no place."""
        return (line + self.first_line - 1, column + self.first_column - 1) if line else (0, 0)

    def note(self, line: int, column: int, message: str, help_text: str = "") -> None:
        place = Location(self.file, line, column)
        self.problems.append(Problem(Severity.ERROR, "YAML", one_line(message), place, self.number, help=help_text))

    def run(self, data: bytes) -> Iterator[Document]:
        """Turn the events of the text into documents; one loop in one piece, for this is half the time of loading."""
        # Any: the stubs know only the slow parser's marks, and give every mark as optional.
        get_event: Callable[[], Any] = _Parser(data).get_event
        first_line, first_column = self.first_line, self.first_column
        may_end_early = b"?" in data
        stack: list[list[Node]] = []
        opened: list[Any] = []
        children: list[Node] = []
        node: Node
        while True:
            event = get_event()
            kind = type(event)
            if kind is ScalarEvent:
                mark = event.start_mark
                node = Scalar(event.value, event.style or "", mark.line + first_line, mark.column + first_column)
                if event.tag is not None:
                    self._apply_tag(node, event.tag)
                if may_end_early and "?" in event.value and opened and opened[-1].flow_style:
                    self._refuse_early_end(node, event)
                if event.anchor is not None:
                    self.anchors[event.anchor] = node
                children.append(node)
            elif kind is MappingStartEvent or kind is SequenceStartEvent:
                stack.append(children)
                opened.append(event)
                children = []
                if len(stack) > MAX_DEPTH:
                    mark = event.start_mark
                    raise _TooMuch(
                        mark.line + first_line, mark.column + first_column, f"nested deeper than {MAX_DEPTH} levels"
                    )
            elif kind is MappingEndEvent or kind is SequenceEndEvent:
                start = opened.pop()
                mark = start.start_mark
                if kind is MappingEndEvent:
                    node = self._mapping(children, mark.line + first_line, mark.column + first_column)
                else:
                    node = Sequence(children, mark.line + first_line, mark.column + first_column)
                if start.tag is not None and start.tag not in (_TAG + "map", _TAG + "seq", "!"):
                    self.note(node.line, node.column, f"the tag `{start.tag}` is not supported")
                if start.anchor is not None:
                    self.anchors[start.anchor] = node
                children = stack.pop()
                children.append(node)
            elif kind is yaml.AliasEvent:
                children.append(self._aliased(event))
            elif kind is yaml.DocumentStartEvent:
                self._refuse_directive(event)
                self.number += 1
                self.anchors = {}
                self.weights = {}
                children = []
            elif kind is yaml.DocumentEndEvent:
                yield from self._finish(children[0])
            elif kind is yaml.StreamEndEvent:
                return

    def _refuse_early_end(self, node: Scalar, event: Any) -> None:
        """For Go's reader a `?` ends unquoted text within brackets and braces, wherever it stands."""
        if not event.style:
            message = "an unquoted `?` within brackets or braces, which `kubectl` takes for the end of the text"
            self.note(node.line, node.column, message, f'quote it: `"{event.value}"`')

    def _refuse_directive(self, event: Any) -> None:
        """`kubectl` cuts a file at `---`, and a piece of nothing but directives is not YAML."""
        if event.version or event.tags:
            line, column = self.shift(event.start_mark.line + 1, event.start_mark.column + 1)
            self.note(line, column, "a directive, which `kubectl` refuses", "remove the line that begins with `%`")

    def _finish(self, root: Node) -> Iterator[Document]:
        if not root.is_null:
            document = Document(self.file, self.number, root)
            yield from unfold(document, lambda node, message: self.note(node.line, node.column, message))

    def _apply_tag(self, node: Scalar, tag: str) -> None:
        if tag in (_TAG + "str", "!"):
            node.style = node.style or "!"
            return
        wanted = {"int": Kind.NUMBER, "float": Kind.NUMBER, "bool": Kind.BOOLEAN, "null": Kind.NULL}
        if wanted.get(tag.removeprefix(_TAG)) is kind_of_plain(node.value) and tag.startswith(_TAG):
            node.style = ""
            return
        self.note(node.line, node.column, f"the tag `{tag}` is not supported here")

    def _mapping(self, children: "list[Node]", line: int, column: int) -> Mapping:
        keys = children[::2]
        values = children[1::2]
        try:
            entries = {key.value: value for key, value in zip(keys, values, strict=True)}  # type: ignore[union-attr]  # a key that is no scalar is caught below
        except AttributeError:
            odd = next(key for key in keys if not isinstance(key, Scalar))
            self.note(odd.line, odd.column, "a key of a mapping is a list or a mapping; expected a string")
            return Mapping({}, [], line, column)
        node = Mapping(entries, keys, line, column)  # type: ignore[arg-type]  # all are scalars here
        if len(entries) != len(keys):
            self._note_duplicates(node)
        if "<<" in entries and any(key.value == "<<" and not key.style for key in node.keys):
            self._merge(node)
        return node

    def _note_duplicates(self, node: Mapping) -> None:
        first: dict[str, Scalar] = {}
        for key in node.keys:
            other = first.setdefault(key.value, key)
            if other is not key:
                place = f"{self.file}:{other.line}:{other.column}"
                self.note(key.line, key.column, f"the key `{key.value}` is given twice, first at {place}", "remove one")

    def _merge(self, node: Mapping) -> None:
        """Apply ``<<``: keys given in the mapping itself win, earlier merged mappings win over later ones."""
        merged = node.entries.pop("<<")
        node.keys = [key for key in node.keys if key.value != "<<"]
        for source in merged.items if isinstance(merged, Sequence) else [merged]:
            if not isinstance(source, Mapping):
                self.note(source.line, source.column, "`<<` merges mappings only")
                continue
            for key in source.keys:
                if key.value not in node.entries:
                    node.keys.append(key)
                    node.entries[key.value] = source.entries[key.value]

    def _aliased(self, event: Any) -> Node:
        line, column = self.shift(event.start_mark.line + 1, event.start_mark.column + 1)
        node = self.anchors.get(event.anchor)
        if node is None:
            self.note(line, column, f"the alias `*{event.anchor}` names no anchor before it")
            return Scalar("", "!", line, column)
        self.aliased += self._weight(node)
        if self.aliased > MAX_ALIASED_NODES:
            raise _TooMuch(line, column, f"aliases stand for more than {MAX_ALIASED_NODES} values")
        return node

    def _weight(self, node: Node) -> int:
        """Count the nodes a node stands for, aliases written out."""
        known = self.weights.get(id(node))
        if known is None:
            known = 1 + sum(self._weight(child) for child in _children(node))
            self.weights[id(node)] = known
        return known


def _children(node: Node) -> "Iterator[Node]":
    if isinstance(node, Sequence):
        yield from node.items
    elif isinstance(node, Mapping):
        yield from node.entries.values()
