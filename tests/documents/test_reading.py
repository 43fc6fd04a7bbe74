"""YAML text as nodes with places, and everything that can be wrong with text."""

import pytest

from authz.core.errors import Problem
from authz.documents import reading
from authz.documents.reading import Document, Kind, Scalar, Sequence, read_documents


def read(text: str | bytes, *, max_bytes: int = reading.MAX_FILE_BYTES) -> tuple[list[Document], list[Problem]]:
    problems: list[Problem] = []
    data = text.encode() if isinstance(text, str) else text
    return list(read_documents("f.yaml", data, problems, max_bytes=max_bytes)), problems


def plain(node: reading.Node) -> object:
    """Nodes as Python values, for comparison."""
    if isinstance(node, reading.Mapping):
        return {name: plain(child) for name, child in node.entries.items()}
    if isinstance(node, Sequence):
        return [plain(item) for item in node.items]
    return node.value


SYNTAX = [
    ("a: b\n\tc: d", "f.yaml:2:1", "indent with spaces, YAML allows no tabs"),
    ("a:\n\t- b", "f.yaml:2:1", "indent with spaces, YAML allows no tabs"),
    ("a: [1, 2\n", "f.yaml:2:1", "close every bracket, and quote text that holds one of `,` `:` `[` `]` `{` `}`"),
    ("a: @x", "f.yaml:1:4", "quote text that begins with one of `@` `%` and the backquote"),
    ("a: *", "f.yaml:1:5", "quote text that begins with `*`"),
    ("ü: 'é' x", "f.yaml:1:8", "indent alike what belongs together, and quote text as a whole"),
    ("a: 'open", "f.yaml:1:9", "close the quote"),
    ("a: b: c", "f.yaml:1:5", "quote text that holds a colon and a space, and check the indentation"),
    ("a: 1\nb: 2\x07", "f.yaml:2:5", ""),
    ("a: \x00", "f.yaml:1:4", ""),
    (b"a: b\nc: \xc3\xa9\xff", "f.yaml:2:5", "save the file as UTF-8"),
    ("a: b".encode("utf-16"), "f.yaml:1:1", "it looks like UTF-16; save the file as UTF-8"),
    ("%YAML 3.0\n---\na: b", "f.yaml:1:1", ""),
]


@pytest.mark.parametrize(("text", "place", "advice"), SYNTAX)
def test_wrong_text_is_one_problem_with_its_place(text: str | bytes, place: str, advice: str) -> None:
    found, problems = read(text)
    assert [str(p.location) for p in problems] == [place]
    assert problems[0].help == advice
    assert problems[0].code == "YAML"
    assert problems[0].is_error
    assert not found


def test_documents_before_a_syntax_error_are_still_read() -> None:
    found, problems = read("a: 1\n---\nb: [")
    assert [plain(document.root) for document in found] == [{"a": "1"}]
    assert problems[0].document == 2


NOT_YAML_OF_OURS = [
    ("a: 1\nb: 2\na: 3", "f.yaml:3:1", "the key `a` is given twice, first at f.yaml:1:1"),
    ("a: *nothing", "f.yaml:1:4", "the alias `*nothing` names no anchor before it"),
    ("a: &x [*x]", "f.yaml:1:8", "the alias `*x` names no anchor before it"),
    ("? [1]\n: 2", "f.yaml:1:3", "a key of a mapping is a list or a mapping; expected a string"),
    ("a: !secret x", "f.yaml:1:4", "the tag `!secret` is not supported here"),
    (
        "a: !!python/name:os.system x",
        "f.yaml:1:4",
        "the tag `tag:yaml.org,2002:python/name:os.system` is not supported here",
    ),
    ("a: !!int x", "f.yaml:1:4", "the tag `tag:yaml.org,2002:int` is not supported here"),
    ("a: !!set {x}", "f.yaml:1:4", "the tag `tag:yaml.org,2002:set` is not supported"),
    # To Go's reader a `?` is a mark of its own there, whatever is beside it: kubectl says "did not find expected ','".
    *(
        (text, place, "an unquoted `?` within brackets or braces, which `kubectl` takes for the end of the text")
        for text, place in [
            ("a: [/x?y]", "f.yaml:1:5"),
            ("a: [x, why?]", "f.yaml:1:8"),
            ("a: {b?: c}", "f.yaml:1:5"),
            ("a: {b: [c\n d?]}", "f.yaml:1:9"),
        ]
    ),
    ("a: {<<: 1}", "f.yaml:1:9", "`<<` merges mappings only"),
    ("apiVersion: v1\nkind: List\nitems: x", "f.yaml:3:8", "`items` of a List must be a list of objects"),
    ("[" * 70 + "]" * 70, "f.yaml:1:65", "nested deeper than 64 levels"),
]


@pytest.mark.parametrize(("text", "place", "message"), NOT_YAML_OF_OURS)
def test_yaml_that_is_not_understood_is_said(text: str, place: str, message: str) -> None:
    _, problems = read(text)
    assert [(str(p.location), p.message) for p in problems] == [(place, message)]


@pytest.mark.parametrize("text", ["a: /x?y", "a: ['/x?y']", 'a: ["/x?y"]', "- x?", "? a?\n: b", "a: &x y?\nb: [*x]"])
def test_a_question_mark_is_text_where_go_takes_it_for_text(text: str) -> None:
    assert read(text)[1] == []


def test_places_count_characters_from_one() -> None:
    found, _ = read("---\nä: [ö, {key: value}]\n")
    root = found[0].root
    assert isinstance(root, reading.Mapping)
    items = root.entries["ä"]
    assert isinstance(items, Sequence)
    assert (root.line, root.column) == (2, 1)
    assert (items.line, items.column) == (2, 4)
    assert [(item.line, item.column) for item in items.items] == [(2, 5), (2, 8)]
    inner = items.items[1]
    assert isinstance(inner, reading.Mapping)
    assert [(key.value, key.line, key.column) for key in inner.keys] == [("key", 2, 9)]


def test_paths_are_those_of_fields() -> None:
    found, _ = read('a: [x, {b.c: {"": 1}}]')
    assert sorted(set(found[0].paths().values())) == ["", "a", "a[0]", "a[1]", "a[1][b.c]", "a[1][b.c][]"]


# What each unquoted scalar becomes in a cluster, as JSON: the answers of sigs.k8s.io/yaml 1.6.0 (YAMLToJSONStrict, with
# go.yaml.in/yaml/v2 2.4.4 behind it), which kubectl, the API server's clients and istioctl read with; 2026-11-29. A
# number that JSON cannot hold is an error there.
AS_IN_A_CLUSTER = {
    "boolean": """
        y Y yes Yes YES on On ON true True TRUE n N no No NO off Off OFF false False FALSE
    """,
    "null": "~ null Null NULL",
    "number": """
        0 7 80 8080 +80 -1 -0 00 000 007 08 09 018 0080 00080 017 -017 0777 0888 0o17 0O17 -0o17 0o_7 0x1F 0X1F -0x1f
        +0x1F 0x_1 0x1_F 0b1 0B1 -0b1 +0b1 0b_1 0b-1 0b+1 1_000 1_ 1__0 0_7 0_ 1_000.5 -_1 +_1 09_1 00_1 1.0 1. 1.5 .5
        -.5 +.5 0. 08.5 1e3 1E3 1e+3 1e-3 1.e3 .5e1 01e3 1e1_0 1e_3 1._5 .1_9 .09_281 0e0 12e03 685.230_15e+03
        9223372036854775807 9223372036854775808 18446744073709551615 18446744073709551616 -9223372036854775809
        0777777777777777777777777 .inf .Inf .INF +.inf -.inf -.Inf .nan .NaN .NAN
    """,
    "string": """
        yEs tRUE nULL nil none Y1 ye oN 0o18 0o 0x 0xg 0b2 0b 0x_ 0b_ 0o_ _1 _ 1e 1E e3 1e1.5 0x1p3 0x1.8 1e400 1e999
        -0b-1 0xFFFFFFFFFFFFFFFFFF 0o777777777777777777777777 .iNF -.nan +.nan inf -inf NaN Infinity . -- + -a = << ._5
        1.2.3 1.2.3.4 1.0.0 1:2 10:20 12:30 12:30:00 190:20:30 190:20:30.15 2024-01-01 2024-01-01T00:00:00Z 2024-1-1
        2001-12-14t21:59:43.10-05:00 80-90 1-2 1,000 1a v1 ０ ٣
    """,
}
KINDS = [(word, Kind(kind)) for kind, words in AS_IN_A_CLUSTER.items() for word in words.split()]
KINDS += [("", Kind.NULL), ("9" * 100, Kind.NUMBER), ("9" * 400, Kind.TEXT), ("x" * 100, Kind.TEXT)]
KINDS += [("2024-01-01 10:00:00", Kind.TEXT), ("1 000", Kind.TEXT), ("0b" + "1" * 70, Kind.TEXT)]


@pytest.mark.parametrize(("written", "kind"), KINDS)
def test_plain_scalars_are_typed_as_a_cluster_types_them(written: str, kind: Kind) -> None:
    assert reading.kind_of_plain(written) is kind


@pytest.mark.parametrize("written", ["'8080'", '"yes"', "!!str no", "! 1", "|\n  true"])
def test_quoted_and_tagged_scalars_are_strings(written: str) -> None:
    found, problems = read(f"a: {written}")
    root = found[0].root
    assert isinstance(root, reading.Mapping)
    scalar = root.entries["a"]
    assert isinstance(scalar, Scalar)
    assert scalar.kind is Kind.TEXT
    assert not problems


def test_explicit_types_are_kept_when_they_fit() -> None:
    found, problems = read("a: !!int '5'\nb: !!bool yes\nc: !!null ''\n")
    root = found[0].root
    assert isinstance(root, reading.Mapping)
    scalars = [node for node in root.entries.values() if isinstance(node, Scalar)]
    assert [scalar.kind for scalar in scalars] == [Kind.NUMBER, Kind.BOOLEAN, Kind.NULL]
    assert not problems


def test_empty_documents_are_skipped_and_counted() -> None:
    found, problems = read("# nothing\n---\n---\na: 1\n---\n~\n---\nb: 2\n...\n")
    assert [(document.number, plain(document.root)) for document in found] == [(2, {"a": "1"}), (4, {"b": "2"})]
    assert not problems


def test_a_list_stands_for_its_items() -> None:
    found, _ = read("apiVersion: v1\nkind: List\nitems: [{a: 1}, {b: 2}]\n---\nkind: List\napiVersion: v1")
    assert [(d.prefix, plain(d.root)) for d in found] == [("items[0]", {"a": "1"}), ("items[1]", {"b": "2"})]


def test_byte_order_mark_and_windows_lines_are_fine() -> None:
    found, problems = read("\ufeffa: 1\r\nb: [x]\r\n")
    assert [plain(document.root) for document in found] == [{"a": "1", "b": ["x"]}]
    assert not problems


def test_anchors_and_merges() -> None:
    text = "base: &base {a: 1, b: 2}\nother: &other {b: 9, c: 3}\n"
    text += "one: {<<: *base, a: 7}\ntwo: {<<: [*base, *other], d: *base}"
    found, problems = read(text)
    root = plain(found[0].root)
    assert isinstance(root, dict)
    assert root["one"] == {"a": "7", "b": "2"}
    assert root["two"] == {"a": "1", "b": "2", "c": "3", "d": {"a": "1", "b": "2"}}
    assert not problems


def test_a_quoted_merge_sign_is_an_ordinary_key() -> None:
    found, problems = read("a: {'<<': x}")
    assert [plain(document.root) for document in found] == [{"a": {"<<": "x"}}]
    assert not problems


def test_a_billion_laughs_is_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    _, problems = read("\n".join(lines))
    assert [p.message for p in problems] == ["aliases stand for more than 100000 values"]


def test_a_file_beyond_the_limit_is_refused_unread() -> None:
    found, problems = read("a: 1", max_bytes=3)
    assert not found
    assert [str(p) for p in problems] == ["f.yaml: error: the file has 4 bytes, more than the 3 allowed [YAML]"]


@pytest.mark.parametrize(
    ("text", "shown"), [("a\nb", "a\\nb"), ("x" * 400, "x" * 300 + "…"), ("\u202eevil", "\\u202eevil"), ("é", "é")]
)
def test_text_in_messages_is_printable_and_bounded(text: str, shown: str) -> None:
    assert reading.one_line(text) == shown
