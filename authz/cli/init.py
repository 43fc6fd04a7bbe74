"""``authz init``: the first files of a mesh of one's own."""

import os
import shlex
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import click

from authz.cli import terminal as out
from authz.cli.init_questions import ask
from authz.identity.secret_files import write_file
from authz.starter.compose_file import read_compose, read_variables
from authz.starter.mesh_plan import FIRST_PORT, PROTOCOLS, PlanError, WantedMesh, make_plan, read_pair, read_service
from authz.starter.written import RUN, written_files


@click.command("init", short_help="Write the first files of a mesh of your own.")
@click.argument("folder", metavar="[DIR]", type=click.Path(file_okay=False, path_type=Path), default=Path())
@click.option(
    "--service", "services", metavar="NAME:PORT[/PROTOCOL]", multiple=True,
    help=f"A service and where it listens on this machine; {', '.join(PROTOCOLS)}. May be repeated.",
)  # fmt: skip
@click.option(
    "--call", "calls", metavar="CALLER:CALLED", multiple=True,
    help="Who calls whom; nothing else is allowed. May be repeated.",
)  # fmt: skip
@click.option("--ingress", metavar="NAME", default="", help="The service that a gateway leads to from outside.")
@click.option(
    "--jwt-issuer", metavar="URL", default="",
    help="Whose tokens the gateway takes.  [default: a trial issuer, which `authz up` runs]",
)  # fmt: skip
@click.option(
    "--jwks-uri", metavar="URL", default="",
    help="Where the issuer's keys are.  [default: found by OpenID Connect discovery]",
)  # fmt: skip
@click.option(
    "--jwt-audience",
    metavar="TEXT",
    default="",
    help="The audience of tokens.  [default: the namespace]",
)
@click.option(
    "--run", "runs", metavar="NAME=COMMAND", multiple=True,
    help="How `authz up` starts a service; without it you start the service yourself. May be repeated.",
)  # fmt: skip
@click.option(
    "--from-compose", "compose", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Take services and calls from a compose file; other options add to them or replace them.",
)  # fmt: skip
@click.option("--namespace", metavar="NAME", default="default", help="Namespace of the services.")
@click.option("--trust-domain", metavar="NAME", default="cluster.local", help="Trust domain of the mesh.")
@click.option("--first-port", metavar="N", type=int, default=FIRST_PORT, help="Ports of the proxies start at N.")
@click.option("--force", is_flag=True, help="Overwrite files that are there.")
def command(
    folder: Path,
    services: tuple[str, ...],
    calls: tuple[str, ...],
    ingress: str,
    jwt_issuer: str,
    jwks_uri: str,
    jwt_audience: str,
    runs: tuple[str, ...],
    compose: Path | None,
    namespace: str,
    trust_domain: str,
    first_port: int,
    force: bool,
) -> None:
    """
    Write a mesh description, policies, test cases, invariants and a run script into DIR.

    Nothing is allowed but the calls that are named: mutual TLS everywhere, one ALLOW for each call, a token at the
    gateway. `authz up` then starts it. At a terminal, it asks what to write when no service is named.

    \b
    authz init shop --service web:8080 --service api:9000 --call web:api --ingress web
    authz init shop --service api:9000 --ingress api --jwt-issuer https://idp.example
    authz init shop --from-compose docker-compose.yml
    """
    try:
        wanted = WantedMesh(
            services=tuple(read_service(text) for text in services),
            calls=tuple(read_pair(text, ":", "CALLER:CALLED, for example web:api") for text in calls),
            ingress=ingress,
            jwt_issuer=jwt_issuer,
            jwks_uri=jwks_uri,
            audience=jwt_audience,
            namespace=namespace,
            trust_domain=trust_domain,
            runs=tuple(read_pair(text, "=", "NAME=COMMAND, for example api='python3 api.py'") for text in runs),
            first_port=first_port,
        )
        if compose is not None:
            wanted = with_compose(wanted, compose)
        elif not services and sys.stdin.isatty():
            wanted = ask(wanted)
        plan = make_plan(wanted)
    except (PlanError, ValueError) as error:
        raise click.UsageError(str(error)) from error
    write(folder, written_files(plan), force=force)


def with_compose(wanted: WantedMesh, file: Path) -> WantedMesh:
    """Add what a compose file says; what was guessed or left out is remarked. Raises LoadError, OSError."""
    variables = file.parent / ".env"
    known = read_variables(variables.read_text(encoding="utf-8")) if variables.is_file() else {}
    read = read_compose(str(file), file.read_bytes(), {**known, **os.environ}, wanted.services)
    for line in read.remarks:
        out.remark(f"note: {line}")
    others = tuple(service for service in wanted.services if service not in read.services)
    return replace(
        wanted,
        services=(*read.services, *others),
        calls=(*read.calls, *wanted.calls),
        ingress=wanted.ingress or read.ingress,
    )


def write(folder: Path, files: Mapping[str, str], *, force: bool) -> None:
    """Write every file, or none where one is there; say what was written and what comes next."""
    there = [name for name in files if (folder / name).exists() or (folder / name).is_symlink()]
    if there and not force:
        raise click.ClickException(
            f"{folder / there[0]}{f' and {len(there) - 1} more' if len(there) > 1 else ''} would be overwritten; "
            "name another folder, or overwrite them with --force"
        )
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, text.encode(), 0o755 if name == RUN else 0o644)
        out.say(f"wrote  {path}")
    out.say()
    here = shlex.quote(str(folder))
    out.say(f"next   authz up {here}      # or {shlex.quote(str(folder / RUN))}, which checks the policies first")
