"""Only changed documents are read, and the outcome does not tell: problems, places, versions are a full read's."""

import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.documents.reading import read_documents
from authz.documents.splitting import split_documents
from authz.policy import pieces
from authz.policy.memory import Memory
from authz.policy.reader import ReadResult, read_policies
from tests.policy.test_properties import TEXTS, mutate

Files = dict[str, bytes]
ODD = (
    "# nothing but a comment\n",
    "",
    "a: [1, 2\n",
    '"unclosed\n',
    "%YAML 1.1\n---\na: 1\n",
    "a: 1\n...\nb: 2\n",
    "a: &x {b: 1}\nc: *x\n",
    "kind: Service\napiVersion: v1\nmetadata: {name: s}\n",
    "text: |\n  one\n  --- two\nmore: x\n",
    "a: 1\r\nb: 2\r\n",
    "a: '\u2028'\n",
    "\ufeffa: 1\n",
    "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: security.istio.io/v1, kind: AuthorizationPolicy, "
    "metadata: {name: listed}}\n- {kind: AuthorizationPolicy}\n",
    "a: 1\n",
    "b: 2\nKind: AuthorizationPolicy\n",
    "apiVersion: security.istio.io/v1\n",
    "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicyList\nitems: []\n",
    "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicyList\nitems:\n- metadata: {name: one}\n"
    "- metadata: {name: two}\n",
    "apiVersion: v1\nkind: List\nitems: 7\n",
    "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: '${NAME}'}\n",
    "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: '{{ .Values.name }}'}\n",
    "{{- if .Values.on }}\na: 1\n{{- end }}\n",
    "# costs $5\n",
    "<<<<<<< ours\na: 1\n>>>>>>> theirs\n",
)


def in_full(files: Files) -> ReadResult:
    return read_policies(list(files.items()))


def document(chance: random.Random) -> str:
    kind = chance.random()
    if kind < 0.15:
        return chance.choice(ODD)
    text = chance.choice(TEXTS)
    return mutate(text, chance.randrange(1000)) if kind < 0.3 else text


def edited(files: Files, chance: random.Random) -> Files:
    """One random edit: a document added, removed, moved, changed, a line put before, a file renamed or broken."""
    found = dict(files)
    name = chance.choice(sorted(found)) if found else "a.yaml"
    texts = found.pop(name, b"").decode("utf-8", "replace").split("\n---\n")
    at = chance.randrange(len(texts) + 1)
    edit = chance.randrange(8)
    if edit in (0, 1):
        texts.insert(at, document(chance))
    elif edit == 2:
        del texts[at : at + 1]
    elif edit == 3:
        chance.shuffle(texts)
    elif edit == 4:
        texts[0] = "# a line more\n" * chance.randrange(1, 4) + texts[0]
    elif edit == 5:
        name = chance.choice("abcd") + ".yaml"
    elif edit == 6 and texts:
        texts.append(texts[0])
    else:
        texts[min(at, len(texts) - 1)] = document(chance)
    if texts or chance.random() < 0.5:
        found[name] = "\n---\n".join(texts).encode("utf-8", "surrogatepass")
    return found


@given(st.integers(0, 2**32))
def test_after_any_edits_reading_the_new_is_reading_everything(seed: int) -> None:
    chance, memory, files = random.Random(seed), Memory(), dict[str, bytes]()
    for _ in range(8):
        files = edited(files, chance)
        result = read_policies(list(files.items()), memory=memory)
        expected = in_full(files)
        assert result.problems == expected.problems
        assert result.read == expected.read


def whole_or_parts(text: str) -> tuple[ReadResult, ReadResult]:
    """The same file read in parts, and as one."""
    parts = in_full({"a.yaml": text.encode()})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "split_documents", lambda data: None)
        return parts, in_full({"a.yaml": text.encode()})


@given(st.integers(0, 2**32))
def test_a_file_read_in_parts_is_the_file_read_as_one(seed: int) -> None:
    chance = random.Random(seed)
    text = "\n---\n".join(document(chance) for _ in range(chance.randrange(1, 6)))
    parts, whole = whole_or_parts(text.encode("utf-8", "replace").decode())
    assert (parts.problems, parts.read) == (whole.problems, whole.read)


@pytest.mark.parametrize("first", ODD)
@pytest.mark.parametrize("second", ODD)
def test_odd_documents_beside_one_another_are_read_in_parts_as_in_one(first: str, second: str) -> None:
    parts, whole = whole_or_parts(f"{first}---\n{second}--- {TEXTS[0]}")
    assert (parts.problems, parts.read) == (whole.problems, whole.read)


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of the document of each text that is read."""
    read: list[int] = []
    real: Callable[..., object] = read_documents

    def reading(file: str, data: bytes, problems: list[object], **options: int) -> object:
        read.append(options["number"] + 1)
        return real(file, data, problems, **options)

    monkeypatch.setattr(pieces, "read_documents", reading)
    return read


def policy(name: str, path: str = "/a") -> str:
    return (
        f"apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: {name}}}\n"
        f"spec: {{rules: [{{to: [{{operation: {{paths: ['{path}']}}}}]}}]}}\n"
    )


def test_only_the_changed_document_is_read_and_the_others_move_to_their_new_lines(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    texts = [policy(f"p{number}") for number in range(9)]
    memory = Memory()
    read_policies([("a.yaml", "---\n".join(texts).encode())], memory=memory)
    read = counted(monkeypatch)
    texts[3] = "# longer\n" + policy("p3", "/b")
    data = "---\n".join(texts).encode()
    assert memory.new_bytes("a.yaml", data) == len("---\n") + len(texts[3])
    result = read_policies([("a.yaml", data)], memory=memory)
    assert read == [4]
    assert result.read == in_full({"a.yaml": data}).read
    assert result.read.authorization_policies[8].rules[0].location.line == 1 + 8 * 5 + 1 + 3


def test_a_document_with_problems_is_read_again_when_it_moves_for_its_messages_name_lines() -> None:
    twice = policy("twice").replace("spec:", "kind: AuthorizationPolicy\nspec:")
    memory = Memory()
    read_policies([("a.yaml", twice.encode())], memory=memory)
    data = f"# before\n{twice}".encode()
    (problem,) = read_policies([("a.yaml", data)], memory=memory).problems
    assert "first at a.yaml:3:1" in problem.message


def test_a_file_that_is_gone_is_forgotten() -> None:
    memory = Memory()
    read_policies([("a.yaml", policy("a").encode()), ("b.yaml", policy("b").encode())], memory=memory)
    read_policies([("b.yaml", policy("b").encode())], memory=memory)
    assert list(memory.files) == ["b.yaml"]


@pytest.mark.parametrize(
    ("data", "parts"),
    [
        (b"", [(1, b"")]),
        (b"a: 1\n--- b\n---\nc", [(1, b"a: 1\n"), (2, b"--- b\n"), (3, b"---\nc")]),
        (b"---", [(1, b"---")]),
        (b"a:\n ---\n----\n---x\n", [(1, b"a:\n ---\n----\n---x\n")]),
        (b"a: 1\r\n---\r\nb: 2\r\n", None),
        ("a: \u2028---\n".encode(), None),
        (b"\xff\n---\n", None),
    ],
)
def test_a_file_is_cut_where_documents_begin(data: bytes, parts: list[tuple[int, bytes]] | None) -> None:
    assert split_documents(data) == parts
