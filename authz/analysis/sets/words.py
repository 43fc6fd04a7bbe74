"""
The texts that a list of patterns can tell apart: for every combination of patterns that some possible text matches, and
matches no other, one such text.

All patterns are one automaton whose states are made when they are reached, walked breadth first beside an automaton of
the possible texts, so that the text found for a combination is a shortest one. Patterns share their beginnings, so
thousands of them cost what their letters cost. Of the letters that no pattern asks for at a state, one of each kind is
enough: no pattern can tell them apart there.
"""

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from authz.core.matchers import ascii_lower

MAX_STATES = 200_000
"""States walked before the patterns count as too many to tell apart."""


class Repeat(NamedTuple):
    """Letters of one kind, any number of them; with ``some`` at least one."""

    kind: str
    some: bool = False


Pattern = tuple[str | Repeat, ...]
"""Letters and repetitions in order; a text of more letters than one stands for each of them."""

KINDS: dict[str, Callable[[str], bool]] = {
    "any": lambda letter: True,
    "line": lambda letter: letter != "\n",
    "segment": lambda letter: letter != "/",
    "template": frozenset(
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~%!$&'()+,;:@=*"
    ).__contains__,
    "templates": frozenset(
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~%!$&'()+,;:@=*/"
    ).__contains__,
}
"""The kinds of letters that patterns of policies repeat; ``template`` is the set P of AP-50."""


class TooMany(Exception):
    """The patterns tell more texts apart than are walked."""


class Possible(Protocol):
    """An automaton of the texts that a variable can have at all."""

    @property
    def groups(self) -> Sequence[str]:
        """Letters that it treats alike, group by group; the first of a group that no pattern asks for is taken."""

    def begin(self) -> Hashable:
        """The state before the first letter."""

    def step(self, state: Hashable, letter: str) -> Hashable | None:
        """The state after a letter; None when no possible text goes on so."""

    def ends(self, state: Hashable) -> bool:
        """Whether a text may end here."""

    def asks(self, state: Hashable) -> str:
        """Letters to try here besides those that patterns ask for."""


@dataclass(slots=True)
class _Node:
    """A place within patterns that begin alike."""

    loop: Callable[[str], bool] | None = None
    fold: bool = False
    letters: dict[str, int] = field(default_factory=dict)
    repeats: dict[Repeat, int] = field(default_factory=dict)
    ends: list[int] = field(default_factory=list)


Reached = frozenset[int]


class Automaton:
    """All patterns at once."""

    def __init__(self) -> None:
        self._nodes = [_Node(), _Node(fold=True)]
        self._count = 0
        self._steps: dict[tuple[Reached, str], Reached] = {}
        self._about: dict[Reached, tuple[frozenset[int], frozenset[str]]] = {}
        self._known: dict[tuple[Pattern, bool], int] = {}

    def add(self, pattern: Pattern, *, fold: bool = False) -> None:
        """Add a pattern; with ``fold`` it is of lower-case letters, and texts are compared in lower case."""
        if (pattern, fold) in self._known:
            return
        at = 1 if fold else 0
        for token in pattern:
            if isinstance(token, Repeat):
                at = self._child(self._nodes[at].repeats, token, fold, KINDS[token.kind])
            else:
                for letter in token:
                    at = self._child(self._nodes[at].letters, letter, fold, None)
        self._nodes[at].ends.append(self._count)
        self._known[pattern, fold] = self._count
        self._count += 1

    def _child(self, children: dict, token: object, fold: bool, loop: Callable[[str], bool] | None) -> int:  # type: ignore[type-arg]  # of either kind of child
        found = children.get(token)
        if found is None:
            found = children[token] = len(self._nodes)
            self._nodes.append(_Node(loop, fold))
        return int(found)

    def _closed(self, places: set[int]) -> Reached:
        todo = list(places)
        while todo:
            for repeat, child in self._nodes[todo.pop()].repeats.items():
                if not repeat.some and child not in places:
                    places.add(child)
                    todo.append(child)
        return frozenset(places)

    def begin(self) -> Reached:
        """The state before the first letter."""
        return self._closed({0, 1})

    def step(self, state: Reached, letter: str) -> Reached:
        """The state after one more letter."""
        known = self._steps.get((state, letter))
        if known is not None:
            return known
        small = ascii_lower(letter)
        places: set[int] = set()
        for at in state:
            node = self._nodes[at]
            if node.loop is not None and node.loop(letter):
                places.add(at)
            child = node.letters.get(small if node.fold else letter)
            if child is not None:
                places.add(child)
            for repeat, child in node.repeats.items():
                if repeat.some and KINDS[repeat.kind](letter):
                    places.add(child)
        found = self._steps[state, letter] = self._closed(places)
        return found

    def about(self, state: Reached) -> tuple[frozenset[int], frozenset[str]]:
        """The patterns that a text matches which ends here, and the letters that they ask for next."""
        found = self._about.get(state)
        if found is None:
            ends: set[int] = set()
            letters: set[str] = set()
            for at in state:
                node = self._nodes[at]
                ends.update(node.ends)
                letters.update(node.letters)
                if node.fold:
                    letters.update(letter.upper() for letter in node.letters if letter.isascii())
            found = self._about[state] = frozenset(ends), frozenset(letters)
        return found

    def signature(self, text: str) -> frozenset[int]:
        """The numbers of the patterns that match a text."""
        state = self.begin()
        for letter in text:
            state = self.step(state, letter)
        return self.about(state)[0]


def is_possible(text: str, possible: Possible) -> bool:
    """Whether a variable can have this text."""
    state: Hashable | None = possible.begin()
    for letter in text:
        state = possible.step(state, letter)
        if state is None:
            return False
    return possible.ends(state)


def distinct(
    automaton: Automaton,
    possible: Possible,
    natural: Iterable[str] = (),
    tick: Callable[[], None] = lambda: None,
) -> list[str]:
    """
    One text for each combination of patterns, the natural ones first, then shorter ones.

    Args:
        natural: texts that are taken, where they are possible, for the combinations that they belong to.
        tick: called for each state; what it raises passes through.

    Raises:
        TooMany: the patterns tell too many texts apart.
    """
    chosen: dict[frozenset[int], str] = {}
    for text in dict.fromkeys(natural):
        if is_possible(text, possible):
            chosen.setdefault(automaton.signature(text), text)
    begin = (automaton.begin(), possible.begin())
    seen: set[tuple[Reached, Hashable]] = {begin}
    todo: deque[tuple[Reached, Hashable, str]] = deque([(*begin, "")])
    while todo:
        tick()
        state, legal, text = todo.popleft()
        ends, letters = automaton.about(state)
        if possible.ends(legal):
            chosen.setdefault(ends, text)
        for letter in _letters(letters, legal, possible):
            next_legal = possible.step(legal, letter)
            if next_legal is None:
                continue
            reached = (automaton.step(state, letter), next_legal)
            if reached not in seen:
                seen.add(reached)
                todo.append((*reached, text + letter))
        if len(seen) > MAX_STATES:
            raise TooMany
    return list(chosen.values())


def _letters(asked: frozenset[str], legal: Hashable, possible: Possible) -> list[str]:
    found = [*sorted(asked), *possible.asks(legal)]
    for group in possible.groups:
        for letter in group:
            if letter not in asked and possible.step(legal, letter) is not None:
                found.append(letter)
                break
    return found
