"""What to open and try, once a mesh of one's own runs."""

import shlex
from collections.abc import Iterator
from pathlib import Path

from authz.mesh.nouns import MeshWorkload
from authz.up.own_mesh import LOOPBACK, OwnMesh, app_port


def invitation(own: OwnMesh) -> str:
    """Tell addresses and commands, as rich markup."""
    lines = ["", *_addresses(own), "", "[bold]Try[/bold]      [dim]# in another terminal[/dim]", *_tries(own), ""]
    lines += [
        f"[bold]Watch[/bold]    http://{LOOPBACK}:{own.up.page}/   the live graph and decisions",
        f"[bold]Edit[/bold]     {_near(own.policies)}/ or {_near(own.mesh_file)}: it is in force within a second",
        f"[bold]Look[/bold]     {_near(own.state)}/logs/ has every process's log; audit.jsonl there has every decision",
        "[bold]Stop[/bold]     Ctrl-C",
    ]
    return "\n".join(lines)


def _addresses(own: OwnMesh) -> Iterator[str]:
    for gateway in own.mesh.gateways:
        for server in gateway.servers:
            if server.takes_requests:
                yield f"[bold]Open[/bold]     {_url(server.port, is_tls=bool(server.credential))}"
    for workload in own.mesh.sidecars:
        if not workload.inbound:
            continue
        reached = [(host, port.number) for port in workload.outbound for host, _ in port.services]
        others = "".join(f", reaches {_service(host)} at {number}" for host, number in reached)
        listens = f"listens on {app_port(workload)}, its proxy on {workload.inbound[0].number}{others}"
        yield f"[bold]Service[/bold]  {workload.name} {listens}"


def _tries(own: OwnMesh) -> Iterator[str]:
    indent = " " * 9
    if own.up.issuer:
        yield f"{indent}TOKEN=$(curl -s http://{LOOPBACK}:{own.up.issuer}/token/alice)"
    for gateway in own.mesh.gateways:
        for server in gateway.servers:
            if not server.takes_requests:
                continue
            trust = f" --cacert {shlex.quote(_near(own.web_bundle))}" if server.credential else ""
            curl = f"{indent}curl -i{trust} {_url(server.port, is_tls=bool(server.credential))}"
            yield f"{curl}   [dim]# no token[/dim]"
            if own.up.issuer:
                yield f'{curl} -H "Authorization: Bearer $TOKEN"'
    for workload in own.mesh.sidecars:
        for port in workload.outbound:
            if port.host and port.protocol.is_http:
                who = f"{workload.name} calls {_service(port.host)}"
                yield f"{indent}curl -i http://{LOOPBACK}:{port.number}/   [dim]# as {who}[/dim]"
    for workload in _with_applications(own):
        port_number = workload.inbound[0].number
        yield f"{indent}curl -i http://{LOOPBACK}:{port_number}/   [dim]# plaintext to {workload.name}'s proxy[/dim]"


def _with_applications(own: OwnMesh) -> tuple[MeshWorkload, ...]:
    return tuple(w for w in own.mesh.sidecars if w.inbound and w.inbound[0].protocol.is_http)


def _url(port: int, *, is_tls: bool) -> str:
    return f"{'https' if is_tls else 'http'}://localhost:{port}/"


def _service(host: str) -> str:
    return host.partition(".")[0]


def _near(path: Path) -> str:
    """Relative to the user's working directory, if that is shorter."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
