"""``authz mesh``: the Envoy configuration of a described mesh."""

import os
import shlex
from pathlib import Path

import click

from authz.cli import output
from authz.core.compiler import compile_engine
from authz.core.engine import Engine
from authz.core.errors import LoadError
from authz.envoy.files import differences, left_over, write_files
from authz.envoy.options import Authz, Listeners, RenderOptions, Secrets
from authz.mesh.description import read_mesh_description
from authz.mesh.nouns import Mesh
from authz.policy.reader import read_policies
from authz.sources.policies.directory import read_directory


@click.group("mesh", short_help="Render Envoy configuration from a mesh description.")
def command() -> None:
    """
    Envoy configuration from a mesh described in Istio's kinds.

    \b
    authz mesh render --mesh mesh.yaml --policies policies/ --out state/
    authz mesh environment --state state/ -- envoy -c envoy/reviews-v1.yaml
    """


@command.command("render")
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
@click.option(
    "--secrets",
    type=click.Choice([s.value for s in Secrets]),
    default=Secrets.FILES.value,
    show_default=True,
    help="How proxies get certificates: as files, or from the authority over SDS.",
)
@click.option(
    "--listeners",
    type=click.Choice([s.value for s in Listeners]),
    default=Listeners.DYNAMIC.value,
    show_default=True,
    help="In files that proxies follow while they run, or in the bootstrap: one file a proxy.",
)
@click.option(
    "--authz",
    type=click.Choice([a.value for a in Authz]),
    default=Authz.SERVER.value,
    show_default=True,
    help="Who answers checks: a server of its own, or every proxy itself (see `authz mesh environment`).",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 256),
    default=2,
    show_default=True,
    help="Of the authorization server: as many addresses are rendered.",
)
@click.option(
    "--peer-certificate", is_flag=True, help="Send callers' certificates, for the setting `peer_certificate`."
)
@click.option(
    "--tls-minimum",
    type=click.Choice(["TLSv1_2", "TLSv1_3"]),
    default="TLSv1_3",
    show_default=True,
    help="Least TLS version between proxies.",
)
@click.option(
    "--tls-cipher", multiple=True, help="Cipher of TLS 1.2 between proxies; may be repeated. Without: Envoy's."
)
@click.option("--otlp", default="", help="OpenTelemetry collector, host:port or a socket; without: no tracing.")
@click.option("--otlp-compose", default="", help="The collector's address among containers.")
def render(
    mesh_path: Path,
    policies: Path | None,
    out: Path,
    check: bool,
    secrets: str,
    listeners: str,
    authz: str,
    workers: int,
    peer_certificate: bool,
    tls_minimum: str,
    tls_cipher: tuple[str, ...],
    otlp: str,
    otlp_compose: str,
) -> None:
    """
    Write the configuration of every sidecar and gateway of a mesh.

    Running Envoys follow changed listeners and endpoints without a restart.

    \b
    authz mesh render --mesh mesh.yaml --policies policies/ --out state/
    authz mesh render --mesh mesh.yaml --policies policies/ --out state/ --check
    """
    from authz.envoy.render import modes_of, permissive, render_all  # slow to import: half a second

    options = RenderOptions(
        authz=Authz(authz),
        workers=workers,
        include_peer_certificate=peer_certificate,
        secrets=Secrets(secrets),
        listeners=Listeners(listeners),
        tls_minimum=tls_minimum,
        tls_ciphers=tls_cipher,
        otlp=otlp,
        otlp_compose=otlp_compose,
    )
    mesh = _read(mesh_path)
    mode_of = permissive if policies is None else modes_of(_engine(policies, mesh))
    files = render_all(mesh, mode_of, options)
    if check:
        found = differences(out, files)
        for line in found:
            output.say(line)
        current = output.count(len(files), "file")
        output.say(f"{len(found)} of {current} to render again" if found else f"{current} current")
        raise SystemExit(output.Exit.NO if found else output.Exit.YES)
    stale = left_over(out, files)
    written = write_files(out, files)
    for name in stale:
        (out / name).unlink()
    output.say(f"{len(written)} of {output.count(len(files), 'file')} written, {len(stale)} removed, in {out}")


@command.command("environment")
@click.option(
    "--state",
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The rendered directory, in which the proxies run.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["shell", "json"]),
    default="shell",
    show_default=True,
    help="Form of the answer.",
)
@click.argument("program", nargs=-1, type=click.UNPROCESSED)
def environment(state: Path, form: str, program: tuple[str, ...]) -> None:
    """
    Prepare proxies that answer their own checks, and run PROGRAM with the environment that they need.

    For `render --authz embedded`. Without PROGRAM the environment is printed; it is for Envoy only, since it says
    which Python is embedded. What such a proxy decides by are the settings of `authz serve` as AUTHZ_* variables,
    AUTHZ_CONFIG being their file. Fails when this Python cannot be hosted in Envoy, and says why.

    \b
    AUTHZ_POLICIES=policies authz mesh environment --state state/ -- envoy -c envoy/reviews-v1.yaml
    """
    from authz.service.workers.envoy_host import embed

    found = embed(state)
    if program:
        try:
            os.execvpe(program[0], program, {**os.environ, **found})  # noqa: S606  # the very purpose; signals reach it
        except OSError as error:
            raise click.ClickException(f"`{program[0]}` cannot be run: {error.strerror}") from error
    if form == "json":
        output.print_json(dict(found))
        return
    for name, value in found.items():
        output.say(f"{name}={shlex.quote(value)}")


def _read(path: Path) -> Mesh:
    mesh, problems = read_mesh_description(read_directory(path))
    if any(problem.is_error for problem in problems):
        raise LoadError(problems)
    return mesh


def _engine(policies: Path, mesh: Mesh) -> Engine:
    return compile_engine(read_policies(read_directory(policies), mesh.config).resources, mesh.config)
