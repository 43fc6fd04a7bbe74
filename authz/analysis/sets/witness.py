"""
A box made a request: the most natural value of each variable, as one would describe the request to ``authz check``.

Paths, hosts and headers are written into an ``OfflineRequest`` and take the same way from there to a decision as those
of every other offline command.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from authz.analysis.offline.command import check_command
from authz.analysis.offline.request import OfflineRequest, OfflineWorkload, passed_through, to_attributes
from authz.analysis.offline.stubs import stub_answer
from authz.analysis.sets.boxes import Box, Constraint, Several, lowest
from authz.analysis.sets.claim_values import as_claim
from authz.analysis.sets.request_variables import (
    CLAIM,
    DESTINATION_IP,
    HEADER,
    HOST,
    IDENTITY,
    METADATA,
    METHOD,
    PATH,
    PORT,
    PROVIDER,
    REMOTE_IP,
    SNI,
    SOURCE_IP,
    SUBJECT,
    WITHIN,
    Variables,
)
from authz.analysis.sets.situations import Situation
from authz.analysis.sets.token_cases import TokenCase
from authz.core.attributes import (
    AttributeContext,
    Authentication,
    AuthenticationOutcome,
    Json,
    Token,
)
from authz.core.decision import Decision
from authz.core.engine import WorkloadPolicies
from authz.core.pipeline import decide
from authz.core.resources import JwtRule

if TYPE_CHECKING:
    from authz.analysis.sets.model import Model, PolicyPair


@dataclass(frozen=True, slots=True)
class Witness:
    """One request, with its token and the answers of CUSTOM providers."""

    request: OfflineRequest
    claims: Mapping[str, Json] | None
    """Claims of its token; None: it has none."""
    token: TokenCase
    answers: Mapping[str, str]
    size: int
    """How much there is to say about it."""


def witness_of(model: "Model", situation: Situation, box: Box) -> Witness:
    """The most natural request of a box."""
    variables = model.variables
    chosen = {name: _pick(variables, name, box) for name in variables.names}

    def one(name: str) -> str:
        value = chosen[name]
        return value[0] if value else ""

    source = one(SOURCE_IP)
    headers = [
        (name.removeprefix(HEADER), value)
        for name, values in chosen.items()
        if name.startswith(HEADER)
        for value in values
    ]
    is_http = situation.protocol == "http"
    remote = one(REMOTE_IP) if variables.names[REMOTE_IP] in box else source
    if remote != source and is_http:
        trusted = model.pair.new.mesh.num_trusted_proxies if model.pair.is_gateway else 0
        headers.append(("x-forwarded-for", ", ".join([remote, *[source] * trusted])))
    if situation.token.is_preflight:
        headers += [("origin", "https://elsewhere.example"), ("access-control-request-method", "GET")]
    path = chosen[PATH]
    request = OfflineRequest(
        protocol=situation.protocol,
        source_principal=one(IDENTITY),
        tls=situation.tls,
        source_ip=source,
        destination_ip=one(DESTINATION_IP),
        destination_port=int(one(PORT)),
        sni=one(SNI) if SNI in variables.asked or situation.tls == "simple" else "",
        method=one(METHOD),
        host=one(HOST),
        path="*" if not situation.has_path else path[0] if path else None,
        headers=tuple(headers),
        metadata=_metadata(chosen),
    )
    answers = {name.removeprefix(PROVIDER): one(name) for name in chosen if name.startswith(PROVIDER)}
    claims = _claims(situation.token, chosen) if situation.token.place is not None else None
    size = sum(len(variables.names) + len(value) for name in box_names(variables, box) for value in chosen[name])
    return Witness(request, claims, situation.token, answers, size + 40 * len(headers) + 60 * (claims is not None))


def box_names(variables: Variables, box: Box) -> list[str]:
    """The variables that a box constrains."""
    return [name for name, number in variables.names.items() if number in box]


def _pick(variables: Variables, name: str, box: Box) -> tuple[str, ...]:
    """The values of a variable in the witness: none when it is absent."""
    number = variables.names[name]
    values = variables.values[number]
    constraint: Constraint | None = box.get(number)
    if constraint is None:
        if variables.space.is_several[number] or (None in values and name not in (PATH, IDENTITY)):
            return ()
        constraint = variables.space.full[number]
    picked: list[int] = []
    if isinstance(constraint, Several):
        for mask in sorted(constraint.needed, key=int.bit_count):
            if not any(mask >> at & 1 for at in picked):
                picked.append(lowest(mask))
    elif None in values and constraint >> values.index(None) & 1 and name not in (PATH, IDENTITY):
        return ()
    else:
        picked.append(lowest(constraint))
    return tuple(value for at in picked if (value := values[at]) is not None)


def _metadata(chosen: Mapping[str, tuple[str, ...]]) -> dict[str, dict[str, object]] | None:
    found: dict[str, dict[str, object]] = {}
    for name, values in chosen.items():
        if name.startswith(METADATA) and values:
            namespace, _, member = name.removeprefix(f"{METADATA}experimental.").partition("[")
            texts = [value[1:] for value in values]
            found.setdefault(namespace, {})[member[:-1]] = texts[0] if values[0][0] == "=" else texts
    return found or None


def _claims(case: TokenCase, chosen: Mapping[str, tuple[str, ...]]) -> dict[str, Json]:
    claims: dict[str, Json] = {}
    if case.issuer is not None:
        claims["iss"] = case.issuer
    for name, values in chosen.items():
        if name.startswith(CLAIM) and values:
            *parents, last = name.removeprefix(CLAIM).split(WITHIN)
            place = claims
            for parent in parents:
                inner = place.setdefault(parent, {})
                assert isinstance(inner, dict)
                place = inner
            place[last] = values[0] if name == SUBJECT else as_claim(last, list(values))
    return claims


def judge(pair: "PolicyPair", witness: Witness, *, of_old: bool) -> Decision:
    """Decide a witness with the policies of one side, by the engine."""
    policies = pair.old if of_old else pair.new
    attributes = attributes_of(pair, witness, policies)
    result = witness.token.old if of_old else witness.token.new

    def authenticate(attributes: AttributeContext, rules: tuple[JwtRule, ...]) -> Authentication:
        if not attributes.http or not attributes.http.path or result == 0:
            return Authentication()
        if result != 200:
            return Authentication(AuthenticationOutcome.REJECTED, status=result, body="Jwt verification fails")
        return Authentication(AuthenticationOutcome.ACCEPTED, _token(witness))

    return decide(policies, attributes, authenticate, lambda question: stub_answer(witness.answers, question))[1]


def _token(witness: Witness) -> Token:
    claims = witness.claims or {}
    subject = claims.get("sub", "")
    return Token(claims, witness.token.issuer or "", subject if isinstance(subject, str) else "")


def attributes_of(
    pair: "PolicyPair", witness: Witness, policies: WorkloadPolicies, result: int = 0
) -> AttributeContext:
    """The request as the proxy of the workload asks about it; with ``result`` 200 its token was accepted."""
    before = to_attributes(witness.request, OfflineWorkload(policies.workload), policies.mesh, gateway=pair.is_gateway)
    seen = passed_through(witness.request, before, policies)
    if seen.http is None:  # what the proxy does not read says nothing of the client's address
        seen = replace(seen, source=replace(seen.source, remote_ip=seen.source.ip))
    if result == 200 and seen.http is not None and seen.http.path:
        seen = seen.after(Authentication(AuthenticationOutcome.ACCEPTED, _token(witness)))
    return seen


def command_of(pair: "PolicyPair", witness: Witness, policy_paths: Sequence[str], mesh_path: str = "") -> str:
    """The ``authz check`` command that decides the witness with the policies at some paths."""
    policies = replace(pair.new, policies=(*pair.old.policies, *pair.new.policies))
    attributes = to_attributes(
        witness.request, OfflineWorkload(pair.new.workload), pair.new.mesh, gateway=pair.is_gateway
    )
    if witness.claims is not None:
        attributes = attributes.after(Authentication(AuthenticationOutcome.ACCEPTED, _token(witness)))
    text = check_command(
        policies,
        attributes,
        policy_paths=policy_paths,
        mesh_path=mesh_path,
        answers={name: answer for name, answer in witness.answers.items() if answer != "allow"} | _asked(pair, witness),
    )
    for name, value in witness.request.headers:
        if name == "x-forwarded-for" and pair.is_gateway:  # its own peers stand behind the client's address (CS-9)
            text = text.replace(f"x-forwarded-for: {attributes.source.remote_ip}", f"x-forwarded-for: {value}")
    if witness.request.tls == "simple" and " --tls " not in text:
        text += " \\\n  --tls simple"
    return text


def _asked(pair: "PolicyPair", witness: Witness) -> dict[str, str]:
    """Answers of the providers that the new policies may ask."""
    names = {custom.provider.name for custom in pair.new.http.custom if custom.provider is not None}
    return {name: answer for name, answer in witness.answers.items() if name in names}
