"""
Suites as written, read with line and column.

Everything wrong with a suite is a ``Problem``. A problem spoils the smallest thing it is in, a case or a group, so that
the others can still be run; whoever runs a suite must not call it passed then. Ours beyond the format:
``policyFiles`` and ``meshFile`` (of a group or of the whole file), ``keySets``, and ``metadata`` of a request.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from authz.analysis.offline.request import REQUEST_KEYS, SUITE, OfflineWorkload, read_request, read_workload
from authz.analysis.suites.parts import (
    check_placeholders,
    read_expect,
    read_key_sets,
    read_keys,
    read_normalization,
    read_tokens,
)
from authz.analysis.suites.suite import VALIDATION_RESULTS, Case, DocumentCase, Group, PolicyText, Suite
from authz.core.errors import Location, Problem, Severity, sort_problems
from authz.core.resources import MeshConfig
from authz.documents import fields, reading
from authz.documents.reading import Node, Scalar, read_documents
from authz.documents.schema import Notes
from authz.policy.mesh_config import MESH_CONFIG, read_mesh

LoadFiles = Callable[[str], Iterable[tuple[str, bytes]]]
"""Reads a file or directory named in a suite, relative to it: (name, content) pairs. Raises OSError."""

FORMAT = 1
_FILE_KEYS = ("format", "groups", "documents", "policyFiles", "meshFile")
_GROUP_KEYS = (
    *("id", "about", "clauses", "workload", "mesh", "meshFile", "keys", "keySets", "tokens", "customStub"),
    *("policies", "policyFiles", "request", "cases"),
)
_CASE_KEYS = ("id", "about", "clauses", "request", "workload", "expect")
_DOCUMENT_KEYS = ("id", "about", "expect", "clauses", "yaml")
_MESH_KEYS = ("trustDomain", "trustDomainAliases", "rootNamespace", "pathNormalization", "extensionProviders")
_STUBS = ("allow", "deny", "error")


@dataclass(frozen=True, slots=True)
class _Shared:
    """Everything that the file gives to all its groups."""

    mesh: MeshConfig | None
    policies: tuple[PolicyText, ...]
    problems: tuple[Problem, ...]


def read_suite(file: str, data: bytes, load: LoadFiles | None = None) -> Suite:
    """
    Read one suite file.

    Args:
        file: name that appears in places.
        load: reads ``policyFiles`` and ``meshFile``; without it they are refused.

    Raises:
        Nothing because of content: everything wrong is a problem of the result.
    """
    return _Reader(file, data, load).read()


class _Reader:
    """Reads one file; ``self.problems`` collects, and is cut where a group or case owns what was found."""

    def __init__(self, file: str, data: bytes, load: LoadFiles | None) -> None:
        self.file = file
        self.data = data
        self.load = load
        self.problems: list[Problem] = []
        self.lines: list[str] | None = None

    def read(self) -> Suite:
        groups: list[Group] = []
        found: list[DocumentCase] = []
        seen: dict[str, Location] = {}
        roots = list(read_documents(self.file, self.data, self.problems))
        if not roots and not self.problems:
            help_text = "a suite has `format: 1` and `groups` or `documents`"
            self.problems.append(
                Problem(Severity.ERROR, SUITE, "the file is empty", Location(self.file), help=help_text)
            )
        for document in roots:
            notes = Notes(replace(document, number=0), self.problems, code=SUITE)  # a suite is one document
            top = fields.entries(document.root, _FILE_KEYS, "a suite", notes)
            self._check_format(top, document.root, notes)
            shared = self._shared(top, notes)
            nodes = fields.items(top.get("groups"), "groups", notes)
            groups.extend(self._group(node, shared, seen, notes) for node in nodes)
            seen_documents: dict[str, Location] = {}
            nodes = fields.items(top.get("documents"), "documents", notes)
            found.extend(self._document(node, seen_documents, notes) for node in nodes)
        problems = sort_problems(dict.fromkeys(self.problems))
        return Suite(self.file, tuple(groups), tuple(found), problems)

    def _check_format(self, top: Mapping[str, Node], root: Node, notes: Notes) -> None:
        if not isinstance(root, reading.Mapping):
            return
        if "format" not in top:
            notes.error(notes.code, root, "the suite does not say its `format`", f"write `format: {FORMAT}`")
        elif fields.plain(top["format"], notes) != FORMAT:
            notes.error(notes.code, top["format"], "unknown suite format", f"this version reads format {FORMAT}")
        if "groups" not in top and "documents" not in top:
            notes.error(notes.code, root, "the suite has neither `groups` nor `documents`")

    def _since(self, mark: int) -> tuple[Problem, ...]:
        return tuple(problem for problem in self.problems[mark:] if problem.is_error)

    # --- shared between groups ---------------------------------------------------------------------------------

    def _shared(self, top: Mapping[str, Node], notes: Notes) -> _Shared:
        mark = len(self.problems)
        mesh = self._mesh_file(top.get("meshFile"), notes)
        policies = self._policy_files(top.get("policyFiles"), notes)
        return _Shared(mesh, policies, self._since(mark))

    def _mesh_file(self, node: Node | None, notes: Notes) -> MeshConfig | None:
        name = fields.text(node, notes)
        if node is None or not name:
            return None
        for file, data in self._loaded(name, node, notes):
            mesh, problems = read_mesh(file, data)
            self.problems.extend(problems)
            return mesh
        return None

    def _policy_files(self, node: Node | None, notes: Notes) -> tuple[PolicyText, ...]:
        found = []
        for item in fields.items(node, "policyFiles", notes):
            for file, data in self._loaded(fields.text(item, notes), item, notes):
                unread: list[Problem] = []
                if not any(True for _ in read_documents(file, data, unread)) and not unread:
                    message = f"`{file}` holds no document, and what is missing may be what denies"
                    notes.error(notes.code, item, message, "write the policies, or remove the file")
                found.append(PolicyText(file, data.decode("utf-8", "replace")))
        return tuple(found)

    def _loaded(self, name: str, node: Node, notes: Notes) -> Iterable[tuple[str, bytes]]:
        if self.load is None:
            notes.error(notes.code, node, "files cannot be named here", "write the policies into the suite")
            return ()
        try:
            found = tuple(self.load(name))
            if not found:
                notes.error(
                    notes.code, node, f"`{name}` holds no policy file", "without policies everything is allowed"
                )
            return found
        except OSError as error:
            reason = error.strerror or type(error).__name__
            notes.error(notes.code, node, f"`{name}` cannot be read: {reason}", "paths are relative to the suite")
            return ()

    # --- groups ------------------------------------------------------------------------------------------------

    def _group(self, node: Node, shared: _Shared, seen: dict[str, Location], notes: Notes) -> Group:
        mark = len(self.problems)
        get = fields.entries(node, _GROUP_KEYS, "a group", notes).get
        name = self._id(get("id"), node, seen, "group", notes)
        mesh, is_gateway = self._mesh(get("mesh"), self._mesh_file(get("meshFile"), notes) or shared.mesh, notes)
        target = read_workload(get("workload"), notes)
        keys = read_keys(get("keys"), notes)
        key_sets = read_key_sets(get("keySets"), keys, notes)
        tokens = read_tokens(get("tokens"), keys, notes)
        stubs = {
            provider: fields.one_of(value, _STUBS, "an answer of a provider", notes, "error")
            for provider, value in fields.named(get("customStub"), "customStub", notes).items()
        }
        policies = self._policies(get("policies"), get("policyFiles"), notes)
        check_placeholders(get("policies"), {"JWKS": keys, "JWKS_URI": keys}, notes)
        defaults = fields.entries(get("request"), REQUEST_KEYS, "a request", notes)
        problems = (*shared.problems, *self._since(mark))
        seen_cases: dict[str, Location] = {}
        nodes = fields.items(get("cases"), "cases", notes)
        cases = tuple(self._case(item, defaults, target, tokens, seen_cases, notes) for item in nodes)
        if get("cases") is None and isinstance(node, reading.Mapping):
            notes.error(notes.code, node, f"the group `{name}` has no `cases`")
        return Group(
            name,
            notes.place(node),
            mesh,
            is_gateway,
            policies or shared.policies,
            keys,
            tokens,
            key_sets,
            stubs,
            cases,
            problems,
            tuple(defaults),
        )

    def _id(self, node: Node | None, owner: Node, seen: dict[str, Location], what: str, notes: Notes) -> str:
        name = fields.text(node, notes)
        if not name:
            if isinstance(owner, reading.Mapping):
                notes.error(notes.code, node or owner, f"the {what} has no `id`", "give it one, unique in its list")
            return f"line-{owner.line}"
        before = seen.setdefault(name, notes.place(owner))
        if before != notes.place(owner):
            notes.error(notes.code, node or owner, f"the {what} `{name}` is already defined at {before}", "rename one")
        return name

    def _mesh(self, node: Node | None, base: MeshConfig | None, notes: Notes) -> tuple[MeshConfig, bool]:
        """The inline settings over those of the file; how the client address is found stands beside them."""
        given = fields.entries(node, (*_MESH_KEYS, "clientAddress"), "mesh", notes)
        values: dict[str, object] = {}
        for name, child in given.items():
            if name == "pathNormalization" and isinstance(child, Scalar):
                values["path_normalization"] = read_normalization(child, notes)
            elif name in MESH_CONFIG.fields and not child.is_null:
                decoded = MESH_CONFIG.fields[name]
                value = decoded.decode(child, notes)
                values[decoded.attribute] = getattr(value, "normalization", value)
        get = fields.entries(given.get("clientAddress"), ("mode", "numTrustedProxies"), "clientAddress", notes).get
        mode = fields.one_of(get("mode"), ("sidecar", "gateway"), "a mode", notes, "sidecar")
        proxies = fields.number(get("numTrustedProxies"), notes)
        if proxies is not None:
            values["num_trusted_proxies"] = proxies
        return replace(base or MeshConfig(), **values), mode == "gateway"  # type: ignore[arg-type]  # by MESH_CONFIG's own attributes

    def _policies(self, inline: Node | None, files: Node | None, notes: Notes) -> tuple[PolicyText, ...]:
        text = self._text(inline, notes) if inline is not None and not inline.is_null else None
        return (*((text,) if text is not None else ()), *self._policy_files(files, notes))

    def _text(self, node: Node, notes: Notes) -> PolicyText:
        """A block of YAML inside the suite, with the place where it begins."""
        text = fields.text(node, notes)
        if not isinstance(node, Scalar) or node.style != "|":
            return PolicyText(self.file, text, node.line)
        if self.lines is None:
            self.lines = self.data.decode("utf-8", "replace").splitlines()
        written = next((line for line in self.lines[node.line :] if line.strip()), "")
        first = next((line for line in text.splitlines() if line.strip()), "")
        indent = len(written) - len(written.lstrip()) - (len(first) - len(first.lstrip()))
        return PolicyText(self.file, text, node.line + 1, max(indent, 0))

    # --- cases -------------------------------------------------------------------------------------------------

    def _case(
        self,
        node: Node,
        defaults: Mapping[str, Node],
        target: OfflineWorkload,
        tokens: Mapping[str, object],
        seen: dict[str, Location],
        notes: Notes,
    ) -> Case:
        mark = len(self.problems)
        get = fields.entries(node, _CASE_KEYS, "a case", notes).get
        name = self._id(get("id"), node, seen, "case", notes)
        nodes = {**defaults, **fields.entries(get("request"), REQUEST_KEYS, "a request", notes)}
        own = get("workload")
        expect_node = get("expect")
        expect, upstream = read_expect(expect_node, notes)
        if not expect and upstream is None and isinstance(node, reading.Mapping):
            notes.error(notes.code, expect_node or node, f"the case `{name}` expects nothing", "give `expect.decision`")
        for part in (*nodes.values(), expect_node):
            check_placeholders(part, {"TOKEN": tokens, "PAYLOAD": tokens}, notes)
        return Case(
            name,
            notes.place(node),
            read_request(nodes, notes),
            read_workload(own, notes) if own is not None else target,
            expect,
            upstream,
            fields.texts(get("clauses"), "clauses", notes),
            self._since(mark),
        )

    def _document(self, node: Node, seen: dict[str, Location], notes: Notes) -> DocumentCase:
        mark = len(self.problems)
        get = fields.entries(node, _DOCUMENT_KEYS, "a document", notes).get
        name = self._id(get("id"), node, seen, "document", notes)
        expect = fields.one_of(get("expect"), VALIDATION_RESULTS, "a result of validation", notes)
        text = get("yaml")
        if isinstance(node, reading.Mapping):
            if get("expect") is None:
                notes.error(notes.code, node, f"the document `{name}` expects nothing", "give `expect`")
            if text is None:
                notes.error(notes.code, node, f"the document `{name}` has no `yaml`")
        return DocumentCase(
            name,
            notes.place(node),
            expect,
            self._text(text, notes) if text is not None else PolicyText(self.file, ""),
            fields.texts(get("clauses"), "clauses", notes),
            self._since(mark),
        )
