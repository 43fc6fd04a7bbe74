"""
Writes a decision as one JSON line: the one place that knows the members of a record and their order.

Each function here writes whole members or the parts between them; ``tests/audit/plain_record.py`` builds the same
record as plain objects and is compared with what is written.
"""

import json
import re
from json.encoder import encode_basestring_ascii

from authz.audit.remembered_text import MAX_REMEMBERED, MAX_WEIGHT, RememberedText, weight
from authz.audit.request_fields import DEFAULT_OPTIONS, ESCAPED, MAX_TEXT, NEVER_KEPT, RecordOptions, clean, rfc3339
from authz.core.attributes import (
    Authentication,
    Destination,
    HttpRequest,
    Json,
    Source,
    Token,
    Unknown,
)
from authz.core.decided import NO_TRACE, CandidateAnswer, CandidateResult, Offer, Record, TraceIds
from authz.core.decision import Decision, RuleReference, would_be
from authz.core.errors import NOWHERE
from authz.core.explain import HIDDEN, PredicateNote, RuleNote

_QUERY_NAME = re.compile(r"[A-Za-z0-9_.\[\]-]{1,48}")
_LITERALS: dict[bool | None, str] = {None: "null", True: "true", False: "false"}
_MAX_WORD = 256
_MAX_FORM = 1024
_MAX_FAILED = 4
_MAX_VALUES = 8
_MAX_LABELS = 64


class RecordWriter:
    """
    Writes decisions as JSON lines.

    It writes text and builds no dictionary, because this runs for every decision: what several decisions share (peers,
    rule, token, the decision itself) is written once and remembered by identity, what requests share by value. Used by
    one thread at a time.
    """

    def __init__(self, options: RecordOptions = DEFAULT_OPTIONS) -> None:
        self._options = options
        self._source = RememberedText(_source)
        self._destination = RememberedText(_destination)
        self._decided = RememberedText(_decided)
        self._judged = RememberedText(_judged)
        self._token = RememberedText(_token)
        self._kinds: dict[tuple[object, ...], _Kind] = {}
        self._forms: dict[tuple[str | None, ...], tuple[str, str, str]] = {}
        self._paths = _Paths(options.query_values)
        self._second = ""
        self._time = ""

    def write(self, offer: Offer, trace: TraceIds = NO_TRACE, nearest: RuleNote | None = None) -> str:
        """
        Write the record of one decision, ASCII without a newline.

        Args:
            offer: what the check path handed over.
            trace: our own span, or the parent's when none was sampled.
            nearest: for a denial because no ALLOW rule matched, the rule that came closest.
        """
        attributes, decision, decision_id, started_at, duration_seconds, cache_hit, _, candidate = offer
        http, token, sni = attributes.http, attributes.authentication.token, attributes.sni
        kind = self._kinds.get(
            (id(decision), id(attributes.source), id(attributes.destination), id(token), cache_hit, sni)
        )  # the references that a kind keeps make the ids unique
        if kind is None:
            kind = self._kind(offer)
        _, head, middle, tail = kind
        request, request_id = "null", None
        if http is not None:
            request_id = http.headers.get("x-request-id")
            request = self._request(http, attributes.authentication)
        at = f"{started_at:.6f}"
        if at[:-7] != self._second:  # thousands of decisions share a second
            self._second, self._time = at[:-7], rfc3339(int(at[:-7]))[:-8]
        return (
            f'{{"decision_id":{_quote(decision_id)},"time":"{self._time}{at[-7:]}Z",'
            f"{head}{json.dumps(_nearest(nearest)) if nearest is not None else 'null'}"
            f"{middle}{request}{tail}{trace.trace_id}"
            f'","span_id":"{trace.span_id}",'
            f'"x_request_id":{_quote(request_id[0][:128]) if request_id else "null"},'
            f'"duration_us":{duration_seconds * 1e6:.1f}{_candidate(candidate) if candidate is not None else ""}}}'
        )

    def _kind(self, offer: Offer) -> "_Kind":
        """The text before and after the three parts that belong to this decision alone: nearest, request, trace."""
        attributes, decision, cache_hit = offer.attributes, offer.decision, offer.cache_hit
        source, destination, sni = attributes.source, attributes.destination, attributes.sni
        token = attributes.authentication.token
        is_kept = weight(source, destination, token) <= MAX_WEIGHT
        written = self._token(token, is_kept) + _LITERALS[cache_hit] + "}" if token is not None else "null"
        kind = (
            (decision, source, destination, token),
            f'{self._decided(decision)}"nearest":',
            f',"source":{self._source(source, is_kept)},"destination":{self._destination(destination, is_kept)},'
            '"request":',
            f',"sni":{_quote(sni) if isinstance(sni, str) else "null"},"token":{written},'
            f'{self._judged(decision)}"trace_id":"',
        )
        if is_kept and (not isinstance(sni, str) or len(sni) <= _MAX_WORD):
            if len(self._kinds) >= MAX_REMEMBERED:
                self._kinds.clear()
            self._kinds[id(decision), id(source), id(destination), id(token), cache_hit, sni] = kind
        return kind

    def _request(self, http: HttpRequest, authentication: Authentication) -> str:
        agent = http.headers.get("user-agent") if self._options.user_agent else None
        form = (http.method, http.host, http.scheme, http.protocol, agent[0] if agent else None)
        parts = self._forms.get(form)
        if parts is None:
            parts = self._form(http, form[4])
        taken = authentication.query_parameters_to_remove
        path = self._paths[http.path] if not taken else _quote(_path(http.path, taken, self._options.query_values))
        return f'{parts[0]}{path}{parts[1]}{_quote(http.id)},"size":{http.size}{parts[2]}'

    def _form(self, http: HttpRequest, agent: str | None) -> tuple[str, str, str]:
        """The request but for path, id and size."""
        parts = (
            f'{{"method":{_quote(http.method)},"host":{_quote(http.host)},"path":',
            f',"scheme":{_quote(http.scheme)},"protocol":{_quote(http.protocol)},"id":',
            f',"user_agent":{_quote(agent[:256]) if agent is not None else "null"}}}',
        )
        sizes = map(len, (http.method, http.host, http.scheme, http.protocol, agent or ""))
        if sum(sizes) <= _MAX_FORM:  # what a client sends has no bound of its own
            if len(self._forms) >= MAX_REMEMBERED:
                self._forms.clear()
            self._forms[http.method, http.host, http.scheme, http.protocol, agent] = parts
        return parts


def build_record(
    offer: Offer,
    trace: TraceIds = NO_TRACE,
    options: RecordOptions = DEFAULT_OPTIONS,
    nearest: RuleNote | None = None,
) -> Record:
    """Build the record of one decision as an object, for callers that do not write lines."""
    record: Record = json.loads(RecordWriter(options).write(offer, trace, nearest))
    return record


_Kind = tuple[tuple[object, ...], str, str, str]
"""The nouns that some decisions share, kept alive, and the three texts that their records have in common."""


class _Paths(dict[str, str]):
    """Paths as they are recorded, quoted; long ones are written each time."""

    def __init__(self, kept: frozenset[str]) -> None:
        super().__init__()
        self._kept = kept

    def __missing__(self, path: str) -> str:
        quoted = _quote(_path(path, (), self._kept))
        if len(path) <= _MAX_WORD:
            if len(self) >= MAX_REMEMBERED:
                self.clear()
            self[path] = quoted
        return quoted


def _quote(text: str) -> str:
    return encode_basestring_ascii(text if len(text) <= MAX_TEXT and text.isascii() else clean(text))


def _address(address: str | Unknown) -> str:
    return _quote(address) if isinstance(address, str) else "null"


def _source(source: Source) -> str:
    return (
        f'{{"principal":{_quote(source.principal)},"ip":{_address(source.ip)},'
        f'"remote_ip":{_address(source.remote_ip)},"port":{source.port or "null"},'
        f'"mtls":{_LITERALS[None if source.is_unproven else bool(source.identities)]}}}'
    )


def _destination(destination: Destination) -> str:
    workload = destination.workload
    labels = ",".join(f"{_quote(name)}:{_quote(value)}" for name, value in sorted(workload.labels)[:_MAX_LABELS])
    return (
        f'{{"workload":{_quote(workload.name)},"namespace":{_quote(workload.namespace)},"labels":{{{labels}}},'
        f'"service_account":{_quote(workload.service_account)},'
        f'"principal":{_quote(destination.principal.removeprefix("spiffe://"))},"ip":{_address(destination.ip)},'
        f'"port":{"null" if isinstance(destination.port, Unknown) else destination.port},'
        f'"gateway":{_LITERALS[destination.is_gateway]}}}'
    )


def _decided(decision: Decision) -> str:
    """The members that say what was decided, as they follow the time."""
    return (
        f'"effect":"{decision.effect.value}","stage":"{decision.stage.value}",'
        f'"reason":{_quote(decision.reason)},"status":{decision.status or "null"},"rule":{_rule(decision.rule)},'
    )


def _judged(decision: Decision) -> str:
    """The members that say what AUDIT and dry-run policies found, as they follow the token."""
    would_deny, by = would_be(decision)
    return (
        f'"audit":{_LITERALS[decision.audit]},"audit_rule":{_rule(decision.audit_rule)},'
        f'"would_deny":{_LITERALS[would_deny]},"by":{_quote(by) if by is not None else "null"},'
        f'"policy_version":{_quote(decision.policy_version)},'
    )


def _candidate(candidate: CandidateAnswer) -> str:
    result = candidate.result
    more = ""
    if result is CandidateResult.OTHER_STATUS:
        more = f'"candidate_status":{candidate.status},'
    elif result is not CandidateResult.OTHER_RULE:
        more = f'"candidate_effect":"{candidate.effect.value}",'
    return f',"candidate_result":"{result.value}",{more}"candidate_rule":{_rule(candidate.rule)}'


def _rule(rule: RuleReference | None) -> str:
    if rule is None:
        return "null"
    known = rule.location is not NOWHERE
    return (
        f'{{"name":{_quote(rule.name)},"namespace":{_quote(rule.namespace)},"policy":{_quote(rule.policy)},'
        f'"index":{rule.index},"file":{_quote(rule.location.file) if known else "null"},'
        f'"line":{rule.location.line if known else "null"}}}'
    )


def _token(token: Token) -> str:
    """All but the last value, which says whether the token was cached."""
    introspected = '"introspected":true,' if token.is_introspected else ""
    return (
        f'{{"issuer":{_quote(token.issuer)},"subject":{_quote(token.subject)},"key_id":{_quote(token.key_id)},'
        f'"digest":{_quote(token.digest)},"expires_at":{_expiry(token.expires_at)},"rule":{_quote(token.rule)},'
        f'{introspected}"cached":'
    )


def _nearest(note: RuleNote) -> Json:
    """The rule that came closest and what failed in it: the answer to "why not?"."""
    return {
        "rule": note.reference.short,
        "file": note.reference.location.file if note.reference.location is not NOWHERE else None,
        "line": note.reference.location.line or None,
        "failed": [_failed(failed) for failed in note.failed[:_MAX_FAILED]],
    }


def _failed(note: PredicateNote) -> Json:
    """A header value is never recorded: any header may carry a credential of somebody's own making."""
    actual: Json = None
    if note.actual is not None:
        is_hidden = note.key.startswith("request.headers[")
        actual = [HIDDEN if is_hidden else clean(value) for value in note.actual[:_MAX_VALUES]]
    return {
        "field": note.path,
        "key": note.key,
        "expected": [clean(value) for value in note.expected[:_MAX_VALUES]],
        "excluded": [clean(value) for value in note.excluded[:_MAX_VALUES]],
        "actual": actual,
        "note": clean(note.note) or None,
    }


def _path(path: str, taken: tuple[str, ...], kept: frozenset[str]) -> str:
    path, mark, query = path.partition("?")
    path = path.partition("#")[0]
    return f"{path}?{_query(query, taken, kept)}" if mark else path


def _query(query: str, taken: tuple[str, ...], kept: frozenset[str]) -> str:
    """Names without values, ``page=…``; a piece that is not a plain name could itself be a secret and becomes ``…``."""
    pieces = []
    for piece in query.partition("#")[0].split("&", 32)[:32]:
        name, equals, value = piece.partition("=")
        if not equals or not _QUERY_NAME.fullmatch(name):
            pieces.append(ESCAPED)
        elif name in kept and name.lower() not in NEVER_KEPT and name not in taken:
            pieces.append(f"{name}={value[:128]}")
        else:
            pieces.append(f"{name}={ESCAPED}")
    return "&".join(pieces)


def _expiry(expires_at: float | None) -> str:
    """An ``exp`` beyond the calendar is legal in a token; it is recorded as its number, as text."""
    if expires_at is None:
        return "null"
    try:
        return f'"{rfc3339(expires_at)}"'
    except (ValueError, OverflowError, OSError):
        return f'"{expires_at:g}"'
