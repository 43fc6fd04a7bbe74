"""
Files of policies read as a whole: documents found, kinds told apart, identities unique, everything checked at once.

``read_policies`` never raises because of what is in the files. Whoever takes ``resources`` out of a result with errors
gets a ``LoadError`` instead: an invalid DENY policy is never dropped silently (RE-24).
"""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from authz.core.errors import LoadError, Location, Problem, Severity, sort_problems
from authz.core.resources import (
    AuthorizationPolicy,
    MeshConfig,
    Metadata,
    PeerAuthentication,
    RequestAuthentication,
    Resources,
)
from authz.documents import reading
from authz.documents.decoders import is_letter
from authz.documents.reading import Document, Node, one_line
from authz.documents.schema import Notes, Shape, given, key_of, nearest, note_unknown, text_of
from authz.policy import foreign, lints
from authz.policy.authentication import (
    PEER_SPEC,
    REQUEST_SPEC,
    build_peer_authentication,
    build_request_authentication,
)
from authz.policy.authorization import SPEC, build_authorization_policy
from authz.policy.learning import Checked
from authz.policy.memory import File, Found, Memory, Resource
from authz.policy.object_meta import check_status, read_metadata
from authz.policy.other_kinds import GROUP, is_of_others, skip
from authz.policy.pieces import FileReader
from authz.policy.version import facts_digest, version_of

VERSIONS = ("v1", "v1beta1")
_TOP_LEVEL = ("apiVersion", "kind", "metadata", "spec", "status")

_Found = dict[tuple[str, str, str], Found]
"""Objects by kind, namespace and name."""


class _Reading(NamedTuple):
    """How one kind is read."""

    spec: Shape[dict[str, Any]]
    build: Callable[[reading.Mapping, Metadata, dict[str, Any], Notes], Resource]


KINDS = {
    "AuthorizationPolicy": _Reading(SPEC, build_authorization_policy),
    "RequestAuthentication": _Reading(REQUEST_SPEC, build_request_authentication),
    "PeerAuthentication": _Reading(PEER_SPEC, build_peer_authentication),
}


@dataclass(frozen=True, slots=True)
class ReadResult:
    """The result of reading. ``problems`` are sorted; warnings and remarks may stand beside usable resources."""

    read: Resources
    """
    The objects that could be decoded, for tools that show them beside their problems; never to be enforced when
    ``has_errors``.
    """
    problems: tuple[Problem, ...]

    @property
    def has_errors(self) -> bool:
        """Whether the set is refused."""
        return any(problem.is_error for problem in self.problems)

    @property
    def resources(self) -> Resources:
        """The resources. Raises LoadError with every problem when there is an error (RE-24)."""
        if self.has_errors:
            raise LoadError(self.problems)
        return self.read


def read_policies(
    files: Iterable[tuple[str, bytes]],
    mesh: MeshConfig | None = None,
    on_resource: Callable[[Resource], None] | None = None,
    memory: Memory | None = None,
    *,
    allow_empty: bool = False,
) -> ReadResult:
    """
    Read all policies of some files.

    Args:
        files: (name, content) pairs in any order; the name appears in places.
        mesh: enters the policy version, and allows remarks on what does not fit it; None leaves these out.
        on_resource: told of each resource as soon as it is decoded, in the order of the files. Never to be enforced
            before the result is known to have no error.
        memory: what was found the last time, by text; used and brought up to date. The result is the same as
            without it.
        allow_empty: take files without a document, and a set without a policy. Otherwise these are errors, because
            what is missing may be what denies.

    Raises:
        Nothing because of content: everything wrong is a problem of the result.
    """
    problems: list[Problem] = []
    found: _Found = {}
    read: dict[str, File] = {}
    reading_file = FileReader(memory, _read_document)
    for name, data in sorted(files, key=lambda pair: pair[0]):
        file = reading_file.read(name, data)
        read.setdefault(name, file)
        if file.is_empty and not allow_empty:
            problems.append(_empty_file(name))
        for piece in file.pieces:
            problems.extend(piece.problems)
            for one in piece.found:
                _keep(one, found, problems)
                if on_resource is not None:
                    on_resource(one.resource)
    if memory is not None:
        memory.files = read
    if not found and read and not allow_empty and not any(problem.is_error for problem in problems):
        problems.append(_no_policy(list(read)))
    resources = _sorted(found)
    problems.extend(lints.lint(resources, mesh))
    version = version_of((one.facts for one in found.values()), mesh or MeshConfig())
    digests = b"".join(_digests(found, mesh or MeshConfig()))
    return ReadResult(replace(resources, version=version, digests=digests), sort_problems(problems))


def _empty_file(file: str) -> Problem:
    message = "the file holds no document, and what is missing may be what denies"
    return Problem(Severity.ERROR, "empty", message, Location(file), help="write the policies, or remove the file")


def _no_policy(files: list[str]) -> Problem:
    """Only other things in the files, or kinds that nothing reads any more: everything would be allowed."""
    place = files[0]
    if len(files) > 1:
        with suppress(ValueError):  # files of different roots
            place = os.path.commonpath(files) or place
    what = "the file holds" if len(files) == 1 else f"{len(files)} files hold"
    return Problem(
        Severity.ERROR,
        "empty",
        f"{what} no policy, and without policies everything would be allowed",
        Location(place),
        help=f"expected {', '.join(KINDS)} of {GROUP}",
    )


def _sorted(found: _Found) -> Resources:
    """Sort by namespace and name, so that the order of files does not matter."""
    ordered = [found[identity].resource for identity in sorted(found)]
    return Resources(
        tuple(item for item in ordered if isinstance(item, AuthorizationPolicy)),
        tuple(item for item in ordered if isinstance(item, RequestAuthentication)),
        tuple(item for item in ordered if isinstance(item, PeerAuthentication)),
    )


def _digests(found: _Found, mesh: MeshConfig) -> Iterator[bytes]:
    """In the order of ``Resources.digests``."""
    for kind in (AuthorizationPolicy, RequestAuthentication):
        yield from (found[identity].facts for identity in sorted(found) if isinstance(found[identity].resource, kind))
    yield facts_digest(mesh)


def _keep(one: Found, found: _Found, problems: list[Problem]) -> None:
    """Keep an object, or refuse it when its identity is taken (RE-2)."""
    kind, metadata = type(one.resource).__name__, one.resource.metadata
    before = found.setdefault((kind, metadata.namespace, metadata.name), one)
    if before is not one and metadata.name:
        name = one_line(f"{kind} {metadata.namespace}/{metadata.name}")
        message = one_line(f"`{name}` is already defined at {before.resource.metadata.location}")
        path = one_line(one.prefix)
        problems.append(Problem(Severity.ERROR, "RE-2", message, one.place, one.number, name, path, "rename one"))


def _read_document(document: Document, problems: list[Problem], checked: Checked | None = None) -> Resource | None:
    """Read one document; None when it is not a policy, or too broken to be one."""
    root = document.root
    notes = Notes(document, problems, checked=checked)
    if not isinstance(root, reading.Mapping):
        if (tools := foreign.tool_input(document)) is not None:
            notes.error(foreign.CODE, root, tools.message, tools.help)
        else:
            advice = "expected `apiVersion`, `kind`, `metadata` and `spec`"
            notes.error("RE-1", root, "a document is not an object", advice)
        return None
    kind, api_version = text_of(root.entries.get("kind")), text_of(root.entries.get("apiVersion"))
    found = _kind(root, kind, api_version, notes)
    if found is None:
        return None
    notes.resource = _name(root, kind or "")
    for name in root.entries:
        if name not in _TOP_LEVEL:
            note_unknown(name, root, _TOP_LEVEL, notes, "VA-6", "top-level field")
    metadata = read_metadata(root, notes)
    check_status(root, notes)
    spec_node = given(root, "spec")
    if spec_node is None:
        # "spec may be absent or empty; both mean all fields at their default" (RE-5), which the checks still look at.
        spec_node = reading.Mapping({}, [], root.line, root.column)
    return found.build(root, metadata, found.spec.decode(spec_node, notes), notes)


def _kind(root: reading.Mapping, kind: str | None, api_version: str | None, notes: Notes) -> _Reading | None:
    """Tell the kinds apart (RE-1, RE-12); None with a problem noted when it is none of ours."""
    is_odd = (
        not kind or api_version is None or "kustomize" in api_version or {"sops", foreign.PATCH} & root.entries.keys()
    )
    tools = foreign.tool_input(notes.document) if is_odd else None
    if tools is not None:
        notes.add(Severity.ERROR if tools.is_error else Severity.WARNING, foreign.CODE, root, tools.message, tools.help)
        return None
    if not kind or api_version is None:
        if not kind and api_version is None and any(problem.message == foreign.NO_KIND for problem in notes.problems):
            return None  # said once for the file
        missing = "kind" if not kind else "apiVersion"
        advice = f"a policy begins with `apiVersion: {GROUP}/v1` and its `kind`"
        alike = next((name for name in root.entries if name != missing and name.lower() == missing.lower()), "")
        hint = f"; `{alike}` is written `{missing}`" if alike else ""
        node = key_of(root, alike) if alike else root.entries.get(missing, root)
        notes.error("RE-1", node, f"the document has no `{missing}`{hint}", advice)
        return None
    group, _, version = api_version.rpartition("/")
    if kind in KINDS and group == GROUP and version in VERSIONS:
        return KINDS[kind]
    if kind in KINDS and group == "rbac.istio.io":
        skip(root, kind, api_version, notes)
    elif kind in KINDS and not is_of_others(group):
        message = f"`{api_version}` is not an API version of {kind}"
        advice = f"expected {' or '.join(f'`{GROUP}/{v}`' for v in VERSIONS)}"
        notes.error("RE-1", root.entries["apiVersion"], message, advice)
    elif group == GROUP and kind.removesuffix("List") in KINDS:
        notes.info("RE-12", root, f"an empty {kind}")  # with items it would have been taken apart
    elif group == GROUP or api_version == GROUP:
        close = nearest(kind, KINDS)
        hint = f"; did you mean `{close}`?" if close else ""
        advice = f"expected one of {', '.join(KINDS)}"
        notes.error("RE-1", root.entries["kind"], f"unknown kind `{kind}` of {GROUP}{hint}", advice)
    else:
        skip(root, kind, api_version, notes)
    return None


def _name(root: reading.Mapping, kind: str) -> str:
    metadata = given(root, "metadata")
    if not isinstance(metadata, reading.Mapping):
        return kind
    name, namespace = (_shown(metadata.entries.get(field)) for field in ("name", "namespace"))
    return f"{kind} {namespace or 'default'}/{name}" if name else kind


def _shown(node: Node | None) -> str | None:
    return node.value if isinstance(node, reading.Scalar) and is_letter(node) else text_of(node)
