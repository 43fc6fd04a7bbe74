"""Revisions of policies for people and programs."""

from collections.abc import Iterator

from authz.bundles.manifest import time_text
from authz.bundles.whole_bundle import Bundle
from authz.core.attributes import Json
from authz.truth.policy_head import PolicyHead


def head_json(head: PolicyHead) -> dict[str, Json]:
    """A revision with the documented fields (docs/truth.md)."""
    return {
        "revision": head.number,
        "created": time_text(head.created),
        "author": head.author,
        "message": head.message,
        "rollback_of": head.rollback_of,
        "digest": head.digest,
        "files": head.files,
        "added": head.added,
        "changed": head.changed,
        "removed": head.removed,
    }


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


def history_row(head: PolicyHead) -> tuple[str, ...]:
    """A line of the table."""
    changes = f"+{head.added} ~{head.changed} -{head.removed}"
    message = head.message.partition("\n")[0]
    return str(head.number), time_text(head.created), head.author, changes, message


def revision_lines(head: PolicyHead, bundle: Bundle) -> Iterator[str]:
    """All of one revision."""
    manifest = bundle.manifest
    yield f"revision {head.number} of {manifest.fleet}, by {head.author} at {time_text(head.created)}"
    for line in head.message.splitlines():
        yield f"    {line}"
    if head.rollback_of is not None:
        yield f"  content: that of revision {head.rollback_of}"
    if manifest.expires is not None:
        yield f"  expires: {time_text(manifest.expires)}"
    if manifest.provenance.commit:
        yield f"  commit:  {manifest.provenance.commit}"
    yield f"  key:     {', '.join(one.key_id for one in bundle.signatures) or 'nobody signed it'}"
    yield f"  archive: {head.digest}"
    for file in manifest.files:
        yield f"  {file.name} ({file.size} bytes)"
