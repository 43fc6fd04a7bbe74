"""``authz policies push`` and ``rollback``: a set is checked, compared, signed, and put in force as a whole."""

import hashlib
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import chdir, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import click

from authz.bundles.manifest import MESH, BundleRefused, Provenance, time_text
from authz.bundles.packing import MAX_PACKED_BYTES
from authz.bundles.whole_bundle import Bundle, build_bundle, read_bundle, sign_bundle
from authz.cli import diff_report, policy_files, terminal
from authz.cli.bundle_contents import bundle_files, duration_seconds, provenance_of, signing_key
from authz.cli.diff import SECONDS, compare
from authz.cli.fleet_source import look_through
from authz.cli.fleet_wait import say_waited
from authz.cli.mesh_sides import NamedDescription
from authz.cli.policy_views import head_json
from authz.cli.push_options import (
    AUTHOR,
    DRY_RUN,
    EXISTING,
    EXPIRES,
    IF_REVISION,
    KEY,
    MESSAGE,
    OVER_DAMAGED,
    PEM,
    WAIT,
)
from authz.cli.truth_options import TRUTH_URL, truth_access
from authz.core.attributes import Json
from authz.truth.fleet_waiting import await_revision
from authz.truth.policy_head import PolicyHead
from authz.truth.truth_address import TruthAccess, read_truth_address

if TYPE_CHECKING:
    from authz.truth.policy_revisions import KeptHead, PolicyRevisions

SETTLE_SECONDS = 20.0
"""For a push without an answer to be found out about."""
UNKNOWN = ": nobody knows whether revision {} is in force; `authz policies history` says so once the truth answers"


@dataclass(frozen=True, slots=True)
class Pushed:
    """What is to be pushed, compared with what is in force."""

    head: PolicyHead
    archive: bytes
    before: "KeptHead | None"
    changes: Mapping[str, tuple[str, ...]]
    """Names of files: ``added``, ``changed``, ``removed``."""
    report: diff_report.DiffReport | None
    """None where nothing was in force."""


@click.command("push")
@click.argument("policies", metavar="DIR...", nargs=-1, required=True, type=EXISTING)
@TRUTH_URL
@click.option("--mesh", type=PEM, help="The mesh description, or Istio's MeshConfig.")
@click.option("--traffic", type=EXISTING, help="What stands apart of it, a file or directory.")
@click.option("--trust", multiple=True, type=PEM, help="Trust material, such as a PEM bundle; may be repeated.")
@KEY
@MESSAGE
@AUTHOR
@EXPIRES
@IF_REVISION
@OVER_DAMAGED
@WAIT
@DRY_RUN
@terminal.answer_form("text", "json")
@truth_access
def push(
    policies: tuple[Path, ...], url: str, mesh: Path | None, traffic: Path | None, trust: tuple[Path, ...],
    key: Path | None, message: str, author: str, expires: str, if_revision: int | None, over_damaged: bool,
    wait: float, dry_run: bool, output: str, access: TruthAccess,
) -> None:  # fmt: skip
    """
    Put a whole set of policies in force in the truth of a fleet, if what it was compared with still is.

    Policies that servers would refuse are refused. Exit code: 0 it is in force, 3 another revision was pushed
    meanwhile and nothing is changed, 1 it was refused, or nobody knows. With --wait also 3 when it is in force and
    somebody has not acknowledged it in time; who, is said.

    \b
    authz policies push policies --to nats://127.0.0.1:4222/shop --key keys/bundle.key -m "first ones"
    authz policies push policies --to nats://127.0.0.1:4222/shop --key keys/bundle.key -m "no ops" --wait 60
    authz policies push policies --mesh mesh.yaml --to nats://127.0.0.1:4222/shop --dry-run
    authz policies push policies --to nats://127.0.0.1:4222/shop --key keys/bundle.key --if-revision 7 -m "let ops in"
    """
    if traffic is not None and mesh is None:
        raise click.UsageError("--traffic is read together with --mesh, a mesh description")
    named = [str(path) for path in policies]
    policy_files.load(named, str(mesh) if mesh else None, str(traffic) if traffic else None)
    if mesh is not None and policy_files.has_workloads(policy_files.description_files(str(mesh), _text(traffic))):
        policy_files.read_workloads(str(mesh), _text(traffic))
    provenance = provenance_of(policies[0])
    who = author or provenance.author or own_name()
    files = bundle_files(policies, mesh, traffic, trust)
    with revisions_of(url, access) as revisions:
        before, kept = in_force(revisions, if_revision, over_damaged=over_damaged)
        if kept is not None and MESH in kept.files and mesh is None:
            raise BundleRefused("what is in force has a mesh description, and without --mesh it would be lost")
        lifetime = duration_seconds(expires) if expires else None
        pushed = prepare(url, files, kept, before, who, message, provenance, lifetime, None)
        if (report := pushed.report) is not None:  # commands in it are for what is here
            pushed = replace(pushed, report=replace(report, path=named[0], mesh=str(mesh) if mesh else report.mesh))
        finish(revisions, pushed, key, dry_run=dry_run, output=output, wait=wait)


@contextmanager
def revisions_of(url: str, access: TruthAccess) -> "Iterator[PolicyRevisions]":
    """
    The revisions in a truth.

    Raises:
        SettingsError, TruthAway: address, files or servers are not usable.
    """
    from authz.truth.policy_revisions import PolicyRevisions  # nats is slow to import
    from authz.truth.truth_client import TruthClient

    with TruthClient(read_truth_address(url), access, name="authz policies") as client:
        yield PolicyRevisions(client)


def in_force(
    revisions: "PolicyRevisions", if_revision: int | None, *, over_damaged: bool = False
) -> "tuple[KeptHead | None, Bundle | None]":
    """
    What is in force, and its content; ends the command with 3 when it is another revision than ``if_revision``.

    Raises:
        DamagedHead, BundleRefused, TruthAway, TruthRefused: it cannot be read, and so nothing is pushed.
    """
    from authz.truth.truth_client import TruthAway

    try:
        before = revisions.head(over_damaged=over_damaged)
        number = before.head.number if before is not None else 0
        if if_revision is not None and number != if_revision:
            conflict(before.head if before is not None else None)
        return before, read_bundle(revisions.archive(before.head, MAX_PACKED_BYTES)) if before is not None else None
    except TruthAway as error:
        raise TruthAway(f"{error}; nothing was pushed") from error


def prepare(
    url: str,
    files: Mapping[str, bytes],
    kept: Bundle | None,
    before: "KeptHead | None",
    author: str,
    message: str,
    provenance: Provenance,
    lifetime: int | None,
    rollback_of: int | None,
) -> Pushed:
    """
    Build the next revision, which nobody has signed yet, and compare it with what is in force.

    Raises:
        BundleRefused, LoadError: it cannot be built, or one of both sets cannot be compared.
    """
    now = int(time.time())
    number = before.head.number + 1 if before is not None else 1
    own = Provenance(provenance.commit, author, provenance.tool)
    archive = build_bundle(
        files, fleet=read_truth_address(url).fleet, revision=number, created=now,
        expires=now + lifetime if lifetime is not None else None, provenance=own,
    )  # fmt: skip
    old = dict(kept.files) if kept is not None else {}
    changes = {
        "added": tuple(sorted(files.keys() - old.keys())),
        "changed": tuple(sorted(name for name in files.keys() & old.keys() if files[name] != old[name])),
        "removed": tuple(sorted(old.keys() - files.keys())),
    }
    head = PolicyHead(
        number, "0" * 64, now, author, message, len(files), len(changes["added"]), len(changes["changed"]),
        len(changes["removed"]), rollback_of,
    )  # fmt: skip
    return Pushed(head, archive, before, changes, _compared(old, files) if kept is not None else None)


def finish(
    revisions: "PolicyRevisions", pushed: Pushed, key: Path | None, *, dry_run: bool, output: str, wait: float = 0.0
) -> None:
    """Say what changes; sign and push unless it is a dry run, and wait for the fleet. Ends the command."""
    if output == "text":
        _say_changes(pushed)
    if not dry_run:
        if key is None:
            raise click.UsageError("--key is needed, or --dry-run")
        pushed = signed(pushed, key)
        publish(revisions, pushed)
    if output == "text":
        is_pushed = f"revision {pushed.head.number} is in force"
        terminal.say(
            f"would be revision {pushed.head.number}; nothing is pushed" if dry_run else is_pushed,
            "" if dry_run else "green",
        )
    revision = str(pushed.head.number)
    view = await_revision(look_through(revisions.client), revision, wait) if wait and not dry_run else None
    if output == "json":
        told: dict[str, Json] = {"pushed": not dry_run, **head_json(pushed.head)}
        told["changes"] = {name: list(names) for name, names in pushed.changes.items()}
        told["diff"] = diff_report.as_json(pushed.report) if pushed.report is not None else None
        if view is not None:
            told["acknowledged"] = view.has(revision)
            told["without"] = [one.name for one in view.without(revision)]
        terminal.print_json(told)
    elif view is not None:
        say_waited(view, revision)
    if view is not None and not view.has(revision):
        raise SystemExit(terminal.Exit.NO)


def signed(pushed: Pushed, key: Path) -> Pushed:
    """With a signature, and the digest of the whole. Raises BundleRefused, OSError."""
    archive = sign_bundle(pushed.archive, signing_key(key))
    head = replace(pushed.head, digest=hashlib.sha256(archive).hexdigest())
    return replace(pushed, head=head, archive=archive)


def publish(revisions: "PolicyRevisions", pushed: Pushed) -> None:
    """
    Put it in force; ends the command with 3 on a conflict.

    When nobody answers it is pushed again: of the same compare-and-swap at most one succeeds, and then it is known.

    Raises:
        TruthAway: nobody knows whether it is in force, or it certainly is not; the message says which.
        TruthRefused, DamagedHead: it is not.
    """
    from authz.truth.truth_client import TruthAway, TruthChanged, TruthUntouched

    until = time.monotonic() + SETTLE_SECONDS
    is_said, is_untouched = False, True
    while True:
        try:
            try:
                revisions.publish(pushed.head, pushed.archive, pushed.before)
            except TruthChanged:
                if not revisions.is_published(pushed.head):
                    found = revisions.head()
                    if found == pushed.before:  # after an election a server may know less than who leads
                        raise TruthUntouched("the servers of the truth do not agree yet") from None
                    conflict(found.head if found is not None else None)
        except TruthAway as error:
            is_untouched = is_untouched and isinstance(error, TruthUntouched)
            if time.monotonic() > until:
                known = "; nothing was pushed" if is_untouched else UNKNOWN.format(pushed.head.number)
                raise TruthAway(f"{error}{known}") from error
            if not is_said:
                terminal.remark(f"{error}; trying again …")
            is_said = True
            time.sleep(0.2)
        else:
            return


def conflict(head: PolicyHead | None) -> None:
    """Say which revision is in force instead, and end the command with 3."""
    if head is None:
        terminal.remark("nothing is in force; nothing was pushed")
    else:
        why = f": {head.message}" if head.message else ""
        terminal.remark(
            f"revision {head.number} is in force, pushed by {head.author} at {time_text(head.created)}{why}; nothing "
            "was pushed. Look at it (`authz policies show`), and push again."
        )
    sys.exit(terminal.Exit.NO)


def _compared(old: Mapping[str, bytes], new: Mapping[str, bytes]) -> diff_report.DiffReport:
    with TemporaryDirectory() as folder, chdir(folder):  # so that places are said without it
        for name, files in (("in-force", old), ("pushed", new)):
            for path, data in files.items():
                where = Path(name, path)
                where.parent.mkdir(parents=True, exist_ok=True)
                where.write_bytes(data)
        sides = [_description(Path(name)) for name in ("in-force", "pushed")]
        if sides[0].mesh is None:  # the first mesh description is compared with itself
            sides[0] = sides[1]
        report = compare("in-force/policies", "pushed/policies", sides[0], sides[1], SECONDS)
        return replace(report, old="in force", new="pushed")


def _description(folder: Path) -> NamedDescription:
    mesh, traffic = folder / MESH, folder / "traffic"
    return NamedDescription(str(mesh) if mesh.exists() else None, str(traffic) if traffic.exists() else None)


def _say_changes(pushed: Pushed) -> None:
    for what, names in pushed.changes.items():
        for name in names:
            terminal.say(f"{what:8} {name}")
    if pushed.report is not None:
        diff_report.write(pushed.report, "text")


def _text(path: Path | None) -> str | None:
    return str(path) if path is not None else None


def own_name() -> str:
    """Who runs this, as the machine says."""
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
