"""
Options that contradict each other or say something that is never looked at: reported, since the answer would be to
another question than the one meant.
"""

import ipaddress
from collections.abc import Iterator, Mapping
from typing import Any

import click

from authz.analysis.offline.request import OfflineRequest
from authz.cli import terminal as out
from authz.core.attributes import AttributeContext
from authz.core.engine import WorkloadPolicies
from authz.core.resources import MeshConfig
from authz.core.stage_words import token_places
from authz.documents.schema import nearest

_HTTP_FLAGS = ("method", "host", "path", "header", "token", "token_file", "claims")
_TOKEN_FLAGS = ("token", "token_file", "claims")


def check_flags(options: Mapping[str, Any], mesh: MeshConfig) -> None:
    """Refuse flags that exclude each other; remark what can only be a slip."""
    if options["tcp"]:
        _refuse_http(options, "--tcp")
    if options["sni"] and options["tls"] == "plaintext":
        raise click.UsageError("--sni: a plaintext connection has no server name; leave out --tls plaintext")
    if options["from"] and options["source_principal"]:
        raise click.UsageError("--from and --source-principal both say who asks; give one of them")
    names = [pair.partition(":")[0].strip().lower() for pair in options["header"]]
    if "authorization" in names and _given(options, _TOKEN_FLAGS):
        flags = _given(options, _TOKEN_FLAGS)
        raise click.UsageError(f"{flags} goes into the header `authorization`, which --header gives too")
    if "host" in names:
        raise click.UsageError("the host is given with --host, not with --header")
    for name in ("source_ip", "destination_ip"):
        address, flag = options[name], f"--{name.replace('_', '-')}"
        try:
            ipaddress.ip_address(address or "::")
        except ValueError:
            raise click.BadParameter(f"`{address}` is not an IP address", param_hint=flag) from None
    principal = options["source_principal"]
    if principal and not identity(principal).startswith("spiffe://"):
        form = "Istio's form is `cluster.local/ns/NAMESPACE/sa/NAME`"
        out.remark(f"remark: `{principal}` is not a SPIFFE identity, so it has no namespace; {form}")
    known = [provider.name for provider in mesh.extension_providers]
    for name, _ in options["provider"]:
        if name not in known:
            close = nearest(name, known)
            hint = f"did you mean `{close}`?" if close else f"it knows {', '.join(known) or 'none'}"
            out.remark(f"remark: the mesh knows no provider `{name}`; {hint}")


def identity(text: str) -> str:
    """Istio's form is written without its scheme in policies, so people write it so here."""
    parts = text.split("/")
    is_istio = len(parts) == 5 and parts[1] == "ns" and parts[3] == "sa"
    return f"spiffe://{text}" if is_istio else text


def _given(options: Mapping[str, Any], names: tuple[str, ...]) -> str:
    return ", ".join(f"--{name.replace('_', '-')}" for name in names if options[name] not in (None, ()))


def _refuse_http(options: Mapping[str, Any], of: str) -> None:
    given = _given(options, _HTTP_FLAGS)
    if given:
        raise click.UsageError(f"{given}: only for HTTP requests, not for {of}")


def check_request(request: OfflineRequest, options: Mapping[str, Any]) -> None:
    """Refuse, or warn of, what has no effect in the whole request of file and flags together."""
    if request.is_tcp:
        _refuse_http(options, "`protocol: tcp`")
    for text in _ignored(request):
        out.remark(f"warning: {text}")


def _ignored(request: OfflineRequest) -> Iterator[str]:
    has_identity = bool(request.source_principal)
    if has_identity and request.tls in ("simple", "plaintext"):
        yield f"the identity is not used: there is no client certificate with TLS `{request.tls}`"
    if request.tls == "mtls" and not has_identity:
        yield "TLS `mtls` without an identity is judged as plaintext; name the caller with --source-principal"
    if request.sni and (request.tls == "plaintext" or (not request.tls and not has_identity)):
        yield "the server name (SNI) is not used: without an identity or --tls simple the connection is plaintext"
    if request.is_tcp:
        return
    if "://" in request.host or "/" in request.host:
        yield f"the host `{request.host}` has a scheme or a slash, which no host has"
    if request.method != request.method.upper():
        yield f"methods are case-sensitive: `{request.method}` is not `{request.method.upper()}`"
    if request.path and request.path[:1] != "/" and "://" in request.path:
        yield "the path is an address; give its host with --host and its path with --path"


def check_token(
    options: Mapping[str, Any], request: OfflineRequest, before: AttributeContext, policies: WorkloadPolicies
) -> None:
    """Warn of a token, or keys for one, that nothing reads."""
    flags = _given(options, _TOKEN_FLAGS)
    if before.http is None and not request.is_tcp:
        out.remark(
            "warning: this TLS is not terminated by the proxy but passed through (PA-10, PA-11): the request is judged "
            f"as a TCP connection, without identity{f', and {flags} is not read' if flags else ''}"
        )
    elif flags and not policies.jwt_rules:
        out.remark(f"warning: {flags} is not read: no RequestAuthentication applies to the workload")
    elif flags and not any(place.startswith("header `authorization`") for place in token_places(policies.jwt_rules)):
        places = ", ".join(token_places(policies.jwt_rules))
        out.remark(f"warning: {flags} goes into the header `authorization`, but tokens are read from {places} only")
    is_bare = request.path is None or "?" not in request.path
    if options["jwks"] and not flags and not request.headers and is_bare:
        out.remark("warning: --jwks is not used: the request carries no token")
