"""
Signed entries or revocations, which the authorities of a fleet have in common: a text, and a signed statement about it.

    {"format": "authz-rules/1", "statement": "{…}", "signatures": […], "content": "entries: …"}

The statement says for which fleet the text is, whether it is entries or revocations, its number and its digest. Its
exact bytes are signed by the keys that sign bundles; ``format`` stands in it too, so that neither passes for the other.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from authz.bundles.bundle_signatures import (
    BundleKey,
    BundleSignature,
    VerifyingKey,
    read_signatures,
    sign,
    signers,
    write_signatures,
)
from authz.bundles.manifest import MAX_REVISION, BundleRefused, fleet_name, read_time, time_text
from authz.bundles.strict_json import read_strict_json

FORMAT = "authz-rules/1"
_BEGINS = f'{{"format": "{FORMAT}"'.encode()
_MEMBERS = ("format", "statement", "signatures", "content")
_STATED = ("format", "fleet", "kind", "number", "created", "expires", "sha256")


@dataclass(frozen=True, slots=True)
class SignedRules:
    """Whole, as the digest says; who signed it is another question. Times are whole seconds since the epoch."""

    fleet: str
    kind: str
    """The key in the bucket under which it must stand."""
    number: int
    """Grows with every change; an authority never goes back."""
    created: int
    expires: int | None
    """From then on it is not taken; None: never."""
    content: bytes = field(repr=False)
    statement: bytes = field(repr=False)
    """What is signed."""
    signatures: tuple[BundleSignature, ...] = ()

    @property
    def digest(self) -> str:
        """SHA-256 of the statement, in hexadecimal."""
        return hashlib.sha256(self.statement).hexdigest()

    def signed_by(self, keys: Iterable[VerifyingKey]) -> tuple[str, ...]:
        """The ids of those keys that did sign."""
        return signers(self.statement, self.signatures, keys)


def looks_signed(data: bytes) -> bool:
    """Whether it is meant to be signed; entries and revocations as they are written in files begin otherwise."""
    return data.startswith(_BEGINS)


def sign_rules(
    content: bytes, key: BundleKey, *, fleet: str, kind: str, number: int, created: int, expires: int | None = None
) -> bytes:
    """
    Sign a text.

    Raises:
        BundleRefused: it is no UTF-8, or what is said of it could not be read again.
    """
    stated: dict[str, Any] = {
        "format": FORMAT,
        "fleet": fleet,
        "kind": kind,
        "number": number,
        "created": time_text(created),
        "expires": None if expires is None else time_text(expires),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    statement = json.dumps(stated).encode()
    told = {
        "format": FORMAT,
        "statement": statement.decode(),
        "signatures": write_signatures((sign(statement, key),)).decode(),
        "content": _text(content),
    }
    data = json.dumps(told, ensure_ascii=False).encode()
    read_signed_rules(data)
    return data


def read_signed_rules(data: bytes) -> SignedRules:
    """
    Read from anybody: exactly these members, each once, and the text that the statement is about.

    Raises:
        BundleRefused: it is damaged.
    """
    told = _object(data, _MEMBERS, "it")
    texts = [told[name] for name in _MEMBERS]
    if told["format"] != FORMAT or not all(isinstance(text, str) for text in texts):
        raise BundleRefused(f"it has another format than `{FORMAT}`: use a program that knows it")
    _, statement, signatures, content = (_bytes(text) for text in texts)
    stated = _object(statement, _STATED, "its statement")
    if stated["format"] != FORMAT or not isinstance(stated["kind"], str):
        raise BundleRefused("its statement is about something else")
    if stated["sha256"] != hashlib.sha256(content).hexdigest():
        raise BundleRefused("its text is another than was signed")
    number = stated["number"]
    if not isinstance(number, int) or isinstance(number, bool) or not 1 <= number <= MAX_REVISION:
        raise BundleRefused(f"its `number` is none from 1 to {MAX_REVISION}")
    return SignedRules(
        fleet_name(stated["fleet"]),
        stated["kind"],
        number,
        read_time(stated["created"], "created"),
        None if stated["expires"] is None else read_time(stated["expires"], "expires"),
        content,
        statement,
        read_signatures(signatures),
    )


def _object(data: bytes, members: tuple[str, ...], what: str) -> dict[str, Any]:
    try:
        told = read_strict_json(data)
    except ValueError as error:
        raise BundleRefused(f"{what} is not JSON: {error}") from None
    if not isinstance(told, dict) or set(told) != set(members):
        raise BundleRefused(f"{what} does not have exactly the members {', '.join(f'`{name}`' for name in members)}")
    return told


def _bytes(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:  # half a surrogate pair, which JSON can write
        raise BundleRefused("it has a text that cannot be written in UTF-8") from None


def _text(content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise BundleRefused("it is no text in UTF-8") from None
