"""
A request that two sets of policies answer differently as a test case: YAML to paste into a group.

It is offered only after it has passed with the policies as written and failed with the others.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from authz.analysis.offline.request import OfflineRequest, OfflineWorkload
from authz.analysis.sets.asked_workloads import AskedWorkload
from authz.analysis.sets.difference import Change
from authz.analysis.sets.witness import Witness
from authz.analysis.suites.run import PreparedGroup, run_case
from authz.analysis.suites.suite import Case
from authz.core.attributes import Json
from authz.core.decision import Decision
from authz.core.engine import Engine
from authz.tokens.signing import KeyPool, make_keys, make_tokens

_PLAIN = re.compile(r"(?!(?:true|false|yes|no|on|off|null|y|n)$)[A-Za-z/][\w/.-]*", re.ASCII | re.IGNORECASE)
_WRITTEN: tuple[tuple[str, str], ...] = (
    ("protocol", "protocol"),
    ("sourcePrincipal", "source_principal"),
    ("tls", "tls"),
    ("sourceIp", "source_ip"),
    ("destinationIp", "destination_ip"),
    ("destinationPort", "destination_port"),
    ("sni", "sni"),
    ("method", "method"),
    ("host", "host"),
    ("path", "path"),
    ("scheme", "scheme"),
)


@dataclass(frozen=True, slots=True)
class NewCase:
    """A case that tells two sets of policies apart."""

    file: str
    group: str
    """Where to paste it."""
    text: str
    """An element of ``cases``."""
    tokens: str
    """An entry of the group's ``tokens`` that the case needs; empty: none."""
    case: Case
    prepared: PreparedGroup
    """The group, with the token of the case."""

    def notices(self, other: Engine) -> bool:
        """Whether the case fails with other policies."""
        return not run_case(self.file, self.prepared.with_engine(other), self.case).passed


def new_case(
    file: str,
    prepared: PreparedGroup,
    other: Engine,
    asked: AskedWorkload,
    change: Change,
    pool: KeyPool,
    name: str,
) -> NewCase | None:
    """
    Write a case whose answer changes with the ``other`` policies.

    Args:
        pool: the keys of the run, for a token that the case may need.
        name: id of the case, and of its token.

    Returns:
        The case; None where its group cannot say it: it lacks a key for the token, say.
    """
    group, witness = prepared.group, change.witness
    if asked.is_gateway is not group.is_gateway:
        return None
    request = witness.request
    token: Mapping[str, object] | None = None
    if witness.token.place is not None:
        token = _token(prepared, witness)
        if token is None:
            return None
        prepared = replace(
            prepared,
            tokens={**prepared.tokens, **make_tokens({name: token}, make_keys(group.keys, pool), prepared.now)},
        )
        request = _carrying(request, witness.token.place, f"${{TOKEN:{name}}}")
    port = asked.ports[0] if asked.ports else None
    if request.destination_port == port:
        request = replace(request, destination_port=None)
    if request.tls == ("mtls" if request.source_principal else "plaintext"):
        request = replace(request, tls="")
    target = OfflineWorkload(asked.workload, port)
    expect = _expected(change.old, request)
    case = Case(name, group.location, request, target, expect)
    lines = [
        f"- id: {name}",
        f"  workload: {_flow(dict(_workload(target)))}",
        f"  request: {_flow(dict(_request(request, group.request_keys)))}",
        f"  expect: {_flow(expect)}",
    ]
    entry = f"{name}: {_flow(token)}" if token is not None else ""
    found = NewCase(file, group.id, "\n".join(lines), entry, case, prepared)
    return found if found.notices(other) and not found.notices(prepared.engine) else None


def _expected(decision: Decision, request: OfflineRequest) -> dict[str, Json]:
    found: dict[str, Json] = {"decision": "allow" if decision.is_allowed else "deny"}
    if not decision.is_allowed and not request.is_tcp:
        found["status"] = decision.status
    if decision.rule is not None:
        found["by"] = decision.rule.short
    return found


def _token(prepared: PreparedGroup, witness: Witness) -> Mapping[str, object] | None:
    """The description of a token like one of the group's, with the claims of the witness; None: no key for it."""
    for written in prepared.group.tokens.values():
        claims = written.get("claims")
        if "raw" in written or not isinstance(claims, Mapping) or written.get("sign", "normal") != "normal":
            continue
        kept = {name: written[name] for name in ("key", "alg", "kid", "header") if name in written}
        if not witness.token.key:  # nobody signed it
            return {**kept, "claims": dict(claims), "sign": "corrupt"}
        if claims.get("iss") == witness.token.issuer:
            return {**kept, "claims": dict(witness.claims or {})}
    return None


def _carrying(request: OfflineRequest, place: tuple[str, str, str], token: str) -> OfflineRequest:
    """The request with a token at a place: a header, a parameter of the query, or a cookie."""
    kind, name, prefix = place
    if kind == "parameter":
        path = request.path or "/"
        return replace(request, path=f"{path}{'&' if '?' in path else '?'}{name}={token}")
    header = ("cookie", f"{name}={token}") if kind == "cookie" else (name, f"{prefix}{token}")
    return replace(request, headers=(*request.headers, header))


# --- YAML ------------------------------------------------------------------------------------------------------------


def _workload(target: OfflineWorkload) -> Iterator[tuple[str, object]]:
    workload = target.workload
    yield "namespace", workload.namespace
    if workload.labels:
        yield "labels", dict(sorted(workload.labels))
    if workload.service_account:
        yield "serviceAccount", workload.service_account
    if target.port is not None:
        yield "port", target.port


def _request(request: OfflineRequest, shared: tuple[str, ...]) -> Iterator[tuple[str, object]]:
    """What is not the default, and what would else be taken from the group."""
    default = OfflineRequest()
    for name, attribute in _WRITTEN:
        value = getattr(request, attribute)
        if value != getattr(default, attribute) or name in shared:
            yield name, value
    if request.headers or "headers" in shared:
        headers: dict[str, list[str]] = {}
        for name, text in request.headers:
            headers.setdefault(name, []).append(text)
        yield "headers", {name: texts if len(texts) > 1 else texts[0] for name, texts in headers.items()}
    if request.metadata is not None or "metadata" in shared:
        yield "metadata", request.metadata


def _flow(value: object) -> str:
    """YAML on one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_flow(str(name))}: {_flow(member)}" for name, member in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_flow, value)) + "]"
    if isinstance(value, str) and _PLAIN.fullmatch(value):
        return value
    return json.dumps(value, ensure_ascii=True)
