"""What a new mesh's folder says to people and to ``authz up``: README, run script, and the applications' commands."""

from collections.abc import Iterator

from authz.starter.mesh_plan import LOOPBACK, StarterPlan
from authz.starter.quoting import quoted

_README = """\
# A mesh of our own

Made by `authz init`; every file is yours to change. `./run.sh` checks the policies and starts everything.

| file | says |
|---|---|
| `mesh.yaml` | which services there are, and every port |
| `policies/` | who may call whom{ingress}; what no policy allows is refused |
| `suite.yaml` | what the policies are meant to do: `authz test suite.yaml` |
| `invariants.yaml` | what no change of them may break, for all requests: `authz prove invariants.yaml` |
| `up.yaml` | what `authz up` starts beside the proxies |

| service | listens on | its proxy receives on | it calls others at |
|---|---|---|---|
{rows}
An application calls others by the ports of its own proxy, and finds them in its environment where `authz up` starts
it: `PORT`, and `NAME_URL` for each service that it calls.

## On real machines

The files say one machine and one user. On several: give each WorkloadEntry in `mesh.yaml` its address, render with
`authz mesh render`, and let `authz ca` and `authz serve` run as services of the system.
"""
_RUN = """\
#!/bin/sh
# Check the policies, then start authority, server and a proxy beside each service, until Ctrl-C.
set -eu
cd "$(dirname "$0")"
authz validate policies --mesh mesh.yaml --fail-on warning
authz test suite.yaml --coverage
authz prove invariants.yaml
authz analyze policies --mesh mesh.yaml
exec authz up . "$@"
"""


def readme_text(plan: StarterPlan) -> str:
    """Tell people what is in the folder."""
    ingress = ", and whose tokens the gateway takes" if plan.ingress else ""
    return _README.format(ingress=ingress, rows="".join(_rows(plan)))


def _rows(plan: StarterPlan) -> Iterator[str]:
    for service in plan.services:
        calls = ", ".join(f"{name}: {plan.leads[service.name, name]}" for name in plan.called_by(service.name)) or "–"
        yield f"| {service.name} ({service.protocol}) | {service.port} | {plan.receives[service.name]} | {calls} |\n"
    if plan.ingress:
        yield f"| the gateway | – | https://localhost:{plan.ingress_port}/ | {plan.ingress} |\n"


def run_text() -> str:
    """Check, then start."""
    return _RUN


def up_text(plan: StarterPlan) -> str:
    """Write what ``authz up`` starts that is not part of the mesh."""
    lines = [
        "# What `authz up` needs besides the mesh.",
        f"page: {plan.page_port}     # http://{LOOPBACK}:{plan.page_port}/ shows who calls whom and what was refused",
    ]
    if plan.issuer is not None and plan.issuer.is_for_trying:
        port = plan.issuer.url.rpartition(":")[2]
        lines += [
            "# An issuer that believes whoever asks. Without these two lines it is not started.",
            f"issuer: {port}",
            f"audience: {quoted(plan.issuer.audience)}",
        ]
    lines += [
        "# Commands by which your services are started, in this folder; one that is not here you start yourself.",
        "run:" if plan.runs else "run: {}",
        *(f"  {quoted(name)}: {quoted(plan.runs[name])}" for name in sorted(plan.runs)),
    ]
    return "\n".join(lines) + "\n"
