"""
Documents that differ in nothing but some texts, as thousands do: read once as YAML, then by what differs.

A document is cut at its words; what stands between them, and every word that is not one of the texts, must be the same
character by character as in a document that was read without any problem. The words that differ then stand in scalars
of one line without escapes, so YAML cannot see another structure in them, and each text has to pass the checks that the
first one passed. What fits no template is read as usual, and the first documents of each template are read both ways.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from authz.core.resources import AuthorizationPolicy
from authz.documents.splitting import Slice
from authz.policy.learning import Checked, Learning, Unfit
from authz.policy.memory import Found
from authz.policy.template import Template, getter

_WORDS = re.compile("([A-Za-z0-9][A-Za-z0-9_-]*)")
_ALWAYS = bytes(byte for byte in b"\n" + bytes(range(0x20, 0x7F)) if byte not in rb"\&!%|>?")
"""No escapes, anchors, tags, directives or texts of several lines; nothing but ASCII."""
MAX_LINE = 1_000
"""YAML looks no further than 1,024 characters for the colon after a key."""
MAX_SHAPES, MAX_TEMPLATES = 4_096, 32
"""Most shapes known at once, and templates of one shape: documents that are not alike must cost little."""


@dataclass(slots=True)
class _Shape:
    """All documents with the same text between their words."""

    fixed: Callable[[list[str]], Any] | None = None
    """Picks the words that must be the same; None until the first template."""
    templates: dict[Any, Template | None] | None = None
    """Templates by those words; None stands for one that failed its trial."""


class Templates:
    """Learns from documents that were read, and reads those that are alike; for one reading of a set."""

    def __init__(self) -> None:
        self._shapes: dict[str, _Shape | None] = {}

    def read(self, file: str, part: Slice, number: int) -> tuple[Found | None, bool]:
        """
        Read a document by its template, and tell whether the result is certain; it is not while the template is on
        trial.
        """
        words = self._cut(part)
        shape = self._shapes.get(_shape_of(words)) if words else None
        if shape is None or shape.fixed is None or shape.templates is None:
            return None, False
        template = shape.templates.get(shape.fixed(words))
        if template is None:
            return None, False
        return template.read(file, words, part, number), template.trials <= 0

    def learn(self, file: str, part: Slice, found: Found, number: int, checked: Checked, tried: Found | None) -> None:
        """Learn from a document that was read without problems; ``tried`` is what a template made of it."""
        words = self._cut(part)
        if not words or not isinstance(found.resource, AuthorizationPolicy):
            return
        key = _shape_of(words)
        if key not in self._shapes:
            if len(self._shapes) < MAX_SHAPES:
                self._shapes[key] = None  # seen once; what comes only once needs no template
            return
        shape = self._shapes[key] = self._shapes[key] or _Shape()
        if tried is not None and shape.fixed is not None and shape.templates is not None:
            at = shape.fixed(words)
            template = shape.templates[at]
            if template is not None:
                template.trials -= 1
                if tried != found:
                    shape.templates[at] = None
            return
        known = shape.templates or {}
        if len(known) >= MAX_TEMPLATES or (shape.fixed is not None and shape.fixed(words) in known):
            return  # enough of them; or known, and this document has a text that does not pass
        try:
            template, fixed = Learning(file, words, part, found, number, checked).template()
        except Unfit:
            self._shapes[key] = _Shape(lambda _: (), {})  # no other document of this shape fits either
            return
        if shape.templates is None or shape.fixed is None:
            shape.fixed, shape.templates = getter(fixed), {}
        elif shape.fixed(words) != getter(fixed)(words):
            return
        shape.templates.setdefault(shape.fixed(words), template)

    @staticmethod
    def _cut(part: Slice) -> list[str]:
        """The words of a document and what stands between them, in turn; nothing if it cannot have a template."""
        if part.text.translate(None, _ALWAYS):
            return []
        text = part.text.decode("ascii")
        if len(text) >= MAX_LINE and max(map(len, text.split("\n"))) >= MAX_LINE:
            return []
        return _WORDS.split(text)


def _shape_of(words: list[str]) -> str:
    return "\0".join(words[::2])
