"""Revisions of policies for people and programs."""

from collections.abc import Iterator, Sequence

from authz.bundles.manifest import time_text
from authz.bundles.whole_bundle import Bundle
from authz.canary.candidate_terms import CandidateTerms, write_terms
from authz.core.attributes import Json
from authz.truth.policy_head import PolicyHead, PushedCandidate


def head_json(head: PolicyHead) -> dict[str, Json]:
    """A revision with the documented fields (docs/truth.md)."""
    return {
        "revision": head.number,
        "created": time_text(head.created),
        "author": head.author,
        "message": head.message,
        "rollback_of": head.rollback_of,
        "promoted_from": head.promoted_from,
        "digest": head.digest,
        "files": head.files,
        "added": head.added,
        "changed": head.changed,
        "removed": head.removed,
    }


def candidate_json(candidate: PushedCandidate, terms: CandidateTerms | None = None) -> dict[str, Json]:
    """A candidate with the documented fields (docs/truth.md); ``terms`` as its archive says."""
    aborted = candidate.aborted
    return {
        "candidate": candidate.number,
        "created": time_text(candidate.created),
        "author": candidate.author,
        "message": candidate.message,
        "digest": candidate.digest,
        "files": candidate.files,
        "added": candidate.added,
        "changed": candidate.changed,
        "removed": candidate.removed,
        "aborted": None
        if aborted is None
        else {"at": time_text(aborted.at), "by": aborted.by, "reason": aborted.reason},
        **({"terms": write_terms(terms)} if terms is not None else {}),
    }


def told_revisions(heads: Sequence[PolicyHead]) -> list[PolicyHead]:
    """Each revision once, as it was last told of; the newest first."""
    return sorted({head.number: head for head in heads}.values(), key=lambda head: -head.number)


def told_candidates(heads: Sequence[PolicyHead]) -> list[PushedCandidate]:
    """Each candidate once, as it was last told of; the newest first."""
    found = {head.candidate.number: head.candidate for head in heads if head.candidate is not None}
    return sorted(found.values(), key=lambda one: -one.number)


def bundle_json(bundle: Bundle) -> dict[str, Json]:
    """What its archive says of itself; its signatures are named, not judged."""
    manifest = bundle.manifest
    return {
        "fleet": manifest.fleet,
        "expires": None if manifest.expires is None else time_text(manifest.expires),
        "commit": manifest.provenance.commit,
        "signed_by": [one.key_id for one in bundle.signatures],
        "names": [file.name for file in manifest.files],
    }


def history_rows(heads: Sequence[PolicyHead]) -> Iterator[tuple[str, ...]]:
    """The lines of the table: revisions and candidates, the newest first."""
    revisions, candidates = told_revisions(heads), told_candidates(heads)
    promoted = {head.promoted_from: head.number for head in revisions}
    current = revisions[0].candidate if revisions else None
    every: list[PolicyHead | PushedCandidate] = [*revisions, *candidates]
    for one in sorted(every, key=lambda one: -one.number):
        message, name = one.message.partition("\n")[0], str(one.number)
        if isinstance(one, PushedCandidate):
            name += " candidate"
            over = "" if one == current else "over; "
            state = f"promoted as {promoted[one.number]}; " if one.number in promoted else over
            message = f"(taken back; {message})" if one.aborted is not None else f"({state}{message})"
        changes = f"+{one.added} ~{one.changed} -{one.removed}"
        yield name, time_text(one.created), one.author, changes, message


def revision_lines(head: PolicyHead | PushedCandidate, bundle: Bundle) -> Iterator[str]:
    """All of one revision or candidate."""
    manifest = bundle.manifest
    what = "revision" if isinstance(head, PolicyHead) else "candidate"
    yield f"{what} {head.number} of {manifest.fleet}, by {head.author} at {time_text(head.created)}"
    for line in head.message.splitlines():
        yield f"    {line}"
    if isinstance(head, PolicyHead):
        if head.rollback_of is not None:
            yield f"  content: that of revision {head.rollback_of}"
        if head.promoted_from is not None:
            yield f"  content: the policies of candidate {head.promoted_from}"
    elif head.aborted is not None:
        yield f"  taken back by {head.aborted.by} at {time_text(head.aborted.at)}: {head.aborted.reason}"
    if manifest.candidate is not None:
        yield f"  beside:  revision {manifest.candidate.base}, {manifest.candidate}"
    if manifest.expires is not None:
        yield f"  expires: {time_text(manifest.expires)}"
    if manifest.provenance.commit:
        yield f"  commit:  {manifest.provenance.commit}"
    yield f"  key:     {', '.join(one.key_id for one in bundle.signatures) or 'nobody signed it'}"
    yield f"  archive: {head.digest}"
    for file in manifest.files:
        yield f"  {file.name} ({file.size} bytes)"
