"""
Whether Envoy takes a CEL expression as the filter of an access log: syntax, functions, and the names it may ask for.

Envoy reads Google's language by its own parser and with few functions: no ``string()``, no macros over lists (`exists`,
`map`). A name that it does not have is no error to it: the expression then never holds and nothing is logged, so
names are checked here, too. The tables are those of Envoy 1.40; a test holds the answers against a real one.
"""

import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import NamedTuple

from authz.mesh.cel_names import ATTRIBUTES, FUNCTIONS, METHODS, TYPES
from authz.mesh.re2_syntax import regex_fault

MOST_CHARACTERS = 4096
MOST_DEPTH = 32
"""How deep brackets and operators may nest; Envoy's own bound is far above."""
_OVER_LISTS = frozenset({"all", "exists", "exists_one", "existsOne", "map", "filter"})
_KEYWORDS = """
    as break const continue else false for function if import in let loop namespace null package return true var
    void while
"""
_RESERVED = frozenset(_KEYWORDS.split())
_WORDS = frozenset({"true", "false", "null"})
_STRING = (
    r'[bB]?[rR]"""(?:(?!""").)*"""|[bB]?[rR]\'\'\'(?:(?!\'\'\').)*\'\'\'|[bB]?[rR]"[^"\n\r]*"|[bB]?[rR]\'[^\'\n\r]*\''
    r'|[bB]?"""(?:\\.|(?!""")[^\\])*"""|[bB]?\'\'\'(?:\\.|(?!\'\'\')[^\\])*\'\'\''
    r'|[bB]?"(?:\\.|[^"\\\n\r])*"|[bB]?\'(?:\\.|[^\'\\\n\r])*\''
)
_TOKEN = re.compile(
    rf"(?P<space>[ \t\r\n\f]+|//[^\n]*)|(?P<string>{_STRING})"
    r"|(?P<number>0[xX][0-9a-fA-F]+[uU]?|\d+\.\d+(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+|\.\d+(?:[eE][+-]?\d+)?|\d+[uU]?)"
    r"|(?P<name>[A-Za-z_][A-Za-z0-9_]*)|(?P<sign>\|\||&&|<=|>=|==|!=|[-+*/%!<>?:.,()\[\]{}])",
    re.DOTALL,
)
_ESCAPE = re.compile(
    r"\\(?:[abfnrtv\\?\"'`]|[xX][0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[0-3][0-7]{2}|(.)?)", re.DOTALL
)


class CelFault(NamedTuple):
    """What is wrong with an expression, the offset of the character where, and what to do."""

    message: str
    offset: int
    advice: str = ""


class _Wrong(Exception):
    """Ends the reading at the first fault."""

    def __init__(self, message: str, offset: int, advice: str = "") -> None:
        super().__init__(message)
        self.fault = CelFault(message, offset, advice)


class _Token(NamedTuple):
    kind: str
    text: str
    offset: int


def cel_fault(expression: str) -> CelFault | None:
    """The first thing for which Envoy would refuse an expression, or for which it never holds; None: it is fine."""
    if len(expression) > MOST_CHARACTERS:
        return CelFault(f"the expression has more than {MOST_CHARACTERS} characters", MOST_CHARACTERS)
    try:
        _Reader(_tokens(expression)).whole()
    except _Wrong as wrong:
        return wrong.fault
    return None


def _tokens(text: str) -> list[_Token]:
    found = []
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            what = "a text that does not end" if text[at] in "\"'" else f"`{text[at]}` means nothing here"
            raise _Wrong(what, at)
        kind = match.lastgroup or ""
        if kind == "string":
            _check_escapes(match[0], at)
        elif kind == "number":
            _check_number(match[0], at)
        if kind != "space":
            found.append(_Token(kind, match[0], at))
        at = match.end()
    return [*found, _Token("end", "", len(text))]


def _check_escapes(text: str, at: int) -> None:
    if "r" not in text[: text.index(text[-1])].lower():
        for escape in _ESCAPE.finditer(text):
            if escape[1] is not None:
                raise _Wrong(f"`{escape[0]}` is no escape", at + escape.start(), "write a raw text, r'…', or `\\\\`")


def _check_number(text: str, at: int) -> None:
    plain = text.rstrip("uU")
    if not any(sign in plain for sign in ".") and (plain[:2].lower() == "0x" or "e" not in plain.lower()):
        most = 2**64 - 1 if plain != text else 2**63 - 1
        if int(plain, 0 if plain[:2].lower() == "0x" else 10) > most:
            raise _Wrong(f"`{text}` is too large a number", at)


def _check_pattern(token: _Token) -> None:
    """A regular expression that is written out, as RE2 reads it."""
    if token.kind != "string":
        return
    quote = '"""' if '"""' in token.text else "'''" if "'''" in token.text else token.text[-1]
    prefix, _, rest = token.text.partition(quote)
    text = rest.removesuffix(quote)
    if "r" not in prefix.lower():
        text = text.encode("latin-1", "backslashreplace").decode("unicode_escape")
    fault = regex_fault(text) if text else ""
    if fault:
        raise _Wrong(f"`{text}` is not a regular expression of RE2: {fault}", token.offset)


class _Reader:
    """Reads by Google's grammar, one method for each level of operators."""

    def __init__(self, tokens: list[_Token]) -> None:
        self._tokens = tokens
        self._at = 0
        self._depth = 0

    def whole(self) -> None:
        self._expression()
        if self._next.kind != "end":
            raise self._unexpected()

    @property
    def _next(self) -> _Token:
        return self._tokens[self._at]

    def _unexpected(self) -> _Wrong:
        found = self._next
        if found.kind == "end":
            return _Wrong("the expression ends too early", found.offset)
        return _Wrong(f"`{found.text}` is not expected here", found.offset)

    def _takes(self, *signs: str) -> bool:
        found = self._next
        if found.text in signs and found.kind in ("sign", "name"):
            self._at += 1
            return True
        return False

    def _must(self, sign: str) -> None:
        if not self._takes(sign):
            raise self._unexpected()

    def _expression(self) -> None:
        self._depth += 1
        if self._depth > MOST_DEPTH:
            raise _Wrong(f"nested deeper than {MOST_DEPTH} levels", self._next.offset)
        self._or()
        if self._takes("?"):
            self._or()
            self._must(":")
            self._expression()
        self._depth -= 1

    def _or(self) -> None:
        """Operators between operands; their precedence decides about meaning, not about what is an expression."""
        self._unary()
        while self._takes("||", "&&", "<", "<=", ">=", ">", "==", "!=", "in", "+", "-", "*", "/", "%"):
            self._unary()

    def _unary(self) -> None:
        first = self._next.text if self._next.kind == "sign" else ""
        if first in ("!", "-"):
            while self._takes(first):
                pass
        self._member()

    def _member(self) -> None:
        path = self._primary()
        while True:
            if self._takes("."):
                name = self._name(field=True)
                if self._takes("("):
                    self._call(f"{path[0]}.{name.text}" if path == ["re"] else name.text, name.offset, path)
                    path = []
                elif path:
                    path = [*path, name.text]
                    self._check_attribute(path, name.offset)
            elif self._takes("["):
                self._expression()
                self._must("]")
                path = []
            elif self._next.text == "{" and path:
                raise _Wrong("messages cannot be made in a filter", self._next.offset)
            else:
                break
        if path == ["re"]:
            raise _Wrong("`re` is not an attribute of Envoy", self._next.offset)

    def _primary(self) -> list[str]:
        """What an operand begins with; its path, if that is a name of Envoy's."""
        found = self._next
        if found.kind in ("number", "string") or (found.kind == "name" and found.text in _WORDS):
            self._at += 1
            return []
        if self._takes("("):
            self._expression()
            self._must(")")
            return []
        if self._takes("["):
            self._list("]", pairs=False)
            return []
        if self._takes("{"):
            self._list("}", pairs=True)
            return []
        self._takes(".")
        name = self._name(field=False)
        if self._takes("("):
            self._call(name.text, name.offset, None)
            return []
        if name.text in TYPES:
            return []
        if name.text != "re" and name.text not in ATTRIBUTES:
            raise _Wrong(f"`{name.text}` is not an attribute of Envoy", name.offset, _offer(name.text, ATTRIBUTES))
        return [name.text]

    def _name(self, *, field: bool) -> _Token:
        found = self._next
        allowed = found.kind == "name" and (
            found.text not in _RESERVED or (field and found.text not in ("in", *_WORDS))
        )
        if not allowed:
            raise self._unexpected()
        self._at += 1
        return found

    def _check_attribute(self, path: list[str], offset: int) -> None:
        known = ATTRIBUTES.get(path[0], ())
        if len(path) == 2 and known and path[1] not in known:
            raise _Wrong(f"`{path[0]}` has no `{path[1]}`", offset, _offer(path[1], known))

    def _list(self, end: str, *, pairs: bool) -> None:
        while not self._takes(end):
            self._expression()
            if pairs:
                self._must(":")
                self._expression()
            if not self._takes(","):
                self._must(end)
                return

    def _call(self, name: str, offset: int, subject: list[str] | None) -> None:
        """Arguments, after the bracket that opens them; ``subject`` is None for a function of its own."""
        if name == "has" and subject is None:
            return self._has()
        if name in _OVER_LISTS and subject is not None:
            raise _Wrong(f"Envoy does not have `{name}` in filters", offset, "compare single values")
        known = FUNCTIONS if subject is None or name.startswith("re.") else METHODS
        if name not in known:
            advice = "compare numbers with numbers" if name == "string" else _offer(name, known)
            raise _Wrong(f"Envoy does not have the function `{name}`", offset, advice)
        count = 0
        start = self._at
        while not self._takes(")"):
            start = self._at
            self._expression()
            count += 1
            if not self._takes(","):
                self._must(")")
                break
        if count not in known[name]:
            wanted = " or ".join(map(str, known[name]))
            raise _Wrong(f"`{name}` takes {wanted} arguments, got {count}", offset)
        if name == "matches" and self._at - start == 2:
            _check_pattern(self._tokens[start])
        return None

    def _has(self) -> None:
        start = self._at
        self._expression()
        inside = self._tokens[start : self._at]
        if len(inside) < 3 or inside[-1].kind != "name" or inside[-2].text != ".":
            raise _Wrong("`has` asks for a field: has(a.b)", inside[0].offset)
        self._must(")")


def _offer(name: str, known: Mapping[str, object] | tuple[str, ...]) -> str:
    close = get_close_matches(name, known, 1)
    return f"did you mean `{close[0]}`?" if close else f"one of {', '.join(sorted(known))}"
