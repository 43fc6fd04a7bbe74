"""Whose entry it is, and of which workload: the description's word, now and until lately."""

from dataclasses import replace

import pytest

from authz.control.records.described_proxies import LATELY_SECONDS, DescribedProxies
from authz.core.attributes import Workload
from authz.core.spiffe import SpiffeId
from authz.mesh.nouns import Mesh
from authz.wire.access_log import LogEntry
from tests.control.fleet.fleet_rig import API, WEB, described
from tests.wire.lines import read

NOW = 1_700_000_000.0
MESH = described(out=1, inbound=2, app=3)
OTHER = replace(
    MESH, workloads=tuple(replace(one, labels={"app": "other"}) for one in MESH.workloads if one.name == "api-v1")
)
OWN = MESH.workload("api-v1").workload
NEW = OTHER.workload("api-v1").workload


def told(workload: Workload, proxy: str) -> LogEntry:
    entry = read()
    destination = replace(entry.attributes.destination, workload=workload)
    return entry._replace(proxy=proxy, attributes=replace(entry.attributes, destination=destination))


@pytest.fixture
def proxies() -> DescribedProxies:
    made = DescribedProxies()
    made.replace(MESH, NOW)
    return made


@pytest.mark.parametrize(
    ("workload", "proxy", "caller", "counts"),
    [
        pytest.param(OWN, "api-v1", API, OWN, id="its own"),
        pytest.param(OWN, "api-v1", WEB, None, id="another caller's"),
        pytest.param(OWN, "stranger", API, None, id="of nobody"),
        pytest.param(replace(OWN, name="api-v2"), "api-v1", API, OWN, id="in another name"),
        pytest.param(replace(OWN, labels=frozenset()), "api-v1", API, OWN, id="without labels"),
        pytest.param(replace(OWN, namespace="other"), "api-v1", API, replace(OWN, namespace="other"), id="elsewhere"),
    ],
)
def test_an_entry_is_of_the_workload_that_its_proxy_is_described_as(
    proxies: DescribedProxies, workload: Workload, proxy: str, caller: str, counts: Workload | None
) -> None:
    """Another namespace or account is left to be refused by who compares it with the certificate."""
    found = proxies.settled(told(workload, proxy), SpiffeId.parse(caller), NOW)
    assert (found and found.attributes.destination.workload) == counts


@pytest.mark.parametrize(
    ("mesh", "workload", "after", "counts"),
    [
        pytest.param(OTHER, OWN, 1.0, OWN, id="by a listener of before"),
        pytest.param(OTHER, NEW, 1.0, NEW, id="by the new one"),
        pytest.param(OTHER, OWN, LATELY_SECONDS, NEW, id="long afterwards"),
        pytest.param(OTHER, replace(OWN, labels=frozenset()), 1.0, NEW, id="as neither"),
        pytest.param(Mesh(MESH.config), OWN, 1.0, OWN, id="just taken out"),
        pytest.param(Mesh(MESH.config), OWN, LATELY_SECONDS, None, id="long taken out"),
    ],
)
def test_what_was_described_until_lately_counts_as_well(
    proxies: DescribedProxies, mesh: Mesh, workload: Workload, after: float, counts: Workload | None
) -> None:
    proxies.replace(mesh, NOW)
    found = proxies.settled(told(workload, "api-v1"), SpiffeId.parse(API), NOW + after)
    assert (found and found.attributes.destination.workload) == counts


def test_an_entry_of_another_workload_shares_nothing_with_others(proxies: DescribedProxies) -> None:
    entry = read()
    found = proxies.settled(told(replace(OWN, name="api-v2"), "api-v1"), SpiffeId.parse(API), NOW)
    assert found is not None
    assert found.alike is None
    assert found.enforced == entry.enforced


def test_proxies_are_counted_by_identity(proxies: DescribedProxies) -> None:
    api = MESH.workload("api-v1")
    two = replace(MESH, workloads=(api, replace(api, name="api-v2")))
    assert [proxies.count(SpiffeId.parse(one)) for one in (API, "spiffe://mesh.test/none")] == [1, 0]
    proxies.replace(two, NOW)
    assert proxies.count(SpiffeId.parse(API)) == 2
