"""How to use a fleet for trying, once it runs."""

import shlex
from collections.abc import Iterator
from pathlib import Path

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
    for line in (
        f"authz ca token create {workload.spiffe_id} --ca {ca} > token",
        f"authz mesh bootstrap --mesh {mesh} --to {workload.name} {controls} > envoy.yaml",
        f"authz ca join {servers} {join} --token-file token",
        f"authz ca join {renewals} {join} --watch &",
        "mkdir -p run logs && envoy -c envoy.yaml",
    ):
        yield f"         {line}"


def _rest(plan: FleetPlan) -> Iterator[str]:
    truth = " ".join(part for pair in _truth(plan) for part in pair)
    yield f"[bold]Change[/bold]   edit {_near(plan.policies)} or {_near(plan.mesh_file)}"
    yield f"[bold]Ask[/bold]      authz fleet status {truth}"
    yield f"[bold]Look[/bold]     {_near(plan.folder)}/logs/ has what every process printed"
    yield "[bold]Stop[/bold]     Ctrl-C"


def _truth(plan: FleetPlan) -> Iterator[tuple[str, str]]:
    """The options by which a command reaches the truth from here."""
    for name, value in plan.truth_options.items():
        yield name, value if name == "--truth" else shlex.quote(_near(plan.folder / value))


def _near(path: Path) -> str:
    """Relative to the user's working directory, if that is shorter."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
