"""``authz mesh``: the Envoy configuration of a described mesh."""

import asyncio
import os
import shlex
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import click

from authz.cli import mesh_bootstrap, mesh_native, terminal
from authz.cli.mesh_files import ca_bundles, read_description
from authz.cli.mesh_options import JWKS_CA_BUNDLE, MESH, VALIDATE, WHO_ANSWERS, WORKERS, who_decides
from authz.core.compiler import compile_engine
from authz.core.engine import Engine
from authz.envoy.options import Authz, Listeners, RenderOptions, Secrets
from authz.envoy.rendered_files import differences, left_over, make_login_keys, write_files
from authz.mesh.nouns import Enforce, Mesh
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
@MESH
@click.option(
    "--traffic",
    type=click.Path(exists=True, path_type=Path),
    help="More of the description, for people who keep routes apart: a YAML file, or a directory of them.",
)
@click.option(
    "--policies",
    type=click.Path(exists=True, path_type=Path),
    help="Policies: their PeerAuthentication decides who must speak mTLS. Without them, PERMISSIVE.",
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
    type=click.Choice([Listeners.DYNAMIC.value, Listeners.STATIC.value]),
    default=Listeners.DYNAMIC.value,
    show_default=True,
    help="dynamic: in files that running proxies follow; static: in the bootstrap, one file for each proxy.",
)
@WHO_ANSWERS
@who_decides(Enforce.CHECK)
@JWKS_CA_BUNDLE
@click.option(
    "--watch", is_flag=True, help="Keep rendering as policies, the description and key sets change, until Ctrl-C."
)
@VALIDATE
@click.option(
    "--query-value",
    multiple=True,
    metavar="NAME",
    help="Query parameter whose values a proxy that decides by itself writes into its access log; may be repeated. "
    "Like the setting `audit_query_values`.",
)
@WORKERS
@click.option(
    "--peer-certificate", is_flag=True, help="Send callers' certificates, for the setting `peer_certificate`."
)
@click.option(
    "--tls-minimum",
    type=click.Choice(["TLSv1_2", "TLSv1_3"]),
    default="TLSv1_3",
    show_default=True,
    help="Minimum TLS version between proxies.",
)
@click.option(
    "--tls-cipher", multiple=True, help="Cipher of TLS 1.2 between proxies; may be repeated. By default Envoy's own."
)
@click.option(
    "--otlp",
    default="",
    help="OpenTelemetry collector: host:port or the path of a socket. Without one nothing is traced.",
)
def render(
    mesh_path: Path,
    traffic: Path | None,
    policies: Path | None,
    out: Path,
    check: bool,
    secrets: str,
    listeners: str,
    authz: str,
    enforce: str,
    jwks_ca_bundle: tuple[str, ...],
    watch: bool,
    validate: str,
    query_value: tuple[str, ...],
    workers: int,
    peer_certificate: bool,
    tls_minimum: str,
    tls_cipher: tuple[str, ...],
    otlp: str,
) -> None:
    """
    Write the configuration of every sidecar and gateway of a mesh.

    Running Envoys follow changed listeners and endpoints without a restart.

    \b
    authz mesh render --mesh mesh.yaml --policies policies/ --out state/
    authz mesh render --mesh mesh.yaml --policies policies/ --out state/ --check
    authz mesh render --mesh mesh.yaml --policies policies/ --out state/ --enforce native --watch
    """
    from authz.envoy.listener_logs import kept_records  # slow to import
    from authz.envoy.render import (
        Native,
        keep_check,
        modes_of,
        network_filters,
        permissive,
        render_all,
    )
    from authz.envoy.rendering import uncollected
    from authz.envoy.tls_conflicts import tls_conflicts

    options = RenderOptions(
        authz=Authz(authz),
        enforce=Enforce(enforce),
        workers=workers,
        query_values=query_value,
        include_peer_certificate=peer_certificate,
        secrets=Secrets(secrets),
        listeners=Listeners(listeners),
        tls_minimum=tls_minimum,
        tls_ciphers=tls_cipher,
        otlp=otlp,
    )
    bundles = ca_bundles(jwks_ca_bundle)
    if watch:
        if check or policies is None or mesh_path.is_dir():
            raise click.UsageError("--watch needs --policies and a --mesh FILE, and cannot be combined with --check")
        asyncio.run(mesh_native.follow(policies, mesh_path, out, options, bundles, validate, traffic))
        return
    mesh = read_description(mesh_path, traffic)
    options = replace(
        options, logins=mesh_native.discovered_logins(mesh, mesh_path if mesh_path.is_dir() else mesh_path.parent, out)
    )
    native = [workload for workload in mesh.workloads if options.is_native(workload)]
    if native and policies is None:
        raise click.UsageError(f"`{native[0].name}` is to decide by itself, which needs --policies")
    engine = _engine(policies, mesh) if policies is not None else None
    keys = mesh_native.fetched_keys(engine, bundles) if engine is not None and native else {}
    if engine is not None:
        options, kept = keep_check(mesh, engine, options)
        for name, reasons in kept.items():
            terminal.remark(f"`{name}` asks the authorization server: {'; '.join(reasons)}")
    for name, kept_whole in kept_records(mesh, options).items():
        terminal.remark(f"`{name}`: {kept_whole}")
    policed = Native(engine, keys) if engine is not None else None
    mode_of = permissive if engine is None else modes_of(engine)
    mesh_native.judge_extensions(mesh, mode_of, options, policed, out, "off" if check else validate)
    for line in tls_conflicts(mesh, mode_of):
        terminal.remark(f"warning: {line}")
    with uncollected():
        files = render_all(mesh, mode_of, options, policed)
    if check:
        _compare(out, files)
    network = {w.name: network_filters(w, policed) for w in mesh.workloads if policed and options.is_native(w)}
    mesh_native.validate(validate, out, files, network)
    _write(out, files)
    for line in make_login_keys(out, mesh.logins):
        terminal.remark(f"warning: {line}")


def _compare(out: Path, files: dict[str, bytes]) -> NoReturn:
    """Say what would be written; exit 3 where something would."""
    found = differences(out, files)
    for line in found:
        terminal.say(line)
    current = terminal.count(len(files), "file")
    terminal.say(f"{len(found)} of {current} to render again" if found else f"{current} current")
    raise SystemExit(terminal.Exit.NO if found else terminal.Exit.YES)


def _write(out: Path, files: dict[str, bytes]) -> None:
    """Write what differs, and remove what an earlier run left over."""
    stale = left_over(out, files)
    written = write_files(out, files)
    for name in stale:
        (out / name).unlink()
    terminal.say(f"{len(written)} of {terminal.count(len(files), 'file')} written, {len(stale)} removed, in {out}")


command.add_command(mesh_bootstrap.bootstrap)


@command.command("environment")
@click.option(
    "--state",
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The rendered directory, in which the proxies run.",
)
@click.argument("program", nargs=-1, type=click.UNPROCESSED)
def environment(state: Path, program: tuple[str, ...]) -> None:
    """
    Prepare proxies that answer their own checks, and run PROGRAM with the environment that they need.

    For `render --authz embedded`. Without PROGRAM the environment is printed; it is for Envoy only, since it says
    which Python is embedded. Such a proxy takes the settings of `authz serve` from AUTHZ_* variables, and from the file
    that AUTHZ_CONFIG names. Fails when this Python cannot be hosted in Envoy, and says why.

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
    for name, value in found.items():
        terminal.say(f"{name}={shlex.quote(value)}")


def _engine(policies: Path, mesh: Mesh) -> Engine:
    return compile_engine(read_policies(read_directory(policies), mesh.config).resources, mesh.config)
