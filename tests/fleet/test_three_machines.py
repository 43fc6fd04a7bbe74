"""
Three machines with addresses of their own, two controls with an authority each, and what goes wrong between them.

In every case: no request lost, none wrongly allowed, what was missed comes as soon as it can, and ``authz fleet
status`` says what is known to be true.
"""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from authz.identity.ledger import LEDGER_FILE, Ledger
from tests.fleet.load import Load
from tests.fleet.network import Network, asked, missing_right, until
from tests.fleet.shop import CONTROLS, Shop
from tests.fleet.shop_mesh import API, IDENTITY, NEAR, OUT, STOCK

PARTITION_SECONDS = float(os.environ.get("PARTITION_SECONDS", "0"))
"""For so long a site stays cut off after all has been seen that there is to see."""
pytestmark = [
    pytest.mark.envoy,
    pytest.mark.slow,
    pytest.mark.timeout(240 + PARTITION_SECONDS),
    pytest.mark.skipif(bool(missing_right()), reason=missing_right()),
]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with Network(tmp_path_factory.mktemp("fleet"), ("one", "two", "three")) as network:
        made = Shop(network)
        made.start()
        yield made


@pytest.fixture(autouse=True)
def _begins_well(shop: Shop) -> None:
    """Every case begins with two controls and four proxies that have everything, and only what is always allowed."""
    for machine, server in shop.truth.items():
        if server.poll() is not None:
            shop.start_truth(machine)
    for machine, control in shop.controls.items():
        if control.poll() is not None:
            shop.start_control(machine)
    if shop.path:
        shop.push()
    shop.status_is()
    for machine in ("two", "three"):
        for path, status in (("/one", "200"), ("/two", "403")):
            shop.answers(machine, path, status)


@contextmanager
def loaded(shop: Shop, *ways: tuple[str, str]) -> Iterator[tuple[Load, ...]]:
    """Requests from machines to hosts all the while, of which none is lost and none is answered wrongly."""
    with ExitStack() as running:
        loads = tuple(running.enter_context(Load(shop.network, machine, host)) for machine, host in ways)
        yield loads
        for load in loads:
            load.goes_on()
    for load in loads:
        assert load.is_all_right(), load.counts


def test_a_control_that_is_killed_and_comes_back_misses_nothing(shop: Shop) -> None:
    with loaded(shop, ("two", API), ("three", STOCK)):
        shop.kill_control("one")
        shop.push("/two")
        shop.everybody_is_current(("two",))
        shop.answers("two", "/two", "200")
        shop.status_is({"one": "behind|silent", "two": "current"})
        shop.start_control("one")
        shop.kill_control("two")
        shop.everybody_is_current(("one",))
        assert asked(shop.network, "two", OUT, "/two") == "200"
        shop.start_control("two")
        shop.status_is()


def test_both_controls_are_killed_at_once_and_what_was_pushed_meanwhile_is_in_force_when_one_is_back(
    shop: Shop,
) -> None:
    with loaded(shop, ("two", API), ("three", STOCK)) as (load, _):
        for machine in CONTROLS:
            shop.controls[machine].send_signal(signal.SIGKILL)
        for machine in CONTROLS:
            shop.kill_control(machine)  # and what it started
        before = shop.number
        shop.push("/two")
        load.goes_on()
        assert asked(shop.network, "two", OUT, "/two") == "403"
        silent = dict.fromkeys(CONTROLS, "silent")
        shop.status_is(silent, dict.fromkeys(IDENTITY, "unknown"), number=before)
        shop.start_control("two")
        shop.everybody_is_current(("two",))
        shop.answers("two", "/two", "200")
        shop.status_is({"one": "silent", "two": "current"})
        shop.start_control("one")
        shop.status_is()


def test_a_site_that_is_cut_off_keeps_enforcing_and_gets_what_it_missed(shop: Shop) -> None:
    """The site has a control, a server of the truth, a caller, and whom it calls; so has the rest of the fleet."""
    network, before = shop.network, time.monotonic()
    with loaded(shop, ("two", NEAR["two"]), ("three", NEAR["three"])):
        network.cut("two")
        try:
            shop.push("/two")
            shop.answers("three", "/two", "200", NEAR["three"], 60)
            lost = "unknown|missing"
            shop.status_is({"one": "current", "two": "silent"}, {"web-v1": lost, "stock-v1": lost}, seconds=90)
            assert shop.status("two")[0] == 1, "there is no majority"
            shop.everybody_is_current(("one", "two"))  # as each says of its own
            time.sleep(max(0.0, PARTITION_SECONDS - (time.monotonic() - before)))
            assert asked(network, "two", OUT, "/two", NEAR["two"]) == "403"
        finally:
            network.heal("two")
        healed = time.monotonic()
        shop.answers("two", "/two", "200", NEAR["two"], 30)
        print(f"{time.monotonic() - healed:.1f} s after it was healed the site has the new policy")
        shop.status_is()
        for machine, host in (("two", API), ("three", STOCK)):
            shop.answers(machine, "/two", "200", host)
        for folder in network.folders.values():
            refused = (folder / "truth.log").read_text().count("route handshake error")
            assert refused < 50, "servers know each other by names that certificates have"
        print(f"… {time.monotonic() - healed:.1f} s: and the status says so")


def test_a_control_with_a_wrong_clock_serves_nobody_and_everybody_is_served(shop: Shop) -> None:
    shop.kill_control("one")
    shop.start_control("one", ahead_seconds=2 * 24 * 3600)
    shop.everybody_is_current(("two",))
    assert not any(one["is_connected"] for one in shop.asked_of("one").values())
    shop.push("/two")
    shop.answers("three", "/two", "200")
    told = shop.status_is()
    assert {one["name"]: one["has_wrong_clock"] for one in told["replicas"]} == {"one": True, "two": False}
    shop.kill_control("one")


def test_a_proxy_that_reads_nothing_holds_up_nobody(shop: Shop) -> None:
    envoy = shop.envoys["stock-v1"]
    envoy.send_signal(signal.SIGSTOP)
    try:
        for path in ("/three", "/two"):
            shop.push(path)
            shop.answers("three", path, "200")
        shop.status_is(proxies={"stock-v1": "behind"})
    finally:
        envoy.send_signal(signal.SIGCONT)
    shop.status_is()
    shop.answers("two", "/two", "200", STOCK)


def test_a_bundle_that_a_stranger_signed_is_in_force_nowhere(shop: Shop) -> None:
    before = shop.number
    with loaded(shop, ("two", API)):
        shop.push("/two", key="stranger")
        told = shop.status_is(dict.fromkeys(CONTROLS, "refusing"), number=before)
        assert all("signed" in one["problem"] for one in told["replicas"]), told
        for machine in ("two", "three"):
            assert asked(shop.network, machine, OUT, "/two") == "403"
        shop.push("/two")
        shop.status_is()
    shop.answers("two", "/two", "200")


def test_a_full_disk_of_a_control_keeps_what_is_in_force_and_renews_certificates(shop: Shop) -> None:
    shop.kill_control("two")
    folder, before = shop.network.folders["one"], shop.number
    with loaded(shop, ("two", API)), shop.full_disk("one") as filler:
        shop.everybody_is_current(("one",))
        ledger = Ledger(folder / "ca" / LEDGER_FILE)
        recorded = len(list(ledger.read()))
        shop.push("/two")
        told = shop.status_is({"one": "refusing", "two": "current|silent"}, number=before)
        assert any("No space left" in one["problem"] for one in told["replicas"]), told
        join = "--server 10.77.0.1:7443 --server-name one.example --bundle bundle.pem --out certs/web-v1"
        shop.run("two", f"ca join {join}")
        assert len(list(ledger.read())) == recorded
        log = (folder / "control.log").read_text()
        assert "the ledger cannot be written" in log
        assert "spiffe://mesh.test/ns/shop/sa/web" in log.rpartition("the ledger cannot be written")[0].splitlines()[-2]
        filler.unlink()
        shop.run("two", f"ca join {join}")
        assert len(list(ledger.read())) == recorded + 1, "half a line is on a line of its own"
        shop.push("/two")
        shop.answers("two", "/two", "200")
        shop.status_is({"one": "current", "two": "behind|silent"})


def test_who_leads_the_truth_is_killed_and_nothing_is_missed(shop: Shop) -> None:
    leader = shop.truth_leader()
    shop.kill_truth(leader)
    shop.push("/two")
    shop.answers("three", "/two", "200")
    until(lambda: shop.truth_leader() not in ("", leader), "another one leads")
    shop.status_is()
    shop.start_truth(leader)


def test_without_a_majority_all_goes_on_and_the_truth_says_that_it_has_none(shop: Shop) -> None:
    with loaded(shop, ("two", API), ("three", STOCK)):
        for machine in ("one", "three"):
            shop.kill_truth(machine)
        until(lambda: shop.status("two")[0] == 1, "the truth does not answer")
        refused = shop.try_push("/two")
        assert refused.code == 1
        assert "nothing was pushed" in refused.remarks
        for machine in ("one", "three"):
            shop.start_truth(machine)
        shop.status_is()
        shop.push("/two")
        shop.answers("two", "/two", "200")
        shop.status_is()
