"""
Files of policies read as a whole: documents found, kinds told apart, identities unique, everything checked at once.

``read_policies`` never raises because of what is in the files. Whoever takes ``resources`` out of a result with errors
gets a ``LoadError`` instead: an invalid DENY policy is never dropped silently (RE-24).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from authz.core.errors import LoadError, Problem, Severity, sort_problems
from authz.core.resources import (
    AuthorizationPolicy,
    MeshConfig,
    Metadata,
    PeerAuthentication,
    RequestAuthentication,
    Resources,
)
from authz.documents import reading
from authz.documents.reading import Document, one_line
from authz.documents.schema import Notes, Shape, given, key_of, nearest, note_unknown, text_of
from authz.policy import lints
from authz.policy.authentication import (
    PEER_SPEC,
    REQUEST_SPEC,
    build_peer_authentication,
    build_request_authentication,
)
from authz.policy.authorization import SPEC, build_authorization_policy
from authz.policy.memory import File, Found, Memory, Resource
from authz.policy.pieces import FileReader
from authz.policy.targets import read_metadata
from authz.policy.templates import Checked
from authz.policy.version import version_of

GROUP = "security.istio.io"
VERSIONS = ("v1", "v1beta1")
_TOP_LEVEL = ("apiVersion", "kind", "metadata", "spec", "status")


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
    """What was read. ``problems`` are sorted; warnings and remarks may stand beside usable resources."""

    read: Resources
    """What could be decoded, for tools that show it beside its problems; never to be enforced when ``has_errors``."""
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
) -> ReadResult:
    """
    Read all policies of some files.

    Args:
        files: (name, content) pairs in any order; the name appears in places.
        mesh: enters the policy version, and allows remarks on what does not fit it; None leaves these out.
        on_resource: told of each that could be decoded as soon as it was, in the order of the files. Never to be
            enforced before the result has no error.
        memory: what was found the last time, by text; read from and brought up to date. The result is the same as
            without.

    Raises:
        Nothing because of content: everything wrong is a problem of the result.
    """
    problems: list[Problem] = []
    found: dict[tuple[str, str, str], Found] = {}
    read: dict[str, File] = {}
    reading_file = FileReader(memory, _read_document)
    for name, data in sorted(files, key=lambda pair: pair[0]):
        file = reading_file.read(name, data)
        if name not in read:
            read[name] = file
        for piece in file.pieces:
            problems.extend(piece.problems)
            for one in piece.found:
                _keep(one, found, problems)
                if on_resource is not None:
                    on_resource(one.resource)
    if memory is not None:
        memory.files = read
    resources = _sorted(found)
    problems.extend(lints.lint(resources, mesh))
    version = version_of((one.facts for one in found.values()), mesh or MeshConfig())
    return ReadResult(replace(resources, version=version), sort_problems(problems))


def _sorted(found: dict[tuple[str, str, str], Found]) -> Resources:
    """In the order of namespace and name, so that the order of files does not matter."""
    ordered = [found[identity].resource for identity in sorted(found)]
    return Resources(
        tuple(item for item in ordered if isinstance(item, AuthorizationPolicy)),
        tuple(item for item in ordered if isinstance(item, RequestAuthentication)),
        tuple(item for item in ordered if isinstance(item, PeerAuthentication)),
    )


def _keep(one: Found, found: dict[tuple[str, str, str], Found], problems: list[Problem]) -> None:
    """RE-2."""
    kind, metadata = type(one.resource).__name__, one.resource.metadata
    before = found.setdefault((kind, metadata.namespace, metadata.name), one)
    if before is not one and metadata.name:
        name = one_line(f"{kind} {metadata.namespace}/{metadata.name}")
        message = one_line(f"`{name}` is already defined at {before.resource.metadata.location}")
        path = one_line(one.prefix)
        problems.append(Problem(Severity.ERROR, "RE-2", message, one.place, one.number, name, path, "rename one"))


def _read_document(document: Document, problems: list[Problem], checked: Checked | None = None) -> Resource | None:
    """Read one document; None when it is no policy, or too broken to be one."""
    root = document.root
    notes = Notes(document, problems, checked=checked)
    if not isinstance(root, reading.Mapping):
        notes.error("RE-1", root, "a document is no object", "expected `apiVersion`, `kind`, `metadata` and `spec`")
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
    spec_node = given(root, "spec")
    if spec_node is None:
        # "spec may be absent or empty; both mean all fields at their default" (RE-5), which the checks still look at.
        spec_node = reading.Mapping({}, [], root.line, root.column)
    return found.build(root, metadata, found.spec.decode(spec_node, notes), notes)


def _kind(root: reading.Mapping, kind: str | None, api_version: str | None, notes: Notes) -> _Reading | None:
    """Tell the kinds apart (RE-1, RE-12); None with a problem noted when it is none of ours."""
    if not kind or api_version is None:
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
    if kind in KINDS:
        message = f"`{api_version}` is not an API version of {kind}"
        advice = f"expected {' or '.join(f'`{GROUP}/{v}`' for v in VERSIONS)}"
        notes.error("RE-1", root.entries["apiVersion"], message, advice)
    elif group == GROUP or api_version == GROUP:
        close = nearest(kind, KINDS)
        hint = f"; did you mean `{close}`?" if close else ""
        advice = f"expected one of {', '.join(KINDS)}"
        notes.error("RE-1", root.entries["kind"], f"unknown kind `{kind}` of {GROUP}{hint}", advice)
    else:
        _skip(root, kind, api_version, notes)
    return None


def _skip(root: reading.Mapping, kind: str, api_version: str, notes: Notes) -> None:
    """RE-12: objects of other kinds are reported; a near miss loudly, because a lost policy protects nothing."""
    spec = given(root, "spec")
    if kind == "ProxyConfig" and isinstance(spec, reading.Mapping) and given(spec, "connectionSettings") is not None:
        message = "`connectionSettings` can change path normalisation for one proxy, which is not supported"
        notes.error("PN-1", key_of(spec, "connectionSettings"), message, "set the mesh's `pathNormalization`")
        return
    close = nearest(kind, KINDS)
    if close:
        message = f"`{kind}` of `{api_version}` is no policy and is skipped; did you mean `{close}`?"
        notes.warn("RE-12", root.entries["kind"], message)
    else:
        notes.info("RE-12", root, f"`{kind}` of `{api_version}` is no policy and is skipped")


def _name(root: reading.Mapping, kind: str) -> str:
    metadata = given(root, "metadata")
    if not isinstance(metadata, reading.Mapping):
        return kind
    name = text_of(metadata.entries.get("name"))
    return f"{kind} {text_of(metadata.entries.get('namespace')) or 'default'}/{name}" if name else kind
