"""Three machines with addresses of their own: proxies that join by token, one control, and a cable that is pulled."""

from pathlib import Path

import pytest

from tests.fleet.network import Network, asked, missing_right, until
from tests.fleet.shop import (
    IDENTITY,
    MACHINE_OF,
    MESH,
    OUT,
    Load,
    allow,
    answers,
    authz,
    command,
    proxies,
    start_application,
    start_envoy,
)

pytestmark = [pytest.mark.envoy, pytest.mark.slow, pytest.mark.skipif(bool(missing_right()), reason=missing_right())]
CONTROL = "10.77.0.1:7443"


def test_machines_join_by_token_and_a_site_that_is_cut_off_keeps_enforcing_and_gets_what_it_missed(
    tmp_path: Path,
) -> None:
    with Network(tmp_path, ("one", "two", "three")) as network:
        start_control(network)
        for proxy in IDENTITY:
            join(network, proxy)
            start_envoy(network, proxy)
        start_application(network)
        for machine in ("two", "three"):
            answers(network, machine, "/one", "200")
            assert asked(network, machine, OUT, "/two") == "403"
        admin = network.folders["one"] / "admin.sock"
        until(lambda: states(admin) == {(True, True)}, "all proxies have taken everything")

        network.cut("three")
        policy = network.folders["one"] / "policies" / "api.yaml"
        policy.write_text(allow("/two"))
        with Load(network, "three", "/one", "/two") as load:
            until(lambda: not proxies(admin)["api-v1"]["is_connected"], "the cut is noticed", 60)
            assert proxies(admin)["web-v1"]["is_current"]
        assert set(load.counts["/one"]) == {"200"}
        assert set(load.counts["/two"]) == {"403"}

        network.heal("three")
        answers(network, "three", "/two", "200", 60)
        assert asked(network, "three", OUT, "/one") == "403"
        answers(network, "two", "/two", "200")
        until(lambda: states(admin) == {(True, True)}, "all proxies are back")


def states(admin: Path) -> set[tuple[bool, bool]]:
    return {(one["is_connected"], one["is_current"]) for one in proxies(admin).values()}


def start_control(network: Network) -> None:
    folder = network.folders["one"]
    (folder / "policies").mkdir()
    (folder / "policies" / "api.yaml").write_text(allow("/one"))
    (folder / "mesh.yaml").write_text(MESH)
    command(network, "one", "ca init --trust-domain mesh.test --ca ca")
    told = "--policies policies --mesh mesh.yaml --ca ca --listen 10.77.0.1:7443 --enrol 10.77.0.1:7444"
    authz(network, "one", "control", *told.split(), "--dns", "one.example", "--admin", "unix:admin.sock")
    until(lambda: bool(proxies(folder / "admin.sock")), "the control serves")


def join(network: Network, proxy: str) -> None:
    machine = MACHINE_OF[proxy]
    one, other = network.folders["one"], network.folders[machine]
    token = command(network, "one", f"ca token create {IDENTITY[proxy]} --ca ca")
    (other / f"{proxy}.token").write_text(token)
    (other / "bundle.pem").write_bytes((one / "ca" / "bundle.pem").read_bytes())
    (other / "mesh.yaml").write_text(MESH)
    (other / f"{proxy}.yaml").write_text(
        command(network, machine, f"mesh bootstrap --mesh mesh.yaml --to {proxy} --control {CONTROL}")
    )
    told = "--server 10.77.0.1:7444 --renew 10.77.0.1:7443 --server-name one.example --bundle bundle.pem --watch"
    certificates = f"certs/{proxy}"
    authz(
        network, machine, "ca", "join", *told.split(), "--token-file", f"{proxy}.token", "--out", certificates,
        log=f"join-{proxy}.log",
    )  # fmt: skip
    until((other / certificates / "svid.json").exists, f"{proxy} has joined")
