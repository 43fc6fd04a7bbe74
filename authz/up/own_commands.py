"""Which processes make up a mesh of one's own, as values: nothing is started here."""

import sys

from authz.identity.ledger import LEDGER_FILE
from authz.local.children import Command
from authz.local.proxy_process import ADMIN_SOCKET, proxy_command
from authz.mesh.nouns import Enforce, MeshWorkload
from authz.up.own_mesh import AUDIT_LOG, ENTRIES, LOOPBACK, OwnMesh, app_port
from authz.up.up_file import url_variable

CA_SOCKET = "run/ca-admin.sock"
PROXY, APPLICATION = "proxy-", "app-"
"""What the names of processes begin with, before the workload's: a workload may have the name of another process."""


def count_own_steps(own: OwnMesh) -> int:
    """About how many steps starting takes: certificates, the server, and everything else."""
    return len(authorities(own)) + len(own.mesh.workloads) + len(applications(own)) + 2


def authorities(own: OwnMesh) -> list[Command]:
    """The certificate authority, and the issuer for trying if there is one: everybody else asks them."""
    options = {"--ca": "ca", "--entries": ENTRIES, "--socket": "run/sds.sock", "--admin": f"unix:{CA_SOCKET}"}
    arguments = (part for pair in options.items() for part in pair)
    found = [Command("authority", "certificate authority", (*_cli(), "ca", "serve", *arguments), f"authz:{CA_SOCKET}")]
    if own.up.issuer:
        told = ("--port", str(own.up.issuer), "--keys", "issuer", "--audience", own.up.audience)
        program = (sys.executable, "-m", "authz.demo.issuer", *told)
        found.append(Command("issuer", "trial issuer", program, f"http:{own.up.issuer}/health"))
    return found


def server(own: OwnMesh) -> Command:
    """``authz serve``: it decides for every proxy, or makes the record of what they decide."""
    options = {
        "--policies": str(own.policies),
        "--mesh": str(own.mesh_file),
        "--server": "grpcio",
        "--listen": "unix:run/authz-0.sock",
        "--workers": "1",
        "--admin": f"{LOOPBACK}:{own.up.page}",
        "--audit": f"file:{AUDIT_LOG}",
        "--certificates": f"ca/{LEDGER_FILE}",
        "--drain-delay-seconds": "0",  # everything stops together: there is nobody to drain for
    }
    if own.enforce is Enforce.NATIVE:
        options |= {"--access-logs": "file:logs", "--access-log-admin": f"unix:{ADMIN_SOCKET.format(name='{proxy}')}"}
        options["--access-log-state"] = "."  # a token with a key that is unknown has the key set fetched
    arguments = (part for pair in options.items() for part in pair)
    ready = f"http:{own.up.page}/readyz"
    return Command("server", "authorization server", (*_cli(), "serve", *arguments), ready)


def proxy(envoy: str, workload: MeshWorkload) -> Command:
    """The Envoy of a workload."""
    return proxy_command(envoy, workload, proxy_name(workload.name))


def proxy_name(workload: str) -> str:
    """The process of a workload's Envoy."""
    return f"{PROXY}{workload}"


def applications(own: OwnMesh) -> list[Command]:
    """The user's services that have a command, in the user's folder."""
    return [application(own, workload) for workload in own.mesh.sidecars if workload.name in own.run]


def application(own: OwnMesh, workload: MeshWorkload) -> Command:
    """A service of the user's own; it finds its port and where it reaches others in its environment."""
    port = app_port(workload)
    environment = {"PORT": str(port)}
    for outbound in workload.outbound:
        scheme = "http" if outbound.protocol.is_http else "tcp"
        if outbound.host:
            environment[url_variable(outbound.host.partition(".")[0])] = f"{scheme}://{LOOPBACK}:{outbound.number}"
    return Command(
        f"{APPLICATION}{workload.name}",
        f"{workload.name}",
        ("/bin/sh", "-c", own.run[workload.name]),
        f"tcp:{port}",
        environment,
        own.folder,
    )


def _cli() -> tuple[str, ...]:
    """The same installation as this process, whatever the PATH says."""
    return (sys.executable, "-m", "authz")
