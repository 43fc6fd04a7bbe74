"""Files of invariants as written, read with line and column; the words are those of test cases."""

from collections.abc import Mapping
from dataclasses import replace

from authz.analysis.invariants.invariant import (
    KINDS,
    PROTOCOLS,
    TLS,
    AskedValues,
    Invariant,
    InvariantFile,
    RequestSet,
    WorkloadSet,
)
from authz.core.catalog import HOSTS, METHODS, PATHS, Attribute, CompileContext, condition_attribute
from authz.core.errors import Location, Problem, Severity, sort_problems
from authz.documents import fields, reading
from authz.documents.reading import Node, read_documents
from authz.documents.schema import Notes

CODE = "INVARIANT"
FORMAT = 1
_FILE_KEYS = ("format", "policyFiles", "meshFile", "invariants")
_WORDS: dict[str, tuple[str, ...]] = {
    "never": ("to", "when", "unless"),
    "always": ("to", "when", "unless"),
    "onlyIf": ("to", "when", "has"),
}
_TO_KEYS = ("name", "not", "namespace", "labels", "kind")
_TEXTS: dict[str, Attribute] = {
    "sourcePrincipal": condition_attribute("source.principal"),
    "sourceNamespace": condition_attribute("source.namespace"),
    "sourceServiceAccount": condition_attribute("source.serviceAccount"),
    "sourceTrustDomain": condition_attribute("source.trustDomain"),
    "sourceIp": condition_attribute("source.ip"),
    "remoteIp": condition_attribute("remote.ip"),
    "destinationIp": condition_attribute("destination.ip"),
    "destinationPort": condition_attribute("destination.port"),
    "sni": condition_attribute("connection.sni"),
    "requestPrincipal": condition_attribute("request.auth.principal"),
    "method": METHODS,
    "host": HOSTS,
    "path": PATHS,
}
_ABSENT = frozenset({"sourcePrincipal", "requestPrincipal"})
"""Those that ``null`` asks the absence of."""
_NEGATED = {f"not{name[0].upper()}{name[1:]}": name for name in _TEXTS}
_REQUEST_KEYS = (*_TEXTS, *_NEGATED, "headers", "claims", "protocol", "tls")
_ANY_NAMESPACE = CompileContext("default", ("cluster.local",))


def read_invariants(file: str, data: bytes) -> InvariantFile:
    """Read one file. Raises nothing because of content: everything wrong is a problem of the result."""
    problems: list[Problem] = []
    found: list[Invariant] = []
    policy_files: tuple[str, ...] = ()
    mesh_file = ""
    seen: dict[str, Location] = {}
    roots = list(read_documents(file, data, problems))
    for document in roots:
        notes = Notes(replace(document, number=0), problems, code=CODE)
        top = fields.entries(document.root, _FILE_KEYS, "a file of invariants", notes)
        if "format" not in top or fields.plain(top["format"], notes) != FORMAT:
            notes.error(CODE, top.get("format", document.root), f"expected `format: {FORMAT}`")
        policy_files += fields.texts(top.get("policyFiles"), "a list of files", notes)
        mesh_file = fields.text(top.get("meshFile"), notes) or mesh_file
        nodes = fields.items(top.get("invariants"), "invariants", notes)
        if not nodes:
            notes.error(CODE, document.root, "the file has no `invariants`")
        found += [one for node in nodes if (one := _invariant(node, seen, notes)) is not None]
    if not roots and not problems:
        problems.append(Problem(Severity.ERROR, CODE, "the file is empty", Location(file)))
    return InvariantFile(file, tuple(found), policy_files, mesh_file, sort_problems(dict.fromkeys(problems)))


def _invariant(node: Node, seen: dict[str, Location], notes: Notes) -> Invariant | None:
    given = fields.entries(node, ("id", "about", *_WORDS), "an invariant", notes)
    words = [word for word in _WORDS if word in given]
    name = fields.text(given.get("id"), notes)
    if len(words) != 1 or not name:
        notes.error(CODE, node, f"an invariant has an `id` and one of {', '.join(f'`{word}`' for word in _WORDS)}")
        return None
    place = notes.place(node)
    if (before := seen.setdefault(name, place)) is not place:
        notes.error(CODE, given["id"], f"the invariant `{name}` is already defined at {before}", "rename one")
    word = words[0]
    get = fields.entries(given[word], _WORDS[word], f"`{word}`", notes).get
    excepted = get("has") if word == "onlyIf" else get("unless")
    if word == "onlyIf" and excepted is None:
        notes.error(CODE, given[word], "`onlyIf` does not say what an allowed request `has`")
    return Invariant(
        name,
        place,
        word,
        _workloads(get("to"), given[word], notes),
        _sets(get("when"), notes) or (RequestSet(),),
        _sets(excepted, notes),
        fields.text(given.get("about"), notes),
    )


def _workloads(node: Node | None, owner: Node, notes: Notes) -> WorkloadSet:
    if node is None or node.is_null:
        notes.error(CODE, owner, "no workload is named", 'write `to: ratings-v1`, or `to: "*"` for all')
        return WorkloadSet()
    if not isinstance(node, reading.Mapping):
        return WorkloadSet(fields.texts(node, "names of workloads", notes))
    get = fields.entries(node, _TO_KEYS, "`to`", notes).get
    labels = {name: fields.text(value, notes) for name, value in fields.named(get("labels"), "labels", notes).items()}
    return WorkloadSet(
        fields.texts(get("name"), "names of workloads", notes),
        fields.texts(get("not"), "names of workloads", notes),
        fields.text(get("namespace"), notes),
        frozenset(labels.items()),
        fields.one_of(get("kind"), KINDS, "a kind of proxy", notes),
    )


def _sets(node: Node | None, notes: Notes) -> tuple[RequestSet, ...]:
    """A mapping, or a list of them: requests of one of the sets."""
    if node is None or node.is_null:
        return ()
    nodes = node.items if isinstance(node, reading.Sequence) else [node]
    return tuple(_set(one, notes) for one in nodes)


def _set(node: Node, notes: Notes) -> RequestSet:
    given = fields.entries(node, _REQUEST_KEYS, "a request", notes)
    if not given:
        notes.error(CODE, node, "nothing is said of the request", f"keys are {', '.join(_REQUEST_KEYS)}")
    asked: list[AskedValues] = []
    for key, child in given.items():
        if key in _TEXTS:
            asked.append(_values(_TEXTS[key], child, notes, may_be_absent=key in _ABSENT))
        elif key in _NEGATED:
            name = _NEGATED[key]
            asked.append(AskedValues(_TEXTS[name], not_values=_texts(_TEXTS[name], child, notes)))
        elif key in ("headers", "claims"):
            asked += _named(key, fields.named(child, key, notes), notes)
    return RequestSet(
        tuple(asked),
        _some_of(given.get("protocol"), PROTOCOLS, "a protocol", notes),
        _some_of(given.get("tls"), TLS, "a kind of TLS", notes),
    )


def _named(key: str, given: Mapping[str, Node], notes: Notes) -> list[AskedValues]:
    found = []
    for name, child in given.items():
        written = name if name.startswith("[") else f"[{name}]"
        try:
            attribute = condition_attribute(f"request.{'headers' if key == 'headers' else 'auth.claims'}{written}")
        except ValueError as error:
            notes.error(CODE, child, str(error))
            continue
        found.append(_values(attribute, child, notes, may_be_absent=True))
    return found


def _values(attribute: Attribute, node: Node, notes: Notes, *, may_be_absent: bool) -> AskedValues:
    if node.is_null:
        if not may_be_absent:
            notes.error(CODE, node, "every request has one, so it cannot be absent", "name values")
        return AskedValues(attribute, not_values=("*",))
    return AskedValues(attribute, _texts(attribute, node, notes))


def _texts(attribute: Attribute, node: Node, notes: Notes) -> tuple[str, ...]:
    """Values in Istio's forms; an identity may have its `spiffe://`. An unusable one is noted."""
    values = tuple(text.removeprefix("spiffe://") for text in fields.texts(node, "a list of values", notes))
    if not values or "" in values:
        notes.error(CODE, node, "an empty value matches nothing", "name values, or `null` for absent")
        return ("*",)
    try:
        attribute.compile(values, _ANY_NAMESPACE)
    except ValueError as error:
        notes.error(CODE, node, str(error))
        return ("0",)
    return values


def _some_of(node: Node | None, known: tuple[str, ...], what: str, notes: Notes) -> tuple[str, ...]:
    given = fields.texts(node, f"a list of {what}", notes)
    for text in given:
        if text not in known and node is not None:
            notes.error(CODE, node, f"`{text}` is not {what}", f"expected some of {', '.join(known)}")
    return given or known
