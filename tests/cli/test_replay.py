"""``authz replay``, ``authz generate`` and ``authz audit show --archive`` on files of a trail."""

import gzip
import json
import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from authz.audit.writer import RecordWriter
from authz.cli.policy_files import load
from authz.core.attributes import NOT_AUTHENTICATED, Authentication, AuthenticationOutcome, HttpRequest, Token, Workload
from authz.core.decided import Offer
from authz.core.pipeline import decide
from authz.core.providers import ProviderAnswer
from authz.service.loading.archive import Archive, read_texts
from authz.service.loading.snapshot import load_snapshot
from tests import build

Run = Callable[..., Result]

CART = Workload("shop", frozenset({("app", "cart")}), "cart", "cart-v1")
WEB, OTHER = "spiffe://cluster.local/ns/shop/sa/web", "spiffe://cluster.local/ns/shop/sa/other"
REQUESTS: tuple[dict[str, Any], ...] = (
    {"path": "/cart?x=1", "caller": WEB},
    {"path": "/cart/2", "caller": WEB},
    {"path": "/cart", "caller": OTHER},
    {"path": "/admin", "caller": WEB},
    {"path": "/cart", "method": "PUT", "caller": None},
)
TEAM = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: team, namespace: shop}
spec:
  selector: {matchLabels: {app: cart}}
  rules:
  - from: [{source: {principals: ["cluster.local/ns/shop/sa/other"]}}]
    when: [{key: "request.headers[x-team]", values: ["red"]}]
"""


def write_trail(file: Path, policies: Path, *requests: dict[str, Any]) -> None:
    engine = load([str(policies)], None).engine
    writer = RecordWriter()
    lines = []
    for at, request in enumerate(requests or REQUESTS):
        attributes = build.request(workload=CART, **request)
        seen, decision = decide(
            engine.for_workload(CART), attributes, lambda a, rules: NOT_AUTHENTICATED,
            lambda question: ProviderAnswer(allowed=True),
        )  # fmt: skip
        lines.append(writer.write(Offer(seen, decision, f"d-{at}", 1.7e9 + at, 5e-5)))
    file.write_text("".join(f"{line}\n" for line in lines))


@pytest.fixture
def trail(policies: Path, tmp_path: Path) -> Path:
    file = tmp_path / "audit.jsonl"
    write_trail(file, policies)
    return file


def new_policies(tmp_path: Path, policies: Path, *, without: str = "", more: str = "") -> str:
    folder = tmp_path / "new"
    folder.mkdir()
    text = (policies / "shop.yaml").read_text()
    assert without in text
    (folder / "shop.yaml").write_text(text.replace(without, "") + (f"---{more}" if more else ""))
    return "new"


def test_the_same_policies_change_nothing(run: Run, trail: Path) -> None:
    done = run("replay", "audit.jsonl", "-p", "policies")
    assert done.exit_code == 0
    assert "  5 with the same answer\n  0 with another answer\n" in done.stdout


def test_a_change_is_shown_with_a_command_that_shows_it(run: Run, trail: Path, policies: Path, tmp_path: Path) -> None:
    done = run("replay", "audit.jsonl", "-p", new_policies(tmp_path, policies, without=', paths: ["/cart*"]'))
    assert done.exit_code == 0, "admin is denied by another policy"
    (tmp_path / "new" / "shop.yaml").write_text(policies.joinpath("shop.yaml").read_text().replace("/cart*", "/cart"))
    done = run("replay", "audit.jsonl", "-p", "new")
    assert done.exit_code == 3
    assert "1 with another answer: 1 newly denied" in done.stdout
    assert "shop/cart-v1, called by cluster.local/ns/shop/sa/web: 1 record\n" in done.stdout
    assert f"then: allow, ALLOW rule shop/reads/0 ({policies}/shop.yaml:7)" in done.stdout
    assert "now: deny 403, no ALLOW rule matched" in done.stdout
    assert "22:13:21.000000Z, for example d-1\n" in done.stdout
    commands = [line.strip() for line in done.stdout.splitlines() if line.strip().startswith("authz ")]
    shown, checked = (run(*shlex.split(command)[1:]) for command in commands)
    assert "d-1" in shown.stdout
    assert checked.exit_code == 3
    assert checked.stdout.startswith("deny (403) at stage allow")


def test_what_cannot_be_said_is_shown_and_counts_when_told(
    run: Run, trail: Path, policies: Path, tmp_path: Path
) -> None:
    new = new_policies(tmp_path, policies, more=TEAM)
    done = run("replay", "audit.jsonl", "-p", new)
    assert done.exit_code == 0
    assert (
        "request.headers[x-team], which shop/team/0 asks for at shop/cart-v1: 1 record, for example d-2" in done.stdout
    )
    assert run("replay", "audit.jsonl", "-p", new, "--strict").exit_code == 3


@pytest.mark.parametrize("packed", [False, True])
def test_a_trail_may_be_rotated_packed_or_piped(run: Run, trail: Path, tmp_path: Path, packed: bool) -> None:
    data = trail.read_bytes()
    lines = data.splitlines(keepends=True)
    rotated = tmp_path / "audit.20260131T120000.000000Z.jsonl"
    if packed:
        rotated.with_name(f"{rotated.name}.gz").write_bytes(gzip.compress(b"".join(lines[:3])))
    else:
        rotated.write_bytes(b"".join(lines[:3]))
    trail.write_bytes(b"".join(lines[3:]) + b"no record\n")
    done = run("replay", "audit.jsonl", "-p", "policies", "-o", "json")
    assert (done.exit_code, json.loads(done.stdout)["records"]) == (0, 5)
    assert "1 line skipped, no records: audit.jsonl:3" in done.stderr
    assert json.loads(run("replay", ".", "-p", "policies", "-o", "json").stdout)["records"] == 5
    piped = run("replay", "-", "-p", "policies", "-o", "json", stdin=gzip.compress(data) if packed else data)
    assert json.loads(piped.stdout)["records"] == 5


def test_records_are_chosen_by_time_and_workload(run: Run, trail: Path) -> None:
    for options, number in (
        (("--since", "2023-11-14T22:13:22Z"), 3),
        (("--until", "2023-11-14T22:13:22Z"), 3),
        (("--workload", "cart-v1.shop"), 5),
    ):
        done = run("replay", "audit.jsonl", "-p", "policies", "-o", "json", *options)
        assert json.loads(done.stdout)["records"] == number
    none = run("replay", "audit.jsonl", "-p", "policies", "--workload", "nobody")
    assert (none.exit_code, none.stderr) == (1, "error: no record of a decision was found\n")


def test_json_and_markdown_have_what_the_text_has(run: Run, trail: Path, policies: Path, tmp_path: Path) -> None:
    new = new_policies(tmp_path, policies, without='"/cart*"', more=TEAM.replace("/other", "/x|y"))
    told = json.loads(run("replay", "audit.jsonl", "-p", new, "-o", "json").stdout)
    assert told["counts"]["newly allowed"] == 0
    assert told["counts"]["same"] + told["counts"]["other rule"] == 5
    assert {"outcome", "workload", "caller", "then", "now", "facts", "rules", "count", "first", "last", "example",
            "commands"} == set(told["groups"][0])  # fmt: skip
    (tmp_path / "new" / "shop.yaml").write_text(TEAM)
    marked = run("replay", "audit.jsonl", "-p", new, "-o", "markdown")
    assert marked.exit_code == 3
    assert "#### Newly denied: 2 records" in marked.stdout
    then = f"allow, ALLOW rule shop/reads/0 ({policies}/shop.yaml:7)"
    assert f"| shop/cart-v1 | cluster.local/ns/shop/sa/web | {then} |" in marked.stdout
    assert "| request.headers[x-team] | shop/team/0 | shop/cart-v1 | 1 | d-2 |" in marked.stdout


def test_progress_is_shown_where_a_person_watches(
    run: Run, policies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_trail(tmp_path / "audit.jsonl", policies, *(REQUESTS[0] for _ in range(2100)))
    assert run("replay", "audit.jsonl", "-p", "policies").stderr == ""
    monkeypatch.setattr("authz.cli.terminal.is_terminal", lambda: True)
    monkeypatch.setattr("authz.cli.replay.PROGRESS_SECONDS", 0)
    done = run("replay", "audit.jsonl", "-p", "policies")
    assert "\r2,048 records " in done.stderr
    assert done.stdout.startswith("2100 records of ")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("audit.jsonl",), 2, "give either the new policies with --policies, or --as-of"),
        (("audit.jsonl", "-p", "policies", "--as-of"), 2, "give either"),
        (("audit.jsonl", "--as-of"), 2, "--as-of needs --archive"),
        (("-", "-", "-p", "policies"), 2, "stdin (`-`) can be read only once"),
        (("none.jsonl", "-p", "policies"), 1, "does not exist"),
        (("empty", "-p", "policies"), 1, "no audit file in empty"),
        (("audit.jsonl", "-p", "bad.yaml"), 1, "bad.yaml"),
        (("audit.jsonl", "-p", "policies", "--mesh", "bad.yaml"), 1, "bad.yaml"),
    ],
)
def test_what_cannot_be_done_is_said(
    run: Run, trail: Path, tmp_path: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.yaml").write_text("kind: AuthorizationPolicy\n")
    done = run("replay", *arguments)
    assert done.exit_code == code, done.stderr
    assert message in done.stderr


@pytest.fixture
def archive(policies: Path, tmp_path: Path, trail: Path) -> Path:
    """The policies of the trail, kept."""
    snapshot = load_snapshot(Path("policies"), None, time.time())
    Archive(tmp_path / "archive").keep(snapshot.version, read_texts(Path("policies"), None), snapshot.resources)
    return tmp_path / "archive"


def test_a_trail_is_decided_again_as_it_was(run: Run, trail: Path, archive: Path, policies: Path) -> None:
    (policies / "shop.yaml").write_text(TEAM)  # what is there now does not matter
    done = run("replay", "audit.jsonl", "--as-of", "--archive", "archive")
    assert done.exit_code == 0, done.stdout
    assert "  5 as recorded\n" in done.stdout
    trail.write_text(trail.read_text().replace("shop", "shoq", 0).replace('"effect":"allow"', '"effect":"deny"', 1))
    done = run("replay", "audit.jsonl", "--as-of", "--archive", "archive")
    assert done.exit_code == 3
    assert "1 not as recorded: a fault of ours, or a fact that is in no record" in done.stdout
    trail.write_text(trail.read_text().replace('"policy_version":"', '"policy_version":"f'))
    done = run("replay", "audit.jsonl", "--as-of", "--archive", "archive")
    assert done.exit_code == 0
    assert "5 whose policies are not in the archive" in done.stdout
    assert run("replay", "audit.jsonl", "--as-of", "--archive", "archive", "--strict").exit_code == 3


def test_one_decision_is_explained_by_the_policies_of_then(run: Run, trail: Path, archive: Path) -> None:
    done = run("audit", "show", "d-2", "--log", "audit.jsonl", "--archive", "archive")
    assert done.exit_code == 0
    assert ": deny 403, no ALLOW rule matched; as recorded\n" in done.stdout
    assert "below as if it had not been there: request.headers[x-team]" in done.stdout
    assert "(request.headers[x-team]): expected one of `red`, the value is not delivered" in done.stdout
    told = json.loads(run("audit", "show", "d-0", "--log", "audit.jsonl", "--archive", "archive", "-o", "json").stdout)
    assert (told["decision_id"], told["as_of"]["same"]) == ("d-0", True)
    assert told["as_of"]["answer"]["rule"] == "shop/reads/0"
    assert any(stage["rules"] for stage in told["as_of"]["stages"])
    trail.write_text(trail.read_text().replace('"policy_version":"', '"policy_version":"f'))
    other = run("audit", "show", "d-0", "--log", "audit.jsonl", "--archive", "archive")
    assert "cannot be decided again: version f" in other.stdout


def test_what_was_generated_is_valid_and_denies_nothing_of_its_trail(run: Run, trail: Path, tmp_path: Path) -> None:
    done = run("generate", "audit.jsonl")
    assert done.exit_code == 0
    assert done.stderr == ""
    (tmp_path / "generated.yaml").write_text(done.stdout)
    assert run("validate", "generated.yaml").exit_code == 0
    again = run("replay", "audit.jsonl", "-p", "generated.yaml", "-o", "json")
    assert again.exit_code == 0
    assert json.loads(again.stdout)["counts"]["other rule"] >= 2


def test_callers_without_identity_are_said_and_nothing_to_write_is_an_error(
    run: Run, tmp_path: Path, policies: Path
) -> None:
    (policies / "shop.yaml").write_text(TEAM.partition("  rules")[0] + "  rules: [{}]\n")
    write_trail(tmp_path / "open.jsonl", policies, {"caller": None}, {"caller": WEB, "path": "/rare"})
    done = run("generate", "open.jsonl")
    assert done.stderr == (
        "warning: shop/cart-v1 was called without identity and token; a rule for it admits everybody\n"
    )
    assert run("generate", "open.jsonl", "--min-count", "2").stderr == ""
    none = run("generate", "open.jsonl", "--workload", "nobody")
    assert (none.exit_code, none.stderr) == (
        1,
        "error: no record of an allowed request was found, so there is nothing to write\n",
    )


def test_a_token_that_was_accepted_is_in_the_command_with_an_audience(run: Run, tmp_path: Path, policies: Path) -> None:
    jwt = """
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: jwt, namespace: shop}
spec: {jwtRules: [{issuer: i, audiences: [shop]}]}
"""
    (policies / "shop.yaml").write_text(jwt)
    engine = load([str(policies)], None).engine
    token = Authentication(AuthenticationOutcome.ACCEPTED, Token({"iss": "i", "sub": "a"}, "i", "a"))
    attributes = build.request(workload=CART, claims={"iss": "i", "sub": "a"})
    seen, decision = decide(engine.for_workload(CART), attributes, lambda a, r: token, lambda q: ProviderAnswer(True))
    assert isinstance(seen.http, HttpRequest)
    (tmp_path / "audit.jsonl").write_text(RecordWriter().write(Offer(seen, decision, "d-0", 1.7e9, 5e-5)) + "\n")
    (policies / "shop.yaml").write_text(
        f"{jwt}---\n{TEAM.partition('  rules')[0]}  rules: [{{from: [{{source: {{requestPrincipals: [i/b]}}}}]}}]\n"
    )
    done = run("replay", "audit.jsonl", "-p", "policies", "-o", "json")
    told = json.loads(done.stdout)
    assert (done.exit_code, told["assumed"]) == (3, 1)
    command = told["groups"][0]["commands"][1]
    assert """'{"iss":"i","sub":"a","aud":"shop"}'""" in command
    checked = run(*shlex.split(command)[1:])
    assert checked.stdout.startswith("deny (403) at stage allow: no ALLOW rule matched"), checked.stderr
