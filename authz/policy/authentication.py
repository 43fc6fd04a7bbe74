"""RequestAuthentication and PeerAuthentication as written: their tables of fields and checks."""

import re
from dataclasses import replace
from typing import Any

from authz.core.resources import (
    ClaimToHeader,
    JwtHeader,
    JwtRule,
    Metadata,
    MtlsMode,
    PeerAuthentication,
    Presence,
    RequestAuthentication,
)
from authz.documents import reading
from authz.documents.decoders import boolean, choice, objects, read_text, text, text_or_letter, texts
from authz.documents.reading import Node
from authz.documents.schema import Fault, Field, Notes, Shape, describe, elements, filled, given, key_of, text_of
from authz.policy import jwt_values, value_checks
from authz.policy.inline_keys import inline_keys
from authz.policy.targets import SELECTOR, TARGET_FIELDS, check_target, no_dry_run, target

MAX_JWT_RULES = 4096
MAX_SPACE_DELIMITED = 64
MAX_PORT = 65535
_PORT = re.compile(r"0|[1-9][0-9]{0,9}")
_not_empty = value_checks.not_empty("VA-38")


# --- jwt rules -------------------------------------------------------------------------------------------------------


def _required(code: str, what: str, *names: str) -> Any:
    """The named fields are present and not empty."""

    def check(node: reading.Mapping, notes: Notes) -> None:
        for name in names:
            member = given(node, name)
            if member is None or text_of(member) == "":
                notes.error(code, member or node, f"{what} without `{name}`")

    return check


def _issuer(value: str) -> Fault | None:
    """Refuse an empty issuer (VA-34)."""
    return None if value else Fault("VA-34", "the issuer is empty", "remove it to accept any issuer of the key set")


def _check_jwt_rule(node: reading.Mapping, notes: Notes) -> None:
    keys = [name for name in ("jwks", "jwksUri", "jwks_uri") if given(node, name) is not None]
    if given(node, "issuer") is None and not {"jwksUri", "jwks_uri"} & set(keys):
        notes.error("VA-33", node, "a jwt rule needs an `issuer` or a `jwksUri`")
    if len(keys) > 1:
        message = f"`{keys[0]}` and `{keys[1]}` are both given, only one is allowed"
        notes.error("VA-36", key_of(node, keys[1]), message, "keep the one that holds the current keys")
    headers: dict[str, int] = {}
    for index, entry in enumerate(elements(given(node, "outputClaimToHeaders"))):
        header = text_of(given(entry, "header")) if isinstance(entry, reading.Mapping) else None
        if header and headers.setdefault(header.lower(), index) != index:
            before = headers[header.lower()]
            message = f"the header `{header}` is also written by outputClaimToHeaders[{before}]"
            notes.warn("VA-49", entry, message, "one of the two claims is lost")


def _seconds(node: Node, notes: Notes) -> float:
    """Read a timeout in seconds; five where there is none or it is wrong (VA-41)."""
    value = read_text(node, notes)
    if text_of(node) is None:
        return 5.0
    fault = jwt_values.duration(value)
    if fault is not None:
        notes.fault(node, fault)
        return 5.0
    return float(jwt_values.parse_duration(value) or 5)


_FROM_HEADER: Shape[JwtHeader] = Shape(
    "a header location",
    {"name": Field("name", read_text), "prefix": Field("prefix", read_text)},
    lambda name="", prefix="": JwtHeader(name, prefix),
    _required("VA-38", "a header location", "name"),
)
_CLAIM_TO_HEADER: Shape[ClaimToHeader] = Shape(
    "an entry of `outputClaimToHeaders`",
    {
        "header": Field("header", text(lambda value: jwt_values.header_name(value) if value else None)),
        "claim": Field("claim", text_or_letter()),
    },
    lambda header="", claim="": ClaimToHeader(header, claim),
    _required("VA-40", "an entry of `outputClaimToHeaders`", "header", "claim"),
)
_JWT_RULE: Shape[JwtRule] = Shape(
    "a jwt rule",
    {
        "issuer": Field("issuer", text(_issuer)),
        "audiences": Field("audiences", texts(_not_empty)),
        "jwks": Field("jwks", text(inline_keys)),
        "jwksUri": Field("jwks_uri", text(jwt_values.jwks_uri)),
        "jwks_uri": Field("jwks_uri", text(jwt_values.jwks_uri)),
        "fromHeaders": Field("from_headers", objects(_FROM_HEADER, null_code="VA-38")),
        "fromParams": Field("from_params", texts(_not_empty)),
        "fromCookies": Field("from_cookies", texts(_not_empty)),
        "forwardOriginalToken": Field("forward_original_token", boolean),
        "outputPayloadToHeader": Field(
            "output_payload_to_header", text(lambda value: jwt_values.header_name(value) if value else None)
        ),
        "outputClaimToHeaders": Field("output_claim_to_headers", objects(_CLAIM_TO_HEADER, null_code="VA-40")),
        "spaceDelimitedClaims": Field(
            "space_delimited_claims", texts(_not_empty, most=MAX_SPACE_DELIMITED, most_code="VA-38")
        ),
        "timeout": Field("timeout_seconds", _seconds),
        "presence": Field("presence", choice(Presence, "a presence", "RE-10", Presence.REQUIRED)),
    },
    JwtRule,
    _check_jwt_rule,
    is_located=True,
)


def _spec(**decoded: Any) -> dict[str, Any]:
    return decoded


REQUEST_SPEC: Shape[dict[str, Any]] = Shape(
    "a spec",
    {**TARGET_FIELDS, "jwtRules": Field("jwt_rules", objects(_JWT_RULE, most=MAX_JWT_RULES, most_code="VA-38"))},
    _spec,
    check_target,
)


def build_request_authentication(
    root: reading.Mapping, metadata: Metadata, spec: dict[str, Any], notes: Notes
) -> RequestAuthentication:
    """Put the decoded parts together."""
    no_dry_run(root, notes)
    rules = spec.pop("jwt_rules", ())
    if "target_ref" in spec or "target_refs" in spec:
        notes.info("RE-16", root, "target references are for gateways; no sidecar obeys this object")
    named = tuple(_named(rule, f"{metadata.namespace}/{metadata.name}/{index}") for index, rule in enumerate(rules))
    return RequestAuthentication(metadata, target(**spec), named)


def _named(rule: JwtRule, name: str) -> JwtRule:
    return replace(rule, name=name)


# --- peer authentication ---------------------------------------------------------------------------------------------


_MTLS: Shape[MtlsMode] = Shape(
    "a mutual TLS setting",
    {"mode": Field("mode", choice(MtlsMode, "a mode", "VA-45", MtlsMode.STRICT))},
    lambda mode=MtlsMode.UNSET: mode,
)


def _port_modes(node: Node, notes: Notes) -> dict[int, MtlsMode]:
    """Read modes by port (VA-43, VA-44); a port may be written as a number or as a string (RE-10)."""
    if not isinstance(node, reading.Mapping):
        notes.error("RE-10", node, f"expected a mapping of ports to modes, got {describe(node)}")
        return {}
    if not node.keys:
        notes.error("VA-43", node, "`portLevelMtls` is given without a port", "remove it or name a port")
    modes = {}
    for key in node.keys:
        if not _PORT.fullmatch(key.value) or not 1 <= int(key.value) <= MAX_PORT:
            notes.error("VA-44", key, f"`{key.value}` is not a workload port", f"expected 1 to {MAX_PORT}")
        else:
            modes[int(key.value)] = _MTLS.decode(node.entries[key.value], notes)
    return modes


def _check_peer(node: reading.Mapping, notes: Notes) -> None:
    """Refuse modes of ports without a selector (VA-42)."""
    ports = given(node, "portLevelMtls")
    if isinstance(ports, reading.Mapping) and ports.keys:
        selector = given(node, "selector")
        labels = given(selector, "matchLabels") if isinstance(selector, reading.Mapping) else None
        if not filled(labels):
            message = "`portLevelMtls` needs a selector with at least one label"
            notes.error("VA-42", key_of(node, "portLevelMtls"), message, "say which workloads' ports are meant")


PEER_SPEC: Shape[dict[str, Any]] = Shape(
    "a spec",
    {
        "selector": Field("match_labels", SELECTOR.decode),
        "mtls": Field("mode", _MTLS.decode),
        "portLevelMtls": Field("port_level_mtls", _port_modes),
    },
    _spec,
    _check_peer,
)


def build_peer_authentication(
    root: reading.Mapping, metadata: Metadata, spec: dict[str, Any], notes: Notes
) -> PeerAuthentication:
    """Put the decoded parts together."""
    no_dry_run(root, notes)
    return PeerAuthentication(metadata, **spec)
