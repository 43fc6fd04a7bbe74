"""Metrics of discovery, from the states of proxies alone."""

from authz.control.fleet.fleet_figures import MOST_REFUSALS, FleetFigures, ProxyState, TypeState, fleet_figures
from authz.telemetry import fleet_names
from authz.telemetry.text import metric_lines


def refusing(name: str, words: str = "cannot bind") -> ProxyState:
    return ProxyState(name, "spiffe://mesh.test/ns/shop/sa/web", True, types={"lds": TypeState("1", "2", words)})


def test_what_is_refused_is_told_in_envoys_words_and_no_more_than_a_hundred_times() -> None:
    states = [ProxyState("api", "spiffe://mesh.test/ns/shop/sa/api", True, True)]
    states += [refusing(f"web-{number}", 'two\nlines of "words"' + "x" * 500) for number in range(150)]
    told = dict(fleet_figures(states, FleetFigures(), 151, 0))
    refusals = told[fleet_names.XDS_REFUSALS]
    assert isinstance(refusals, dict)
    assert len(refusals) == MOST_REFUSALS
    assert ("web-0", "lds", "2", ('two\nlines of "words"' + "x" * 500)[:200]) in refusals
    assert [line for line in metric_lines(fleet_names.XDS_REFUSALS, refusals) if "\n" in line] == []
    assert told[fleet_names.XDS_PROXIES] == {
        ("current",): 1, ("refusing",): 150, ("missing",): 0, ("gone",): 0, ("behind",): 0
    }  # fmt: skip
