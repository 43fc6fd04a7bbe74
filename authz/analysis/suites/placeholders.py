"""The placeholders of test suites: real keys and tokens put where a suite names them."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from authz.tokens.signing import SigningKey, jwks_text

_TOKEN = re.compile(r"\$\{TOKEN:([^}]*)\}")
_PAYLOAD = re.compile(r"\$\{PAYLOAD:([^}]*)\}")
_JWKS = re.compile(r"\$\{JWKS:([^}]*)\}")
_JWKS_URI = re.compile(r"\$\{JWKS_URI:([^}]*)\}")
_JWKS_URI_DOWN = "${JWKS_URI_DOWN}"


def substitute_tokens(text: str, tokens: Mapping[str, str]) -> str:
    """Replace ``${TOKEN:name}`` by the token and ``${PAYLOAD:name}`` by its second part."""
    text = _TOKEN.sub(lambda match: tokens[match[1]], text)
    return _PAYLOAD.sub(lambda match: tokens[match[1]].split(".")[1], text)


@dataclass(slots=True)
class KeyedText:
    """Policies with real keys in them, and the documents their ``jwksUri`` stand for."""

    text: str
    documents: dict[str, str] = field(default_factory=dict)
    """URI → JWKS text; the URI of ``${JWKS_URI_DOWN}`` is not here."""


def substitute_keys(
    text: str,
    keys: Mapping[str, SigningKey],
    uri_of: Callable[[str], str] = lambda names: f"https://jwks.invalid/{names.replace(',', '/')}",
    uri_down: str = "https://down.jwks.invalid/",
) -> KeyedText:
    """
    Replace ``${JWKS:a,b}``, ``${JWKS_URI:a}`` and ``${JWKS_URI_DOWN}``.

    Args:
        uri_of: gives the URI for the names as written (``a`` or ``a,b``); serve ``documents`` there.
    """
    result = KeyedText("")

    def document(names: str) -> str:
        return jwks_text(keys[name.strip()] for name in names.split(","))

    def uri(match: re.Match[str]) -> str:
        address = uri_of(match[1])
        result.documents[address] = document(match[1])
        return address

    text = _JWKS.sub(lambda match: document(match[1]), text)
    text = _JWKS_URI.sub(uri, text)
    result.text = text.replace(_JWKS_URI_DOWN, uri_down)
    return result
