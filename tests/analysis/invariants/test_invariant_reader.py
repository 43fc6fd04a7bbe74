"""Files of invariants: what is read, and what is refused with which words."""

import pytest

from authz.analysis.invariants.invariant import PROTOCOLS, TLS, RequestSet, WorkloadSet
from authz.analysis.invariants.invariant_reader import read_invariants


def read(text: str) -> list[str]:
    """The problems of one invariant in flow form."""
    found = read_invariants("i.yaml", f"format: 1\ninvariants:\n- {text}\n".encode())
    return [f"{problem.location.line}: {problem.path}: {problem.message}" for problem in found.problems]


def test_everything_that_may_be_said_is_read() -> None:
    found = read_invariants(
        "i.yaml",
        b"""\
format: 1
policyFiles: [policies]
meshFile: mesh.yaml
invariants:
- id: one
  about: why
  onlyIf:
    to: {name: [a, "b*"], not: c, namespace: shop, labels: {app: cart}, kind: sidecar}
    when: [{method: [GET], notPath: /x, protocol: http, tls: [mtls, simple]}, {headers: {X-A: null}}]
    has: {claims: {role: admin, "[a][b]": c}, sourceIp: 10.0.0.0/8, requestPrincipal: null, destinationPort: 80}
""",
    )
    assert found.problems == ()
    assert (found.policy_files, found.mesh_file) == (("policies",), "mesh.yaml")
    (one,) = found.invariants
    assert (one.id, one.about, one.word, one.location.line) == ("one", "why", "onlyIf", 5)
    assert one.to == WorkloadSet(("a", "b*"), ("c",), "shop", frozenset({("app", "cart")}), "sidecar")
    first, second = one.when
    assert [(asked.attribute.key, asked.values, asked.not_values) for asked in first.asked] == [
        ("methods", ("GET",), ()),
        ("paths", (), ("/x",)),
    ]
    assert (first.protocols, first.tls) == (("http",), ("mtls", "simple"))
    assert [(a.attribute.key, a.not_values) for a in second.asked] == [("request.headers[x-a]", ("*",))]
    assert [asked.attribute.key for asked in one.unless[0].asked] == [
        "request.auth.claims[role]",
        "request.auth.claims[a][b]",
        "source.ip",
        "request.auth.principal",
        "destination.port",
    ]


def test_what_is_not_said_restricts_nothing() -> None:
    found = read_invariants("i.yaml", b"format: 1\ninvariants:\n- {id: i, never: {to: '*'}}\n")
    assert found.invariants[0].when == (RequestSet((), PROTOCOLS, TLS),)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{id: i}", "3: invariants[0]: an invariant has an `id` and one of `never`, `always`, `onlyIf`"),
        ("{never: {to: a}}", "3: invariants[0]: an invariant has an `id` and one of `never`, `always`, `onlyIf`"),
        ("{id: i, never: {to: a}, always: {to: a}}",
         "3: invariants[0]: an invariant has an `id` and one of `never`, `always`, `onlyIf`"),
        ("{id: i, never: {}}", "3: invariants[0].never: no workload is named"),
        ("{id: i, onlyIf: {to: a}}", "3: invariants[0].onlyIf: `onlyIf` does not say what an allowed request `has`"),
        ("{id: i, never: {to: a, when: {pth: /a}}}",
         "3: invariants[0].never.when.pth: unknown key of a request `pth`; did you mean `path`?"),
        ("{id: i, never: {to: a, when: {path: null}}}",
         "3: invariants[0].never.when.path: every request has one, so it cannot be absent"),
        ("{id: i, never: {to: a, when: {path: []}}}",
         "3: invariants[0].never.when.path: an empty value matches nothing"),
        ("{id: i, never: {to: a, when: {tls: mtsl}}}", "3: invariants[0].never.when.tls: `mtsl` is not a kind of TLS"),
        ("{id: i, never: {to: {kind: side}}}", "3: invariants[0].never.to.kind: `side` is not a kind of proxy"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_place(text: str, problem: str) -> None:
    assert any(line.startswith(problem) for line in read(text)), read(text)


@pytest.mark.parametrize("key", ["sourceIp: 10.0.0.0/40", "destinationPort: http", "path: 'x{*}'"])
def test_a_value_that_no_policy_could_have_is_refused(key: str) -> None:
    assert len(read(f"{{id: i, never: {{to: a, when: {{{key}}}}}}}")) == 1


def test_an_id_is_given_once() -> None:
    text = "format: 1\ninvariants:\n- {id: i, never: {to: a}}\n- {id: i, never: {to: b}}\n"
    (problem,) = read_invariants("i.yaml", text.encode()).problems
    assert problem.message == "the invariant `i` is already defined at i.yaml:3:3"


@pytest.mark.parametrize(
    "text", ["", "format: 2\ninvariants: [{id: i, never: {to: a}}]\n", "format: 1\n", "[]\n", "a: ["]
)
def test_a_file_that_is_none_is_refused(text: str) -> None:
    assert read_invariants("i.yaml", text.encode()).problems
