"""Policies from a trail: what was allowed is allowed again, and little else; what a person must judge is said."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authz.analysis.replay.least_privilege import anonymous_rules, policies_text
from authz.analysis.replay.observed import Observed
from authz.analysis.replay.replay import ReplayOutcome
from authz.audit.omissions import RecordRules
from authz.core.attributes import NOT_AUTHENTICATED, UNKNOWN, AttributeContext, Workload
from authz.core.compiler import compile_engine
from authz.core.decided import Record
from authz.core.engine import Engine
from authz.core.resources import MeshConfig
from authz.policy.reader import read_policies
from tests import build
from tests.analysis.replay.test_replay import ANY_ISSUER, engine, recorded, replayed, with_issuer

OPEN = engine(ANY_ISSUER, version="open")
CLOSED = engine(build.policy(), version="closed")
JWT = """---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: jwt, namespace: shop}
spec: {jwtRules: [{issuer: i}, {issuer: j}]}
"""
API = Workload("shop", frozenset({("app", "api")}), "api", "api-v1")
DB = Workload("shop", frozenset({("app", "db")}), "db", "db-v1")


def generated(*records: Record, min_count: int = 1, values: int = 3) -> str:
    observed = Observed(values)
    observed.take_all(records)
    return policies_text(observed, min_count)


def compiled(text: str) -> Engine:
    found = read_policies([("generated.yaml", text.encode()), ("jwt.yaml", JWT.encode())], MeshConfig())
    assert [str(problem) for problem in found.problems if problem.is_error] == []
    return compile_engine(found.resources, MeshConfig())


REQUESTS = st.builds(
    build.request,
    method=st.sampled_from(["GET", "POST", "DELETE", "OPTIONS"]),
    path=st.sampled_from(["/a", "/a/1", "/a/2", "/a/b", "/b/1/c", "/b/2/c", "/b/x/c?q=1", "/", "//", "/a//b", "/e%20e",
                          "/[x]", '/"', "/a/", "/names/n1", "/names/n2", "/names/n3", "/names/n4/9", "", "/true", "/#y",
                          "/ü", "/x: y", "/\u2028"]),
    caller=st.sampled_from([build.CALLER, "spiffe://td/ns/a/sa/b", "spiffe://td/ns/a/sa/c d", None]),
    port=st.sampled_from([80, 8080, UNKNOWN]),
    claims=st.sampled_from([None, {"iss": "i", "sub": "a"}, {"iss": "i", "sub": "b"}, {"iss": "j", "sub": "x/y"},
                            {"iss": "j", "sub": "*"}]),
    workload=st.sampled_from([API, DB, Workload("other", frozenset(), "", "all"), Workload("other", frozenset(
        {("tier", "true"), ("a.b/c", "")}), "", "x")]),
    tcp=st.sampled_from([False, False, False, True]),
)  # fmt: skip


@settings(max_examples=120)
@given(st.lists(REQUESTS, min_size=1, max_size=12), st.integers(1, 4))
def test_replaying_the_trail_with_what_was_generated_of_it_denies_nothing(
    requests: list[AttributeContext], values: int
) -> None:
    """Whatever was called; tokens only where there are token rules, which these are in the namespace shop."""
    trail = [replace(one, authentication=NOT_AUTHENTICATED) if one.http is None
             or one.destination.workload.namespace != "shop" else with_issuer(one) for one in requests]  # fmt: skip
    records = [recorded(OPEN, attributes, at) for at, attributes in enumerate(trail)]
    records = [record for record in records if record["effect"] == "allow"]
    if not records:
        return
    report = replayed(compiled(generated(*records, values=values)), *records)
    assert report.count(ReplayOutcome.OTHER_RULE) == len(records), report.groups


TRAIL = [
    *(recorded(OPEN, build.request(path=f"/items/{at}", workload=API), at) for at in range(3)),
    recorded(OPEN, build.request(method="POST", path="/items", port=8443, workload=API), 3),
    recorded(OPEN, build.request(path="/items/9", caller="spiffe://cluster.local/ns/web/sa/rare", workload=API), 4),
    recorded(
        OPEN, with_issuer(build.request(path="/me", caller=None, claims={"iss": "i", "sub": "a"}, workload=API)), 5
    ),
    recorded(OPEN, build.request(path="/health", caller=None, workload=API), 6),
    recorded(OPEN, build.request(tcp=True, port=5432, workload=DB), 7),
    recorded(CLOSED, build.request(path="/denied", workload=API), 8),
]  # fmt: skip


def test_the_text_is_for_people() -> None:
    assert generated(*TRAIL, min_count=2).splitlines() == EXPECTED.splitlines()


EXPECTED = """\
# Written from 9 records, 2023-11-14T22:13:20.000000Z to 2023-11-14T22:13:28.000000Z: what was allowed then is
# allowed here, and nothing else at these workloads. Read it before it is put in force.
# Denied requests (1) are no reason to allow and stand nowhere below.
# Callers with fewer than 2 requests are left out and stand as comments.
# requestPrincipals need the RequestAuthentication of their issuers, which is not written here:
#   i
---
# shop: api-v1, 7 requests
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata:
  name: api-v1-callers
  namespace: shop
spec:
  selector:
    matchLabels:
      app: api
  action: ALLOW
  rules:
  # cluster.local/ns/web/sa/front: 4 requests, 2023-11-14T22:13:20.000000Z to 2023-11-14T22:13:23.000000Z
  - from:
    - source:
        principals: [cluster.local/ns/web/sa/front]
    to:
    - operation:
        ports: ["8443"]
        methods: [POST]
        paths: [/items]
    - operation:
        ports: ["8080"]
        methods: [GET]
        paths: ["/items/{*}"]
  # left out, fewer than 2 requests: callers without an identity, 1 request, 2023-11-14T22:13:26.000000Z to 2023-11-14T22:13:26.000000Z
  # - to:
  #   - operation:
  #       ports: ["8080"]
  #       methods: [GET]
  #       paths: [/health]
  # left out, fewer than 2 requests: callers without an identity, tokens of i, 1 request, 2023-11-14T22:13:25.000000Z to 2023-11-14T22:13:25.000000Z
  # - from:
  #   - source:
  #       requestPrincipals: [i/a]
  #   to:
  #   - operation:
  #       ports: ["8080"]
  #       methods: [GET]
  #       paths: [/me]
  # left out, fewer than 2 requests: cluster.local/ns/web/sa/rare, 1 request, 2023-11-14T22:13:24.000000Z to 2023-11-14T22:13:24.000000Z
  # - from:
  #   - source:
  #       principals: [cluster.local/ns/web/sa/rare]
  #   to:
  #   - operation:
  #       ports: ["8080"]
  #       methods: [GET]
  #       paths: [/items/9]
---
# shop: db-v1, 1 request
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata:
  name: db-v1-callers
  namespace: shop
spec:
  selector:
    matchLabels:
      app: db
  action: ALLOW
  rules: []
  # left out, fewer than 2 requests: cluster.local/ns/web/sa/front, 1 request, 2023-11-14T22:13:27.000000Z to 2023-11-14T22:13:27.000000Z
  # - from:
  #   - source:
  #       principals: [cluster.local/ns/web/sa/front]
  #   to:
  #   - operation:
  #       ports: ["5432"]
"""  # noqa: E501  # as it is printed


def test_a_rule_that_admits_everybody_is_never_written_without_a_word() -> None:
    observed = Observed(3)
    observed.take_all(TRAIL)
    assert anonymous_rules(observed, 1) == ["shop/api-v1"]
    assert anonymous_rules(observed, 2) == []
    text = policies_text(observed, 1)
    before, _, after = text.partition("  # ATTENTION: this admits everybody")
    assert before.splitlines()[-1].startswith("  # callers without an identity: 1 request")
    assert after.splitlines()[1] == "  - to:"


def test_what_was_denied_is_no_reason_to_allow_and_leaves_its_workload_closed() -> None:
    record = recorded(CLOSED, build.request(path="/secret", workload=API))
    text = generated(record)
    assert "/secret" not in text
    assert "# shop: api-v1, nothing but denied requests: nobody is allowed" in text
    assert replayed(compiled(text), record).count(ReplayOutcome.SAME) == 1


@pytest.mark.parametrize(
    ("attributes", "redact", "expected"),
    [
        (build.request(caller="CN=x"), (), "its identity is no SPIFFE ID"),
        (build.request(caller="spiffe://td/ns/a/sa/b*"), (), "its identity cannot be written in a policy"),
        (build.request(), ("$.source.principal",), "Records that do not say who called (1)"),
        (build.request(), ("$.destination.labels:remove",), "the records do not say its labels"),
        (build.request(), ("$.request.path",), "# Requests whose method or path cannot be written here: 1."),
        (build.request(path="/a*"), (), "# Requests whose method or path cannot be written here: 1."),
    ],
)
def test_what_cannot_be_written_is_said(attributes: AttributeContext, redact: tuple[str, ...], expected: str) -> None:
    other = recorded(OPEN, build.request(workload=DB), 1)
    record = RecordRules.parse(redact).redact(recorded(OPEN, attributes))
    text = generated(record, other)
    assert expected in text
    compiled(text)


@pytest.mark.parametrize("field", ["path", "method", "caller", "name", "label", "issuer"])
def test_whatever_a_client_writes_stays_a_value(field: str) -> None:
    """No text ends its line, its quotes or its comment."""
    evil = 'x"\n- {}\n# \\ \x85\u2028: *'
    changes: dict[str, Any] = {"path": f"/{evil}/y"} if field == "path" else {}
    if field == "method":
        changes["method"] = f"{evil}X"
    if field == "caller":
        changes["caller"] = f"spiffe://td/ns/a/sa/{evil}x"
    if field == "issuer":
        changes["claims"] = {"iss": evil, "sub": "a"}
    workload = Workload("shop", frozenset({("app", evil if field == "label" else "api")}), "", evil)
    record = recorded(OPEN, with_issuer(build.request(**{"workload": workload, **changes})))
    text = generated(record)
    if field == "label":  # no selector can have it
        assert all(line.startswith("#") or line == "---" for line in text.splitlines())
        return
    (policy,) = compiled(text).resources.authorization_policies
    assert policy.metadata.namespace == "shop"
    assert len(policy.rules) == (0 if field in ("caller", "path") else 1)
    assert all(rule.sources for rule in policy.rules)
