"""How Envoy asks the external provider of a CUSTOM policy by itself, as Istio has it do (AP-77, AP-83)."""

from collections.abc import Callable, Iterable

from authz.core.attributes import Json
from authz.core.resources import ExtensionProvider
from authz.envoy.native.value_matchers import TYPE, Message

ClusterOf = Callable[[ExtensionProvider], str]
"""The Envoy cluster of a provider; whoever uses the filters must define it."""
SHADOW_PREFIX = "istio_ext_authz_"
_HTTP = f"{TYPE}envoy.extensions.filters.http.ext_authz.v3.ExtAuthz"
_TCP = f"{TYPE}envoy.extensions.filters.network.ext_authz.v3.ExtAuthz"
_PLAIN_REFUSAL = 403


def istio_cluster(provider: ExtensionProvider) -> str:
    """The name that Istio gives the cluster of a provider's service (VA-51)."""
    return f"outbound|{provider.port}||{_host(provider)}"


def http_filter(provider: ExtensionProvider, cluster_of: ClusterOf) -> Message:
    """The HTTP filter, switched on where the shadow rules of this provider fired."""
    found: Message = {
        "@type": _HTTP,
        "transport_api_version": "V3",
        "filter_enabled_metadata": _enabled("envoy.filters.http.rbac", provider),
    }
    if provider.protocol == "http":
        found["http_service"] = _http_service(provider, cluster_of(provider))
        if provider.include_request_headers_in_check:
            found["allowed_headers"] = _names(provider.include_request_headers_in_check)
    else:
        found["grpc_service"] = _grpc_service(provider, cluster_of(provider))
    if provider.fail_open:
        found["failure_mode_allow"] = True
    if provider.status_on_error != _PLAIN_REFUSAL:  # without it Envoy answers 403
        found["status_on_error"] = {"code": provider.status_on_error}
    if provider.max_request_bytes:
        found["with_request_body"] = {
            "max_request_bytes": provider.max_request_bytes,
            "allow_partial_message": provider.allow_partial_message,
            "pack_as_bytes": provider.pack_as_bytes,
        }
    return found


def tcp_filter(provider: ExtensionProvider, cluster_of: ClusterOf) -> Message:
    """The network filter; only a gRPC provider has one (AP-84)."""
    return {
        "@type": _TCP,
        "stat_prefix": "tcp.",
        "transport_api_version": "V3",
        "failure_mode_allow": provider.fail_open,
        "grpc_service": _grpc_service(provider, cluster_of(provider)),
        "filter_enabled_metadata": _enabled("envoy.filters.network.rbac", provider),
    }


def _host(provider: ExtensionProvider) -> str:
    return provider.service.rpartition("/")[2]


def _enabled(filter_name: str, provider: ExtensionProvider) -> Message:
    return {
        "filter": filter_name,
        "path": [{"key": f"{SHADOW_PREFIX}shadow_effective_policy_id"}],
        "value": {"string_match": {"prefix": f"istio-ext-authz-{provider.name}"}},
    }


def _grpc_service(provider: ExtensionProvider, cluster: str) -> Message:
    return {
        "envoy_grpc": {"cluster_name": cluster, "authority": _host(provider)},
        "timeout": duration(provider.timeout_seconds),
    }


def _http_service(provider: ExtensionProvider, cluster: str) -> Message:
    found: Message = {
        "server_uri": {
            "uri": f"http://{_host(provider)}",
            "cluster": cluster,
            "timeout": duration(provider.timeout_seconds),
        }
    }
    if provider.path_prefix:
        found["path_prefix"] = provider.path_prefix
    if provider.include_additional_headers_in_check:
        added: list[Json] = [
            {"key": name, "value": value}
            for name, value in sorted(provider.include_additional_headers_in_check.items())
        ]
        found["authorization_request"] = {"headers_to_add": added}
    answered = {
        "allowed_upstream_headers": provider.headers_to_upstream_on_allow,
        "allowed_client_headers": provider.headers_to_downstream_on_deny,
        "allowed_client_headers_on_success": provider.headers_to_downstream_on_allow,
    }
    if any(answered.values()):
        found["authorization_response"] = {name: _names(names) for name, names in answered.items() if names}
    return found


def _names(names: Iterable[str]) -> Message:
    patterns: list[Json] = []
    for name in names:
        if name.startswith("*"):
            patterns.append({"suffix": name[1:], "ignore_case": True})
        elif name.endswith("*"):
            patterns.append({"prefix": name[:-1], "ignore_case": True})
        else:
            patterns.append({"exact": name, "ignore_case": True})
    return {"patterns": patterns}


def duration(seconds: float) -> str:
    """A duration in the JSON form of protobuf."""
    return f"{seconds:.9f}".rstrip("0").rstrip(".") + "s"
