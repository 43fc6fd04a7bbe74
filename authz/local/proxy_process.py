"""An Envoy of a rendered mesh as a process of this machine."""

from authz.local.children import Command
from authz.mesh.nouns import MeshWorkload

QUIET = "oauth2:critical"
"""A browser login logs a cookie that it cannot decrypt as an error, with its value, which may be a token."""
ADMIN_SOCKET = "run/{name}.admin.sock"


def proxy_command(envoy: str, workload: MeshWorkload, name: str) -> Command:
    """
    Make the command of one workload's proxy, for the state directory in which it was rendered.

    Args:
        envoy: path of the program.
        name: of the process, and so of its log.
    """
    proxy = workload.name
    arguments = (
        *(envoy, "-c", f"envoy/{proxy}.yaml", "--service-node", proxy),
        *("--service-cluster", workload.labels.get("app", proxy), "--concurrency", "1"),
        *("--disable-hot-restart", "-l", "warning", "--file-flush-interval-msec", "100"),  # XA-6, XA-8, XA-176
        *("--component-log-level", QUIET),
    )
    kind = "gateway" if workload.is_gateway else "sidecar"
    return Command(name, f"Envoy {kind}", arguments, f"envoy:{ADMIN_SOCKET.format(name=proxy)}")
