"""
The record of native enforcement on its way from Envoy: access logs whose entries hold what a check's record holds.

One format, two carriers: a JSON line in a file, which is rendered here, or an entry of the gRPC access log service.
Everything is plain data as Envoy reads it. A line has two parts: first what many requests share, so that the
reader reads it once; then what belongs to this request alone, under names that begin with a tilde and so come last in
the alphabet.
INVARIANT: no token, cookie or query reaches a file; a query goes to the gRPC carrier inside the path, where the
receiver takes it out before anything is written.
An entry says of a request what its policies ask for (``core.asked``), so that the engine can decide it again.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from authz.core.asked import CREDENTIALS, Asked
from authz.core.attributes import Json, Workload

Config = dict[str, Json]

DECISION_ID_HEADER = "x-authz-decision-id"
VERSION_STATE = "authz.policy_version"
"""Filter state that tells by which policies a request was decided: ``slots`` sets it."""
ASKED_STATE = "authz.asked"
"""
Filter state with what the policies of a request ask for, one JSON text. ``slots`` sets it, so that a policy that asks
for another header or claim changes filters, and no listener.
"""
WHO = "authz"
"""First key of every line, in the alphabet too: it tells our lines from others, and finds one within a torn line."""
HTTP_RBAC, TCP_RBAC, JWT = "envoy.filters.http.rbac", "envoy.filters.network.rbac", "envoy.filters.http.jwt_authn"
COMMON = "envoy.common"
RATE_LIMIT = "envoy.filters.http.ratelimit"
PAYLOAD, HEADER = "payload", "header"
"""Members of jwt_authn's metadata: ``payload_in_metadata`` as Istio sets it, ``header_in_metadata`` if it is set."""
_TYPE = "type.googleapis.com/envoy."
_FIXED_CLAIMS = (("iss",), ("sub",), ("exp",))
_UNWRITABLE = frozenset(':)%"\\')
"""Characters that cannot stand in the argument of a format command."""
_TEXT = "="
"""
The text before each command that reads dynamic metadata. A value that is one command is written with its type, for
which Envoy 1.40 copies all metadata of the request, the token's payload included: with twenty claims that is 22,000
instructions a field, a tenth of the whole request. Text beside other text takes 1,700.
"""


@dataclass(frozen=True, slots=True)
class Subject:
    """The proxy that logs, and where: the constant parts of every entry."""

    workload: Workload
    proxy: str
    """Name of the proxy, as in the mesh: records are counted by it."""
    listener: str
    """``stat_prefix`` of the connection manager or TCP proxy, so that records can be compared with its counters."""
    is_gateway: bool = False
    asked: Asked | None = field(default_factory=Asked)
    """What the policies ask for, for filters that stand in the listener; None: the filters in its slots tell it."""
    is_limited: bool = False
    """Whether the requests are counted by the service of rate limits, which tells the rule that refused."""
    query_values: tuple[str, ...] = ()
    """Query parameters whose values are recorded (setting ``audit_query_values``); nothing of others is logged."""

    def who(self) -> str:
        """The constant facts as one text, the same in both carriers."""
        told: dict[str, Json] = {
            "proxy": self.proxy,
            "listener": self.listener,
            "namespace": self.workload.namespace,
            "workload": self.workload.name,
            "service_account": self.workload.service_account,
            "labels": dict(sorted(self.workload.labels)),
        }
        if self.is_gateway:
            told["gateway"] = True
        return json.dumps(told, separators=(",", ":"))


def http_file_log(path: str, subject: Subject) -> Config:
    """The access log of an HTTP connection manager into a file, one JSON object a line."""
    return _file(path, {**_shared(subject), **_http_fields(subject)})


def tcp_file_log(path: str, subject: Subject) -> Config:
    """The access log of a TCP proxy; connections that network RBAC closes are in it as well."""
    return _file(path, {**_shared(subject), **_tcp_fields(subject.asked or Asked())})


def denial_replies() -> Config:
    """
    ``local_reply_config``: refusals by jwt_authn, RBAC and ext_authz tell their decision id, which is the request id.

    An upstream's own 401 or 403 is not a local reply and stays as it is. jwt_authn refuses with 401, or 403 for an
    audience; ext_authz with any status and the flag UAEX.
    """
    refused: list[Json] = [
        {
            "status_code_filter": {
                "comparison": {"op": "EQ", "value": {"default_value": status, "runtime_key": f"authz.reply_{status}"}}
            }
        }
        for status in (401, 403)
    ]
    return {
        "mappers": [
            {
                "filter": {"or_filter": {"filters": [*refused, {"response_flag_filter": {"flags": ["UAEX"]}}]}},
                "headers_to_add": [
                    {
                        "header": {"key": DECISION_ID_HEADER, "value": "%REQ(X-REQUEST-ID)%"},
                        "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
                    }
                ],
            }
        ]
    }


def loggable_headers(asked: Asked) -> tuple[str, ...]:
    """Headers that policies ask for and that may be logged: no credentials, and no pseudo headers."""
    return tuple(
        name for name in asked.headers if name not in CREDENTIALS and not name.startswith(":") and "'" not in name
    )


def _file(path: str, fields: Mapping[str, Json]) -> Config:
    return {
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": f"{_TYPE}extensions.access_loggers.file.v3.FileAccessLog",
            "path": path,
            "log_format": {"json_format": dict(fields)},
        },
    }


def _shared(subject: Subject) -> Config:
    return {
        WHO: subject.who().replace("%", "%%"),
        "dns": "%DOWNSTREAM_PEER_DNS_SAN%",
        "local": "%DOWNSTREAM_LOCAL_ADDRESS%",
        "own": "%DOWNSTREAM_LOCAL_URI_SAN%",
        "peer": "%DOWNSTREAM_PEER_URI_SAN%",
        "peer_subject": "%DOWNSTREAM_PEER_SUBJECT%",
        "sni": "%REQUESTED_SERVER_NAME%",
        "~at": "%START_TIME(%s.%6f)% %DURATION% %BYTES_RECEIVED%",
        "~direct": "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS%",
        "~remote": "%DOWNSTREAM_REMOTE_ADDRESS%",
    }


def _metadata(namespace: str, *path: str) -> str:
    """Dynamic metadata as text after an equals sign; ``=-`` where there is none."""
    return f"{_TEXT}%DYNAMIC_METADATA({':'.join((namespace, *path))})%"


def _http_fields(subject: Subject) -> Config:
    asked = subject.asked
    told = _told(asked or Asked())
    facts: Config = {"asked": f"%FILTER_STATE({ASKED_STATE}:PLAIN)%"} if asked is None else facts_asked(asked)
    return {
        **facts,
        **told,
        **({"limit": _metadata(RATE_LIMIT, "rule")} if subject.is_limited else {}),
        "code": "%RESPONSE_CODE%",
        "content_type": "%REQ(CONTENT-TYPE)%",
        "details": "%RESPONSE_CODE_DETAILS%",
        "host": "%REQ(:AUTHORITY)%",
        "method": "%REQ(:METHOD)%",
        "protocol": "%PROTOCOL%",
        "query": {name: f"%QUERY_PARAM({name})%" for name in subject.query_values if not _UNWRITABLE & set(name)},
        "rbac": _results(HTTP_RBAC, asked or Asked()),
        "scheme": "%REQ(:SCHEME)%",
        "user_agent": "%REQ(USER-AGENT)%",
        "version": f"%FILTER_STATE({VERSION_STATE}:PLAIN)%",
        "~id": "%REQ(X-REQUEST-ID)%",
        "~path": "%PATH(NQ:PATH)%",
        "~trace": "%REQ(TRACEPARENT)%",
    }


def facts_asked(asked: Asked, *, tokens: bool = True) -> Config:
    """
    What policies ask for, as the format of a JSON text, in a log or in filter state; empty where they ask for nothing.

    Args:
        tokens: whether jwt_authn has run by then, if it is there at all.
    """
    found: Config = dict(_token(asked.claims)) if asked.tokens and tokens else {}
    if headers := loggable_headers(asked):
        # CEL joins the occurrences of a repeated header; %REQ% would tell the first only.
        found["headers"] = {name: f"%CEL(request.headers['{name}'])%" for name in headers}
    if asked.metadata:
        found["metadata"] = {name: _metadata(name) for name in asked.metadata}
    return found


def _told(asked: Asked) -> Config:
    return {"hint": _metadata(COMMON, "access_log_hint")} if asked.audits else {}


def _tcp_fields(asked: Asked) -> Config:
    return {
        **_told(asked),
        "details": "%CONNECTION_TERMINATION_DETAILS%",
        "metadata": {name: _metadata(name) for name in asked.metadata},
        "rbac": _results(TCP_RBAC, asked),
        "~id": "%STREAM_ID%",
    }


def _results(namespace: str, asked: Asked) -> Config:
    """
    Write what the RBAC filters found, name by name: their whole metadata would cost Envoy more than all other fields.
    """
    names = ["enforced_effective_policy_id", "enforced_engine_result"] if namespace == HTTP_RBAC else []
    for prefix, applies in (
        ("istio_dry_run_allow", asked.dry_run_allow),
        ("istio_dry_run_deny", asked.dry_run_deny),
        ("istio_ext_authz", asked.custom),
    ):
        if applies:
            names += [f"{prefix}_shadow_effective_policy_id", f"{prefix}_shadow_engine_result"]
    return {name: _metadata(namespace, name) for name in names}


def _token(paths: Iterable[tuple[str, ...]]) -> Config:
    return {
        "claims": _claims((*_FIXED_CLAIMS, *paths)),
        "kid": _metadata(JWT, HEADER, "kid"),
    }


def _claims(paths: Iterable[tuple[str, ...]]) -> Json:
    """Only the claims that somebody asks for; the whole payload where a name cannot stand in a format command."""
    first = sorted({path[0] for path in paths})
    if any(_UNWRITABLE & set(name) for name in first):
        return _metadata(JWT, PAYLOAD)
    return {name: _metadata(JWT, PAYLOAD, name) for name in first}
