"""
A record as the request that it tells of: what it holds becomes attributes, and what it lacks is named.

A field that is null was not delivered at the time (UNKNOWN, CS-8) and would not be delivered again. A field that was
redacted, cut, or is never recorded is *lacking*: the request had a value that nobody can tell any more.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from authz.core.attributes import (
    UNKNOWN,
    AttributeContext,
    Destination,
    HttpRequest,
    Json,
    Source,
    Token,
    Unknown,
    Workload,
)
from authz.core.decided import Record

LONGEST, LONGEST_AGENT, MOST_LABELS = 1024, 256, 64
"""From these sizes on, the record has texts, user agents and labels only in part (``audit.writer``)."""
MAX_PORT = 65_535
OUTSIDE = frozenset({"identity", "internal", "normalization", "rate-limit"})
"""
Stages at which no policy decides: the peer, a failure, a path that Envoy cannot normalise (PN-10), a rate limit.
"""
BEFORE_TOKENS = frozenset({"peer-authentication", "custom"})
"""Stages that refuse before a token is looked at (EV-1)."""
MTLS = "source.mtls"
"""Beside the keys of policies: whether there was an identity at all."""
GATEWAY = "destination.gateway"
"""Whether the proxy is a gateway, to which PeerAuthentication does not apply (PA-14)."""
DescribedWorkloads = Mapping[tuple[str, str], Workload]
"""Workloads of a mesh description by (namespace, name)."""

_IDENTITY_KEYS = ("source.principal", "source.namespace", "source.serviceAccount", "source.trustDomain")
_HEADERS, _CLAIMS = "request.headers[", "request.auth.claims["
_IN_RECORD = ("request.auth.claims[iss]", "request.auth.claims[sub]", "request.auth.principal")
_SURROGATE = re.compile("[\ud800-\udfff]")
MAX_TIME = 40
_PLACEHOLDER = "spiffe://not/recorded"


class RecordedAnswer(NamedTuple):
    """What was decided, or would be: the part that a client or a log sees."""

    effect: str
    """``allow`` or ``deny``."""
    status: int
    """HTTP status of a denial, else 0."""
    stage: str
    rule: str = ""
    """``namespace/policy/index``; empty where no rule decided."""
    place: str = ""
    """``file:line`` of the rule, if known."""

    def __str__(self) -> str:
        """For people, in one line."""
        status = f" {self.status}" if self.status else ""
        by = f"{self.stage.upper()} rule {self.rule}" if self.rule else _WITHOUT_RULE.get(self.stage, self.stage)
        return f"{self.effect}{status}, {by}{f' ({self.place})' if self.place else ''}"


_WITHOUT_RULE = {
    "allow": "no ALLOW rule matched",
    "default": "no ALLOW policy applies",
    "jwt": "token refused",
    "peer-authentication": "no mutual TLS",
}


@dataclass(frozen=True, slots=True)
class RecordedRequest:
    """A request that was decided once. ``attributes`` have placeholders where something is lacking."""

    attributes: AttributeContext
    """Without the token: whether it counts depends on the policies."""
    token: Token | None
    """The token that was accepted, with its claims ``iss`` and ``sub`` only."""
    answer: RecordedAnswer
    version: str
    """Of the policies that decided."""
    provider: str
    """The CUSTOM provider that refused; empty for every other stage."""
    lacking: frozenset[str]
    known_headers: frozenset[str]
    """Headers whose values can be told, lower-case, pseudo headers included."""
    has_labels: bool
    """Whether the labels of the workload are known, which select the policies."""

    def lacks(self, key: str) -> bool:
        """Whether the value of an attribute (a key of ``core.catalog``, or MTLS) cannot be told from the record."""
        if key.startswith(_HEADERS):
            return self.attributes.http is not None and key[len(_HEADERS) : -1] not in self.known_headers
        if key.startswith("experimental."):
            return True
        if key.startswith("request.auth."):
            return self.token is not None and (key not in _IN_RECORD or key in self.lacking)
        return key in self.lacking


def read_recorded(
    record: Record, described: DescribedWorkloads, alike: RecordedRequest | None = None
) -> RecordedRequest | None:
    """
    Read a record as ``audit.query`` finds it; None when it does not tell of a whole decision.

    The labels and the account that ``described`` has for a workload count in place of the record's. ``alike`` is a
    request to the same workload with the same labels, which need not be read again.
    """
    source, destination = record.get("source"), record.get("destination")
    if not isinstance(source, dict) or not isinstance(destination, dict):
        return None
    lacking: set[str] = set()
    if alike is not None:
        workload, has_labels = alike.attributes.destination.workload, alike.has_labels
    else:
        workload, has_labels = _workload(destination, described)
    if not isinstance(destination.get("gateway"), bool):
        lacking.add(GATEWAY)
    http, known_headers = _http(record.get("request"), lacking)
    port, sni = destination.get("port", "***"), record.get("sni", "***")
    known_port = type(port) is int and 0 <= port <= MAX_PORT
    if sni is not None and not is_whole(sni):
        lacking.add("connection.sni")
    if port is not None and not known_port:
        lacking.add("destination.port")
    attributes = AttributeContext(
        _source(source, lacking),
        Destination(
            workload,
            _address(destination, "ip", "destination.ip", lacking),
            port if isinstance(port, int) and known_port else UNKNOWN,
            is_gateway=destination.get("gateway") is True,
        ),
        http,
        sni if isinstance(sni, str) else UNKNOWN,
    )
    name = _text(_member(record.get("rule"), "name"))
    return RecordedRequest(
        attributes,
        _token(record.get("token"), lacking),
        answer_of(record),
        _text(record.get("policy_version")),
        _provider(name) if record.get("stage") == "custom" else "",
        frozenset(lacking),
        known_headers,
        has_labels,
    )


def answer_of(record: Record) -> RecordedAnswer:
    """What the record says was decided."""
    rule, status = record.get("rule"), record.get("status")
    short = place = ""
    if isinstance(rule, dict):
        short = f"{rule.get('namespace')}/{rule.get('policy')}/{rule.get('index')}"
        place = f"{rule['file']}:{rule.get('line')}" if rule.get("file") else ""
    return RecordedAnswer(
        _text(record.get("effect")), status if isinstance(status, int) else 0, _text(record.get("stage")), short, place
    )


def is_whole(value: object) -> bool:
    """Whether a recorded text is that of the request: neither redacted nor cut nor with escaped bytes."""
    return (
        isinstance(value, str)
        and len(value) <= LONGEST
        and value != "***"
        and not value.startswith("hmac:")
        and ("\\" not in value or ("\\x" not in value and "\\ud" not in value))
        and (value.isascii() or not _SURROGATE.search(value))
    )


def moment_of(record: Record) -> str:
    """The time of a record, RFC 3339; empty when there is none that can be printed."""
    time = record.get("time")
    return time if isinstance(time, str) and len(time) <= MAX_TIME and time.isascii() and time.isprintable() else ""


def identity_of(principal: str) -> str:
    """The identity in the certificate: one with a path and without a scheme was a SPIFFE ID (AP-24)."""
    return f"spiffe://{principal}" if "/" in principal and "://" not in principal else principal


def _member(value: Json, name: str) -> Json:
    return value.get(name) if isinstance(value, dict) else None


def _text(value: Json) -> str:
    return value if isinstance(value, str) else ""


def _source(source: dict[str, Json], lacking: set[str]) -> Source:
    principal, is_mtls = source.get("principal"), source.get("mtls")
    identities: tuple[str, ...] = ()
    is_unproven = is_mtls is None and "mtls" in source  # then, too, nobody vouched for a certificate
    if not isinstance(is_mtls, bool) and not is_unproven:
        lacking.update((MTLS, *_IDENTITY_KEYS))
    elif is_mtls and principal and is_whole(principal):
        identities = (identity_of(str(principal)),)
    elif is_mtls:
        identities = (_PLACEHOLDER,)
        lacking.update(_IDENTITY_KEYS)
    ip = _address(source, "ip", "source.ip", lacking)
    return Source(identities, ip, _address(source, "remote_ip", "remote.ip", lacking), is_unproven=is_unproven)


def _address(part: dict[str, Json], name: str, key: str, lacking: set[str]) -> str | Unknown:
    value = part.get(name, "***")
    if value is None:
        return UNKNOWN
    if not is_whole(value):
        lacking.add(key)
        return UNKNOWN
    return str(value)


def _workload(destination: dict[str, Json], described: DescribedWorkloads) -> tuple[Workload, bool]:
    """The workload, and whether its labels are known."""
    name, namespace = _text(destination.get("workload")), _text(destination.get("namespace"))
    found = described.get((namespace, name))
    if found is not None:
        return found, True
    labels, account = destination.get("labels"), _text(destination.get("service_account"))
    pairs = labels.items() if isinstance(labels, dict) else ()
    whole = frozenset((label, str(value)) for label, value in pairs if is_whole(label) and is_whole(value))
    has_labels = isinstance(labels, dict) and len(whole) == len(labels) < MOST_LABELS
    return Workload(namespace, whole, account, name), has_labels


def _http(request: Json, lacking: set[str]) -> tuple[HttpRequest | None, frozenset[str]]:
    """The request with the headers that can be told, and their names."""
    if not isinstance(request, dict):
        return None, frozenset()
    headers: dict[str, tuple[str, ...]] = {}
    values: dict[str, str] = {}
    for name, key, header in (
        ("method", "methods", ":method"),
        ("host", "hosts", ":authority"),
        ("path", "paths", ":path"),
        ("scheme", "", ":scheme"),
    ):
        value = request.get(name)
        values[name] = _text(value)
        whole = is_whole(value)
        if not whole and name == "path" and isinstance(value, str):
            whole = is_whole(values[name].partition("?")[0]) and len(values[name]) <= LONGEST
        if not whole:
            lacking.add(key)
            values[name] = "/" if name == "path" else ""  # what begins with no slash is refused before any rule (RA-9)
        elif name != "path" or "…" not in values[name]:
            headers[header] = (values[name],)
    agent = request.get("user_agent")
    if is_whole(agent) and len(str(agent)) < LONGEST_AGENT:
        headers["user-agent"] = (str(agent),)
    names = frozenset(headers) | ({"host"} if ":authority" in headers else set())
    http = HttpRequest(values["method"], values["host"], values["path"], headers, values["scheme"])
    return http, names


def _token(token: Json, lacking: set[str]) -> Token | None:
    if not isinstance(token, dict):
        return None
    issuer, subject = token.get("issuer"), token.get("subject")
    for value, claim in ((issuer, "iss"), (subject, "sub")):
        if not value or not is_whole(value):  # what is empty may also not have been there
            lacking.update((f"request.auth.claims[{claim}]", "request.auth.principal"))
    claims: dict[str, Json] = {name: v for name, v in (("iss", issuer), ("sub", subject)) if v and is_whole(v)}
    return Token(claims, _text(issuer), _text(subject), rule=_text(token.get("rule")))


def _provider(rule_name: str) -> str:
    """``istio-ext-authz-NAME-ns[…]`` names the provider (AP-92); one that could not be asked at all is none."""
    if rule_name.endswith("-deny-due-to-bad-CUSTOM-action"):
        return ""
    return rule_name.removeprefix("istio-ext-authz-").partition("-ns[")[0]
