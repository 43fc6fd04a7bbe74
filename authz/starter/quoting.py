"""Words as YAML, in flow and in block style alike."""

import json
import re

_PLAIN = re.compile(r"[a-z][-a-z0-9]*")
_NOT_TEXT = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})
"""What YAML 1.1 takes for something other than text."""


def quoted(text: str) -> str:
    """Write a text, in quotes where it needs them; a JSON string is a YAML string, too."""
    return text if _PLAIN.fullmatch(text) and text not in _NOT_TEXT else json.dumps(text, ensure_ascii=False)
