"""What is printed: decisions as they come, and what to try."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from rich.text import Text

from authz.core.attributes import Json
from authz.core.decided import Record
from authz.demo.commands import count_steps
from authz.demo.layout import Layout
from authz.demo.prepare import plan
from authz.demo.screen import invitation
from authz.envoy.options import Authz
from authz.local.decision_lines import Tail, decision_line, read_record
from authz.local.event_screen import Screen
from authz.local.supervision import Event

ROOT = Path(__file__).parent.parent.parent
RECORD: Record = {
    "decision_id": "d1",
    "time": "2026-01-31T12:00:00.123456Z",
    "effect": "deny",
    "stage": "deny",
    "reason": "DENY rule bookinfo/p/0 matched",
    "status": 403,
    "rule": {"file": "/policies/x.yaml", "line": 7},
    "source": {"principal": "cluster.local/ns/bookinfo/sa/bookinfo-productpage"},
    "destination": {"workload": "details-v1", "namespace": "bookinfo", "port": 15120},
    "request": {"method": "GET", "path": "/details/0"},
}


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    return plan(tmp_path_factory.mktemp("state"), ROOT / "policies", ROOT / "envoy-configs" / "mesh.yaml")


def test_a_decision_is_one_line_in_columns(layout: Layout) -> None:
    place: dict[str, Json] = {"file": f"{layout.policies}/20-bookinfo.yaml", "line": 7}
    line = decision_line({**RECORD, "rule": place}, layout.mesh, layout.policies).plain
    assert line.startswith("12:00:00.123  DENY   productpage → details-v1  ")
    assert line.endswith(
        "GET /details/0                  403 DENY rule bookinfo/p/0 matched (policies/20-bookinfo.yaml:7)"
    )


@pytest.mark.parametrize(
    ("principal", "subject", "expected"),
    [
        ("cluster.local/ns/istio-system/sa/istio-ingressgateway-service-account", "alice", "ingressgateway → "),
        ("cluster.local/ns/other/sa/somebody", None, "somebody.other → "),
        ("", "alice", "alice → "),
        ("", None, "anonymous → "),
        ("", "\x1b[31mred", "\\x1b[31mred → "),
    ],
)
def test_callers_have_names_for_people(layout: Layout, principal: str, subject: str | None, expected: str) -> None:
    record: Record = {**RECORD, "source": {"principal": principal}, "token": {"subject": subject}}
    assert expected in decision_line(record, layout.mesh, layout.policies).plain


def test_a_tail_gives_each_record_once_whole_and_survives_rotation(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    tail = Tail(path)
    assert tail.read() == []
    line = json.dumps(RECORD).encode() + b"\n"
    path.write_bytes(line + line[:20])
    assert tail.read() == [RECORD]
    with path.open("ab") as file:
        file.write(line[20:])
    assert tail.read() == [RECORD]
    assert tail.read() == []
    path.rename(tmp_path / "audit.1")
    path.write_bytes(line)
    assert tail.read() == [RECORD]
    assert Tail(path).read() == []
    assert Tail(path, from_start=True).read() == [RECORD]


@pytest.mark.parametrize("line", [b"", b"no JSON", b"[]", b'{"other": 1}', b"\xff"])
def test_what_is_no_record_is_left_out(line: bytes) -> None:
    assert read_record(line) is None


def test_the_invitation_names_the_ports_in_force(layout: Layout) -> None:
    text = Text.from_markup(invitation(layout)).plain
    assert "https://localhost:15443/productpage   # 403: no token" in text
    assert "http://127.0.0.1:19191/token/alice" in text
    assert "curl http://127.0.0.1:15160/ratings/0" in text
    assert "the live graph" not in text
    assert "http://127.0.0.1:19192/   the live graph" in Text.from_markup(invitation(layout, has_page=True)).plain


def test_an_embedded_demo_has_no_page_but_a_place_for_each_proxy(layout: Layout) -> None:
    embedded = replace(layout, authz=Authz.EMBEDDED)
    text = Text.from_markup(invitation(embedded, has_page=True)).plain
    assert "the live graph" not in text
    first = layout.mesh.workloads[0].name
    assert f"run/{first}.authz-admin.sock http://localhost/metrics" in text


def test_events_are_told_and_the_check_is_quiet_about_what_it_does(layout: Layout) -> None:
    console = Console(record=True, width=200, force_terminal=False)
    screen = Screen(console, count_steps(layout))
    screen.report(Event("step", "details", 0.1))
    screen.report(Event("wave", "8 × Envoy", 0.25))
    screen.report(Event("died", "details ended with [bold]code 1"))
    screen.is_quiet = True
    screen.report(Event("died", "by my hand"))
    screen.report(Event("gave-up", "reviews stays down"))
    assert console.export_text().splitlines() == [
        "✓ 8 × Envoy 0.2 s",
        "details ended with [bold]code 1",
        "reviews stays down",
    ]
