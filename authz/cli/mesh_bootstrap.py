"""``authz mesh bootstrap``: the one file that the Envoy of a machine needs to be part of a fleet."""

from pathlib import Path

import click

from authz.cli.mesh_files import read_description
from authz.cli.mesh_options import MESH, WHO_ANSWERS
from authz.core.errors import SettingsError
from authz.envoy.options import Authz, Listeners, RenderOptions


@click.command()
@MESH
@click.option("--to", "name", required=True, metavar="WORKLOAD", help="The workload whose Envoy it is.")
@click.option(
    "--control",
    "controls",
    required=True,
    multiple=True,
    metavar="HOST:PORT",
    help="Where the control plane listens for SVIDs; once for each of its replicas.",
)
@WHO_ANSWERS
@click.option(
    "--report",
    type=click.IntRange(1, 3600),
    metavar="SECONDS",
    help="How often it tells the control plane how many requests it had and refused: candidates are judged by it.",
)
def bootstrap(mesh_path: Path, name: str, controls: tuple[str, ...], authz: str, report: int | None) -> None:
    """
    Print the file with which an Envoy starts that has everything else from `authz control`.

    It belongs into the directory in which Envoy runs, beside `certs/WORKLOAD` as `authz ca join` leaves it; `run` and
    `logs` are there, too.

    \b
    authz mesh bootstrap --mesh mesh.yaml --to reviews-v1 --control control.example:7443 > envoy.yaml
    authz mesh bootstrap --mesh mesh.yaml --to reviews-v1 --control a.example:7443 --control b.example:7443
    authz ca join --server control.example:7444 --bundle bundle.pem --out certs/reviews-v1 --token-file token
    authz ca join --server control.example:7443 --bundle bundle.pem --out certs/reviews-v1 --watch &
    envoy -c envoy.yaml
    """
    from authz.envoy.bootstrap import bootstrap as made  # slow to import
    from authz.envoy.messages import as_json
    from authz.envoy.rendered_text import readable_text

    for control in controls:
        host, _, port = control.rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 65536:
            raise click.BadParameter(f"`{control}` is not host:port", param_hint="--control")
    mesh = read_description(mesh_path, None)
    workload = next((one for one in mesh.workloads if one.name == name), None)
    if workload is None:
        known = ", ".join(f"`{one.name}`" for one in mesh.workloads[:20])
        raise SettingsError(f"there is no workload `{name}` in `{mesh_path}`; it has {known or 'none'}")
    options = RenderOptions(listeners=Listeners.ADS, authz=Authz(authz), control=controls, report_seconds=report or 0)
    click.echo(readable_text(as_json(made(mesh, workload, [], options))), nl=False)
