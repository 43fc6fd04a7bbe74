"""
Fill the state directory: read the mesh and the policies, issue certificates, render Envoy's configuration.

Everything is read before anything is written, so that a mistake in a file stops the demo with its place.
"""

import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from authz.core.compiler import compile_engine
from authz.core.engine import Engine
from authz.core.errors import LoadError
from authz.core.resources import MtlsMode
from authz.demo.keycloak import for_keycloak, lay_keycloak
from authz.demo.layout import (
    LOOPBACK,
    OTLP_SOCKET,
    DemoError,
    Layout,
    describe,
    issuer_urls,
    ports_of,
    provider_ports,
    shift_ports,
)
from authz.demo.programs import envoy_binary
from authz.demo.traffic_rules import read_with_traffic, traffic_files
from authz.envoy.native.binary import envoy_polls
from authz.envoy.options import Authz, RenderOptions, Secrets
from authz.envoy.render import modes_of, render_all, render_endpoints, render_listeners
from authz.envoy.rendered_files import make_login_keys
from authz.identity.secret_files import write_file
from authz.mesh.nouns import Enforce, Mesh
from authz.policy.reader import read_policies

DIRECTORIES = (
    "certs",
    "envoy",
    "ecds",
    "cds",
    "rds",
    "lds",
    "eds",
    "sds",
    "run",
    "logs",
    "spans",
    "ca",
    "web",
    "outside",
    "issuer",
    "revocations",
)
CONNECTION_SECONDS = 5
"""
Connections between proxies are short-lived here: one that began with a certificate of an old root is refused once that
root is retired, so retiring waits this long, and nobody wants to watch that for ten minutes.
"""
OPTIONS = RenderOptions(
    workers=1, poll_seconds=0.25, include_peer_certificate=True, max_connection_seconds=CONNECTION_SECONDS
)
"""One worker of the authorization server is enough for one user, who has other uses for inotify instances."""


def plan(
    state: Path,
    policies: Path,
    mesh_file: Path,
    *,
    offset: int = 0,
    copy: bool = False,
    secrets: Secrets = Secrets.SDS,
    authz: Authz = Authz.SERVER,
    server: str = "grpcio",
    enforce: Enforce = Enforce.CHECK,
    keycloak: Path | None = None,
    traffic: Path | None = None,
) -> Layout:
    """
    Read the mesh, make the state directory, and copy into it what must not be changed where it is.

    Args:
        offset: added to every port.
        copy: work on copies of the policies and of the traffic rules.
        secrets: how proxies get their certificates.
        authz: who answers checks.
        server: what hosts the authorization server, when it is a process of its own.
        enforce: who decides.
        keycloak: an unpacked Keycloak, which is the issuer; policies are then copied, and rewritten for its tokens.
        traffic: a directory of more documents of the mesh description.

    Raises:
        DemoError: with every problem of the mesh description.
    """
    state = state.absolute()
    try:
        text = mesh_file.read_text(encoding="utf-8")
    except OSError as error:
        raise DemoError(f"cannot read the mesh description `{mesh_file}`: {error.strerror}") from error
    if not policies.is_dir():
        raise DemoError(f"`{policies}` is not a directory of policies; name one with --policies")
    rules = traffic_files(traffic)
    original, _ = read_with_traffic(str(mesh_file), text, rules)
    ports = ports_of(original)
    if offset and not all(0 < port + offset <= 65535 for port in ports):
        raise DemoError(f"ports {ports[0]} to {ports[-1]} cannot be shifted by {offset}")
    text = _local_providers(_adapted(text, ports, offset, keycloak), original)
    rules = [(name, _adapted(rule, ports, offset, keycloak)) for name, rule in rules]
    mesh, joined = read_with_traffic(str(mesh_file), text, rules)
    for directory in DIRECTORIES:
        (state / directory).mkdir(parents=True, exist_ok=True)
    state.chmod(0o700)
    write_file(state / "mesh.yaml", joined.encode())
    in_force, followed = policies.absolute(), None if traffic is None else traffic.absolute()
    if copy or offset or keycloak is not None:
        adapt = partial(_adapted, ports=ports, offset=offset, keycloak=keycloak)
        in_force = _copied(policies, policy_files(policies), state / "policies", adapt)
        if traffic is not None:
            files = [path for path in sorted(traffic.rglob("*")) if path.is_file() and not path.name.startswith(".")]
            followed = _copied(traffic, ((str(path), path.read_bytes()) for path in files), state / "traffic", adapt)
    layout = Layout(state, in_force, mesh, offset, secrets, authz, server, enforce, keycloak, followed, text)
    if keycloak is not None:
        lay_keycloak(layout)
    return layout


def _copied(source: Path, files: Iterable[tuple[str, bytes]], target: Path, adapt: Callable[[str], str]) -> Path:
    """Make ``target`` anew, of adapted files that lie below ``source``; return it."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    for path, content in files:
        copy = target / Path(path).relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(adapt(content.decode("utf-8", "replace")), encoding="utf-8")
    return target


def _adapted(text: str, ports: tuple[int, ...], offset: int, keycloak: Path | None) -> str:
    """Of a mesh description or a policy: with its ports shifted, and for Keycloak's tokens where it is the issuer."""
    shifted = shift_ports(text, ports, offset)
    return shifted if keycloak is None else for_keycloak(shifted, *issuer_urls(offset))


def _local_providers(text: str, mesh: Mesh) -> str:
    """External authorizers run on this machine: their mesh names, which no DNS knows here, become loopback."""
    for provider in mesh.config.extension_providers:
        if provider.port in provider_ports(mesh.config) and provider.service:
            text = re.sub(rf"(service:\s*){re.escape(provider.service)}\s*$", rf"\g<1>{LOOPBACK}", text, flags=re.M)
    return text


def policy_files(directory: Path) -> Iterator[tuple[str, bytes]]:
    """Every YAML file below a directory, in order."""
    for path in sorted(directory.rglob("*")):
        if path.suffix in (".yaml", ".yml") and path.is_file() and not path.name.startswith("."):
            yield str(path), path.read_bytes()


PolicyState = tuple[tuple[str, int, int], ...]
"""Path, time of change and size of every policy file: they differ when something has changed."""


def policy_state(directory: Path) -> PolicyState:
    """Name, time and size of every policy file: they differ when something has been edited."""
    found = []
    for root, _, names in os.walk(directory):
        for name in names:
            if name.endswith((".yaml", ".yml")):
                path = os.path.join(root, name)
                try:
                    facts = os.stat(path)
                except OSError:
                    continue
                found.append((path, facts.st_mtime_ns, facts.st_size))
    return tuple(sorted(found))


def read_engine(layout: Layout) -> Engine:
    """
    Compile the policies in force; the supervisor needs their PeerAuthentication.

    Raises LoadError.
    """
    return compile_engine(
        read_policies(policy_files(layout.policies), layout.mesh.config).resources, layout.mesh.config
    )


def read_engine_or_stop(layout: Layout) -> Engine:
    """Read like ``read_engine``, but without a last good one to keep: raises DemoError with the problems."""
    try:
        return read_engine(layout)
    except LoadError as error:
        raise DemoError(f"the policies cannot be used:\n{describe(error.problems)}") from error


def _polls() -> bool:
    """Whether Envoy takes a ``poll_interval``; if there is none here, it is in a container, whose version we choose."""
    try:
        return envoy_polls(envoy_binary())
    except DemoError:
        return True


def options(layout: Layout) -> RenderOptions:
    """How Envoy's configuration is rendered."""
    is_checked = layout.enforce is Enforce.CHECK  # certificates are evidence only for the check
    return replace(
        OPTIONS,
        poll_seconds=OPTIONS.poll_seconds if _polls() else 0,
        otlp=OTLP_SOCKET,
        secrets=layout.secrets,
        authz=layout.authz,
        enforce=layout.enforce,
        include_peer_certificate=is_checked,
        logins=layout.logins,
    )


def render(layout: Layout, engine: Engine) -> None:
    """Write Envoy's whole configuration."""
    for name, content in render_all(layout.mesh, modes_of(engine), options(layout)).items():
        path = layout.state / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, content)
    make_login_keys(layout.state, layout.mesh.logins)


Modes = dict[tuple[str, int], str]
"""The PeerAuthentication mode of every port with an application: all that rendering takes from the policies."""


def modes(layout: Layout, engine: Engine) -> Modes:
    """Read the modes of a compiled policy set."""
    mode_of = modes_of(engine)
    return {(w.name, port.number): mode_of(w, port.number) for w in layout.mesh.sidecars for port in w.inbound}


def render_again(layout: Layout, engine: Engine, before: Modes) -> tuple[str, ...]:
    """
    Write again what follows the policies, each file as soon as it is rendered, and return the names that changed.

    Args:
        before: the modes for which the files were rendered; only what differs is rendered.
    """
    mesh, mode_of, now = layout.mesh, modes_of(engine), modes(layout, engine)
    differ = {port for port in now if now[port] != before.get(port)}
    concerned = {name for name, _ in differ}
    changed: list[str] = []
    for workload in mesh.sidecars:
        if workload.name in concerned:
            changed += _write_changed(layout, render_listeners(mesh, workload, mode_of, options(layout)))
    if any(MtlsMode.DISABLE in (now[port], before.get(port)) for port in differ):  # callers then speak plaintext
        changed += _write_changed(layout, render_endpoints(mesh, mode_of, options(layout)))
    return tuple(changed)


def _write_changed(layout: Layout, files: dict[str, bytes]) -> list[str]:
    changed = []
    for name, content in files.items():
        path = layout.state / name
        if not path.exists() or path.read_bytes() != content:
            write_file(path, content)
            changed.append(name)
    return changed


# --- certificates ------------------------------------------------------------------------------------------------


def clear_sockets(layout: Layout) -> None:
    """Remove sockets that a killed demo left behind."""
    for path in (layout.state / "run").iterdir():
        if path.is_socket():
            os.unlink(path)
