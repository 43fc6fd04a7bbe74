"""``authz policies push``, and what ``rollback`` has in common with it: a set is checked, compared, and built."""

import time
from collections.abc import Iterator, Mapping
from contextlib import chdir, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import click

from authz.bundles.bundle_signatures import VerifyingKey, read_verifying_key
from authz.bundles.manifest import MESH, BundleRefused, Provenance
from authz.bundles.packing import MAX_PACKED_BYTES
from authz.bundles.whole_bundle import Bundle, build_bundle, read_bundle
from authz.canary.candidate_terms import CandidateTerms
from authz.cli import diff_report, policy_files, terminal
from authz.cli.bundle_contents import bundle_files, duration_seconds, provenance_of, signing_key
from authz.cli.diff import SECONDS, compare
from authz.cli.mesh_sides import NamedDescription
from authz.cli.policy_publishing import Pushed, conflict, finish
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
    WantedCandidate,
    candidate_options,
)
from authz.cli.truth_options import TRUTH_URL, truth_access
from authz.mesh.description import read_mesh_description
from authz.truth.policy_head import PolicyHead, PushedCandidate
from authz.truth.truth_address import TruthAccess, read_truth_address

if TYPE_CHECKING:
    from authz.truth.policy_revisions import KeptHead, PolicyRevisions

UNSIGNED = "0" * 64
"""In the place of a digest, until it is signed."""
_POLICIES = "policies/"


@click.command("push")
@click.argument("policies", metavar="DIR...", nargs=-1, required=True, type=EXISTING)
@TRUTH_URL
@click.option("--mesh", type=PEM, help="The mesh description, or Istio's MeshConfig.")
@click.option("--traffic", type=EXISTING, help="What stands apart of it, a file or directory.")
@click.option("--trust", multiple=True, type=PEM, help="Trust material, such as a PEM bundle; may be repeated.")
@candidate_options
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
    wait: float, dry_run: bool, output: str, access: TruthAccess, wanted: WantedCandidate | None,
) -> None:  # fmt: skip
    """
    Put a whole set of policies in force in the truth of a fleet, if what it was compared with still is.

    Policies that servers would refuse are refused. Exit code: 0 it is in force, 3 another revision was pushed
    meanwhile and nothing is changed, 1 it was refused, or nobody knows. With --wait also 3 when it is in force and
    somebody has not acknowledged it in time; who, is said.

    With --candidate it is not in force for all: servers that are asked decide it in shadow, and control planes put it
    in force for those that --canary and --canary-workload choose (`authz candidate --help`). With --wait also 3 when a
    replica refuses it, at once, or has not taken it in time, or a proxy that it is for has not acknowledged it.

    \b
    authz policies push policies --to nats://127.0.0.1:4222/shop --key keys/bundle.key -m "first ones"
    authz policies push policies --to nats://127.0.0.1:4222/shop --key keys/bundle.key -m "no ops" --wait 60
    authz policies push policies --mesh mesh.yaml --to nats://127.0.0.1:4222/shop --dry-run
    authz policies push policies --to nats://127.0.0.1:4222/shop --key keys/bundle.key --if-revision 7 -m "let ops in"
    authz policies push policies --to nats://127.0.0.1:4222/shop --key keys/bundle.key --candidate --canary 5%
    """
    if wanted is not None and over_damaged:
        raise click.UsageError("--candidate does not go with --over-damaged: a candidate replaces nothing")
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
        if kept is not None and MESH in kept.files and mesh is None and wanted is None:
            raise BundleRefused("what is in force has a mesh description, and without --mesh it would be lost")
        lifetime = duration_seconds(expires) if expires else None
        proposed = Proposal(url, files, kept, before, message, replace(provenance, author=who), lifetime)
        pushed = prepare(proposed) if wanted is None else prepare_candidate(proposed, wanted)
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
        before = revisions.to_replace(over_damaged=over_damaged)
        number = before.head.number if before is not None else 0
        if if_revision is not None and number != if_revision:
            conflict(before.head if before is not None else None)
        return before, read_bundle(revisions.archive(before.head, MAX_PACKED_BYTES)) if before is not None else None
    except TruthAway as error:
        raise TruthAway(f"{error}; nothing was pushed") from error


@dataclass(frozen=True, slots=True)
class Proposal:
    """A whole set of files to be pushed, and what is in force now."""

    url: str
    """Of the truth."""
    files: Mapping[str, bytes]
    kept: Bundle | None
    """Content of what is in force; None where nothing is."""
    before: "KeptHead | None"
    message: str
    provenance: Provenance
    """Its author is who pushes."""
    lifetime: int | None
    """Seconds for which it may be put in force; None: for ever."""

    def build(self, number: int, now: int, candidate: CandidateTerms | None = None) -> bytes:
        """A bundle that nobody has signed yet. Raises BundleRefused."""
        return build_bundle(
            self.files, fleet=read_truth_address(self.url).fleet, revision=number, created=now,
            expires=now + self.lifetime if self.lifetime is not None else None,
            provenance=self.provenance, candidate=candidate,
        )  # fmt: skip


def prepare(proposed: Proposal, rollback_of: int | None = None) -> Pushed:
    """
    Build the next revision, which nobody has signed yet, and compare it with what is in force.

    Raises:
        BundleRefused, LoadError: it cannot be built, or one of both sets cannot be compared.
    """
    now, before, files = int(time.time()), proposed.before, proposed.files
    number, reserved = (before.head.next_number, before.head.reserved) if before is not None else (1, 0)
    archive = proposed.build(number, now)
    old = dict(proposed.kept.files) if proposed.kept is not None else {}
    changes = _changes(old, files)
    head = PolicyHead(
        number,
        UNSIGNED,
        now,
        proposed.provenance.author,
        proposed.message,
        len(files),
        *_counts(changes),
        rollback_of=rollback_of,
        reserved=reserved,
    )
    return Pushed(head, archive, before, changes, _compared(old, files) if proposed.kept is not None else None)


def prepare_candidate(proposed: Proposal, wanted: WantedCandidate) -> Pushed:
    """
    Build a candidate beside what is in force, which nobody has signed yet, and compare it with that.

    All but policies is as it is in force: what the proposal has of it must be the same.

    Raises:
        BundleRefused, LoadError: as ``prepare``; nothing is in force, more than policies is changed, or a workload is
            not described.
    """
    kept, before = proposed.kept, proposed.before
    if kept is None or before is None:
        raise BundleRefused("nothing is in force that a candidate could be beside: push it without --candidate")
    policies, rest = of_policies(proposed.files), not_policies(proposed.files)
    if other := sorted(name for name, data in rest.items() if kept.files.get(name) != data):
        raise BundleRefused(
            f"a candidate changes policies alone, and `{other[0]}` is not what is in force: push that first"
        )
    whole = {**not_policies(kept.files), **policies}
    _refuse_unknown_workloads(whole, wanted)
    now, number = int(time.time()), before.head.next_number
    terms = CandidateTerms(number, before.head.number, wanted.selection, wanted.bound)
    archive = replace(proposed, files=whole).build(number, now, terms)
    changes = _changes(kept.files, whole)
    author, message = proposed.provenance.author, proposed.message
    own = PushedCandidate(number, UNSIGNED, now, author, message, len(whole), *_counts(changes))
    head = replace(before.head, reserved=number, candidate=own)
    return Pushed(head, archive, before, changes, _compared(dict(kept.files), whole), terms)


def of_policies(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Those of a bundle that are policies."""
    return {name: data for name, data in files.items() if name.startswith(_POLICIES)}


def not_policies(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """The others: the mesh description and trust material."""
    return {name: data for name, data in files.items() if not name.startswith(_POLICIES)}


def _refuse_unknown_workloads(files: Mapping[str, bytes], wanted: WantedCandidate) -> None:
    """Raises BundleRefused. Where workloads are described elsewhere, control planes look."""
    described = [(name, data) for name, data in files.items() if name == MESH or name.startswith("traffic/")]
    if not policy_files.has_workloads(described):
        return
    mesh, _ = read_mesh_description(described)
    if unknown := wanted.selection.unknown(one.name for one in mesh.workloads):
        raise BundleRefused(f"the mesh has no workload {', '.join(f'`{name}`' for name in unknown)}")


def _counts(changes: Mapping[str, tuple[str, ...]]) -> tuple[int, int, int]:
    return len(changes["added"]), len(changes["changed"]), len(changes["removed"])


def _changes(old: Mapping[str, bytes], new: Mapping[str, bytes]) -> dict[str, tuple[str, ...]]:
    """Names of files: ``added``, ``changed`` and ``removed``, in this order."""
    return {
        "added": tuple(sorted(new.keys() - old.keys())),
        "changed": tuple(sorted(name for name in new.keys() & old.keys() if new[name] != old[name])),
        "removed": tuple(sorted(old.keys() - new.keys())),
    }


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


def _text(path: Path | None) -> str | None:
    return str(path) if path is not None else None


def known_keys(key: Path | None, keys: tuple[Path, ...]) -> list[VerifyingKey]:
    """The public half of the key that signs, and others. Raises BundleRefused, OSError."""
    known = [signing_key(key).public_key()] if key is not None else []
    for file in keys:
        try:
            known.append(read_verifying_key(file.read_bytes()))
        except BundleRefused as error:
            raise BundleRefused(f"`{file}` {error}") from error
    return known


def own_name() -> str:
    """Who runs this, as the machine says."""
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
