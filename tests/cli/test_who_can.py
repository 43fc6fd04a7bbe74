"""``authz who-can``: what is printed, in all forms; exit codes; callers and workloads by name."""

import csv
import io
import json
import shlex
from pathlib import Path

import pytest

from tests.cli.conftest import Run

ROOT = Path(__file__).parents[2]
MESH = ("-p", str(ROOT / "policies"), "--mesh", str(ROOT / "envoy-configs" / "mesh.yaml"))
CART = ("-p", "policies", "--to", "shop (app=cart)")

TOKENS = """\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: writes, namespace: shop}
spec:
  rules:
  - from: [{source: {requestPrincipals: ["https://idp/*"]}}]
    to: [{operation: {methods: ["PUT"]}}]
    when: [{key: "request.headers[x-team]", values: ["red"]}, {key: "request.auth.claims[role]", values: ["admin"]}]
---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: jwt, namespace: shop}
spec: {jwtRules: [{issuer: "https://idp", jwks: '{"keys": []}'}]}
"""


def test_grants_are_printed_with_their_rules_and_examples(run: Run, policies: Path) -> None:
    assert policies.is_dir()
    result = run("who-can", *CART, "--port", "9080")
    assert result.exit_code == 0, result.output
    assert result.stdout == (
        "shop (app=cart):\n"
        "  principal cluster.local/ns/shop/sa/web\n"
        "    may:     method GET, path /cart*\n"
        "    over:    HTTP over mutual TLS\n"
        "    by:      ALLOW rule shop/reads/0 at policies/shop.yaml:7\n"
        "    example: GET api.example.com/cart to port 9080, from cluster.local/ns/shop/sa/web\n"
    )


def test_what_a_deny_takes_away_is_printed(run: Run, policies: Path) -> None:
    assert policies.is_dir()
    result = run("who-can", "-p", "policies", "--to", "shop (no label*", "--path", "/admin*")
    assert "    but:     except port 8080 (DENY rule shop/no-admin/0 at policies/shop.yaml:" in result.stdout


def test_nobody_can_is_proved_and_ends_with_three(run: Run, policies: Path) -> None:
    assert policies.is_dir()
    result = run("who-can", *CART, "--method", "DELETE")
    assert (result.exit_code, result.stdout) == (3, "shop (app=cart): nobody (proved)\n")


def test_what_is_not_decided_ends_with_one(run: Run, policies: Path) -> None:
    file = policies / "shop.yaml"
    file.write_text(file.read_text().replace("request.headers[x-team]", "request.headers[:path]"))
    result = run("who-can", *CART)
    assert result.exit_code == 1
    assert result.stdout.startswith("shop (app=cart): not decided: policies ask for the header `:path`")


def test_what_a_caller_can_reach(run: Run) -> None:
    result = run("who-can", *MESH, "--from", "reviews-v1", "--to", "bookinfo/*", "-o", "json")
    assert result.exit_code == 0, result.output
    answers = {one["workload"]: one["answer"] for one in json.loads(result.stdout)["answers"]}
    reached = {name for name, answer in answers.items() if answer != "no"}
    assert reached == {"bookinfo/ratings-v1", "bookinfo/ratings-v2"}
    assert answers["bookinfo/details-v1"] == "no"


def test_json_has_the_documented_fields_and_every_command_decides_so(run: Run) -> None:
    result = run("who-can", *MESH, "--to", "ratings-v1", "--to", "ingressgateway", "-o", "json")
    answer = json.loads(result.stdout)
    assert list(answer) == ["format", "policy_version", "left_out", "answers"]
    assert list(answer["answers"][0]) == [
        *("caller", "identity", "workload", "namespace", "labels", "answer", "grants", "not_decided"),
    ]
    grants = [grant for one in answer["answers"] for grant in one["grants"]]
    assert len(grants) > 2
    for grant in grants:
        assert list(grant) == [
            *(
                "words",
                "said",
                "rule",
                "sources",
                "operations",
                "conditions",
                "over",
                "exceptions",
                "request",
                "decision",
            ),
            "command",
        ]
        assert grant["words"].startswith(f"{grant['said']['who']} may {grant['said']['may']}")
        assert grant["decision"]["effect"] == "allow"
        done = run(*shlex.split(grant["command"].replace("\\\n", ""))[1:])
        assert done.exit_code == 0, done.output


def test_the_matrix_of_bookinfo(run: Run) -> None:
    result = run("who-can", *MESH, "--matrix", "-o", "csv")
    assert result.exit_code == 0, result.output
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    cells = {(row["caller"], row["workload"].partition("/")[2]): row["answer"] for row in rows}
    assert len(cells) == 9 * 10
    assert cells["bookinfo/ratings-v2", "ratingsdb-v1"] == "yes"
    assert cells["bookinfo/productpage-v1", "details-v1"] == "with conditions"
    assert {cells["anonymous", name] for _, name in cells if name.endswith("-v1")} == {"no"}
    by_name = {(row["caller"], row["workload"]): row for row in rows}
    cell = by_name["bookinfo/productpage-v1", "bookinfo/details-v1"]
    assert cell["rules"] == "bookinfo/details-from-productpage/0"
    assert cell["grants"].endswith("may method GET, path /details/*, over HTTP over mutual TLS")


def test_lines_of_json_are_the_answers_one_by_one(run: Run) -> None:
    whole = json.loads(run("who-can", *MESH, "--matrix", "--to", "r*", "-o", "json").stdout)
    head, *answers = map(json.loads, run("who-can", *MESH, "--matrix", "--to", "r*", "-o", "jsonl").stdout.splitlines())
    assert answers == whole["answers"]
    assert head["policy_version"] == whole["policy_version"]
    assert [one["identity"] for one in head["callers"]][-1] == ""
    assert len(head["callers"]) * len(head["workloads"]) == len(answers)


@pytest.mark.parametrize(
    ("asked", "code", "said"),
    [
        (("--claims", '{"role": "admin"}', "--header", "x-team: red"), 0, "may:     method PUT"),
        (("--claims", '{"role": ["guest"]}', "--header", "X-Team: red"), 0, "may:     method PUT"),  # and admin besides
        (("--claims", '{"iss": "https://idp", "sub": "ann"}', "--method", "PUT"), 0, '"sub": "ann"'),
        (("--claims", '{"iss": "https://other"}', "--method", "PUT"), 3, "nobody (proved)"),
        (("--claims", '{"iss": "https://other", "sub": "ann"}', "--method", "PUT"), 3, "nobody (proved)"),
        (("--header", "x-team: blue", "--method", "PUT"), 0, "x-team: red, x-team: blue"),  # a header twice
        (("--header", "x-team: r*", "--method", "PUT"), 0, "if:      header x-team red"),
        (("--claims", '{"realm": {"roles": ["a", "b"]}}', "--method", "PUT"), 0, '"realm": {"roles": ["a", "b"]}'),
    ],
)
def test_a_question_may_name_headers_and_claims(
    run: Run, tmp_path: Path, asked: tuple[str, ...], code: int, said: str
) -> None:
    (tmp_path / "tokens.yaml").write_text(TOKENS)
    result = run("who-can", "-p", str(tmp_path / "tokens.yaml"), "--to", "shop (no label*", *asked)
    assert (result.exit_code, said in result.stdout) == (code, True), result.output


def test_the_matrix_is_a_table_for_people(run: Run) -> None:
    lines = run("who-can", *MESH, "--matrix", "--to", "details-v1").stdout.splitlines()
    assert lines[0] == "  1  bookinfo/details-v1"
    assert lines[7] == "  8  bookinfo/reviews-v1, bookinfo/reviews-v2, bookinfo/reviews-v3"
    assert lines[11].split() == ["bookinfo/details-v1", "no", "no", "no", "if", "no", "no", "no", "no", "no"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--from", "productpag"), "no workload is called `productpag`; did you mean `productpage-v1`?"),
        (("--from", "*/sa/web"), "no workload is called `*/sa/web`"),
        (("--from", "cluster.local/ns/*/sa/web"), "expected one whole identity, without stars"),
        (("--to", "nothing"), "no workload is called `nothing`; there are `"),
        (("--port", "http"), "--port"),
        (("--path", ""), "an empty value matches nothing"),
        (("--header", "x-team"), "a header has the form `name: value`"),
        (("--header", "x-team:"), "an empty value matches nothing"),
        (("--claims", '{"age": 18}'), "`age`: policies ask for texts"),
        (("--claims", '{"sub": "ann"}'), "say `iss` and `sub` together"),
        (("--claims", '["x"]'), "claims must be a JSON object"),
        (("--matrix", "--from", "anonymous"), "--matrix asks about all callers; leave --from out"),
    ],
)
def test_a_question_that_cannot_be_asked_is_refused(run: Run, arguments: tuple[str, ...], said: str) -> None:
    result = run("who-can", *MESH, *arguments)
    assert result.exit_code == 2, result.output
    assert said in result.stderr


def test_a_matrix_needs_a_description(run: Run, policies: Path) -> None:
    assert policies.is_dir()
    result = run("who-can", "-p", "policies", "--matrix")
    assert result.exit_code == 2
    assert "--matrix needs a mesh description" in result.stderr


def test_a_caller_may_be_anybody_with_an_identity_or_without(run: Run, policies: Path) -> None:
    assert policies.is_dir()
    for caller, code in (("spiffe://cluster.local/ns/shop/sa/web", 0), ("anonymous", 3), ("a.b/ns/c/sa/d", 3)):
        result = run("who-can", *CART, "--from", caller, "--method", "GET")
        assert result.exit_code == code, result.output
