"""``authz candidate``: what becomes of the policies that decide in shadow."""

import sys
import time
from pathlib import Path

import click

from authz.cli import terminal as out
from authz.core.attributes import Json
from authz.core.errors import LoadError
from authz.service.loading import promotion
from authz.service.loading.snapshot import load_snapshot

CANDIDATE = click.option(
    "--candidate",
    "path",
    metavar="PATH",
    required=True,
    type=click.Path(path_type=Path),
    help="What `authz serve --candidate` names.",
)


@click.group()
def candidate() -> None:
    """
    Put the policies that decide in shadow in force, or forget them.

    \b
    authz candidate promote --candidate next --policies policies --mesh mesh.yaml
    authz candidate abort --candidate next
    """


@candidate.command()
@CANDIDATE
@click.option(
    "--policies",
    "-p",
    metavar="PATH",
    required=True,
    type=click.Path(path_type=Path),
    help="What `authz serve --policies` names.",
)
@click.option(
    "--mesh",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="What `authz serve --mesh` names: the candidate is checked with it.",
)
@out.answer_form("text", "json")
def promote(path: Path, policies: Path, mesh: Path | None, output: str) -> None:
    """
    Make the candidate the policies in force, at one moment (exit 0), unless it has problems (3).

    Servers follow by themselves. The old policies are kept, and where is said. Policies may be a link to a directory, a
    file, or, on Linux, a directory.

    \b
    authz candidate promote --candidate next --policies policies --mesh mesh.yaml
    authz candidate promote --candidate next --policies policies -o json
    """
    path.stat()  # its absence is no problem of policies
    try:
        snapshot = load_snapshot(path, mesh, time.time())
    except LoadError as error:
        if output == "json":
            out.print_json({"promoted": False, "problems": [out.problem_json(problem) for problem in error.problems]})
        else:
            out.print_problems(error.problems)
            out.say(f"`{path}` was not promoted: {error}")
        sys.exit(out.Exit.NO)
    done = promotion.promote(path, policies, snapshot.version)
    if output == "json":
        answer: dict[str, Json] = {"promoted": True, "policy_version": snapshot.version, "kept": str(done.kept)}
        out.print_json({**answer, "problems": []})
        return
    out.say(f"`{policies}` is now policy version {snapshot.version}")
    out.say(f"what was in force until now is kept in `{done.kept}`")


@candidate.command()
@CANDIDATE
@out.answer_form("text", "json")
def abort(path: Path, output: str) -> None:
    """
    Forget the candidate: servers decide nothing in shadow any more. Its policies are kept, and where is said.

    \b
    authz candidate abort --candidate next
    """
    kept = promotion.abort(path)
    if output == "json":
        out.print_json({"aborted": True, "kept": str(kept)})
        return
    out.say(f"`{path}` is no candidate any more; its policies are kept in `{kept}`")
