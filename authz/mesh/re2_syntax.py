"""
Regular expressions as RE2 takes them: what Envoy would refuse is found before it is rendered.

RE2 knows no look-around and no back references, and bounds repetitions and the size of what it compiles. Python's own
engine is no judge of that, so the syntax is walked through here (github.com/google/re2/wiki/Syntax). What both engines
read alike, Python's can be asked about, which ``authz explain`` does.
"""

import re
from dataclasses import dataclass

MOST_CHARACTERS = 1024
"""Istio's own bound."""
_MOST_REPEATS = 1000
_MOST_SIZE = 30_000
"""Below Envoy's ``re2.max_program_size.error_level`` as it is rendered; the sizes here are upper estimates."""
_REPEAT = re.compile(r"\{(\d+)(,(\d*))?\}")
_FLAGS = re.compile(r"\(\?([imsU]*)(-[imsU]+)?([:)])")
_NAME = re.compile(r"\(\?P?<(\w+)>", re.ASCII)
_POSIX = re.compile(r"\[:\^?(alnum|alpha|ascii|blank|cntrl|digit|graph|lower|print|punct|space|upper|word|xdigit):\]")
_CATEGORY = re.compile(
    r"[pP](\{\^?(L[ulmto]?|M[nce]?|N[dlo]?|P[cdseifo]?|S[mcko]?|Z[slp]?|C[cfos]?|Any|Latin|Greek|Cyrillic|Han|Arabic|"
    r"Hebrew|Hiragana|Katakana|Thai)\}|[LMNPSZC])"
)
_CODE = re.compile(r"x(\{[0-9a-fA-F]{1,6}\}|[0-9a-fA-F]{2})|[1-7][0-7]{1,2}|0[0-7]{0,2}")
_SIZE_OF_ANY, _SIZE_OF_CATEGORY = 12, 500


class _Wrong(ValueError):
    """What RE2 would say."""


@dataclass(slots=True)
class _Walk:
    text: str
    at: int = 0
    depth: int = 0
    names: tuple[str, ...] = ()
    groups: int = 0
    alike: bool = True
    """Whether Python's engine reads it the same."""

    def take(self, pattern: "re.Pattern[str]") -> "re.Match[str] | None":
        found = pattern.match(self.text, self.at)
        if found:
            self.at = found.end()
        return found

    def alternatives(self) -> tuple[int, int]:
        """The size, and the deepest product of repetitions, until the group ends."""
        size, deepest, last, can_repeat = 1, 1, (0, 1), False
        while self.at < len(self.text) and not (self.text[self.at] == ")" and self.depth):
            letter = self.text[self.at]
            repeats = self._repetition(letter)
            if repeats is not None:
                if not can_repeat:
                    raise _Wrong(f"nothing stands before the repetition at character {self.at + 1}")
                can_repeat = False
                product = last[1] * max(repeats, 1)
                if repeats > _MOST_REPEATS or product > _MOST_REPEATS:
                    raise _Wrong(f"it repeats more than {_MOST_REPEATS} times")
                size += last[0] * max(repeats - 1, 1)
                deepest = max(deepest, product)
                continue
            if letter == "|":
                self.at += 1
                can_repeat = False
                continue
            if letter == ")":
                raise _Wrong("a `)` closes no group")
            last = self._atom(letter)
            can_repeat = last[0] > 0
            size, deepest = size + last[0], max(deepest, last[1])
            if size > _MOST_SIZE:
                raise _Wrong("it is too large when it is compiled")
        return size, deepest

    def _repetition(self, letter: str) -> int | None:
        """How often at most, 1 for `*`, `+` and `?`; None if it is none."""
        if letter in "*+?":
            self.at += 1
            found = 1
        elif letter == "{" and (repeat := self.take(_REPEAT)):
            least = int(repeat[1])
            found = int(repeat[3]) if repeat[3] else least
            if found < least:
                raise _Wrong(f"`{repeat[0]}` repeats less often at most than at least")
        else:
            return None
        if self.text.startswith("?", self.at):
            self.at += 1
        return found

    def _atom(self, letter: str) -> tuple[int, int]:
        if letter == "(":
            return self._group()
        if letter == "[":
            return self._class(), 1
        self.at += 1
        if letter == "\\":
            return self._escape(), 1
        return (_SIZE_OF_ANY if letter == "." else len(letter.encode())), 1

    def _group(self) -> tuple[int, int]:
        if flags := self.take(_FLAGS):
            at_start = flags.start() == 0 or flags[3] == ":"
            self.alike = self.alike and at_start and not flags[2] and set(flags[1]) <= set("is")
            if flags[3] == ")":
                return 0, 1
        elif name := self.take(_NAME):
            if name[1] in self.names:
                raise _Wrong(f"two groups are called `{name[1]}`")
            self.names += (name[1],)
            self.groups += 1
            self.alike = self.alike and name[0].startswith("(?P")
        elif self.text.startswith("(?", self.at):
            raise _Wrong(f"RE2 has no `{self.text[self.at : self.at + 3]}`")
        else:
            self.at += 1
            self.groups += 1
        self.depth += 1
        if self.depth > 200:
            raise _Wrong("its groups are nested too deeply")
        size, deepest = self.alternatives()
        if not self.text.startswith(")", self.at):
            raise _Wrong("a group is not closed")
        self.at += 1
        self.depth -= 1
        return size + 2, deepest

    def _class(self) -> int:
        self.at += 2 if self.text.startswith("[^", self.at) else 1
        first, size = True, 0
        while first or not self.text.startswith("]", self.at):
            if self.at >= len(self.text):
                raise _Wrong("a `[` is not closed")
            first = False
            if self.take(_POSIX):
                size, self.alike = size + _SIZE_OF_ANY, False
                continue
            if self.text.startswith("[:", self.at):
                raise _Wrong("it has an unknown class of characters")
            low = self._member()
            if self.text.startswith("-", self.at) and not self.text.startswith("-]", self.at):
                self.at += 1
                high = self._member()
                if low is None or high is None or low > high:
                    raise _Wrong("a range of characters is in the wrong order")
            size += 1
        self.at += 1
        return max(size, _SIZE_OF_ANY)

    def _member(self) -> str | None:
        """One character of a class; None for an escape whose character does not matter."""
        if self.at >= len(self.text):
            raise _Wrong("a `[` is not closed")
        letter = self.text[self.at]
        self.at += 1
        if letter != "\\":
            if letter in "[&~|" or (letter == "-" and self.text.startswith("-", self.at)):
                self.alike = False  # which may come to mean something to Python
            return letter
        before = self.at
        self._escape(in_class=True)
        return self.text[before] if self.at == before + 1 and not self.text[before].isalnum() else None

    def _escape(self, *, in_class: bool = False) -> int:
        if self.at >= len(self.text):
            raise _Wrong("it ends with a `\\`")
        letter = self.text[self.at]
        if self.take(_CATEGORY):
            self.alike = False
            return _SIZE_OF_CATEGORY
        if self.take(_CODE):
            self.alike = self.alike and letter != "x"
            return 4
        self.at += 1
        if letter == "Q" and not in_class:
            end = self.text.find("\\E", self.at)
            quoted = self.text[self.at : end if end >= 0 else None]
            self.at, self.alike = (end + 2 if end >= 0 else len(self.text)), False
            return len(quoted.encode())
        if letter in "dDsSwW":
            self.alike = self.alike and letter not in "sS"  # only Python counts a vertical tab
            return _SIZE_OF_ANY
        if letter in "afnrtv" or (letter in "bBAz" and not in_class):
            self.alike = self.alike and letter != "z"
            return 1
        if letter.isascii() and not letter.isalnum():
            return 1
        raise _Wrong(f"RE2 has no `\\{letter}`")


def regex_fault(pattern: str) -> str:
    """Why RE2 would refuse a pattern, or Istio for its length; empty if it would take it."""
    return _walked(pattern)[0]


def substitution_fault(pattern: str, substitution: str) -> str:
    """Why RE2 would refuse to put a substitution in the place of a pattern; empty if it would not."""
    walk = _Walk(pattern)
    try:
        walk.alternatives()
    except _Wrong:
        return ""  # a fault of the pattern, which is told as such
    for found in re.finditer(r"\\(.?)", substitution):
        if found[1] != "\\" and not found[1].isdigit():
            return f"`{found[0]}` is neither a group nor a backslash: write `\\0` to `\\9`, or `\\\\`"
        if found[1].isdigit() and int(found[1]) > walk.groups:
            return f"`{found[0]}`: the pattern has {walk.groups} groups"
    return ""


def matcher_of(pattern: str) -> "re.Pattern[str] | None":
    """The pattern for Python's engine (use ``fullmatch``); None where it might answer otherwise than RE2."""
    fault, alike = _walked(pattern)
    if fault or not alike:
        return None
    try:
        return re.compile(pattern, re.ASCII)
    except re.error:
        return None


def _walked(pattern: str) -> tuple[str, bool]:
    if not pattern:
        return "it is empty", False
    if len(pattern.encode("utf-8", "replace")) > MOST_CHARACTERS:
        return f"it is longer than {MOST_CHARACTERS} characters", False
    walk = _Walk(pattern)
    try:
        walk.alternatives()
    except _Wrong as wrong:
        return str(wrong), False
    return "", walk.alike
