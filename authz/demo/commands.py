"""
Which processes make up the demo, as values: derived from the mesh, nothing is started here.

An application is named by its label ``app`` and its version by ``version``, as in Istio's Bookinfo.
"""

import sys

from authz.demo.keycloak import keycloak_command
from authz.demo.layout import AUDIT_LOG, ENTRIES, LOOPBACK, OTLP_SOCKET, REVOCATIONS, SPANS, Layout
from authz.demo.programs import envoy_binary, redis_binary
from authz.envoy.options import CLIENT_SECRET, Authz, Secrets
from authz.identity.ledger import LEDGER_FILE
from authz.local.children import Command
from authz.local.proxy_process import ADMIN_SOCKET, proxy_command
from authz.mesh.nouns import Enforce, MeshWorkload
from authz.settings.precedence import PREFIX

AUTHZ, CA, LIMITS, COUNTING = "authz", "ca", "limits", "limits-server"
LIMITS_SOCKET = "run/limits.sock"
"""Where proxies ask for counts (``envoy.options``)."""
EMBEDDED_ADMIN_SOCKET = "run/{name}.authz-admin.sock"
"""Health and metrics of the authorization server inside a proxy."""
DATABASE = "ratingsdb"
CALLED_AS = {"ratingsdb": "database"}
"""Names by which an application knows a service, where it is not the service's own."""


def all_commands(layout: Layout) -> list[list[Command]]:
    """
    Every process, in waves: each wave is started when the one before it is ready.

    Keys come before the server that fetches them, and the server before the proxies that ask it.
    """
    first = [
        issuer(layout),
        *applications(layout),
        outside(layout),
        *custom(layout),
        *collector(),
        *certificate_authority(layout),
        *limits_store(layout),
    ]
    if layout.authz is Authz.EMBEDDED:
        proxies = [embedding_proxy(layout, workload) for workload in layout.mesh.workloads]
        return [first, counting_server(layout), proxies] if layout.limits_port else [first, proxies]
    return [first, [authorization_server(layout)], [proxy(workload) for workload in layout.mesh.workloads]]


def count_steps(layout: Layout) -> int:
    """How many steps starting takes: certificates, configuration, and every process."""
    return sum(len(wave) for wave in all_commands(layout)) + 2


def issuer(layout: Layout) -> Command:
    """The OIDC issuer, whose tokens the demo's policies accept."""
    if layout.keycloak is not None:
        return keycloak_command(layout)
    arguments = ["--port", str(layout.issuer_port), "--keys", "issuer"]
    if layout.login is not None:
        secret = f"certs/{layout.login.credential}/{CLIENT_SECRET}"
        arguments += ["--client", layout.login.client_id, "--client-secret", secret]
    return Command(
        "issuer", "OIDC issuer", _python("authz.demo.issuer", *arguments), f"http:{layout.issuer_port}/health"
    )


def applications(layout: Layout) -> list[Command]:
    """One for each workload with a sidecar; the database is a real Redis."""
    return [
        redis(workload) if workload.labels.get("app") == DATABASE else application(layout, workload)
        for workload in layout.mesh.sidecars
    ]


def application(layout: Layout, workload: MeshWorkload) -> Command:
    """One of Bookinfo's services, listening for its sidecar only."""
    port = _app_port(workload)
    arguments = [workload.labels.get("app", workload.name), "--port", str(port)]
    arguments += ["--version", workload.labels.get("version", "v1")]
    for outbound in workload.outbound:
        if outbound.host:
            name = outbound.host.partition(".")[0]
            scheme = "http" if outbound.protocol.is_http else "redis"
            arguments += ["--to", f"{CALLED_AS.get(name, name)}={scheme}://{LOOPBACK}:{outbound.number}"]
    return Command(f"{workload.name}-app", "application", _python("authz.demo.apps", *arguments), f"http:{port}/health")


def redis(workload: MeshWorkload) -> Command:
    """A Redis that keeps nothing and listens on loopback: whoever wants in must pass the sidecar."""
    return _redis(f"{workload.name}-app", "Redis", _app_port(workload))


def limits_store(layout: Layout) -> list[Command]:
    """Another one, in which the authorization server counts requests: a quota is gone when the demo ends."""
    return [_redis(LIMITS, "Redis of rate limits", layout.limits_port)] if layout.limits_port else []


def _redis(name: str, kind: str, port: int) -> Command:
    arguments = (redis_binary(), "--port", str(port), "--bind", LOOPBACK, "--save", "", "--appendonly", "no")
    return Command(name, kind, arguments, f"tcp:{port}")


def outside(layout: Layout) -> Command:
    """The stand-in for the outside world."""
    port = next(
        endpoint.place.process.port
        for service in layout.mesh.services
        if service.external
        for endpoints in service.endpoints.values()
        for endpoint in endpoints
    )
    pair = ("--certificate", "certs/outside-server/tls.crt", "--key", "certs/outside-server/tls.key")
    return Command(
        "outside", "outside world", _python("authz.demo.apps", "outside", "--port", str(port), *pair), f"tcp:{port}"
    )


def custom(layout: Layout) -> list[Command]:
    """The external authorizer, when the mesh configuration names one."""
    if not layout.custom_port:
        return []
    arguments = ("custom", "--port", str(layout.custom_port))
    ready = f"http:{layout.custom_port}/health"
    return [Command("custom", "external authorizer", _python("authz.demo.apps", *arguments), ready)]


def collector() -> list[Command]:
    """The stand-in for an OpenTelemetry collector."""
    arguments = ("--listen", f"unix:{OTLP_SOCKET}", "--out", SPANS)
    return [Command("collector", "span collector", _python("authz.demo.collector", *arguments), f"unix:{OTLP_SOCKET}")]


def certificate_authority(layout: Layout) -> list[Command]:
    """Make the command of the authority, which gives the proxies their certificates unless files do."""
    if layout.secrets is Secrets.FILES:
        return []
    options = {
        "--ca": "ca",
        "--entries": ENTRIES,
        "--revocations": REVOCATIONS,
        "--socket": "run/sds.sock",
        "--listen": f"{LOOPBACK}:{layout.ca_port}",
        "--enrol": f"{LOOPBACK}:{layout.ca_enrol_port}",
        "--admin": f"{LOOPBACK}:{layout.ca_admin_port}",
    }
    arguments = (part for pair in options.items() for part in pair)
    ready = f"http:{layout.ca_admin_port}/readyz"
    return [Command(CA, "certificate authority", (*_cli(), "ca", "serve", *arguments), ready)]


def decides_by(layout: Layout) -> tuple[str, ...]:
    """Flags of ``authz serve``, wherever it runs: what it decides by and where it records; each takes one value."""
    told = ["--policies", str(layout.policies), "--mesh", "mesh.yaml", "--audit", f"file:{AUDIT_LOG}"]
    told += ["--certificates", "certs"]
    if layout.secrets is Secrets.SDS:
        told += ["--certificates", f"ca/{LEDGER_FILE}"]
    told += ["--otlp-endpoint", f"unix:{OTLP_SOCKET}"]
    # An access log holds no certificate: that is evidence for the check only.
    return (*told, *(layout.evidence if layout.enforce is Enforce.CHECK else ()))


def authorization_server(layout: Layout) -> Command:
    """``authz serve`` for all sidecars of the demo."""
    options = {
        "--server": layout.server,
        "--listen": "unix:run/authz-0.sock",
        "--workers": "1",
        "--admin": f"{LOOPBACK}:{layout.admin_port}",
        "--drain-delay-seconds": "0",  # everything stops together: there is nobody to drain for
    }
    if layout.enforce is Enforce.NATIVE:
        options |= {"--access-logs": "file:logs", "--access-log-admin": f"unix:{ADMIN_SOCKET}"}
        options["--access-log-state"] = "."  # a token with a key that is unknown has the key set fetched
        options["--access-log-admin"] = options["--access-log-admin"].replace("{name}", "{proxy}")
    if layout.limits_port:
        options |= _counts(layout)
    arguments = (part for pair in options.items() for part in pair)
    kind = "authorization server" + (" in an Envoy" if layout.server == "envoy" else "")
    ready = f"http:{layout.admin_port}/readyz"
    return Command(AUTHZ, kind, (*_cli(), "serve", *arguments, *decides_by(layout)), ready)


def counting_server(layout: Layout) -> list[Command]:
    """Beside proxies that answer their own checks, one server counts for all of them, and does nothing else."""
    admin = EMBEDDED_ADMIN_SOCKET.format(name=COUNTING)
    options = {"--listen": "none", "--admin": f"unix:{admin}", "--drain-delay-seconds": "0", **_counts(layout)}
    arguments = (part for pair in options.items() for part in pair)
    command = (*_cli(), "serve", *arguments, *decides_by(layout))
    return [Command(COUNTING, "server of rate limits", command, f"authz:{admin}")]


def _counts(layout: Layout) -> dict[str, str]:
    store = f"redis://{LOOPBACK}:{layout.limits_port}/0"
    return {"--rate-limits": f"unix:{LIMITS_SOCKET}", "--rate-limit-store": store}


def embedding_proxy(layout: Layout, workload: MeshWorkload) -> Command:
    """
    A proxy that answers its own checks: the same flags, as the variables that its inner server reads.

    All of them append to one audit file, whose lines stay whole whoever writes (``audit.file_sink``).
    """
    command, admin = proxy(workload), EMBEDDED_ADMIN_SOCKET.format(name=workload.name)
    flags = (*decides_by(layout), "--admin", f"unix:{admin}")
    environment: dict[str, str] = {}
    for flag, value in zip(flags[::2], flags[1::2], strict=True):
        name = PREFIX + flag.removeprefix("--").replace("-", "_").upper()
        environment[name] = f"{environment[name]},{value}" if name in environment else value
    arguments = (*_prepare_hosting(), "--", *command.arguments)
    ready = f"{command.ready} authz:{admin}"
    return Command(command.name, f"{command.kind} that decides itself", arguments, ready, environment)


def hosting_check(layout: Layout) -> tuple[str, ...]:
    """A command that fails, and says why, where no Envoy can host a server; empty where none has to."""
    is_hosted = layout.authz is Authz.EMBEDDED or layout.server == "envoy"
    return _prepare_hosting() if is_hosted else ()


def _prepare_hosting() -> tuple[str, ...]:
    return (*_cli(), "mesh", "environment", "--state", ".")


def proxy(workload: MeshWorkload) -> Command:
    """The Envoy of one workload."""
    return proxy_command(envoy_binary(), workload, workload.name)


def _app_port(workload: MeshWorkload) -> int:
    return workload.inbound[0].app.process.port


def _python(module: str, *arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", module, *arguments)


def _cli() -> tuple[str, ...]:
    """The same installation as this process, whatever the PATH says."""
    return (sys.executable, "-m", "authz")
