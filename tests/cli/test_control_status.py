"""What ``authz control status`` prints of a fleet, as the page of the control plane shows it."""

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from click.testing import CliRunner, Result

from authz.cli import application
from authz.control.fleet.fleet_figures import ProxyState, TypeState, fleet_json

PAGE = Path(__file__).parents[2] / "docs" / "control-plane.md"
UNTIL = 1796011564.0
TAKEN = {"cds": "dec3c9", "ecds": "6ec73f", "eds": "c6909d", "lds": "397ec3", "sds": "fa0209"}
API = ProxyState(
    "api-v1", "spiffe://mesh.test/ns/shop/sa/api", True, True, UNTIL, {k: TypeState(v) for k, v in TAKEN.items()}
)
REFUSED = TypeState(
    "090555",
    "35b4f1a3c55cdd92",
    "Error adding/updating listener(s) outbound_15001: cannot bind '127.0.0.1:15001': Address already in use",
)
WEB_TAKEN = {"cds": "3dd927", "eds": "e7f9e3", "lds": "090555", "rds": "76817a", "sds": "eab857"}
WEB = replace(
    API, name="web-v1", is_current=False, types={k: TypeState(v) for k, v in WEB_TAKEN.items()} | {"lds": REFUSED}
)
GONE = replace(API, name="api-v2", is_connected=False, is_current=False, is_gone=True)


@contextmanager
def admin(states: list[ProxyState]) -> Iterator[str]:
    """The address of one that answers ``/fleet``."""
    data = json.dumps(fleet_json(states, "d1c7ebb85ac1")).encode()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Nothing is printed."""

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join(10)


def status(*states: ProxyState) -> Result:
    with admin(list(states)) as address:
        return CliRunner().invoke(application, ["control", "status", "--admin", address])


def test_the_example_of_the_page_is_what_is_printed() -> None:
    done = status(API, GONE, WEB)
    assert done.exit_code == 3
    text = "\n".join(line.rstrip() for line in done.stdout.splitlines())
    assert f"```text\n{text}\n```" in PAGE.read_text(), text


def test_all_are_current() -> None:
    assert status(API).exit_code == 0


def test_an_answer_that_is_overdue_is_said_with_what_may_be_the_reason() -> None:
    waiting = TypeState("dec3c9", is_waiting=True, is_overdue=True)
    done = status(replace(WEB, types={"cds": waiting, "lds": replace(waiting, is_overdue=False)}))
    lines = done.stdout.splitlines()[2:]
    assert len(lines) == 2
    assert lines[1].startswith("web-v1 does not answer cds (while one cluster waits")
    waits = replace(waiting, waits=("`a` may be refused: its endpoints were not asked for", "`b` waits"))
    said = status(replace(WEB, types={"cds": waits})).stdout.splitlines()[-1]
    assert said.startswith("web-v1 does not answer cds: `a` may be refused: its endpoints were not asked for;")
