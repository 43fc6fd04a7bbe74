"""Endpoints of those who are gone, laid over a fleet without a stream."""

import pytest

from authz._proto import endpoints_pb2 as wire
from authz.control.discovery.discovered import CLUSTER_TYPE, ENDPOINTS_TYPE, Discovered
from authz.control.fleet.endpoint_health import EndpointHealth, places_of
from authz.control.fleet.fleet_snapshot import Fleet, FleetMember
from authz.core.spiffe import SpiffeId
from authz.mesh.nouns import MeshWorkload
from tests.control.fleet.fleet_rig import described

PORT = 8080


def workload(number: int) -> MeshWorkload:
    """Of ten, each at an address of its own."""
    spiffe_id = SpiffeId.parse("spiffe://mesh.test/ns/shop/sa/api")
    ports = {"http": PORT}
    return MeshWorkload(f"w{number}", "shop", "api", spiffe_id, {}, f"10.0.0.{number}", "10.9.9.9", ports)


def endpoints(name: str, *numbers: int, weight: bytes = b"") -> Discovered:
    """With a field behind that is not known here, as weights are."""
    made = wire.ClusterLoadAssignment(cluster_name=name, endpoints=[wire.LocalityLbEndpoints()])
    for number in numbers:
        address = wire.SocketAddress(address=f"10.0.0.{number}", port_value=PORT)
        made.endpoints[0].lb_endpoints.add(endpoint=wire.Endpoint(address=wire.Address(socket_address=address)))
    return Discovered.pack(ENDPOINTS_TYPE, name, made.SerializeToString() + weight)


CLUSTER = Discovered.pack(CLUSTER_TYPE, "c", b"c")
A, B = endpoints("a", 1, 2, 3), endpoints("b", 3)


def member(name: str, *there: Discovered) -> FleetMember:
    world = {CLUSTER_TYPE: {"c": CLUSTER}, ENDPOINTS_TYPE: {one.name: one for one in there}}
    return FleetMember(name, SpiffeId.parse("spiffe://mesh.test/ns/shop/sa/x"), world)


FLEET = {"both": member("both", A, B), "only-b": member("only-b", B), "none": member("none")}


def unhealthy(fleet: Fleet, proxy: str, name: str) -> list[int]:
    """The last numbers of the addresses of unhealthy endpoints."""
    made = wire.ClusterLoadAssignment.FromString(fleet[proxy].world[ENDPOINTS_TYPE][name].message)
    found = (one for group in made.endpoints for one in group.lb_endpoints if one.health_status == wire.UNHEALTHY)
    return [int(one.endpoint.address.socket_address.address.rpartition(".")[2]) for one in found]


def test_without_anybody_gone_the_fleet_is_the_very_one() -> None:
    health = EndpointHealth()
    assert health.lay_over(FLEET, []) is FLEET
    health.lay_over(FLEET, [workload(1)])
    assert health.lay_over(FLEET, []) is FLEET


def test_endpoints_of_who_is_gone_are_unhealthy_and_nothing_else_is_touched() -> None:
    health = EndpointHealth()
    laid = health.lay_over(FLEET, [workload(1)])
    assert unhealthy(laid, "both", "a") == [1]
    assert laid["both"].world[ENDPOINTS_TYPE]["a"].version != A.version
    assert laid["both"].world[ENDPOINTS_TYPE]["b"] is B
    assert laid["both"].world[CLUSTER_TYPE] is FLEET["both"].world[CLUSTER_TYPE]
    assert (laid["only-b"], laid["none"]) == (FLEET["only-b"], FLEET["none"])
    assert laid["only-b"] is FLEET["only-b"]
    assert health.kept == ()


@pytest.mark.parametrize(
    ("gone", "marked", "kept"),
    [((1, 2), [], ("a",)), ((1, 2, 3), [], ("a", "b")), ((3,), [3], ("b",)), ((9,), [], ())],
    ids=["more than half", "all", "the only one", "who is nowhere"],
)
def test_where_more_than_half_is_gone_everybody_stays(
    gone: tuple[int, ...], marked: list[int], kept: tuple[str, ...]
) -> None:
    health = EndpointHealth()
    laid = health.lay_over(FLEET, map(workload, gone))
    assert unhealthy(laid, "both", "a") == marked
    assert unhealthy(laid, "both", "b") == []
    assert health.kept == kept


def test_half_may_be_gone() -> None:
    fleet = {"x": member("x", endpoints("a", 1, 2, 3, 4))}
    assert unhealthy(EndpointHealth().lay_over(fleet, [workload(1), workload(2)]), "x", "a") == [1, 2]


def test_a_member_that_is_as_it_was_is_the_object_of_before() -> None:
    health = EndpointHealth()
    first = health.lay_over(FLEET, [workload(1)])
    again = health.lay_over(FLEET, [workload(1), workload(9)])
    assert all(first[name] is again[name] for name in FLEET)
    changed = {**FLEET, "only-b": member("only-b", endpoints("b", 3, 4))}
    third = health.lay_over(changed, [workload(1)])
    assert third["both"] is first["both"]
    assert third["only-b"] is changed["only-b"]
    assert health.lay_over(changed, [workload(2)])["both"] is not first["both"]


def test_endpoints_that_changed_are_read_again() -> None:
    health = EndpointHealth()
    health.lay_over(FLEET, [workload(1)])
    changed = {**FLEET, "both": member("both", endpoints("a", 4, 5), B)}
    assert health.lay_over(changed, [workload(1)])["both"] is changed["both"]
    assert unhealthy(health.lay_over(changed, [workload(4)]), "both", "a") == [4]


def test_of_endpoints_that_are_no_more_nothing_is_said() -> None:
    health = EndpointHealth()
    assert health.lay_over(FLEET, [workload(3)])
    assert [*health.kept] == ["b"]
    health.lay_over({"both": member("both", A)}, [workload(3)])
    assert health.kept == ()


def test_where_only_some_members_may_be_other_only_these_are_looked_at() -> None:
    health = EndpointHealth()
    first = health.lay_over(FLEET, [workload(1)])
    changed = {**FLEET, "only-b": member("only-b", endpoints("b", 1, 3)), "none": member("none", endpoints("c", 1, 4))}
    some = health.lay_over(changed, [workload(1)], ["only-b", "none"])
    assert unhealthy(some, "only-b", "b") == [1]
    assert unhealthy(some, "none", "c") == [1]
    assert some["both"] is first["both"]
    back = health.lay_over(FLEET, [workload(1)], ["none"])
    assert back["none"] is FLEET["none"]
    assert unhealthy(health.lay_over(FLEET, [workload(3)], []), "both", "a") == [3]


def test_what_is_not_known_of_endpoints_is_kept() -> None:
    weight = b"\xba\x3e\x01x"  # field 999
    fleet = {"x": member("x", endpoints("a", 1, 2, weight=weight))}
    laid = EndpointHealth().lay_over(fleet, [workload(1)])
    assert weight in laid["x"].world[ENDPOINTS_TYPE]["a"].message


def test_a_workload_is_where_its_proxy_receives() -> None:
    mesh = described(out=1001, inbound=1002, app=1003)
    places = {one.name: places_of(one) for one in mesh.workloads}
    assert places == {"api-v1": {("127.0.0.1", 1002)}, "web-v1": frozenset()}
