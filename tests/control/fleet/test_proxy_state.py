"""What is told of a proxy by the stream that it uses, or used last."""

from collections.abc import Mapping

import pytest

from authz._proto import sds_pb2 as sotw
from authz.control.discovery.conversation import Conversation
from authz.control.discovery.discovered import CLUSTER_TYPE, LISTENER_TYPE, SECRET_TYPE, Discovered, ProxyWorld
from authz.control.fleet.fleet_snapshot import FleetMember
from authz.control.fleet.proxy_state import has_everything, state_of
from authz.control.fleet.proxy_stream import ProxyStream
from authz.core.spiffe import SpiffeId
from authz.identity.registration import SvidPeer

WEB = SpiffeId.parse("spiffe://mesh.test/ns/shop/sa/web")
WORLD: ProxyWorld = {url: {"a": Discovered.pack(url, "a", b"1")} for url in (CLUSTER_TYPE, LISTENER_TYPE, SECRET_TYPE)}
ANSWERED = {CLUSTER_TYPE: "", LISTENER_TYPE: ""}


def conversation(answers: Mapping[str, str | None], world: ProxyWorld = WORLD) -> Conversation:
    """Of a proxy that asked for these types: "" takes what comes, None never answers, else these are its words."""
    found = Conversation(world)
    for url, words in answers.items():
        pushes = found.receive(sotw.DiscoveryRequest(type_url=url))
        if words is not None:
            (push,) = pushes
            answer = sotw.DiscoveryRequest(type_url=url, response_nonce=push.nonce)
            if words:
                answer.error_detail.message = words
            found.receive(answer)
    return found


@pytest.mark.parametrize(
    ("answers", "is_all"),
    [
        (ANSWERED, True),  # whoever has its secrets by another way asks for none
        ({CLUSTER_TYPE: ""}, False),
        (ANSWERED | {LISTENER_TYPE: "no"}, False),
        (ANSWERED | {LISTENER_TYPE: None}, False),
        ({}, False),
    ],
    ids=["taken", "not asked for", "refused", "not answered", "nothing"],
)
def test_a_proxy_has_everything_once_it_has_taken_every_type_but_secrets(
    answers: Mapping[str, str | None], is_all: bool
) -> None:
    member, told = FleetMember("web-1", WEB, WORLD), conversation(answers)
    assert has_everything(member, told) is is_all
    assert not has_everything(FleetMember("web-1", WEB, dict(WORLD)), told)  # a newer world, which it was not sent


def test_a_proxy_is_current_only_while_it_is_connected() -> None:
    member, stream = FleetMember("web-1", WEB, WORLD), ProxyStream(SvidPeer(WEB, 1, expires_at=50.0), 0.0)
    stream.conversation = conversation(ANSWERED)
    here, away = (state_of(member, stream, is_connected=is_connected) for is_connected in (True, False))
    assert (here.is_connected, here.is_current, here.certificate_expires) == (True, True, 50.0)
    assert (away.is_connected, away.is_current, away.types) == (False, False, here.types)
    assert here.types.keys() == {"cds", "lds"}
    assert here.types["lds"].accepted == stream.conversation.subscriptions[LISTENER_TYPE].pushed


def test_what_is_refused_or_waited_for_is_told_and_what_is_overdue_only_after_a_while() -> None:
    member, stream = FleetMember("web-1", WEB, WORLD), ProxyStream(SvidPeer(WEB, 1), 0.0)
    stream.conversation = conversation({LISTENER_TYPE: "no such filter", CLUSTER_TYPE: None})
    types = state_of(member, stream, is_connected=True).types
    assert (types["lds"].rejection, types["lds"].is_waiting) == ("no such filter", False)
    assert (types["cds"].is_waiting, types["cds"].is_overdue, types["cds"].waits) == (True, False, ())
    stream.conversation.go_on()
    types = state_of(member, stream, is_connected=True).types
    assert (types["cds"].is_overdue, types["lds"].is_overdue) == (True, False)
    assert types["cds"].waits == ("`a` may wait for its certificate or the DNS, or be refused",)
