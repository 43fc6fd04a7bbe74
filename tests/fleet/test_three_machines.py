"""
Three machines with addresses of their own, two controls with an authority each, and what goes wrong between them.

In every case: no request lost, none wrongly allowed, and what was missed comes as soon as it can.
"""

import signal
from collections.abc import Iterator

import pytest

from tests.fleet.network import Network, asked, missing_right, until
from tests.fleet.shop import OUT, Load, Shop, answers

pytestmark = [pytest.mark.envoy, pytest.mark.slow, pytest.mark.skipif(bool(missing_right()), reason=missing_right())]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with Network(tmp_path_factory.mktemp("fleet"), ("one", "two", "three")) as network:
        made = Shop(network)
        made.start()
        yield made


@pytest.fixture(autouse=True)
def _begins_well(shop: Shop) -> None:
    """Every case begins with two controls and three proxies that have everything, and ``/one`` allowed."""
    shop.write_policy("/one")
    for machine, control in shop.controls.items():
        if control.poll() is not None:
            shop.start_control(machine)
    for machine, server in shop.truth.items():
        if server.poll() is not None:
            shop.start_truth(machine)
    shop.everybody_is_current()
    for machine in ("two", "three"):
        answers(shop.network, machine, "/one", "200")
        answers(shop.network, machine, "/two", "403")


def test_a_control_that_is_killed_and_comes_back_loses_no_request_and_allows_none_wrongly(shop: Shop) -> None:
    with Load(shop.network, "two", "/one", "/two") as load:
        shop.kill_control("one")
        shop.everybody_is_current()  # at the other one
        until(lambda: set(shop.status()[2].values()) == {"current"}, "the fleet's status", 45)
        load.goes_on()
        shop.start_control("one")
        shop.kill_control("two")
        shop.everybody_is_current()
        load.goes_on()
    assert load.counts == {"/one": {"200": load.all("/one")}, "/two": {"403": load.all("/two")}}


def test_a_policy_changed_while_a_control_is_down_is_in_force_when_it_is_the_only_one(shop: Shop) -> None:
    shop.kill_control("one")
    shop.write_policy("/two")
    answers(shop.network, "two", "/two", "200")
    shop.start_control("one")
    shop.kill_control("two")
    shop.everybody_is_current()
    assert asked(shop.network, "two", OUT, "/two") == "200"
    assert asked(shop.network, "two", OUT, "/one") == "403"


def test_a_site_that_is_cut_off_keeps_enforcing_and_gets_what_it_missed(shop: Shop) -> None:
    network = shop.network
    network.cut("three")
    try:
        shop.write_policy("/two")
        with Load(network, "three", "/one", "/two") as load:
            shop.is_cut_off("web-v2")  # its Envoy says so
            load.goes_on()
        assert load.counts == {"/one": {"200": load.all("/one")}, "/two": {"403": load.all("/two")}}
        until(lambda: is_seen_as_cut_off(shop.status()), "who is cut off is seen", 45)
    finally:
        network.heal("three")
    answers(network, "three", "/two", "200", 60)
    answers(network, "three", "/one", "403")
    answers(network, "two", "/two", "200")
    shop.everybody_is_current()


def is_seen_as_cut_off(status: tuple[int, object, dict[str, str]]) -> bool:
    code, _, proxies = status
    return (code, proxies["web-v1"]) == (3, "current") and proxies["api-v1"] in ("behind", "missing")


def test_a_control_with_a_wrong_clock_serves_nobody_and_everybody_is_served(shop: Shop) -> None:
    shop.kill_control("one")
    shop.start_control("one", ahead_seconds=2 * 24 * 3600)
    shop.everybody_is_current()
    assert not any(one["is_connected"] for one in shop.asked_of("one").values())
    until(lambda: shop.status()[1]["one"]["has_wrong_clock"], "the wrong clock is shown", 45)
    shop.status_is(0, {"one": "current", "two": "current"})
    shop.write_policy("/two")
    answers(shop.network, "three", "/two", "200")
    assert asked(shop.network, "three", OUT, "/one") == "403"
    shop.kill_control("one")


def test_a_proxy_that_reads_nothing_holds_up_nobody(shop: Shop) -> None:
    envoy = shop.envoys["web-v1"]
    envoy.send_signal(signal.SIGSTOP)
    try:
        for path in ("/three", "/two"):
            shop.write_policy(path)
            answers(shop.network, "three", path, "200")
    finally:
        envoy.send_signal(signal.SIGCONT)
    shop.everybody_is_current()


def test_a_full_disk_of_a_control_stops_neither_policies_nor_renewals(shop: Shop) -> None:
    shop.kill_control("two")
    with shop.full_disk("one"):
        shop.write_policy("/two")
        answers(shop.network, "three", "/two", "200")
        answers(shop.network, "three", "/one", "403")
        shop.everybody_is_current()
        told = "--server 10.77.0.1:7443 --server-name one.example --bundle bundle.pem --out certs/web-v1"
        shop.run("two", f"ca join {told}")


def test_who_leads_the_truth_is_killed_and_nothing_is_missed(shop: Shop) -> None:
    leader = shop.truth_leader()
    asking = next(machine for machine in ("one", "two") if machine != leader)
    shop.kill_truth(leader)
    shop.write_policy("/two")
    answers(shop.network, "three", "/two", "200")
    until(lambda: shop.truth_leader() not in ("", leader), "another one leads")
    shop.status_is(0, {"one": "current", "two": "current"}, asking)
    shop.start_truth(leader)


def test_without_a_majority_all_goes_on_and_the_truth_says_that_it_has_none(shop: Shop) -> None:
    with Load(shop.network, "two", "/one", "/two") as load:
        for machine in ("one", "three"):
            shop.kill_truth(machine)
        until(lambda: shop.status("two")[0] == 1, "the truth does not answer")
        load.goes_on()
    assert load.counts == {"/one": {"200": load.all("/one")}, "/two": {"403": load.all("/two")}}
    for machine in ("one", "three"):
        shop.start_truth(machine)
    shop.status_is(0, {"one": "current", "two": "current"})
