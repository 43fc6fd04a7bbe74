"""``authz candidate``: what becomes of policies that decide in shadow, or for a part of a mesh, here or in a fleet."""

import sys
import time
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from authz.canary.canary_status import CanaryState
from authz.cli import candidate_pushed
from authz.cli import terminal as out
from authz.cli.control_status import ask_control
from authz.cli.push_options import AUTHOR, DRY_RUN, IF_REVISION, KEY, MESSAGE, PEM, WAIT
from authz.cli.truth_options import truth_access
from authz.core.attributes import Json
from authz.core.errors import LoadError
from authz.service.loading import promotion
from authz.service.loading.snapshot import load_snapshot
from authz.truth.truth_address import TruthAccess

CANDIDATE = click.option(
    "--candidate",
    "path",
    metavar="PATH",
    type=click.Path(path_type=Path),
    help="What `authz serve` or `authz control` is told by `--candidate`.",
)
TO = click.option(
    "--to",
    "--truth",
    "url",
    default="",
    metavar="URL",
    help="The truth of the fleet to which it was pushed: nats://HOST:PORT[,…]/FLEET.",
)

MOST_DIFFERENCES = 10
"""The most frequent kinds of them that are told to people."""
_ACCESS = ("truth_ca", "truth_cert", "truth_key", "truth_name")
_OF_TRUTH = ("number", "key", "keys", "message", "author", "if_revision", "wait", "dry_run", *_ACCESS)
_OF_PATH = ("policies", "mesh")
"""Arguments of ``promote`` and ``abort`` that say nothing of the other candidate."""


@click.group()
def candidate() -> None:
    """
    Put a candidate in force for all, or forget it: policies that decide in shadow, or for a part of a mesh.

    \b
    authz candidate promote --candidate next --policies policies --mesh mesh.yaml
    authz candidate abort --candidate next
    authz candidate status --admin 127.0.0.1:15014
    authz candidate promote --to nats://127.0.0.1:4222/shop --key keys/bundle.key
    authz candidate abort --to nats://127.0.0.1:4222/shop -m "locks ops out"
    """


@candidate.command()
@click.argument("number", required=False, type=click.IntRange(1))
@CANDIDATE
@click.option(
    "--policies",
    "-p",
    metavar="PATH",
    type=click.Path(path_type=Path),
    help="What `authz serve --policies` names.",
)
@click.option(
    "--mesh",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="What `authz serve --mesh` names: the candidate is checked with it.",
)
@TO
@KEY
@click.option(
    "--public-key", "keys", multiple=True, type=PEM,
    help="With --to: PEM of another key by which it may be signed; may be repeated.",
)  # fmt: skip
@MESSAGE
@AUTHOR
@IF_REVISION
@WAIT
@DRY_RUN
@out.answer_form("text", "json")
@truth_access
def promote(
    number: int | None, path: Path | None, policies: Path | None, mesh: Path | None, url: str, key: Path | None,
    keys: tuple[Path, ...], message: str, author: str, if_revision: int | None, wait: float, dry_run: bool,
    output: str, access: TruthAccess,
) -> None:  # fmt: skip
    """
    Make the candidate the policies in force, at one moment (exit 0), unless it has problems (3).

    Servers follow by themselves. The old policies are kept, and where is said. Policies may be a link to a directory, a
    file, or, on Linux, a directory.

    With --to it is the candidate in the truth of a fleet, which becomes a new revision, signed by --key, if what it was
    compared with is still in force (else 3). One that is over can be promoted by its NUMBER with --if-revision.

    \b
    authz candidate promote --candidate next --policies policies --mesh mesh.yaml
    authz candidate promote --candidate next --policies policies -o json
    authz candidate promote --to nats://127.0.0.1:4222/shop --key keys/bundle.key -m "no complaints" --wait 60
    """
    _one_place(path, url)
    if path is None:
        if key is None and not (dry_run and keys):
            raise click.UsageError("--to needs --key; with --dry-run a --public-key is enough")
        candidate_pushed.promote_pushed(
            url, access, number, key, keys, message, author, if_revision, dry_run=dry_run, output=output, wait=wait
        )
        return
    if policies is None:
        raise click.UsageError("--candidate needs --policies")
    _promote_path(path, policies, mesh, output)


def _one_place(path: Path | None, url: str) -> None:
    """Refuse two candidates, none, and options of the other one. Raises click.UsageError."""
    if (path is None) is (not url):
        raise click.UsageError("say which candidate: either --candidate PATH, or --to URL of the truth of a fleet")
    _refuse_given(*(("--to", _OF_TRUTH) if path is not None else ("--candidate", _OF_PATH)))


def _refuse_given(other: str, names: tuple[str, ...]) -> None:
    ctx = click.get_current_context()
    unset = (None, ParameterSource.DEFAULT, ParameterSource.DEFAULT_MAP)
    for param in ctx.command.params:
        if param.name in names and ctx.get_parameter_source(param.name) not in unset:
            shown = "a number" if isinstance(param, click.Argument) else f"`{param.opts[0]}`"
            raise click.UsageError(f"{shown} goes with {other}")


def _promote_path(path: Path, policies: Path, mesh: Path | None, output: str) -> None:
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
@TO
@MESSAGE
@AUTHOR
@out.answer_form("text", "json")
@truth_access
def abort(path: Path | None, url: str, message: str, author: str, output: str, access: TruthAccess) -> None:
    """
    Forget the candidate: nothing decides in shadow any more, and a mesh has the policies in force. It is kept.

    With --to it is the candidate in the truth of a fleet, which everybody takes back; exit code 3 when there is none.

    \b
    authz candidate abort --candidate next
    authz candidate abort --to nats://127.0.0.1:4222/shop -m "locks ops out"
    """
    _one_place(path, url)
    if path is None:
        candidate_pushed.abort_pushed(url, access, message, author, output)
        return
    kept = promotion.abort(path)
    if output == "json":
        out.print_json({"aborted": True, "kept": str(kept)})
        return
    out.say(f"`{path}` is no candidate any more; its policies are kept in `{kept}`")


@candidate.command()
@click.option(
    "--admin", metavar="ADDRESS", default="127.0.0.1:15014", help="Of `authz control`: host:port or unix:/path."
)
@TO
@out.answer_form("text", "json")
@truth_access
def status(admin: str, url: str, output: str, access: TruthAccess) -> None:
    """
    Ask a control plane who has its candidate, or with --to the truth of a fleet which one there is, and who has it.

    Exit code: 0 the chosen workloads have it, or there is none; 3 it was refused or aborted, with --to by any replica
    that lives; 1 no answer.

    \b
    authz candidate status --admin 127.0.0.1:15014
    authz candidate status --to nats://127.0.0.1:4222/shop
    authz candidate status -o json
    """
    if not url:
        _refuse_given("--to", _ACCESS)
    else:
        _refuse_given("a control plane, which is asked without --to", ("admin",))
        candidate_pushed.show_pushed(url, access, output)
    found = ask_control(admin, "/canary", "selection")
    state = str(found["state"])
    if output == "json":
        out.print_json(found)
    else:
        version = f" version {found['version']}" if found["version"] else ""
        version = f" {found['number']}{version and ',' + version}" if found.get("number") else version
        chosen = f" for {len(found['chosen'])} of {found['workloads']} workloads ({found['selection']})"
        out.say(f"candidate{version}: {state}{chosen if found['chosen'] else ''}")
        for name in found["chosen"]:
            counts = found.get("counts", {}).get(name)
            told = f": refused {counts['refused']} of {counts['requests']} requests" if counts else ""
            out.say(f"  {name}{told}")
        _print_compared(found.get("results", {}), found.get("differences", []))
        for name in found["left_out"]:
            out.say(f"  not {name}: it asks an authorization server")
        if found["reason"]:
            out.say(f"  {found['reason']}")
    sys.exit(out.Exit.YES if state in (CanaryState.NONE, CanaryState.SHADOW, CanaryState.IN_FORCE) else out.Exit.NO)


def _print_compared(results: dict[str, int], differences: list[dict[str, Any]]) -> None:
    """What the candidate changes, of the requests whose records the control plane took."""
    told = [f"{number} {result.replace('_', ' ')}" for result, number in results.items() if number]
    if told:
        out.say(f"  of recorded requests: {', '.join(told)}")
    for one in differences[:MOST_DIFFERENCES]:
        rules = [(one[side] or {}).get("name", "no rule") for side in ("rule", "candidate_rule")]
        where = f"{one['count']} at {one['namespace']}/{one['workload']}"
        out.say(
            f"    {one['result'].replace('_', ' ')}: {where}, {rules[0]} before, {rules[1]} now: {one['decisions'][0]}"
        )
    if len(differences) > MOST_DIFFERENCES:
        out.say(f"    and {len(differences) - MOST_DIFFERENCES} more kinds, in `-o json`")
