"""
A decided request as the ``authz check`` command that decides it again.

It holds only what policies ask about, and no credentials.
"""

import json
import shlex
from collections.abc import Iterator, Sequence

from authz.core.attributes import AttributeContext, Json, Unknown
from authz.core.catalog import claim_path
from authz.core.engine import WorkloadPolicies
from authz.core.explain import HIDDEN
from authz.core.rules import CompiledRule

_HEADER, _CLAIM = "request.headers[", "request.auth.claims["
_STANDARD_CLAIMS = ("iss", "sub", "aud", "azp")
REPLACE_ME = "REPLACE-ME"
"""Stands for a value that is not kept, because it may be a credential."""


def check_command(
    policies: WorkloadPolicies,
    attributes: AttributeContext,
    *,
    policy_paths: Sequence[str],
    mesh_path: str = "",
    answers: dict[str, str] | None = None,
) -> str:
    """
    Write the command, ready for a POSIX shell, its options on lines of their own.

    Args:
        policies: those of the workload: they say which headers and claims matter.
        attributes: as the last stage saw them.
        answers: what CUSTOM providers said, ``allow`` or ``deny`` by name.
    """
    options = [f"--policies {shlex.quote(path)}" for path in policy_paths]
    if mesh_path:
        options.append(f"--mesh {shlex.quote(mesh_path)}")
    options.extend(_options(policies, attributes))
    options.extend(f"--provider {shlex.quote(f'{name}={answer}')}" for name, answer in sorted((answers or {}).items()))
    return " \\\n  ".join(("authz check", *options))


def _options(policies: WorkloadPolicies, attributes: AttributeContext) -> Iterator[str]:
    destination, source, http = attributes.destination, attributes.source, attributes.http
    workload = destination.workload
    yield _option("--namespace", workload.namespace)
    if workload.labels:
        yield _option("--labels", ",".join(f"{name}={value}" for name, value in sorted(workload.labels)))
    if workload.service_account:
        yield _option("--service-account", workload.service_account)
    if not isinstance(destination.port, Unknown):
        yield _option("--port", str(destination.port))
    if not isinstance(destination.ip, Unknown):
        yield _option("--destination-ip", destination.ip)
    if destination.is_gateway:
        yield "--gateway"
    if source.principal:
        yield _option("--source-principal", _identity(source.identities[0]))
    if not isinstance(source.ip, Unknown):
        yield _option("--source-ip", source.ip)
    if isinstance(attributes.sni, str) and attributes.sni:
        yield _option("--sni", attributes.sni)
        if not source.principal:
            yield "--tls simple"
    if http is None:
        yield "--tcp"
        return
    yield _option("--method", http.method)
    yield _option("--host", http.host)
    yield _option("--path", http.url_path)
    remote_ip = source.remote_ip
    if isinstance(remote_ip, str) and remote_ip != source.ip:
        yield _option("--header", f"x-forwarded-for: {remote_ip}")
    for name in _headers_asked(policies):
        for value in http.headers.get(name, ()):
            yield _option("--header", f"{name}: {REPLACE_ME if value == HIDDEN else value}")
    claims = _claims(policies, attributes)
    if claims:
        yield _option("--claims", json.dumps(claims, separators=(",", ":"), ensure_ascii=True))


def _identity(identity: str) -> str:
    """Istio's form without its scheme, as people write it; of others ``authz check`` needs the whole."""
    parts = identity.removeprefix("spiffe://").split("/")
    is_istio = len(parts) == 5 and parts[1] == "ns" and parts[3] == "sa"
    return identity.removeprefix("spiffe://") if is_istio else identity


def _option(name: str, value: str) -> str:
    return f"{name} {shlex.quote(value.encode('utf-8', 'replace').decode())}"


def _keys(policies: WorkloadPolicies) -> Iterator[str]:
    for policy in policies.policies:
        rules: tuple[CompiledRule, ...] = policy.http_rules
        for rule in rules:
            for entry in (rule.conditions, *rule.sources, *rule.operations):
                for predicate in entry:
                    yield predicate.attribute.key


def _headers_asked(policies: WorkloadPolicies) -> list[str]:
    """Names of headers that conditions ask about; pseudo headers are given by method, host and path."""
    names = {key[len(_HEADER) : -1] for key in _keys(policies) if key.startswith(_HEADER)}
    return sorted(name for name in names if not name.startswith(":") and name not in ("host", "x-forwarded-for"))


def _claims(policies: WorkloadPolicies, attributes: AttributeContext) -> dict[str, Json]:
    """The claims that rules ask about and those that say who the caller is; without ``exp`` a token does not expire."""
    token = attributes.authentication.token
    if token is None:
        return {}
    asked = {claim_path(key)[0] for key in _keys(policies) if key.startswith(_CLAIM)}
    return {name: token.claims[name] for name in (*_STANDARD_CLAIMS, *sorted(asked)) if name in token.claims}
