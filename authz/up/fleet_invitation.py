"""How to use a fleet for trying, once it runs."""

import shlex
from collections.abc import Iterator
from pathlib import Path

from authz.up.fleet_commands import KEYS
from authz.up.fleet_plan import FleetPlan
from authz.up.own_mesh import LOOPBACK


def fleet_invitation(plan: FleetPlan) -> str:
    """Tell addresses and commands, as rich markup."""
    return "\n".join(("", *_addresses(plan), "", *_machine(plan), "", *_rest(plan)))


def _addresses(plan: FleetPlan) -> Iterator[str]:
    for replica in plan.replicas:
        doors = f"discovery {LOOPBACK}:{replica.listen}, tokens {LOOPBACK}:{replica.enrol}"
        yield f"[bold]Control[/bold]  {replica.number}: {doors}, health http://{LOOPBACK}:{replica.admin}/healthz"
    yield f"[bold]Truth[/bold]    {plan.truth_address}"


def _machine(plan: FleetPlan) -> Iterator[str]:
    """The commands by which one proxy joins, for the first workload of the mesh."""
    workload = plan.mesh.workloads[0]
    ca = shlex.quote(_near(plan.folder / plan.replicas[0].ca))
    controls = " ".join(f"--control localhost:{replica.listen}" for replica in plan.replicas)
    servers = " ".join(f"--server localhost:{replica.enrol}" for replica in plan.replicas)
    renewals = " ".join(f"--server localhost:{replica.listen}" for replica in plan.replicas)
    mesh, bundle = (shlex.quote(_near(path)) for path in (plan.mesh_file, plan.bundle))
    yield f"[bold]Machine[/bold]  [dim]# in another terminal; {workload.name} here[/dim]"
    join = f"--bundle {bundle} --out certs/{workload.name}"
    truth = f"--truth {plan.truth_address} {_certificate(plan)}"
    for line in (
        f"authz ca token create {workload.spiffe_id} --ca {ca} {truth} > token",
        f"authz mesh bootstrap --mesh {mesh} --to {workload.name} {controls} > envoy.yaml",
        f"authz ca join {servers} {join} --token-file token",
        f"authz ca join {renewals} {join} --watch &",
        "mkdir -p run logs && envoy -c envoy.yaml",
    ):
        yield f"         {line}"


def _rest(plan: FleetPlan) -> Iterator[str]:
    mesh, policies, key = (
        shlex.quote(_near(path)) for path in (plan.mesh_file, plan.policies, plan.folder / KEYS / "bundle.key")
    )
    at = f"--to {plan.truth_address} {_certificate(plan)}"
    yield f"[bold]Change[/bold]   authz policies push {policies} --mesh {mesh} --key {key} {at} -m 'why'"
    yield f"[bold]Ask[/bold]      authz fleet status --truth {plan.truth_address} {_certificate(plan)}"
    yield f"[bold]Denied[/bold]   authz audit since 1h --effect deny --log {plan.truth_address} {_certificate(plan)}"
    yield f"[bold]Look[/bold]     {_near(plan.folder)}/logs/ has what every process printed"
    yield "[bold]Stop[/bold]     Ctrl-C"


def _certificate(plan: FleetPlan) -> str:
    """The options by which the truth knows a command that is typed here."""
    return " ".join(f"{name} {shlex.quote(_near(plan.folder / file))}" for name, file in plan.truth_certificate.items())


def _near(path: Path) -> str:
    """Relative to the user's working directory, if that is shorter."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
