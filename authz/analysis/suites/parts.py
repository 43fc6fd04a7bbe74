"""The parts of a group and a case that stand for themselves: keys, tokens, placeholders, expectations."""

import re
from collections.abc import Mapping

from authz.analysis.suites.suite import Upstream
from authz.core.attributes import Json
from authz.core.decision import Stage
from authz.core.resources import PathNormalization
from authz.documents import fields, reading
from authz.documents.reading import Node, Scalar
from authz.documents.schema import Notes

EXPECT_KEYS = (
    *("decision", "status", "stage", "by", "reported", "body", "wwwAuthenticate"),
    *("audit", "dryRunAllow", "dryRunDeny", "upstream", "normalizedPath"),
)
_KEY_KEYS = ("kty", "kid", "alg", "crv")
_TOKEN_KEYS = ("raw", "key", "alg", "kid", "header", "claims", "sign")
_SIGNING = ("normal", "corrupt", "none", "hmac-with-public-key")
_PLACEHOLDER = re.compile(r"\$\{(JWKS|JWKS_URI|TOKEN|PAYLOAD):([^}]*)\}")


def read_normalization(node: Scalar, notes: Notes) -> PathNormalization:
    """DEFAULT is BASE (RE-14)."""
    names = ("DEFAULT", *(member.value for member in PathNormalization))
    name = fields.one_of(node, names, "a path normalisation", notes, "DEFAULT")
    return PathNormalization.BASE if name == "DEFAULT" else PathNormalization(name)


def read_keys(node: Node | None, notes: Notes) -> dict[str, dict[str, object]]:
    """Read ``keys``: descriptions of signing keys by name. Problems go to ``notes``."""
    found: dict[str, dict[str, object]] = {}
    for name, child in fields.named(node, "keys", notes).items():
        given = fields.entries(child, _KEY_KEYS, "a key", notes)
        fields.one_of(given.get("kty"), ("RSA", "EC", "OKP", "oct"), "a key type", notes)
        if fields.text(given.get("kty"), notes) == "EC":
            fields.one_of(given.get("crv"), ("P-256", "P-384", "P-521"), "a curve", notes)
        found[name] = {part: fields.optional_text(value, notes) for part, value in given.items()}
    return found


def read_key_sets(node: Node | None, keys: Mapping[str, object], notes: Notes) -> dict[str, tuple[str, ...]]:
    """Read which keys are found at a ``jwksUri``, or by discovery from an issuer."""
    found: dict[str, tuple[str, ...]] = {}
    for source, child in fields.named(node, "keySets", notes).items():
        names = fields.texts(child, "a list of keys", notes)
        found[source] = tuple(name for name in names if fields.reference(name, keys, child, "key", notes))
    return found


def read_tokens(node: Node | None, keys: Mapping[str, object], notes: Notes) -> dict[str, dict[str, object]]:
    """Read ``tokens``: descriptions of tokens by name, each signed by one of ``keys``. Problems go to ``notes``."""
    found: dict[str, dict[str, object]] = {}
    for name, child in fields.named(node, "tokens", notes).items():
        given = fields.entries(child, _TOKEN_KEYS, "a token", notes)
        token: dict[str, object] = {part: fields.plain(value, notes) for part, value in given.items()}
        if "raw" in given:
            token["raw"] = fields.text(given["raw"], notes)
        elif "key" not in given:
            notes.error(notes.code, child, f"the token `{name}` names no `key`", "or give it `raw`")
        else:
            token["key"] = fields.text(given["key"], notes)
            fields.reference(str(token["key"]), keys, given["key"], "key", notes)
        if "alg" in given:
            token["alg"] = fields.text(given["alg"], notes)
        fields.named(given.get("header"), "header", notes)
        fields.one_of(given.get("sign"), _SIGNING, "a way to sign", notes)
        if "sign" in given:
            token["sign"] = fields.text(given["sign"], notes, "normal")
        _check_times(given.get("claims"), notes)
        found[name] = token
    return found


def _check_times(node: Node | None, notes: Notes) -> None:
    """``{$now: n}`` needs an integer."""
    if isinstance(node, reading.Mapping):
        if set(node.entries) == {"$now"}:
            value = fields.plain(node.entries["$now"], notes)
            if not isinstance(value, int) or isinstance(value, bool):
                notes.error(notes.code, node.entries["$now"], "`$now` takes a whole number of seconds")
            return
        for child in node.entries.values():
            _check_times(child, notes)
    elif isinstance(node, reading.Sequence):
        for child in node.items:
            _check_times(child, notes)


def check_placeholders(node: Node | None, known: Mapping[str, Mapping[str, object]], notes: Notes) -> None:
    """Every ``${KIND:name}`` in a text must name something of the group."""
    if isinstance(node, reading.Mapping):
        for child in node.entries.values():
            check_placeholders(child, known, notes)
    elif isinstance(node, reading.Sequence):
        for child in node.items:
            check_placeholders(child, known, notes)
    elif node is not None and "${" in node.value:
        for kind, names in _PLACEHOLDER.findall(node.value):
            if kind in known:
                listed = names.split(",") if kind.startswith("JWKS") else [names]
                what = "key" if kind.startswith("JWKS") else "token"
                for name in listed:
                    fields.reference(name.strip(), known[kind], node, what, notes)


def read_expect(node: Node | None, notes: Notes) -> tuple[dict[str, Json], Upstream | None]:
    """Read ``expect``: expected values by field, and what the upstream must see. Problems go to ``notes``."""
    given = fields.entries(node, EXPECT_KEYS, "expect", notes)
    expect: dict[str, Json] = {}
    upstream = None
    for name, child in given.items():
        if name == "decision":
            expect[name] = fields.one_of(child, ("allow", "deny"), "a decision", notes)
        elif name == "stage":
            expect[name] = fields.one_of(child, [stage.value for stage in Stage], "a stage", notes)
        elif name == "status":
            expect[name] = fields.number(child, notes, most=999)
        elif name == "audit":
            expect[name] = fields.boolean(child, notes)
        elif name in ("dryRunAllow", "dryRunDeny"):
            expect[name] = _read_dry_run(child, notes)
        elif name == "upstream":
            get = fields.entries(child, ("present", "absent"), "upstream", notes).get
            present = fields.named(get("present"), "present", notes)
            upstream = Upstream(
                {header.lower(): fields.text(value, notes) for header, value in present.items()},
                tuple(header.lower() for header in fields.texts(get("absent"), "absent", notes)),
            )
        else:
            expect[name] = fields.optional_text(child, notes)
    return expect, upstream


def _read_dry_run(node: Node, notes: Notes) -> Json:
    if node.is_null:
        return None
    given = fields.entries(node, ("result", "by"), "a dry-run result", notes)
    found: dict[str, Json] = {}
    if "result" in given:
        found["result"] = fields.one_of(given["result"], ("allowed", "denied"), "a dry-run result", notes)
    if "by" in given:
        found["by"] = fields.optional_text(given["by"], notes)
    return found
