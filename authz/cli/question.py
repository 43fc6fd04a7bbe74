"""
One offline request from options and a file: the common part of ``authz check`` and ``authz explain``.

Options win over the file. The evaluation is the service's own; what it would have to fetch or ask must be given, and
without it there is no answer.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import click

from authz.analysis.offline.request import (
    REQUEST_KEYS,
    SUITE,
    OfflineRequest,
    OfflineWorkload,
    passed_through,
    read_request,
    read_workload,
    to_attributes,
)
from authz.analysis.offline.stubs import stub_answer
from authz.cli import policy_files
from authz.cli.slips import check_flags, check_request, check_token, identity
from authz.cli.token_stage import Credentials, Unanswered
from authz.cli.traffic_option import check_traffic
from authz.core.attributes import AttributeContext, Workload
from authz.core.engine import Engine, WorkloadPolicies
from authz.core.errors import LoadError, Problem
from authz.core.explain import Explanation, explain
from authz.core.providers import ProviderAnswer, ProviderQuestion
from authz.documents import fields
from authz.documents.reading import Mapping as YamlMapping
from authz.documents.reading import Node, read_documents
from authz.documents.schema import Notes, nearest

if TYPE_CHECKING:
    from authz.mesh.nouns import MeshWorkload

_FILE_KEYS = ("workload", "request", "customStub", "clientAddress")
_ANSWERS = ("allow", "deny", "error")


@dataclass(frozen=True, slots=True)
class Explained:
    """The answer to a question."""

    explanation: Explanation
    before: AttributeContext
    policies: WorkloadPolicies
    engine: Engine
    problems: tuple[Problem, ...]
    """Warnings and remarks of all that was read."""


def ask(options: Mapping[str, Any], *, every_rule: bool = True, arriving: OfflineRequest | None = None) -> Explained:
    """
    Decide and explain the request that the options of ``request_options`` describe.

    ``arriving`` is the request as routes have changed it on its way; who calls stays as described.

    Without ``every_rule`` only the rules that fired and the one that came closest are noted, as in ``explain``.

    Raises:
        LoadError: policies, mesh settings or the request file are refused.
        Unanswered: keys or a provider's answer are missing.
        OSError: a file cannot be read.
    """
    if [*options["policies"], options["file"], options["token_file"]].count(policy_files.STDIN) > 1:
        raise click.UsageError("stdin (`-`) can be read only once")
    loaded = policy_files.load(options["policies"], options["mesh"], options["traffic"], for_one_request=True)
    check_flags(options, loaded.mesh)
    target, request, stubs, is_gateway = _named(*_described(options), options)
    credentials = Credentials(options)
    request = _with_flags(request, options)
    if arriving is not None:
        changed = {name: getattr(arriving, name) for name in ("method", "host", "path", "headers")}
        request = replace(request, **changed)
    check_request(request, options)
    request = credentials.attach(request)
    target = _target(target, options)
    before = to_attributes(request, target, loaded.mesh, gateway=is_gateway or options["gateway"])
    policies = loaded.engine.for_workload(target.workload)
    before = passed_through(request, before, policies)
    check_token(options, request, before, policies)
    credentials.prepare(policies.jwt_rules)
    unasked: list[str] = []

    def provide(question: ProviderQuestion) -> ProviderAnswer:
        if question.provider.name not in stubs:
            unasked.append(question.provider.name)
        return stub_answer(stubs, question)

    explanation = explain(policies, before, credentials.judge, provide, every_rule=every_rule)
    for name in unasked:
        raise Unanswered(f"provider `{name}` is not asked offline; give its answer with `--provider {name}=allow`")
    credentials.check_answered()
    return Explained(explanation, before, policies, loaded.engine, loaded.problems)


def described_request(options: Mapping[str, Any]) -> OfflineRequest:
    """The request as its sender describes it. Raises LoadError and OSError."""
    return _with_flags(_described(options)[1], options)


def _described(
    options: Mapping[str, Any],
) -> tuple[OfflineWorkload, OfflineRequest, dict[str, str], bool]:
    """Read the workload, the request, providers' answers, and whether it comes through a gateway from the file."""
    problems: list[Problem] = []
    stubs: dict[str, str] = {}
    target, request, is_gateway = OfflineWorkload(Workload("default")), OfflineRequest(), False
    path = options["file"]
    if path:
        name = "<stdin>" if path == policy_files.STDIN else path
        for document in read_documents(name, policy_files.read_bytes(path), problems):
            notes = Notes(replace(document, number=0), problems, code=SUITE)
            get = fields.entries(document.root, _FILE_KEYS, "a request file", notes).get
            target = read_workload(get("workload"), notes)
            request = read_request(fields.entries(get("request"), REQUEST_KEYS, "a request", notes), notes)
            stubs = _stubs(get("customStub"), notes)
            address = get("clientAddress")
            if isinstance(address, YamlMapping):
                mode = fields.entries(address, ("mode",), "clientAddress", notes).get("mode")
                is_gateway = fields.one_of(mode, ("sidecar", "gateway"), "a mode", notes) == "gateway"
    if any(problem.is_error for problem in problems):
        raise LoadError(problems)
    for name, answer in options["provider"]:
        if answer not in _ANSWERS:
            raise click.BadParameter(f"`{answer}` is not one of {', '.join(_ANSWERS)}", param_hint="--provider")
        stubs[name] = answer
    return target, request, stubs, is_gateway


def _named(
    target: OfflineWorkload,
    request: OfflineRequest,
    stubs: dict[str, str],
    is_gateway: bool,
    options: Mapping[str, Any],
) -> tuple[OfflineWorkload, OfflineRequest, dict[str, str], bool]:
    """Let the workloads that ``--to`` and ``--from`` name override what the file says."""
    check_traffic(options["mesh"], options["traffic"])
    to, caller = (_find(options, flag) if options[flag] else None for flag in ("to", "from"))
    if to is not None:
        ports = [*(port.number for port in to.inbound), *(server.port for server in to.servers)]
        target, is_gateway = OfflineWorkload(to.workload, ports[0] if ports else None), to.is_gateway
    if caller is not None:
        request = replace(request, source_principal=str(caller.spiffe_id), source_ip=caller.address)
    return target, request, stubs, is_gateway


def _find(options: Mapping[str, Any], flag: str) -> "MeshWorkload":
    if not options["mesh"]:
        raise click.UsageError(f"--{flag} needs --mesh, a mesh description with workloads")
    mesh = policy_files.read_workloads(options["mesh"], options["traffic"])
    name = options[flag]
    try:
        return mesh.workload(name)
    except KeyError:
        close = nearest(name, [workload.name for workload in mesh.workloads])
        known = ", ".join(workload.name for workload in mesh.workloads) or "none"
        hint = f"did you mean `{close}`?" if close else f"it describes {known}"
        message = f"`{options['mesh']}` describes no workload `{name}`; {hint}"
        raise click.BadParameter(message, param_hint=f"--{flag}") from None


def _stubs(node: Node | None, notes: Notes) -> dict[str, str]:
    named = fields.named(node, "customStub", notes)
    return {name: fields.one_of(value, _ANSWERS, "an answer", notes, "error") for name, value in named.items()}


def _with_flags(request: OfflineRequest, options: Mapping[str, Any]) -> OfflineRequest:
    """Let the flags that were given override the request."""
    names = ("method", "host", "path", "source_ip", "destination_ip", "tls", "sni")
    changes: dict[str, Any] = {name: options[name] for name in names if options[name] is not None}
    if options["tcp"]:
        changes["protocol"] = "tcp"
    if options["port"] is not None:
        changes["destination_port"] = options["port"]
    if options["source_principal"] is not None:
        changes["source_principal"] = identity(options["source_principal"])
    if options["header"]:
        pairs = tuple(read_header(text) for text in options["header"])
        replaced = {name.lower() for name, _ in pairs}
        changes["headers"] = (*(pair for pair in request.headers if pair[0].lower() not in replaced), *pairs)
    return replace(request, **changes)


def read_header(text: str) -> tuple[str, str]:
    """Take ``NAME: VALUE`` apart. Raises a usage error for another form."""
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise click.BadParameter("a header has the form `name: value`", param_hint="--header")
    return name.strip(), value.strip()


def _target(target: OfflineWorkload, options: Mapping[str, Any]) -> OfflineWorkload:
    workload = target.workload
    pairs = [pair for text in options["labels"] for pair in text.split(",") if pair]
    labels = dict(_label(pair) for pair in pairs) if pairs else dict(workload.labels)
    return replace(
        target,
        workload=Workload(
            options["namespace"] or workload.namespace,
            frozenset(labels.items()),
            options["service_account"] or workload.service_account,
            workload.name,
        ),
    )


def _label(pair: str) -> tuple[str, str]:
    name, separator, value = pair.partition("=")
    if not separator or not name:
        raise click.BadParameter(f"`{pair}` is not of the form `name=value`", param_hint="--labels")
    return name, value
