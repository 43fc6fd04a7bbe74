"""
Which texts a request can have at all: paths as they are after normalisation, identities as Istio writes them, methods,
hosts, header values, claims.

Each is a small automaton for ``words``. A text that no proxy would ever ask about is no counterexample.
"""

import string
from collections.abc import Callable, Hashable, Sequence

from authz.core.resources import PathNormalization

_LOWER = string.ascii_lowercase + string.digits
_LETTERS = "x" + _LOWER.replace("x", "") + string.ascii_uppercase
_VISIBLE = frozenset(chr(code) for code in range(0x21, 0x7F))
_TOKEN = frozenset(_LETTERS) | frozenset("!#$%&'*+-.^_`|~")
_HOST = _VISIBLE - frozenset('/?#\\"<>^`{}|')
_UNRESERVED = frozenset(_LETTERS) | frozenset("-._~")
_ESCAPED = frozenset('"<>{}|^`\\')
_HEX = frozenset(string.hexdigits)


class Letters:
    """Any text of some letters, of a least length; with ``spaced`` blanks stand inside, never at an end."""

    def __init__(
        self, has: Callable[[str], bool], groups: Sequence[str], *, least: int = 0, spaced: bool = False
    ) -> None:
        """``has`` tells whether a letter may stand in the text."""
        self.groups = groups
        self._has = has
        self._least = least
        self._spaced = spaced

    def begin(self) -> Hashable:
        """The state before the first letter: how many were read, up to the least, and whether a blank was last."""
        return (0, False)

    def step(self, state: Hashable, letter: str) -> Hashable | None:
        """One letter more."""
        assert isinstance(state, tuple)
        count, _ = state
        is_blank = letter in " \t"
        if not self._has(letter) and not (self._spaced and is_blank):
            return None
        if self._spaced and is_blank and not count:
            return None
        return (min(count + 1, max(self._least, 1)), self._spaced and is_blank)

    def ends(self, state: Hashable) -> bool:
        """Long enough, and no blank at the end."""
        assert isinstance(state, tuple)
        return bool(state[0] >= self._least and not state[1])

    def asks(self, state: Hashable) -> str:
        """No letter is special."""
        return ""


METHOD = Letters(_TOKEN.__contains__, (_LETTERS,), least=1)
HOST = Letters(_HOST.__contains__, (_LETTERS, "-.:"), least=1)
SNI = Letters(frozenset(_LOWER + ".-_").__contains__, (_LETTERS,))
HEADER = Letters(lambda letter: letter > " " and letter != "\x7f", (_LETTERS, "-.:"), spaced=True)
ANY_TEXT = Letters(lambda letter: True, (_LETTERS, "\n"))
"""Claims and metadata: JSON strings hold anything, the line feed too, which a star does not match (AP-19)."""


class Path:
    """
    Paths as policies see them: what ``core.normalize`` leaves as it is, without query.

    A state is None before the first slash; else whether the path may go on, what stands in the segment so far as far as
    it matters (nothing, one dot, two dots, something), and what of an escape was read.
    """

    def __init__(self, mode: PathNormalization) -> None:
        self.mode = mode
        self._raw = mode is PathNormalization.NONE
        self._merges = mode in (PathNormalization.MERGE_SLASHES, PathNormalization.DECODE_AND_MERGE_SLASHES)
        self._letters = _VISIBLE - frozenset("?#") - (frozenset() if self._raw else _ESCAPED)
        self.groups = (_LETTERS + "-_~", "[]", "/")

    def begin(self) -> Hashable:
        """The state before the first slash."""
        return ("begin", "", "")

    def step(self, state: Hashable, letter: str) -> Hashable | None:
        """One letter more."""
        assert isinstance(state, tuple)
        phase, segment, escape = state
        if phase == "begin":
            return ("first", "", "") if letter == "/" else None
        if phase == "slashes" or letter not in self._letters:
            return None
        if self._raw:
            return state
        escape = self._escape(escape, letter)
        if escape is None:
            return None
        if letter == "/":
            if segment in (".", "..") or (self._merges and not segment and phase != "first"):
                return None
            if self._merges and not segment:
                return ("slashes", "", "")  # nothing but slashes becomes `//` (PN-9)
            return ("inside", "", "")
        if letter == ";" and segment in (".", ".."):
            return None
        is_dots = letter == "." and segment in ("", ".")
        return ("inside", segment + "." if is_dots else "x", escape)

    def _escape(self, before: str, letter: str) -> str | None:
        """What of an escape was read; None for one that is decoded, or refused (PN-5, PN-8)."""
        if letter == "%":
            return "%"
        if not before or letter not in _HEX:
            return ""
        if len(before) == 1:
            return before + letter
        code = int(before[1:] + letter, 16)
        decodes = self.mode is PathNormalization.DECODE_AND_MERGE_SLASHES and code in (0x2F, 0x5C)
        return None if not code or chr(code) in _UNRESERVED or decodes else ""

    def ends(self, state: Hashable) -> bool:
        """Not before the slash, and not with a dot segment."""
        assert isinstance(state, tuple)
        return state[0] != "begin" and state[1] not in (".", "..")

    def asks(self, state: Hashable) -> str:
        """The first slash."""
        return "/"


class Identity:
    """
    SPIFFE IDs: ``spiffe://<trust domain>/ns/<namespace>/sa/<service account>`` as Istio issues them (AP-24), and those
    of others, which have no segment ``ns``. No trust domain is called ``ns``, so that each has one namespace at most.

    A state is a phase with the part of the text that matters to it.
    """

    groups = ("x" + _LOWER.replace("x", ""), string.ascii_uppercase, "-._")
    _BEGIN = "spiffe://"
    _SEGMENT = frozenset(string.ascii_letters + string.digits + "._-")
    _DOMAIN = frozenset(_LOWER + "._-")

    def begin(self) -> Hashable:
        """The state before the scheme."""
        return ("scheme", 0)

    def step(self, state: Hashable, letter: str) -> Hashable | None:
        """One letter more."""
        assert isinstance(state, tuple)
        phase, part = state
        if phase == "scheme":
            if letter != self._BEGIN[part]:
                return None
            return ("scheme", part + 1) if part + 1 < len(self._BEGIN) else ("domain", "")
        if phase == "domain":
            if letter == "/":
                return ("first", "") if part not in ("", "ns") else None
            text = part + letter
            return ("domain", text if text in ("n", "ns") else "x") if letter in self._DOMAIN else None
        if phase == "sa":
            if letter != "/sa/"[part]:
                return None
            return ("sa", part + 1) if part < 3 else ("account", "")
        if letter == "/":
            return self._slash(phase, part)
        if letter not in self._SEGMENT:
            return None
        text = part + letter
        return (phase, text if text in (".", "..", "n", "ns") else "x")

    def _slash(self, phase: str, part: str) -> Hashable | None:
        if part in ("", ".", "..") or phase == "account":
            return None
        if phase == "namespace":
            return ("sa", 1)
        if part == "ns":
            return ("namespace", "") if phase == "first" else None
        return ("other", "")

    def ends(self, state: Hashable) -> bool:
        """A whole identity of either kind."""
        assert isinstance(state, tuple)
        phase, part = state
        return (
            (phase == "domain" and part not in ("", "ns"))
            or (phase in ("account", "first", "other") and part not in ("", ".", "..", "ns"))
            or (phase == "account" and part == "ns")
        )

    def asks(self, state: Hashable) -> str:
        """The letters of the form itself."""
        assert isinstance(state, tuple)
        phase, part = state
        if phase == "scheme":
            return self._BEGIN[part]
        if phase == "sa":
            return "/sa/"[part]
        return "/ns"
