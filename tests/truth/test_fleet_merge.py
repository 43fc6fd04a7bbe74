"""Who runs what, put together of what replicas report: by tables, without a clock, a process or the network."""

from dataclasses import replace

import pytest

from authz.canary.candidate_standing import CandidateStanding, CandidateState
from authz.truth.fleet_merge import FleetView, merge_reports
from authz.truth.fleet_report import (
    CONTROL,
    SERVE,
    ProxyReport,
    RefusedResource,
    ReplicaReport,
    Reported,
    digest_revision,
    has_reached,
)

NOW = 10_000.0
REFUSED = (RefusedResource("lds", "v", "cannot bind"),)


def replica(
    name: str,
    revision: str,
    *proxies: ProxyReport,
    age: float = 1.0,
    clock: float = 0.0,
    since: float = 500.0,
    problem: str = "",
    is_whole: bool = True,
    kind: str = CONTROL,
    candidate: CandidateStanding | None = None,
) -> Reported:
    """``age`` and ``since`` in seconds before now; ``clock``: by how many seconds its clock is ahead."""
    at = NOW - age
    report = ReplicaReport(name, kind, at + clock, revision, NOW - since + clock, problem, candidate=candidate)
    return Reported(at, report, proxies, is_whole)


def proxy(name: str, *, since: float = 400.0, clock: float = 0.0, **more: object) -> ProxyReport:
    whole = {"is_connected": True, "is_current": True, **more}
    return ProxyReport(name, since=NOW - since + clock, **whole)  # type: ignore[arg-type]  # fields by name


def left(name: str, since: float = 50.0) -> ProxyReport:
    return proxy(name, since=since, is_connected=False, is_current=False, revision="6")


def late(name: str, since: float, revision: str = "6") -> ProxyReport:
    return proxy(name, since=since, is_current=False, revision=revision)


def shown(view: FleetView) -> dict[str, tuple[str, ...]]:
    replicas = {one.name: (one.state, one.revision) for one in view.replicas}
    return replicas | {one.name: (one.state, one.revision, one.replica) for one in view.proxies}


@pytest.mark.parametrize(
    ("reports", "expected"),
    [
        pytest.param([], {}, id="nobody"),
        pytest.param(
            [replica("a", "7", proxy("p"))], {"a": ("current", "7"), "p": ("current", "7", "a")}, id="one and its proxy"
        ),
        pytest.param(
            [replica("a", "7", late("p", 3.0))], {"a": ("current", "7"), "p": ("behind", "6", "a")}, id="under way"
        ),
        pytest.param(
            [replica("a", "7", replace(late("p", 3.0), refusals=REFUSED))],
            {"a": ("current", "7"), "p": ("refusing", "6", "a")},
            id="refusing",
        ),
        pytest.param(
            [replica("a", "7", ProxyReport("p"))],
            {"a": ("current", "7"), "p": ("missing", "", "")},
            id="never connected",
        ),
        pytest.param(
            [replica("a", "7", left("p")), replica("b", "7", proxy("p"))],
            {"a": ("current", "7"), "b": ("current", "7"), "p": ("current", "7", "b")},
            id="moved to another replica",
        ),
        pytest.param(
            [replica("a", "7", left("p", 20.0)), replica("b", "7", left("p", 60.0))],
            {"a": ("current", "7"), "b": ("current", "7"), "p": ("missing", "6", "a")},
            id="left both, the later one counts",
        ),
        pytest.param(
            [replica("a", "7", proxy("p", since=300.0)), replica("b", "7", late("p", 2.0))],
            {"a": ("current", "7"), "b": ("current", "7"), "p": ("behind", "6", "b")},
            id="two connections, the newer word counts",
        ),
        pytest.param(
            [replica("a", "6", proxy("p")), replica("b", "7", proxy("q"))],
            {
                "a": ("behind", "6"),
                "b": ("current", "7"),
                "p": ("behind", "6", "a"),
                "q": ("current", "7", "b"),
            },
            id="a replica that has not the newest, and so its proxies",
        ),
        pytest.param(
            [replica("a", "9"), replica("b", "10")],
            {"a": ("behind", "9"), "b": ("current", "10")},
            id="numbers are compared as numbers",
        ),
        pytest.param(
            [replica("a", "d1c7ebb85ac1", since=9.0), replica("b", "ffc7ebb85ac1", since=90.0)],
            {"a": ("current", "d1c7ebb85ac1"), "b": ("behind", "ffc7ebb85ac1")},
            id="of digests, what came into force last",
        ),
        pytest.param(
            [replica("a", "7", proxy("p"), age=31.0), replica("b", "7")],
            {"a": ("silent", "7"), "b": ("current", "7"), "p": ("unknown", "", "a")},
            id="silent, and nobody knows of its proxies",
        ),
        pytest.param(
            [replica("a", "7", proxy("p"), age=31.0), replica("b", "7", proxy("p"))],
            {"a": ("silent", "7"), "b": ("current", "7"), "p": ("current", "7", "b")},
            id="silent, and its proxies went elsewhere",
        ),
        pytest.param(
            [replica("a", "7", proxy("p"), age=100.0), replica("b", "7", left("p", 20.0))],
            {"a": ("silent", "7"), "b": ("current", "7"), "p": ("missing", "6", "b")},
            id="silent, and its proxy was seen elsewhere and left since",
        ),
        pytest.param(
            [replica("a", "7", proxy("p"), age=20.0), replica("b", "7", proxy("q"), is_whole=False)],
            {"a": ("current", "7"), "b": ("silent", "7"), "p": ("current", "7", "a"), "q": ("unknown", "", "b")},
            id="half a report is none",
        ),
        pytest.param(
            [replica("a", "8", age=31.0), replica("b", "7", proxy("p"))],
            {"a": ("silent", "8"), "b": ("current", "7"), "p": ("current", "7", "b")},
            id="what a silent replica had is not the newest",
        ),
        pytest.param(
            [replica("a", "7", proxy("p")), replica("a", "6", kind=SERVE, age=40.0), replica("b", "99", kind=SERVE)],
            {"a": ("silent", "6"), "b": ("current", "99"), "p": ("current", "7", "a")},
            id="a server of the same name, and one that says what it likes, change nothing for proxies",
        ),
        pytest.param(
            [replica("a", "7", proxy("p"), problem="mesh.yaml:3: no such kind")],
            {"a": ("refusing", "7"), "p": ("current", "7", "a")},
            id="a replica that cannot use what is there",
        ),
    ],
)
def test_states_of_replicas_and_proxies(reports: list[Reported], expected: dict[str, tuple[str, ...]]) -> None:
    assert shown(merge_reports(reports, NOW)) == expected
    assert merge_reports(reversed(reports), NOW) == merge_reports(reports, NOW)


@pytest.mark.parametrize("ahead", [0.0, 300.0, -300.0, 7200.0])
def test_a_wrong_clock_makes_nobody_older_or_newer_and_is_shown(ahead: float) -> None:
    reports = [
        replica("wrong", "7", proxy("p", since=40.0, clock=ahead), age=2.0, clock=ahead),
        replica("right", "7", proxy("p", since=80.0), proxy("r", since=5.0)),
    ]
    view = merge_reports(reports, NOW)
    wrong = next(one for one in view.replicas if one.name == "wrong")
    assert wrong.state == "current"
    assert wrong.clock_offset == ahead
    assert wrong.has_wrong_clock is (ahead != 0.0)
    assert wrong.since == NOW - 500.0
    found = {one.name: one for one in view.proxies}
    assert found["p"].replica == "wrong", "it changed 40 seconds ago there, 80 seconds ago here"
    assert found["p"].since == NOW - 40.0


@pytest.mark.parametrize(
    ("reports", "skew", "lagging"),
    [
        pytest.param([replica("a", "7", proxy("p"))], 0.0, [], id="all current"),
        pytest.param([replica("a", "7", late("p", 10.0))], 10.0, [], id="behind, but not for long"),
        pytest.param([replica("a", "7", late("p", 31.0))], 31.0, ["p"], id="behind for too long"),
        pytest.param(
            [replica("a", "7", replace(late("p", 3.0), refusals=REFUSED))], 3.0, ["p"], id="refusing is never in order"
        ),
        pytest.param([replica("a", "7", left("p", 3.0))], 0.0, ["p"], id="missing, which is no skew"),
        pytest.param(
            [replica("a", "7", proxy("p"), age=40.0), replica("b", "7")], 40.0, ["a", "p"], id="silent since then"
        ),
        pytest.param(
            [replica("a", "6", proxy("p")), replica("b", "7", since=12.0)], 12.0, [], id="a replica that has it soon"
        ),
        pytest.param(
            [replica("a", "6", proxy("p")), replica("b", "7", since=50.0)],
            50.0,
            ["a", "p"],
            id="a replica that has not",
        ),
        pytest.param(
            [
                *(replica(str(state), "7", candidate=CandidateStanding(8, "", state)) for state in CandidateState),
                replica("gone", "7", candidate=CandidateStanding(8, "", CandidateState.REFUSED), age=40.0),
            ],
            40.0,
            ["gone", "refused"],
            id="who refuses a candidate, once",
        ),
    ],
)
def test_skew_and_who_is_not_as_it_should_be(reports: list[Reported], skew: float, lagging: list[str]) -> None:
    view = merge_reports(reports, NOW)
    assert view.skew_seconds == skew
    assert [one.name for one in view.lagging(30.0)] == lagging


@pytest.mark.parametrize(
    ("reports", "without"),
    [
        pytest.param([], None, id="nobody has it where nobody reports"),
        pytest.param([replica("a", "7", proxy("p")), replica("b", "8", proxy("q"))], [], id="all"),
        pytest.param([replica("a", "7", late("p", 1.0)), replica("b", "7")], ["p"], id="under way"),
        pytest.param([replica("a", "6", proxy("p")), replica("b", "7")], ["a", "p"], id="a replica has not seen it"),
        pytest.param([replica("a", "7", left("p"), ProxyReport("q"))], [], id="who is not there is not waited for"),
        pytest.param([replica("a", "7", proxy("p"), age=60.0), replica("b", "7")], ["a", "p"], id="silent ones are"),
        pytest.param([replica("a", "8", late("p", 1.0, "7"))], [], id="behind, but not behind this"),
    ],
)
def test_who_has_not_acknowledged_a_revision(reports: list[Reported], without: list[str] | None) -> None:
    view = merge_reports(reports, NOW)
    assert view.has("7") is (without == [])
    assert [one.name for one in view.without("7")] == (without or [])


def test_all_are_behind_a_revision_that_nobody_has_yet() -> None:
    view = merge_reports([replica("a", "7", proxy("p"))], NOW, revision="8")
    assert shown(view) == {"a": ("behind", "7"), "p": ("behind", "7", "a")}


@pytest.mark.parametrize(
    ("revision", "wanted", "expected"),
    [
        ("7", "7", True),
        ("8", "7", True),
        ("10", "9", True),
        ("6", "7", False),
        ("", "7", False),
        ("d1c7ebb85ac1", "d1c7ebb85ac1", True),
        ("d1c7ebb85ac1", "7", False),
        ("20261130120000", "7", True),
        (digest_revision("999999999999"), "7", False),
        (digest_revision("999999999999"), digest_revision("999999999999"), True),
    ],
)
def test_a_revision_reaches_another(revision: str, wanted: str, *, expected: bool) -> None:
    assert has_reached(revision, wanted) is expected
