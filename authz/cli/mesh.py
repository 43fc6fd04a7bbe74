"""``authz mesh``: the Envoy configuration of a described mesh."""

from pathlib import Path

import click

from authz.core.compiler import compile_engine
from authz.core.engine import Engine
from authz.core.errors import LoadError, Problem
from authz.mesh.description import read_mesh_description
from authz.mesh.files import differences, left_over, write_files
from authz.mesh.nouns import Mesh
from authz.mesh.options import Listeners, RenderOptions, Secrets
from authz.policy.reader import read_policies
from authz.sources.directory import read_directory

DIFFERENT = 3
"""Exit code of "no": the files are not what they should be, or the input has errors."""


@click.group("mesh")
def mesh_group() -> None:
    """Envoy configuration from a mesh described in Istio's kinds."""


@mesh_group.command("render")
@click.option(
    "--mesh",
    "mesh_path",
    required=True,
    type=click.Path(exists=True, path_type=Path),
    help="The description: a YAML file, or a directory of them.",
)
@click.option(
    "--policies",
    type=click.Path(exists=True, path_type=Path),
    help="Policies; their PeerAuthentication decides who must speak mTLS. Without: PERMISSIVE.",
)
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="The directory to write.")
@click.option("--check", is_flag=True, help="Write nothing; exit 3 if a file is not what it should be.")
@click.option("--secrets", type=click.Choice(list(Secrets)), default=Secrets.FILES, show_default=True)
@click.option("--listeners", type=click.Choice(list(Listeners)), default=Listeners.DYNAMIC, show_default=True)
@click.option(
    "--workers", type=click.IntRange(1, 256), default=2, show_default=True, help="Of the authorization server."
)
@click.option("--otlp", default="", help="OpenTelemetry collector, host:port or a socket; without: no tracing.")
@click.option("--otlp-compose", default="", help="The same among containers.")
def render(
    mesh_path: Path,
    policies: Path | None,
    out: Path,
    check: bool,
    secrets: Secrets,
    listeners: Listeners,
    workers: int,
    otlp: str,
    otlp_compose: str,
) -> None:
    """
    Write the configuration of every sidecar and gateway of a mesh.

    Running Envoys follow changed listeners and endpoints without a restart.

    Exit code: 0 done, 3 the input has errors or (with --check) a file differs, 1 a file cannot be read or written.
    """
    from authz.mesh.render import modes_of, permissive, render_all  # slow to import: half a second

    options = RenderOptions(
        workers=workers,
        secrets=Secrets(secrets),
        listeners=Listeners(listeners),
        otlp=otlp,
        otlp_compose=otlp_compose,
    )
    try:
        mesh = _read(mesh_path)
        mode_of = permissive if policies is None else modes_of(_engine(policies, mesh))
        files = render_all(mesh, mode_of, options)
        if check:
            found = differences(out, files)
            for line in found:
                click.echo(line)
            click.echo(
                f"{len(found)} of {len(files)} files to render again" if found else f"{len(files)} files current"
            )
            raise SystemExit(DIFFERENT if found else 0)
        stale = left_over(out, files)
        written = write_files(out, files)
        for name in stale:
            (out / name).unlink()
    except OSError as error:
        raise click.ClickException(f"{error.filename or out}: {error.strerror or error}") from error
    click.echo(f"{len(written)} of {len(files)} files written, {len(stale)} removed, in {out}")


def _read(path: Path) -> Mesh:
    mesh, problems = read_mesh_description(read_directory(path))
    _stop_on_errors(problems)
    return mesh


def _engine(policies: Path, mesh: Mesh) -> Engine:
    result = read_policies(read_directory(policies), mesh.config)
    _stop_on_errors(result.problems)
    try:
        return compile_engine(result.resources, mesh.config)
    except LoadError as error:
        _stop_on_errors(error.problems)
        raise


def _stop_on_errors(problems: tuple[Problem, ...]) -> None:
    errors = [problem for problem in problems if problem.is_error]
    for problem in errors:
        click.echo(str(problem), err=True)
    if errors:
        raise SystemExit(DIFFERENT)
