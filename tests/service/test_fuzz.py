"""Mutated CheckRequests: nothing crashes, and nothing is allowed that the unmutated rule denies (issue, judged)."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authz._proto import ext_authz_pb2 as pb
from authz.core import resources as r
from authz.service.check_function import CheckFunction
from tests.service.messages import CALLER, check_request, peer, response
from tests.service.test_check_function import NOW, function, policy

MUTATIONS = 10_000
SECRET = "/admin/secret"


def guarded() -> CheckFunction:
    """
    Only one caller may do one thing; a mutation that is still allowed must still be that.

    Both a DENY and an ALLOW guard the path, so neither an absent nor an odd fact may open it.
    """
    allow = r.Rule(
        sources=(r.Source(principals=(CALLER.removeprefix("spiffe://"),), ip_blocks=("10.9.0.0/16",)),),
        operations=(r.Operation(paths=("/open/*",), methods=("GET",), hosts=("api.example.com",), ports=("8080",)),),
        conditions=(r.Condition("request.headers[x-key]", ("open-sesame",)),),
    )
    deny = r.Rule(
        operations=(r.Operation(paths=("/admin*",)),), conditions=(r.Condition("connection.sni", not_values=("good",)),)
    )
    return function(policy(r.Action.ALLOW, allow, name="allow"), policy(r.Action.DENY, deny, name="deny"))


def base(path: str = "/open/1") -> bytes:
    return check_request(path=path, headers=[("x-key", "open-sesame"), ("x-other", "é")], extensions={"a": "b"})


def is_what_the_rule_allows(message: bytes) -> bool:
    """Read again without the product: the message itself must carry every fact that the ALLOW rule asks for."""
    attributes = pb.CheckRequest.FromString(message).attributes
    source, destination = pb.Peer.FromString(attributes.source), pb.Peer.FromString(attributes.destination)
    http = attributes.request.http
    keys = [h.raw_value for h in http.header_map.headers if h.key == "x-key"] or [
        http.headers[name].encode() for name in http.headers if name == "x-key"
    ]
    return (
        source.principal == CALLER
        and source.address.socket_address.address.startswith("10.9.")
        and destination.address.socket_address.port_value == 8080
        and str(http.path).split("?")[0].split("#")[0].startswith("/open/")
        and http.method == "GET"
        and http.host.lower() == "api.example.com"
        and b"open-sesame" in keys
    )


def test_the_unmutated_requests_are_decided_as_meant() -> None:
    check = guarded()
    assert response(check.check(base(), (), NOW)).status.code == 0
    assert response(check.check(base(SECRET), (), NOW)).status.code == 7
    assert is_what_the_rule_allows(base())


def mutate(message: bytes, chance: random.Random) -> bytes:
    mutated = bytearray(message)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 8))):
        if not mutated:
            break
        at = chance.randrange(len(mutated))
        kind = chance.randrange(6)
        if kind == 0:
            mutated[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            mutated[at] = chance.choice((0, 1, 0x0A, 0x12, 0x2F, 0x7F, 0x80, 0xFF))
        elif kind == 2:
            del mutated[at : at + chance.randrange(1, 9)]
        elif kind == 3:
            mutated[at:at] = mutated[at : at + chance.randrange(1, 40)]
        elif kind == 4:
            del mutated[at:]
        else:
            mutated += chance.randbytes(chance.randrange(1, 9))
    return bytes(mutated)


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/open/1", SECRET])
def test_no_mutation_crashes_or_opens_what_is_shut(path: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("CRITICAL")  # thousands of requests that are none
    chance = random.Random(f"seed {path}")
    check = guarded()
    counts = {True: 0, False: 0}
    for _ in range(MUTATIONS // 2):
        message = mutate(base(path), chance)
        answer = response(check.check(message, (), NOW))
        allowed = answer.status.code == 0
        assert allowed or answer.HasField("denied_response")
        if allowed:
            assert is_what_the_rule_allows(message), message
        counts[allowed] += 1
    assert counts[False] > MUTATIONS // 20
    if path == SECRET:
        assert counts[True] == 0


TEXT = st.text(max_size=30)


@settings(max_examples=300, deadline=None)
@given(
    path=TEXT.map(lambda text: SECRET + text) | TEXT,
    method=TEXT,
    host=TEXT,
    headers=st.lists(st.tuples(TEXT, st.binary(max_size=30)), max_size=5),
    principal=TEXT,
    address=TEXT,
    labels=st.dictionaries(TEXT, TEXT, max_size=3),
    extensions=st.dictionaries(st.sampled_from(["namespace", "service_account", "workload"]) | TEXT, TEXT, max_size=3),
    sni=st.none() | TEXT,
    metadata=st.lists(st.tuples(st.sampled_from(["x-authz-remote-ip", "x-authz-direct-ip", "traceparent"]), TEXT)),
    tcp=st.booleans(),
)
def test_any_well_formed_request_gets_an_answer_that_never_allows_without_the_facts(
    path: str,
    method: str,
    host: str,
    headers: list[tuple[str, str | bytes]],
    principal: str,
    address: str,
    labels: dict[str, str],
    extensions: dict[str, str],
    sni: str | None,
    metadata: list[tuple[str, str | bytes]],
    tcp: bool,
) -> None:
    allow_one = policy(r.Action.ALLOW, r.Rule(sources=(r.Source(principals=("cluster.local/ns/never/sa/here",)),)))
    root = r.AuthorizationPolicy(r.Metadata("p", "istio-system"), rules=allow_one.rules)
    check = function(root)
    message = check_request(
        path=path,
        method=method,
        host=host,
        headers=headers,
        source=peer(principal, address),
        destination=peer("", labels=labels),
        extensions=extensions,
        sni=sni,
        tcp=tcp,
    )
    assert response(check.check(message, metadata, NOW)).HasField("denied_response")
    assert check.failures == 0
