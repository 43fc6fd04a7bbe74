"""What a stream keeps of what its proxy says is bounded; what it refused and does without is forgotten."""

import pytest

from authz._proto import delta_discovery_pb2 as delta
from authz._proto import sds_pb2 as sotw
from authz.control.discovery.conversation import Conversation, Request
from authz.control.discovery.discovered import ENDPOINTS_TYPE, EXTENSION_TYPE, Discovered
from authz.control.discovery.subscription import MAX_NAME, MAX_TYPE, MAX_WORDS

LONG = "x" * (MAX_NAME + 1)
ASKED = ["f", "g"]


def filters(**versions: str) -> dict[str, dict[str, Discovered]]:
    return {EXTENSION_TYPE: {n: Discovered.pack(EXTENSION_TYPE, n, f"{n}{v}".encode()) for n, v in versions.items()}}


@pytest.mark.parametrize(
    "request_",
    [
        sotw.DiscoveryRequest(type_url=ENDPOINTS_TYPE, resource_names=[LONG]),
        sotw.DiscoveryRequest(type_url="x" * (MAX_TYPE + 1)),
        delta.DeltaDiscoveryRequest(type_url=ENDPOINTS_TYPE, resource_names_subscribe=[LONG]),
    ],
    ids=["name", "type", "name of a delta"],
)
def test_no_name_and_no_type_is_very_long(request_: Request) -> None:
    with pytest.raises(ValueError, match="at most"):
        Conversation().receive(request_)


@pytest.mark.parametrize("is_gone", [True, False], ids=["there is none now", "it wants none now"])
def test_what_a_proxy_refused_and_does_without_it_refuses_no_longer(is_gone: bool) -> None:
    stream = Conversation(filters(f="1", g="1"))
    (push,) = stream.receive(delta.DeltaDiscoveryRequest(type_url=EXTENSION_TYPE, resource_names_subscribe=ASKED))
    stream.receive(delta.DeltaDiscoveryRequest(type_url=EXTENSION_TYPE, response_nonce=push.nonce))
    (push,) = stream.update(filters(f="2", g="1"))
    refusal = delta.DeltaDiscoveryRequest(type_url=EXTENSION_TYPE, response_nonce=push.nonce)
    refusal.error_detail.message = "x" * (MAX_WORDS + 1)
    stream.receive(refusal)
    assert len(stream.subscriptions[EXTENSION_TYPE].rejection) == MAX_WORDS
    if is_gone:
        (push,) = stream.update(filters(g="1"))
        assert push.removed == ("f",)
        stream.receive(delta.DeltaDiscoveryRequest(type_url=EXTENSION_TYPE, response_nonce=push.nonce))
    else:
        stream.receive(delta.DeltaDiscoveryRequest(type_url=EXTENSION_TYPE, resource_names_unsubscribe=["f"]))
    assert stream.subscriptions[EXTENSION_TYPE].rejection == ""
