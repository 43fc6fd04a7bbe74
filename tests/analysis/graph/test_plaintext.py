"""Where STRICT is safe: verdicts from what was seen."""

import pytest

from authz.analysis.graph.plaintext import (
    DAY_SECONDS,
    KnownWorkload,
    Seen,
    StrictPlan,
    address_names,
    plan_strict,
    span,
)

NOW = 1_800_000_000.0
API = ("shop", "api")


def seen(
    at: float, *, mtls: bool = True, allowed: bool = True, to: tuple[str, str] = API, ip: str = "10.0.0.1"
) -> Seen:
    return Seen(NOW + at, *to, 8080, ip, mtls, allowed)


LONG = (seen(0), seen(2 * DAY_SECONDS))
VERDICTS = [
    ("everybody speaks mTLS, for long", LONG, ""),
    (
        "one request without",
        (*LONG, seen(5, mtls=False)),
        "1 request without mutual TLS would be refused, port 8080",
    ),
    ("what is refused already changes nothing", (*LONG, seen(5, mtls=False, allowed=False)), ""),
    ("too short", (seen(0), seen(600)), "observed for only 10m; 1d are required"),
    ("one moment", (seen(0),), "observed for only 0s; 1d are required"),
    ("nothing", (), "no request was recorded"),
    ("only others were called", tuple(seen(t, to=("shop", "web")) for t in (0, 2 * DAY_SECONDS)), "no request was"),
]


def verdict(requests: tuple[Seen, ...]) -> str:
    plan = plan_strict(requests, [KnownWorkload(*API)])
    return next(w.problem for w in plan.workloads if w.name == "api")


@pytest.mark.parametrize(("requests", "problem"), [row[1:] for row in VERDICTS], ids=[row[0] for row in VERDICTS])
def test_a_workload_is_safe_only_when_it_was_seen_to_be(requests: tuple[Seen, ...], problem: str) -> None:
    found = verdict(requests)
    assert found.startswith(problem) if problem else found == ""


def test_senders_are_counted_by_address_and_port_and_named_where_known() -> None:
    requests = [seen(t, mtls=False, ip="10.0.0.1") for t in (1, 2)]
    requests += [seen(3, mtls=False, allowed=False, ip="10.0.0.2"), seen(4)]
    (workload,) = plan_strict(requests, names={"10.0.0.1": "old-client"}).workloads
    told = [(s.source_ip, s.source, s.port, s.allowed, s.refused, s.last_seen - NOW) for s in workload.senders]
    assert told == [("10.0.0.1", "old-client", 8080, 2, 0, 2.0), ("10.0.0.2", "", 8080, 0, 1, 3.0)]
    assert (workload.mtls, workload.plaintext) == (1, 3)


def test_gateways_have_no_verdict() -> None:
    plan = plan_strict(
        [*LONG, seen(1, mtls=False, to=("edge", "gate"))], [KnownWorkload("edge", "gate", is_gateway=True)]
    )
    assert [w.name for w in plan.workloads] == ["api"]
    assert plan.is_safe


def test_a_namespace_is_safe_when_all_of_it_is() -> None:
    plan = plan_strict([*LONG, seen(1, to=("web", "front")), seen(2, to=("web", "old"), mtls=False)])
    assert plan.namespaces() == {"shop": True, "web": False}
    assert not plan.is_safe


@pytest.mark.parametrize("plan", [plan_strict([]), plan_strict([], [KnownWorkload(*API)])])
def test_no_data_is_not_safe(plan: StrictPlan) -> None:
    assert not plan.is_safe
    assert plan.window_seconds == 0


def test_a_shared_address_names_nobody() -> None:
    pairs = [("10.0.0.1", "a"), ("10.0.0.2", "b"), ("10.0.0.2", "c"), ("127.0.0.1", "d")]
    assert address_names(pairs, lambda address: address.startswith("127.")) == {"10.0.0.1": "a"}


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (59.9, "59s"), (60, "1m"), (3660, "1h 1m"), (7200, "2h"), (97_200, "1d 3h")]
)
def test_spans_are_for_people(seconds: float, text: str) -> None:
    assert span(seconds) == text
