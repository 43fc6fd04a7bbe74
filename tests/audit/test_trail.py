import json
import threading
import timeit
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import pytest

from authz.audit.builder import RecordSteps
from authz.audit.entry import Entry
from authz.audit.omissions import RecordRules
from authz.audit.trail import AuditTrail, OnFull
from authz.core.attributes import AttributeContext
from authz.core.compiler import compile_engine
from authz.core.decided import Offer, Record, TraceIds
from authz.core.decision import Decision, Stage
from authz.core.explain import nearest_miss
from authz.core.resources import MeshConfig
from authz.policy.reader import read_policies
from authz.telemetry.counters import Telemetry
from authz.telemetry.names import DECISIONS
from authz.telemetry.spans import DecisionTracer
from tests.audit.recent import RecentSink

MakeOffer = Callable[..., Offer]


class StuckSink:
    """Holds the writer until it is let go."""

    name = "stuck"
    problem = ""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.let_go = threading.Event()
        self.lines: list[bytes] = []

    def write(self, entries: Sequence[Entry]) -> None:
        self.entered.set()
        self.let_go.wait(10)
        self.lines += [entry.line for entry in entries]

    def close(self) -> None:
        pass


class FailingSink:
    """Fails as often as told, then works."""

    name = "failing"
    problem = ""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.lines: list[bytes] = []

    def write(self, entries: Sequence[Entry]) -> None:
        if self.failures:
            self.failures -= 1
            raise OSError(28, "No space left on device")
        self.lines += [entry.line for entry in entries]

    def close(self) -> None:
        raise OSError("already gone")


@pytest.fixture
def started() -> Iterator[Callable[[AuditTrail], AuditTrail]]:
    trails = []

    def start(trail: AuditTrail) -> AuditTrail:
        trail.start()
        trails.append(trail)
        return trail

    yield start
    for trail in trails:
        trail.close()


Started = Callable[[AuditTrail], AuditTrail]


def test_every_sink_gets_every_decision_in_order(started: Started, make_offer: MakeOffer) -> None:
    first, second = RecentSink(), RecentSink()
    trail = started(AuditTrail([first, second], flush_seconds=60))
    assert all(trail.record(make_offer(decision_id=f"d-{n}")) for n in range(600))
    assert trail.flush()
    assert [e.record["decision_id"] for e in first.entries] == [f"d-{n}" for n in range(600)]
    assert [e.line for e in first.entries] == [e.line for e in second.entries]
    assert trail.status().written == 600


@pytest.mark.parametrize(("on_full", "answer"), [(OnFull.DROP, True), (OnFull.DENY, False), ("deny", False)])
def test_a_full_queue_drops_and_counts_or_denies(
    started: Started, make_offer: MakeOffer, on_full: OnFull, answer: bool
) -> None:
    sink, telemetry = StuckSink(), Telemetry()
    steps = RecordSteps(telemetry)
    trail = started(AuditTrail([sink], capacity=3, on_full=on_full, flush_seconds=0.001, steps=steps))
    trail.record(make_offer(decision_id="at-hand"))
    assert sink.entered.wait(10)
    answers = [trail.record(make_offer(decision_id=f"d-{n}")) for n in range(5)]
    assert answers == [True, True, True, answer, answer]
    assert trail.status().dropped == 2
    sink.let_go.set()
    assert trail.flush()
    assert len(sink.lines) == 4
    assert sum(telemetry.counts[DECISIONS].values()) == 6, "metrics count dropped decisions too"


class BrokenTelemetry(Telemetry):
    def observe(self, offer: Offer) -> None:
        raise RuntimeError("our mistake")


class BrokenTracer(DecisionTracer):
    def begin(self, offer: Offer) -> TraceIds:
        raise RuntimeError("our mistake")


class BrokenRules(RecordRules):
    is_empty = False

    def redact(self, record: Record) -> Record:
        raise RuntimeError("our mistake")


def test_offer_raises_nothing_even_when_counting_fails(make_offer: MakeOffer) -> None:
    trail = AuditTrail([], capacity=0, steps=RecordSteps(BrokenTelemetry()))
    assert trail.record(make_offer()) is True
    assert trail.status().dropped == 1


def test_a_failing_sink_is_reported_and_harms_no_other(started: Started, make_offer: MakeOffer) -> None:
    good, bad = RecentSink(), FailingSink(1)
    trail = started(AuditTrail([bad, good]))
    trail.record(make_offer())
    assert trail.flush()
    status = trail.status().sinks[0]
    assert (status.lost, status.errors, status.error) == (1, 1, "[Errno 28] No space left on device")
    assert len(good.entries) == 1
    trail.record(make_offer())
    assert trail.flush()
    assert trail.status().sinks[0].error == ""
    assert len(bad.lines) == 1


def test_where_records_must_not_be_lost_a_failing_sink_is_tried_again(started: Started, make_offer: MakeOffer) -> None:
    bad = FailingSink(3)
    trail = started(AuditTrail([bad], on_full="deny", retry_seconds=0.001))
    trail.record(make_offer())
    assert trail.flush()
    assert len(bad.lines) == 1
    assert trail.status().sinks[0].errors == 3


def _no_nearest(attributes: AttributeContext, decision: Decision) -> None:
    raise RuntimeError("our mistake")


@pytest.mark.parametrize(
    "steps",
    [
        RecordSteps(telemetry=BrokenTelemetry()),
        RecordSteps(tracer=BrokenTracer(())),
        RecordSteps(rules=BrokenRules()),
        RecordSteps(nearest=_no_nearest),
    ],
    ids=["telemetry", "tracer", "rules", "nearest"],
)
def test_a_step_that_fails_never_costs_the_line(
    started: Started, make_offer: MakeOffer, denial: Decision, steps: RecordSteps
) -> None:
    sink = RecentSink()
    trail = started(AuditTrail([sink], steps=steps))
    trail.record(make_offer(decision=replace(denial, stage=Stage.ALLOW)))
    assert trail.flush()
    assert sink.entries[0].record["decision_id"] == "d-1"
    assert sink.entries[0].record["effect"] == "deny"


def test_a_record_whose_redaction_failed_holds_nothing_that_could_need_it(
    started: Started, make_offer: MakeOffer
) -> None:
    sink = RecentSink()
    trail = started(AuditTrail([sink], steps=RecordSteps(rules=BrokenRules())))
    trail.record(make_offer())
    assert trail.flush()
    assert "source" not in sink.entries[0].record
    assert trail.status().failed == 1


def test_close_writes_what_is_queued_and_refuses_the_rest(make_offer: MakeOffer) -> None:
    sink = RecentSink()
    trail = AuditTrail([sink], flush_seconds=60, on_full="deny")
    trail.record(make_offer())
    trail.start()
    assert trail.close()
    assert len(sink.entries) == 1
    assert trail.record(make_offer()) is False


def test_records_left_out_by_a_rule_are_counted(started: Started, make_offer: MakeOffer, allowed: Decision) -> None:
    sink = RecentSink()
    rules = RecordRules.parse(drop=("effect=allow,request.path=/health*",))
    trail = started(AuditTrail([sink], steps=RecordSteps(rules=rules)))
    trail.record(make_offer(decision=allowed, http={"path": "/healthz"}))
    assert trail.flush()
    assert (sink.entries, trail.status().filtered) == ((), 1)


def test_an_offer_costs_less_than_writing_a_dozen_fields(attributes: AttributeContext, denial: Decision) -> None:
    trail = AuditTrail([], capacity=1_000_000)
    fields = {f"field {number}": ["a value", number] for number in range(12)}

    def record() -> None:
        trail.record(Offer(attributes, denial, "d", 1.7e9, 5e-5, True))

    cost = min(timeit.repeat(record, number=2_000, repeat=7))
    assert cost < min(timeit.repeat(lambda: json.dumps(fields), number=2_000, repeat=7)) / 2


def test_a_denial_without_a_rule_names_the_rule_that_came_closest(
    started: Started, make_offer: MakeOffer, denial: Decision
) -> None:
    """With the real engine: the newcomer with a 403 in hand finds rule and field in the record."""
    text = b"""
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: viewers, namespace: bookinfo}
spec:
  rules:
  - from: [{source: {principals: ["cluster.local/ns/bookinfo/sa/productpage"]}}]
    to: [{operation: {methods: [POST]}}]
"""
    engine = compile_engine(read_policies([("policies/viewers.yaml", text)]).resources, MeshConfig())
    steps = RecordSteps(nearest=lambda a, d: nearest_miss(engine.for_workload(a.destination.workload), a))
    sink = RecentSink()
    trail = started(AuditTrail([sink], steps=steps))
    trail.record(make_offer(decision=replace(denial, stage=Stage.ALLOW, rule=None)))
    trail.record(make_offer())
    assert trail.flush()
    assert sink.entries[0].record["nearest"] == {
        "rule": "bookinfo/viewers/0",
        "file": "policies/viewers.yaml",
        "line": 7,
        "failed": [
            {
                "field": "to[0].operation.methods",
                "key": "methods",
                "expected": ["POST"],
                "excluded": [],
                "actual": ["GET"],
                "note": None,
            }
        ],
    }
    assert sink.entries[1].record["nearest"] is None, "a DENY rule that matched needs no nearest miss"


class Loop:
    """An event loop that turns when it is told."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], None]] = []

    def call_soon(self, call: Callable[[], None]) -> None:
        self.calls.append(call)

    def turn(self) -> None:
        calls, self.calls = self.calls, []
        for call in calls:
            call()


@pytest.fixture
def looped() -> Iterator[Callable[[AuditTrail, Loop], AuditTrail]]:
    trails = []

    def start(trail: AuditTrail, loop: Loop) -> AuditTrail:
        trail.start(loop.call_soon)
        trails.append(trail)
        return trail

    yield start
    for trail in trails:
        trail.close()


Looped = Callable[[AuditTrail, Loop], AuditTrail]


def test_the_event_loop_builds_after_the_answers_and_the_writer_writes(
    looped: Looped, make_offer: MakeOffer, allowed: Decision
) -> None:
    threads = set()

    class Observed(Telemetry):
        def observe(self, offer: Offer) -> None:
            threads.add(threading.current_thread())
            super().observe(offer)

    sink, loop, telemetry = RecentSink(), Loop(), Observed()
    trail = looped(AuditTrail([sink], flush_seconds=60, steps=RecordSteps(telemetry)), loop)
    for number in range(20):
        trail.record(make_offer(decision=allowed, decision_id=f"d-{number}"))
    assert len(loop.calls) == 1, "called once for all that wait"
    assert not telemetry.counts[DECISIONS]
    loop.turn()
    assert sum(telemetry.counts[DECISIONS].values()) == 20
    assert threads == {threading.current_thread()}
    assert trail.status().queued == 20, "not written yet"
    assert trail.flush()
    assert [e.record["decision_id"] for e in sink.entries] == [f"d-{number}" for number in range(20)]


def test_the_writer_builds_what_an_event_loop_does_not_get_to(
    looped: Looped, make_offer: MakeOffer, allowed: Decision
) -> None:
    sink = RecentSink()
    trail = looped(AuditTrail([sink], flush_seconds=0.001), Loop())
    trail.record(make_offer(decision=allowed))
    assert trail.flush()
    assert len(sink.entries) == 1


def test_what_takes_long_is_left_to_the_writer_and_keeps_its_place(
    looped: Looped, make_offer: MakeOffer, denial: Decision, allowed: Decision
) -> None:
    finders = []

    def nearest(attributes: AttributeContext, decision: Decision) -> None:
        finders.append(threading.current_thread())

    sink, loop = RecentSink(), Loop()
    trail = looped(AuditTrail([sink], flush_seconds=60, steps=RecordSteps(nearest=nearest)), loop)
    decisions = [allowed, replace(denial, stage=Stage.ALLOW, rule=None), denial]
    for number, decision in enumerate(decisions):
        trail.record(make_offer(decision=decision, decision_id=f"d-{number}"))
    loop.turn()
    assert finders == []
    assert trail.flush()
    assert [e.record["decision_id"] for e in sink.entries] == ["d-0", "d-1", "d-2"]
    assert len(finders) == 1
    assert finders[0] is not threading.current_thread()


def test_what_is_built_counts_as_queued(looped: Looped, make_offer: MakeOffer, allowed: Decision) -> None:
    sink, loop = StuckSink(), Loop()
    trail = looped(AuditTrail([sink], capacity=3, on_full="deny", flush_seconds=0.001), loop)
    trail.record(make_offer(decision=allowed))
    assert sink.entered.wait(10)
    answers = []
    for _ in range(5):
        answers.append(trail.record(make_offer(decision=allowed)))
        loop.turn()
    assert answers == [True, True, True, False, False]
    sink.let_go.set()
    assert trail.flush()
    assert len(sink.lines) == 4


def test_a_closed_event_loop_leaves_the_work_to_the_writer(started: Started, make_offer: MakeOffer) -> None:
    def closed(call: Callable[[], None]) -> None:
        raise RuntimeError("Event loop is closed")

    sink = RecentSink()
    trail = AuditTrail([sink], flush_seconds=0.001)
    trail.start(closed)
    assert trail.record(make_offer())
    assert trail.flush()
    assert trail.close()
    assert len(sink.entries) == 1


def test_without_sinks_decisions_are_counted_and_shown_only(make_offer: MakeOffer) -> None:
    watched: list[tuple[str, str]] = []
    telemetry = Telemetry()
    steps = RecordSteps(
        telemetry=telemetry, watch=lambda offer, trace: watched.append((offer.decision_id, trace.trace_id))
    )
    trail = AuditTrail((), steps=steps)
    trail.start()
    offer = make_offer(decision_id="one")
    assert trail.record(offer)
    assert trail.close()
    assert watched == [("one", offer.attributes.trace_parent[3:35])]
    assert sum(telemetry.counts[DECISIONS].values()) == 1
    status = trail.status()
    assert (status.written, status.filtered, status.failed, status.sinks) == (0, 0, 0, ())
