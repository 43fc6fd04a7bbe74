"""Documents that are alike are read by what differs, and nothing about the outcome tells."""

import random
import re

import pytest

from authz.core.errors import Problem
from authz.documents.reading import read_documents
from authz.policy import pieces
from authz.policy.memory import Found
from authz.policy.reader import ReadResult, read_policies
from authz.policy.templates import Templates
from tests.policy.test_properties import TEXTS

POLICIES = [text for text in TEXTS if "AuthorizationPolicy" in text and "---" not in text]
ODD_WORDS = (
    *("true", "y", "no", "null", "0", "012", "0x1F", "1e3", "12", "70000", "a-", "A", "GET", "get", "spiffe", "x" * 64),
    *(
        "x" * 300,
        "allow",
        "DENY",
        "default",
        "name",
        "spec",
        "request",
        "source",
        "10",
        "999",
        "com",
        "0o17",
        "GET-POST",
    ),
)
MANY = """apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: team-{n}, namespace: team-{n}}}
spec:
  selector: {{matchLabels: {{app: "app-{n}"}}}}
  action: DENY
  rules:
  - from: [{{source: {{principals: ["cluster.local/ns/team-{n}/sa/caller"], ipBlocks: [10.0.{n}.0/24]}}}}]
    to: [{{operation: {{methods: [GET, 'HEAD'], paths: ["/svc-{n}/*"], ports: ["80"]}}}}]
    when: [{{key: "request.auth.claims[team]", values: [t-{n}]}}, {{key: destination.port, values: ["1{n}"]}}]
  - to:
    - operation: {{hosts: [h-{n}.example.com], ports: ["8{n}"]}}
"""


def without_templates(text: str) -> ReadResult:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Templates, "read", lambda *_: (None, False))
        return read_policies([("a.yaml", text.encode())])


def assert_alike(text: str) -> None:
    found, expected = read_policies([("a.yaml", text.encode())]), without_templates(text)
    assert found.problems == expected.problems
    assert found.read == expected.read


def named(text: str, number: int) -> str:
    return re.sub(r"(name: )([\w.-]+)", rf"\g<1>\g<2>-{number}", text, count=1)


def test_most_of_many_documents_that_are_alike_are_not_read_as_yaml(monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    real = read_documents

    def reading(file: str, data: bytes, problems: list[Problem], **options: object) -> object:
        read.append(file)
        return real(file, data, problems, **options)  # type: ignore[arg-type]  # as it was called

    monkeypatch.setattr(pieces, "read_documents", reading)
    text = "---\n".join(MANY.format(n=number) for number in range(10, 60))
    result = read_policies([("a.yaml", text.encode())])
    assert (len(result.read.authorization_policies), len(read)) == (
        50,
        5,
    )  # one without `---`, one to see the shape twice, one to learn, two on trial
    assert_alike(text)


@pytest.mark.parametrize("text", [MANY.format(n=10), *POLICIES])
def test_any_word_changed_in_a_document_like_others_is_judged_as_ever(text: str) -> None:
    """After six of a kind, one in which each word in turn is another, longer, or of another type."""
    chance = random.Random(len(text))
    alike = [named(text, number) for number in range(6)]
    words = [match.span() for match in re.finditer(r"[A-Za-z0-9][A-Za-z0-9_-]*", text)]
    odd = [text[:begin] + chance.choice(ODD_WORDS) + text[end:] for begin, end in words]
    assert_alike("---\n".join(one if one.endswith("\n") else f"{one}\n" for one in (*alike, *odd)))


@pytest.mark.parametrize(
    "line",
    [
        "- to: [{operation: {paths: ['/it''s-N']}}]",
        '- to: [{operation: {paths: ["/a\\x2fN"]}}]',
        "- to: [{operation: {paths: [/a-N, /a-N]}}]",
        "- to: [{operation: {paths: [/a N/b]}}]",
        "- to: [{operation: {paths: [/N], notPaths: [/7]}}]",
        "- {to: &x [{operation: {paths: [/N]}}]}",
        "- to: [{operation: {paths: [!!str 7N]}}]",
        "- to:\n  - operation:\n      paths:\n      - >-\n        /N\n        b",
        "- to: [{operation: {paths: ['/N\n    b']}}]",
        "- to: [{operation: {methods: [N]}}]",
        "- to: [{operation: {ports: [N]}}]",
        "- to: [{operation: {paths: [/x]}}] # N",
        "- when: [{key: 'request.headers[x-N]', values: [a]}]",
        "- when: [{key: destination.port, values: ['N']}]",
        "- to: [{operation: {paths: [/N]}}]\n- to: [{operation: {paths: [/9]}}]",
        "- from: [{source: {serviceAccounts: [aN]}}]",
    ],
)
def test_what_has_no_template_or_fails_its_checks_is_read_as_ever(line: str) -> None:
    head = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p-%d}\nspec:\n rules:\n %s\n"
    values = ["5", "6", "7", "8", "9", "12", "99999", "GET", "y", "a-b"]
    texts = [head % (number, line.replace("\n", "\n ").replace("N", value)) for number, value in enumerate(values * 2)]
    assert_alike("---\n".join(texts))


def test_texts_of_one_character_that_were_equal_so_far_are_told_apart() -> None:
    """Python has such a text once, whatever fields hold it."""
    head = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: %s, namespace: n%d}\n"
    body = "spec: {selector: {matchLabels: {app: %s}}}\n"
    pairs = [(one, one) for one in "abcdefg"] + [("x", "z"), ("xx", "zz")]
    texts = [(head + body) % (name, number, app) for number, (name, app) in enumerate(pairs)]
    read = read_policies([("a.yaml", "---\n".join(texts).encode())]).read.authorization_policies
    assert [(policy.metadata.name, policy.target.match_labels["app"]) for policy in read] == pairs


def test_a_template_that_reads_otherwise_is_never_used(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Templates.read

    def wrong(self: Templates, *arguments: object) -> tuple[Found | None, bool]:
        found, is_certain = real(self, *arguments)  # type: ignore[arg-type]  # as it was called
        assert not is_certain
        return (found._replace(facts=b"") if found is not None else None), is_certain

    monkeypatch.setattr(Templates, "read", wrong)
    text = "---\n".join(MANY.format(n=number) for number in range(10, 20))
    found = read_policies([("a.yaml", text.encode())]).read
    assert found == without_templates(text).read
