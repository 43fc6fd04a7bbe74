"""
Files that are not policies yet: templates, pointers, inputs of Helm and kustomize, encrypted files.

Each gets one clear line instead of whatever YAML makes of it.
"""

import re
from dataclasses import replace
from pathlib import PurePath
from typing import NamedTuple

from authz.core.errors import Location, Problem, Severity
from authz.documents import reading
from authz.documents.reading import Document, Scalar
from authz.documents.schema import text_of
from authz.policy.variables import variables

CODE = "file"
_POINTERS = (
    (
        b"version https://git-lfs.github.com/spec/",
        "a Git LFS pointer, not the file it stands for",
        "run `git lfs pull`",
    ),
    (b"/annex/objects/", "a git-annex pointer, not the file it stands for", "run `git annex get`"),
    (b"../.git/annex/objects/", "a git-annex pointer, not the file it stands for", "run `git annex get`"),
    (b"\0GITCRYPT\0", "encrypted by git-crypt", "run `git-crypt unlock`"),
    (
        b"$ANSIBLE_VAULT;",
        "encrypted by Ansible Vault",
        "validate it decrypted: `ansible-vault view FILE | authz validate -`",
    ),
)
_CONFLICT = re.compile(rb"^(<{7}|>{7}) ", re.MULTILINE)
_HELM = "a Helm template"
_HELM_HELP = "validate its output, `helm template . | authz validate -`"
_KUSTOMIZE_HELP = "validate its output, `kustomize build . | authz validate -`"
_GO_ACTION = re.compile(
    r"\{\{-?\s*(?:[.$(\"`]|(?:if|else|end|range|with|define|template|block|include|tpl|toYaml|quote|default|required|printf"
    r"|lookup|index|not|and|or|eq|ne|fail|nindent|indent|/\*)\b|/\*)"
)
_COMMENT = re.compile(r"^[ \t]*#.*$", re.MULTILINE)
_YTT = re.compile(r"^[ ]*#@", re.MULTILINE)
_YTT_BEHIND = re.compile(r"(?<=[ ])#@[ ]")
_WORD_BEHIND = re.compile(r"[ ][^ ]")
_YTT_HELP = "validate its output, `ytt -f . | authz validate -`"
_KUSTOMIZATIONS = ("kustomization.yaml", "kustomization.yml")
_ONLY_NAMES = frozenset(["apiVersion", "kind", "metadata", "resources", "bases", "openapi", "crds", "configurations"])
"""Fields that a kustomization may have without changing what it names."""


def pointer(file: str, data: bytes) -> Problem | None:
    """Whether a file only stands for another, or is not finished; found without reading it as YAML."""
    for beginning, message, advice in _POINTERS:
        if data.startswith(beginning):
            return _problem(file, message, advice)
    conflict = _CONFLICT.search(data)
    if conflict is not None:
        line = data.count(b"\n", 0, conflict.start()) + 1
        return _problem(file, "a merge conflict that nobody has resolved", "keep one of the two sides", line, 1)
    return None


def template(file: str, data: bytes) -> Problem | None:
    """A template of Helm, Go or Jinja; for files that are not YAML, or policies that hold such text."""
    text = _COMMENT.sub("", data.decode("utf-8", "replace"))
    action = _GO_ACTION.search(text)
    for at, what, advice in (
        (action.start() if action is not None else -1, _HELM, _HELM_HELP),
        (_enclosed(text, "{%", "%}"), "a Jinja template", "validate what is made of it: `… | authz validate -`"),
        (_enclosed(text, "{{", "}}", "\n"), "a template", "validate what is made of it: `… | authz validate -`"),
    ):
        if at >= 0:
            line, column = text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at)
            return _problem(file, f"{what}, not a policy yet", advice, line, column)
    return None


def _enclosed(text: str, opening: str, closing: str, unless: str = "") -> int:
    """
    Where the first text between two marks begins, without ``unless`` in it; -1 if there is none.

    Not by a pattern, which would take quadratic time for a file of opening marks.
    """
    at = text.find(opening)
    while at >= 0:
        end = text.find(unless, at) if unless else -1
        end = end if end >= 0 else len(text)
        if text.find(closing, at + len(opening), end) >= 0:
            return at
        at = text.find(opening, end)
    return -1


def ytt(file: str, data: bytes, *, is_refused: bool) -> Problem | None:
    """
    A template of ytt, whose instructions are comments to YAML.

    An error if it is refused anyway, or if an instruction is a value, which YAML reads as null; else it is a policy as
    it stands.
    """
    text = data.decode("utf-8", "replace") if b"#@" in data else ""
    value = _ytt_value(text)
    found = _YTT.search(text) if value < 0 else None
    if value < 0 and found is None:
        return None
    at = value if found is None else text.index("#@", found.start())
    line, column = text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at)
    problem = _problem(file, "a ytt template, not a policy yet", _YTT_HELP, line, column)
    return problem if is_refused or value >= 0 else replace(problem, severity=Severity.WARNING)


def _ytt_value(text: str) -> int:
    """Where an instruction stands in place of a value, after a key; -1 if none does. Looks at each character once."""
    before = 0
    for mark in _YTT_BEHIND.finditer(text):
        at = mark.start()
        begin = max(text.rfind("\n", before, at), text.rfind("#", before, at)) + 1 or before
        key = text[begin:at].rstrip(" ")
        is_line = begin == 0 or text[begin - 1] == "\n"
        before = at
        key = key[:-1] if key.endswith(":") else ""
        if key and ((is_line and key[0] != " ") or _WORD_BEHIND.search(key)):
            return at
    return -1


def _problem(file: str, message: str, advice: str, line: int = 0, column: int = 0) -> Problem:
    return Problem(Severity.ERROR, CODE, message, Location(file, line, column), help=advice)


def hold_actions(documents: list[Document]) -> bool:
    """Whether an action of a Go template stands in a value: quoted it is YAML, and still not a policy."""
    return any(_GO_ACTION.search(name) for document in documents for _, name in variables(document.root))


# --- documents without a kind ----------------------------------------------------------------------------------------


PATCH = "$patch"
"""How a strategic merge patch says that it deletes or replaces."""
NO_KIND = "the document has no `kind`"
"""Said once for a file, where `apiVersion` is missing too."""


class Input(NamedTuple):
    """A document that Helm, kustomize or SOPS reads."""

    message: str
    help: str
    is_error: bool = True


def tool_input(document: Document) -> Input | None:
    """Say what a document is that is not a whole Kubernetes object, or is a kustomization; None if nothing is known."""
    root = document.root
    if isinstance(root, reading.Sequence):
        steps = [item.entries.keys() for item in root.items if isinstance(item, reading.Mapping)]
        is_patch = bool(steps) and len(steps) == len(root.items) and all({"op", "path"} <= keys for keys in steps)
        return Input("a JSON patch, which changes another object", _KUSTOMIZE_HELP) if is_patch else None
    if not isinstance(root, reading.Mapping):
        return None
    if PATCH in root.entries:
        return Input(f"a patch (`{PATCH}`), which changes another object", _KUSTOMIZE_HELP)
    name = PurePath(document.file).name.lower()
    kind, version = text_of(root.entries.get("kind")), text_of(root.entries.get("apiVersion")) or ""
    is_kustomization = name in _KUSTOMIZATIONS or name == "kustomization"
    if version.startswith("kustomize.config.k8s.io/") or (is_kustomization and kind is None):
        if root.entries.keys() <= _ONLY_NAMES:
            return Input(
                "a kustomization, which is not run; what it names is read only if it lies here", _KUSTOMIZE_HELP, False
            )
        return Input("a kustomization changes what it names, and it is not run", _KUSTOMIZE_HELP)
    if is_encrypted(root):
        return Input("encrypted by SOPS", "validate it decrypted: `sops decrypt FILE | authz validate -`")
    if kind is not None:
        return None
    if name in ("chart.yaml", "chart.yml") or (version in ("v1", "v2") and {"name", "version"} <= root.entries.keys()):
        return Input("a Helm chart's description, not a policy", _HELM_HELP)
    if name.startswith("values") and not version:
        return Input("values of a Helm chart, not a policy", _HELM_HELP)
    return None


def is_encrypted(root: reading.Mapping) -> bool:
    """Whether SOPS encrypted a document that may be a policy: its kind is encrypted, or values of one of our kinds."""
    sops, kind = root.entries.get("sops"), root.entries.get("kind")
    if not isinstance(sops, reading.Mapping) or not {"mac", "version", "lastmodified"} & sops.entries.keys():
        return False
    version = text_of(root.entries.get("apiVersion")) or ""
    is_hidden = not isinstance(kind, Scalar) or kind.value.startswith("ENC[")
    return is_hidden or version.startswith(("security.istio.io/", "ENC["))
