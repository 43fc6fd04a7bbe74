"""``authz candidate``: what becomes of policies that decide in shadow, or for a part of a mesh."""

import sys
import time
from pathlib import Path

import click

from authz.canary.canary_status import CanaryState
from authz.cli import terminal as out
from authz.cli.control_status import ask_control
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
    help="What `authz serve` or `authz control` is told by `--candidate`.",
)


@click.group()
def candidate() -> None:
    """
    Put a candidate in force for all, or forget it: policies that decide in shadow, or for a part of a mesh.

    \b
    authz candidate promote --candidate next --policies policies --mesh mesh.yaml
    authz candidate abort --candidate next
    authz candidate status --admin 127.0.0.1:15014
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
    Forget the candidate: nothing decides in shadow any more, and a mesh has the policies in force. It is kept.

    \b
    authz candidate abort --candidate next
    """
    kept = promotion.abort(path)
    if output == "json":
        out.print_json({"aborted": True, "kept": str(kept)})
        return
    out.say(f"`{path}` is no candidate any more; its policies are kept in `{kept}`")


@candidate.command()
@click.option(
    "--admin", metavar="ADDRESS", default="127.0.0.1:15014", help="Of `authz control`: host:port or unix:/path."
)
@out.answer_form("text", "json")
def status(admin: str, output: str) -> None:
    """
    Ask a control plane who has its candidate.

    Exit code: 0 the chosen workloads have it, or there is none; 3 it was refused or aborted; 1 no answer.

    \b
    authz candidate status --admin 127.0.0.1:15014
    authz candidate status -o json
    """
    found = ask_control(admin, "/canary", "selection")
    state = str(found["state"])
    if output == "json":
        out.print_json(found)
    else:
        version = f" version {found['version']}" if found["version"] else ""
        chosen = f" for {len(found['chosen'])} of {found['workloads']} workloads ({found['selection']})"
        out.say(f"candidate{version}: {state}{chosen if found['chosen'] else ''}")
        for name in found["chosen"]:
            counts = found.get("counts", {}).get(name)
            told = f": refused {counts['refused']} of {counts['requests']} requests" if counts else ""
            out.say(f"  {name}{told}")
        for name in found["left_out"]:
            out.say(f"  not {name}: it asks an authorization server")
        if found["reason"]:
            out.say(f"  {found['reason']}")
    sys.exit(out.Exit.YES if state in (CanaryState.NONE, CanaryState.IN_FORCE) else out.Exit.NO)
