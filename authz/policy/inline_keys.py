"""
Inline key sets (``jwks``) as Istio's webhook takes them (VA-37), which is stricter than Envoy with what it fetches.

The webhook reads them with github.com/lestrrat-go/jwx 1.2.31: every key has a type it knows, its members are text where
text belongs, and key material is base64 with either alphabet. It learns a key's type, and whether the key is private,
from Go's JSON, for which `KTY` is `kty` as well. Certificates in ``x5c`` are looked at only
as far as their length goes: whether they really are certificates is not decided here.
"""

import base64
import binascii
import json
import re
from collections.abc import Iterator
from typing import Any

from authz.core.errors import Severity
from authz.documents.schema import Fault

_TEXTS = ("kty", "alg", "kid", "use", "x5t", "x5t#S256")
_MATERIAL = {"RSA": ("n", "e"), "EC": ("x", "y"), "OKP": ("x",), "oct": ("k",)}
"""Members that hold bytes, by type; all of them are required."""
_PRIVATE = {"RSA": ("d", "p", "q", "dp", "dq", "qi"), "EC": ("d",), "OKP": ("d",), "oct": ()}
"""Bytes too, in a key that has `d`."""
_CURVED = ("EC", "OKP")
_PUBLIC_MEMBERS = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x"), "oct": ("k",)}
_BASE64 = re.compile(r"[A-Za-z0-9+/]*|[A-Za-z0-9_-]*")

Pairs = list[tuple[str, Any]]
"""The members of a JSON object in order, repeated names included: each one is looked at."""


class _Object(Pairs):
    def get(self, name: str, default: Any = None) -> Any:
        return next((value for key, value in reversed(self) if key == name), default)

    def has(self, name: str) -> bool:
        return any(key == name for key, _ in self)


def inline_keys(value: str) -> Fault | None:
    """Check an inline key set (VA-37, VA-39, RA-37). No message repeats a key, which may be private."""
    if not value:
        return None
    try:
        parsed = _DECODER.decode(value)
    except (ValueError, RecursionError):
        return Fault("VA-37", "the inline key set is not JSON", 'expected `{"keys": [...]}`')
    keys = _keys(parsed)
    if keys is None:
        return Fault("VA-37", "the inline key set is not a JWK set", 'expected `{"keys": [...]}`')
    for place, key in keys:
        fault = _key_fault(place, key)
        if fault is not None:
            return fault
    if not parsed.has("keys"):
        message = "a single key without `keys`, which Istio takes and Envoy refuses: tokens of this rule are refused"
        return Fault("RA-39", message, 'put it into a set: `{"keys": [...]}`', Severity.WARNING)
    return _lint([key for _, key in keys])


def _no_constant(name: str) -> None:
    raise ValueError(f"`{name}` is not JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_Object, parse_constant=_no_constant)
"""One for all: a decoder is a reference cycle, which a reload must not leave behind."""


def _keys(parsed: object) -> list[tuple[str, Any]] | None:
    """Every key of a set, or a single key, with its place; None for what is neither."""
    if not isinstance(parsed, _Object):
        return None
    if not parsed.has("keys"):
        return [("the key", parsed)] if parsed.has("kty") else None
    found: list[tuple[str, Any]] = []
    for name, listed in parsed:
        if name == "keys":
            if isinstance(listed, _Object) or not isinstance(listed, list | None):
                return None
            found += [(f"keys[{index}]", key) for index, key in enumerate(listed or [])]
    return found


def _key_fault(place: str, key: object) -> Fault | None:
    if not isinstance(key, _Object):
        return Fault("VA-37", f"{place} of the inline key set is not an object")
    kind = key.get("kty")
    if kind not in tuple(_MATERIAL):
        held = f"the `kty` `{kind}`" if isinstance(kind, str) and len(kind) <= 20 else "an unknown `kty`"
        what = f"{place} of the inline key set has {held}" if key.has("kty") else f"{place} has no `kty`"
        return Fault("VA-37", f"{what}, which Istio refuses", f"expected one of {', '.join(_MATERIAL)}")
    for problem in _member_problems(kind, key):
        return Fault("VA-37", f"{place} of the inline key set: {problem}, which Istio refuses", _ADVICE)
    return None


_ADVICE = "correct or remove the member; a set at a `jwksUri` is read less strictly"


def _member_problems(kind: str, key: _Object) -> Iterator[str]:
    material = _MATERIAL[kind] + (_PRIVATE[kind] if key.has("d") else ())
    for name, value in key:
        if name == "kty" and value != kind:
            yield "`kty` is given twice"
        elif name.lower() == "kty" and value not in (kind, None):
            yield f"`{name}` is read as `kty`"
        elif name.lower() == "d" and _PRIVATE[kind] and not key.has("d"):
            yield f"`{name}` is read as `d`, so `d` is missing"
        elif name in _TEXTS or (name == "crv" and kind in _CURVED):
            if not isinstance(value, str | None):
                yield f"`{name}` is not a string"
        elif name in material:
            if not isinstance(value, str | None):
                yield f"`{name}` is not a string"
            elif not _is_base64(value or ""):
                yield f"`{name}` is not base64"
        elif name in ("key_ops", "x5c"):
            if not _is_list_of_texts(value):
                yield f"`{name}` is not a list of strings"
            elif name == "x5c" and not all(_may_be_certificate(item or "") for item in value or []):
                yield "`x5c` holds something that is not a certificate"
    for name in (*_MATERIAL[kind], *(("crv",) if kind in _CURVED else ())):
        if not key.has(name):
            yield f"`{name}` is missing"


def _is_list_of_texts(value: object) -> bool:
    if value is None:
        return True
    return isinstance(value, list) and not isinstance(value, _Object) and all(isinstance(v, str | None) for v in value)


def _is_base64(value: str) -> bool:
    """Guess the encoding as jwx does: padded if it ends with `=`, URL-safe if it has neither `+` nor `/`."""
    value = value.replace("\r", "").replace("\n", "")
    body = value.rstrip("=")
    padding = len(value) - len(body)
    if not _BASE64.fullmatch(body) or len(body) % 4 == 1:
        return False
    return padding == 0 or (padding <= 2 and len(value) % 4 == 0)


def _may_be_certificate(value: str) -> bool:
    """Whether this is the base64 of one DER sequence that is as long as it says."""
    try:
        der = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return False
    if len(der) < 2 or der[0] != 0x30:
        return False
    if der[1] < 0x80:
        return len(der) == 2 + der[1]
    size = der[1] & 0x7F
    return len(der) == 2 + size + int.from_bytes(der[2 : 2 + size], "big")


def _lint(keys: list[_Object]) -> Fault | None:
    if any(key.get("kty") == "oct" or key.has("d") for key in keys):
        return Fault("VA-39", "the inline key set holds a private or symmetric key: whoever reads the policy can sign",
                     "publish the public key only", Severity.WARNING)  # fmt: skip
    if not any(all(isinstance(key.get(m), str) for m in _PUBLIC_MEMBERS[key.get("kty")]) for key in keys):
        return Fault("RA-37", "the inline key set has no usable key: every token of this rule will be refused",
                     "give an RSA, EC or Ed25519 key", Severity.WARNING)  # fmt: skip
    return None
