"""Scenarios of PeerAuthentication: modes change for a workload and for a port, and proxies follow."""

import json
from collections.abc import Iterator

from authz.demo.checks.scenario import Scenario
from authz.demo.checks.world import World

DETAILS = "details.bookinfo.svc.cluster.local"
MODE_FILE = "98-details-mode.yaml"
OPEN = """---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: details-open-for-a-while, namespace: bookinfo}
spec: {selector: {matchLabels: {app: details}}, rules: [{to: [{operation: {paths: [/details/0]}}]}]}
"""


def mode_scenarios() -> Iterator[Scenario]:
    """Yield the scenarios; each leaves the mesh as it found it, except the first two, which belong together."""
    group = "Modes of PeerAuthentication"
    yield Scenario(group, "DISABLE for details: plaintext", "403 no ALLOW", _disabled_plaintext)
    yield Scenario(group, "and from productpage's proxy, which follows", "403 no ALLOW", _disabled_from_a_proxy)
    yield Scenario(group, "and STRICT again: productpage's proxy follows", "200", _mutual_again)
    yield Scenario(
        group, "portLevelMtls: PERMISSIVE on details' port alone", "details 403 no ALLOW, ratings closed", _one_port
    )
    yield Scenario(
        group, "authz mtls plan, after plaintext was served", "200; exit code 3, not safe: details-v1", _plan
    )


def _mode(mtls: str, ports: str = "") -> str:
    return (
        "apiVersion: security.istio.io/v1\n"
        "kind: PeerAuthentication\n"
        "metadata: {name: details-for-a-while, namespace: bookinfo}\n"
        f"spec: {{selector: {{matchLabels: {{app: details}}}}, mtls: {{mode: {mtls}}}{ports}}}\n"
    )


async def _plaintext(world: World, workload: str = "details-v1") -> str:
    return await world.outcome(await world.call("plaintext", workload, "/details/0"))


async def _by_proxy(world: World) -> str:
    return await world.outcome(await world.from_app("productpage-v1", DETAILS, "/details/0"))


def _untimed(told: str) -> str:
    """Connections in the old mode are drained first, so the time says little."""
    return told.partition(" within")[0].partition(" after")[0]


async def _disabled_plaintext(world: World) -> str:
    async with world.written(MODE_FILE, _mode("DISABLE")):
        return _untimed(await world.becomes("403 no ALLOW", lambda: _plaintext(world)))


async def _disabled_from_a_proxy(world: World) -> str:
    """It speaks plaintext then, so it has no identity that a policy could allow."""
    async with world.written(MODE_FILE, _mode("DISABLE")):
        return _untimed(await world.becomes("403 no ALLOW", lambda: _by_proxy(world)))


async def _mutual_again(world: World) -> str:
    return _untimed(await world.becomes("200", lambda: _by_proxy(world)))


async def _one_port(world: World) -> str:
    port = world.layout.mesh.workload("details-v1").inbound[0].number
    async with world.written(MODE_FILE, _mode("STRICT", f", portLevelMtls: {{{port}: {{mode: PERMISSIVE}}}}")):
        details = _untimed(await world.becomes("403 no ALLOW", lambda: _plaintext(world)))
        ratings = await _plaintext(world, "ratings-v1")
    await world.becomes("closed", lambda: _plaintext(world))
    return f"details {details}, ratings {ratings}"


async def _plan(world: World) -> str:
    """Plaintext that was refused is no obstacle to STRICT; plaintext that somebody still needs is."""
    async with world.written(MODE_FILE, _mode("PERMISSIVE") + OPEN):
        served = _untimed(await world.becomes("200", lambda: _plaintext(world)))
        await world.outcome(await world.call("plaintext", "details-v1", "/nowhere"))  # waits for the records
    await world.becomes("closed", lambda: _plaintext(world))
    options = ("--mesh", world.layout.mesh_file, "--min-window", "1s", "-o", "json")
    code, told = await world.authz("mtls", "plan", str(world.audit_log), *options)
    unsafe = [workload["workload"] for workload in json.loads(told)["workloads"] if not workload["safe"]]
    return f"{served}; exit code {code}, not safe: {', '.join(unsafe)}"
