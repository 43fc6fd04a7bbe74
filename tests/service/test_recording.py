"""From the settings of the trail to its sinks: the one for the stream of a fleet."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from authz.audit.query import RecordFilter
from authz.audit.stored_trail import find_stored
from authz.audit.trail import AuditTrail
from authz.core.decided import Offer
from authz.core.errors import SettingsError
from authz.service.recording import make_tracer, make_trail
from authz.settings.precedence import read_settings
from authz.settings.sections import Sections
from authz.telemetry.counters import Telemetry
from authz.truth.truth_stream import make_stream
from tests.audit.recent import RecentSink
from tests.nats_server import NatsServers


def made(**told: object) -> AuditTrail:
    parts = Sections.of(read_settings(told, environment={}))
    tracer = make_tracer(parts.otlp)
    return make_trail(parts.audit, parts.otlp, RecentSink(), Telemetry(), tracer, lambda: None, None, parts.truth)


def test_records_go_to_the_stream_that_the_setting_names(tmp_path: Path, make_offer: Callable[..., Offer]) -> None:
    server = NatsServers(tmp_path / "nats", 1, None)
    server.start(0)
    try:
        with server.client() as client:
            make_stream(client, 1)
            trail = made(audit=f"stdout,{server.address}", audit_spool=tmp_path / "spool")
            trail.start()
            trail.record(make_offer())
            assert trail.flush()
            until = time.monotonic() + 15
            while trail.status().sinks[1].waiting and time.monotonic() < until:
                time.sleep(0.01)
            assert trail.close()
            assert [record["decision_id"] for record in find_stored(client, RecordFilter())] == ["d-1"]
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"audit": "nats://localhost:4222/shop"}, "setting `audit`: nats://localhost:4222/shop needs `audit_spool`"),
        ({"audit": "nats://localhost:4222/Shop", "audit_spool": "spool"}, "setting `audit`: the name of a fleet"),
        ({"audit": "nats://a:1,b/shop", "audit_spool": "spool"}, "is on other machines, which needs TLS"),
        ({"audit": "nats://localhost/a,nats://localhost/b", "audit_spool": "spool"}, "records go to one fleet only"),
        (
            {"audit": "nats://localhost/shop", "audit_spool": "/dev/null/x"},
            "setting `audit_spool`: `/dev/null",
        ),
        (
            {"audit": "nats://localhost/shop", "audit_spool": "spool", "truth_ca": "absent.pem"},
            "setting `audit`: `absent.pem`: there is no such file",
        ),
    ],
)
def test_what_cannot_be_used_is_told_before_anything_is_served(told: dict[str, str], said: str) -> None:
    with pytest.raises(SettingsError) as error:
        made(**told)
    assert said in str(error.value)
