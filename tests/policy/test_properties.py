"""What holds for every text: reading never raises, the order of files does not matter, and nothing is lost."""

import random
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from authz.core.compiler import compile_engine
from authz.core.errors import Severity
from authz.core.resources import MeshConfig
from authz.policy import written_rules
from authz.policy.mesh_config import read_mesh
from authz.policy.reader import ReadResult, read_policies
from tests.yaml_text import read_yaml

CORPUS = Path(__file__).parents[1] / "conformance" / "validation.yaml"
TEXTS: list[str] = [document["yaml"] for document in read_yaml(CORPUS.read_text())["documents"]]
GOOD = [text for text in TEXTS if not read_policies([("x", text.encode())]).has_errors]
MESH = """\
apiVersion: v1
kind: ConfigMap
metadata: {name: istio}
data:
  mesh: |
    trustDomain: td1
    trustDomainAliases: [td2]
    pathNormalization: {normalization: MERGE_SLASHES}
    defaultConfig: {gatewayTopology: {numTrustedProxies: 1}}
    extensionProviders:
    - name: one
      envoyExtAuthzGrpc: {service: a.example, port: 9000, timeout: 1s, statusOnError: "503"}
    - name: two
      envoyExtAuthzHttp: {service: ns/b.example, port: 80, pathPrefix: /x, headersToUpstreamOnAllow: [a]}
"""
PIECES = (
    *("", "*", "&a ", "*a", "{", "}", "[", "]"),
    *("- ", ": ", "null", "~", "yes", "0", "\n", "---\n"),
    *("\t", '"', "'", "|", "!!int ", "<<: ", "#", "é"),
    *("\x00", "\ufeff", "\\", "{*}", "/", " "),
)


def mutate(text: str, seed: int) -> str:
    """Cut, insert, repeat and exchange pieces, some times over."""
    chance = random.Random(seed)
    for _ in range(chance.randint(1, 4)):
        lines = text.split("\n")
        at, other = chance.randrange(len(text) + 1), chance.randrange(len(lines))
        match chance.randrange(6):
            case 0:
                text = text[:at] + chance.choice(PIECES) + text[at:]
            case 1:
                text = text[:at] + text[at + chance.randint(1, 12) :]
            case 2:
                text = text[:at] + chance.choice(PIECES) + text[at + 1 :]
            case 3:
                text = "\n".join(lines[:other] + lines[other + 1 :])
            case 4:
                text = "\n".join([*lines[: other + 1], *lines[other:]])
            case _:
                text = text[:at]
    return text


def assert_well_formed(result: ReadResult) -> None:
    for problem in result.problems:
        assert problem.code
        assert "\n" not in problem.message + problem.path + problem.resource + problem.help
        assert problem.location.line >= 0
        assert len(problem.message) < 1000
        assert str(problem)
    assert list(result.problems) == sorted(result.problems, key=lambda p: (p.location, p.path, p.code, p.message))


@settings(max_examples=600, deadline=None)
@given(st.sampled_from(TEXTS), st.integers(0, 2**32))
def test_mutated_policies_never_raise(text: str, seed: int) -> None:
    assert_well_formed(read_policies([("f.yaml", mutate(text, seed).encode())]))


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32))
def test_mutated_mesh_settings_never_raise(seed: int) -> None:
    _, problems = read_mesh("mesh.yaml", mutate(MESH, seed).encode())
    assert all(problem.code and "\n" not in problem.message for problem in problems)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_never_raise(data: bytes) -> None:
    assert_well_formed(read_policies([("f.yaml", data)]))
    read_mesh("mesh.yaml", data)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def holes(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value inside."""
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(hole for key, child in children for hole in holes(child, (*path, key)))]


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(GOOD), st.data())
def test_any_value_anywhere_never_raises(text: str, data: st.DataObject) -> None:
    document = read_yaml(text)
    *path, last = data.draw(st.sampled_from(holes(document)[1:]))
    target = document
    for key in path:
        target = target[key]
    target[last] = data.draw(JSON)
    written = yaml.safe_dump(document, allow_unicode=True)
    assert_well_formed(read_policies([("f.yaml", written.encode("utf-8", "replace"))]))


@pytest.mark.parametrize("text", GOOD)
def test_what_the_reader_accepts_can_be_compiled(text: str) -> None:
    compile_engine(read_policies([("f.yaml", text.encode())]).resources, MeshConfig())


VALUES = st.sampled_from(
    (
        *(
            "*",
            "",
            "**",
            "a*",
            "*a",
            "*a*",
            "/a/{*}",
            "/{**}",
            "/{*}/b/{**}",
            "/{",
            "{**}/a",
            "/a\\",
            "80",
            "0",
            "65536",
        ),
        *(
            "1.2.3.4",
            "::1",
            "1.2.3.4/33",
            "::/0",
            "01.2.3.4",
            "fe80::1%eth0",
            "::ffff:1.2.3.4/96",
            "GET",
            "ns/sa",
            "a/b/c",
        ),
        *("spiffe://td/ns/a/sa/b", "td/ns/a/sa/b", "*/ns/a/sa/b", "cluster.local/*", "a.b:80", "é", "\u2028", "true"),
    )
) | st.text(max_size=12)
KEYS = st.sampled_from(
    (
        *("source.ip", "remote.ip", "destination.ip", "destination.port", "connection.sni", "source.namespace"),
        *("source.principal", "source.serviceAccount", "request.auth.principal", "request.auth.audiences"),
        *("request.auth.presenter", "request.auth.claims[a]", "request.auth.claims[a][b]", "request.headers[x]"),
        *("request.headers[:path]", "experimental.envoy.filters.a.b[c]", "experimental.envoy.filters.a[b][c]"),
    )
) | VALUES.map("request.headers[{}]".format)
LISTS = st.lists(VALUES, min_size=1, max_size=2)


def some_of(names: tuple[str, ...]) -> st.SearchStrategy[dict[str, list[str]]]:
    return st.dictionaries(st.sampled_from(names), LISTS, min_size=1, max_size=2)


RULES = st.fixed_dictionaries(
    {},
    optional={
        "from": some_of((*written_rules._SOURCE_CHECKS, "notPrincipals", "notIpBlocks", "notNamespaces")).map(
            lambda source: [{"source": source}]
        ),
        "to": some_of((*written_rules._OPERATION_CHECKS, "notPaths", "notPorts", "notHosts")).map(
            lambda operation: [{"operation": operation}]
        ),
        "when": st.tuples(KEYS, LISTS, st.sampled_from(("values", "notValues"))).map(
            lambda drawn: [{"key": drawn[0], drawn[2]: drawn[1]}]
        ),
    },
).filter(bool)


@settings(max_examples=1500, deadline=None)
@given(RULES, st.sampled_from(("ALLOW", "DENY", "AUDIT")))
def test_rules_of_any_values_are_refused_by_the_reader_or_can_be_compiled(rule: dict[str, Any], action: str) -> None:
    """So a command that compiles only what the asked workload needs refuses what the service refuses."""
    document = {
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": "p"},
        "spec": {"action": action, "rules": [rule]},
    }
    result = read_policies([("f.yaml", yaml.safe_dump(document).encode("utf-8", "surrogatepass"))])
    if not result.has_errors:
        compile_engine(result.resources, MeshConfig())


def renamed(texts: list[str]) -> list[str]:
    return [text.replace("{name: p,", f"{{name: p{index},") for index, text in enumerate(texts)]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(GOOD), min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_order_and_names_of_files_do_not_matter(texts: list[str], chance: random.Random) -> None:
    texts = renamed(texts)
    first = read_policies([(f"{index}.yaml", text.encode()) for index, text in enumerate(texts)])
    chance.shuffle(texts)
    second = read_policies([(f"{len(texts) - index}.yml", text.encode()) for index, text in enumerate(texts)])
    one_file = read_policies([("all.yaml", "\n---\n".join(texts).encode())])
    assert first.resources.version == second.resources.version == one_file.resources.version
    for kind in ("authorization_policies", "request_authentications", "peer_authentications"):
        names = [[item.metadata.name for item in getattr(r.resources, kind)] for r in (first, second, one_file)]
        assert names[0] == names[1] == names[2]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(GOOD), min_size=1, max_size=6))
def test_every_document_becomes_a_resource_or_a_problem(texts: list[str]) -> None:
    result = read_policies([("all.yaml", "\n---\n".join(renamed(texts)).encode())])
    resources = result.read
    kinds = (resources.authorization_policies, resources.request_authentications, resources.peer_authentications)
    errors = [problem for problem in result.problems if problem.severity is Severity.ERROR]
    assert sum(map(len, kinds)) + len(errors) >= len(texts)
