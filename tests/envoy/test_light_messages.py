"""A message made without its library's checks is the message that the library makes, and a mistake in it is found."""

from collections.abc import Callable
from typing import Any

import pytest
from betterproto2 import Message
from envoy_data_plane.envoy.config.cluster.v3 import Cluster
from envoy_data_plane.envoy.config.core.v3 import Address, HeaderValue, HeaderValueOption, Pipe, SocketAddress
from envoy_data_plane.envoy.config.route.v3 import RedirectAction, Route, RouteAction, RouteMatch
from envoy_data_plane.google.protobuf import Any as PackedAny
from envoy_data_plane.google.protobuf import Duration, Struct

from authz.envoy.light_messages import check, lighten
from authz.envoy.plain import KeptStruct, Packed, kept, plain

lighten()


def test_a_field_that_no_message_has_is_refused() -> None:
    with pytest.raises(TypeError, match="Route has no field metch"):
        Route(metch=RouteMatch(prefix="/"))  # type: ignore[call-arg]  # which the type checker says, too


WRONG: list[Callable[[], Any]] = [
    lambda: Address(pipe=Pipe(path="x"), socket_address=SocketAddress(address="x", port_value=1)),
    lambda: Route(name=3),  # type: ignore[arg-type]  # what the type checker would say
    lambda: Route(route=RedirectAction()),  # type: ignore[arg-type]  # likewise
    lambda: SocketAddress(address="x", port_value=2**32),
]


@pytest.mark.parametrize("number", range(len(WRONG)))
def test_the_library_finds_a_wrong_value_when_it_is_asked(number: int) -> None:
    with pytest.raises(ValueError, match="validation error"):
        check(WRONG[number]())


@pytest.mark.parametrize(
    ("message", "is_right"),
    [
        (SocketAddress(address="x", port_value=2**32 - 1), True),
        (SocketAddress(address="x", port_value=2**32), False),
        (SocketAddress(address="x", port_value=-1), False),
        (Cluster(per_connection_buffer_limit_bytes=2**32), False),
    ],
)
def test_a_number_that_its_field_cannot_hold_is_not_written(message: Message, is_right: bool) -> None:
    if is_right:
        assert plain(message)
    else:
        with pytest.raises(ValueError, match="is not between"):
            plain(message)


def test_what_a_message_was_not_given_it_has_like_any_other() -> None:
    light = Route(name="x")
    assert (light.match, light.request_headers_to_add, light.typed_per_filter_config) == (None, [], {})
    assert light == Route(name="x", match=None, request_headers_to_add=[])
    assert light != Route(name="y")
    assert Route.parse(bytes(light)) == light
    assert repr(light) == "Route(name='x')"
    assert light.is_set("name")
    assert not light.is_set("match")


def test_messages_share_no_list_that_nobody_gave_them() -> None:
    first, second = Route(), Route()
    first.request_headers_to_add += [HeaderValueOption(header=HeaderValue(key="a", value="b"))]
    assert (len(first.request_headers_to_add), second.request_headers_to_add) == (1, [])
    assert "request_headers_to_add" in plain(first)


def test_fields_are_written_in_their_own_order_and_not_in_that_in_which_they_were_given() -> None:
    assert list(plain(Route(route=RouteAction(cluster="c"), match=RouteMatch(prefix="/"), name="n"))) == list(
        plain(Route(name="n", match=RouteMatch(prefix="/"), route=RouteAction(cluster="c")))
    )


def test_fields_may_be_given_by_place() -> None:
    assert Duration(1, 2) == Duration(seconds=1, nanos=2)


def test_what_is_kept_is_copied_wherever_it_is_written() -> None:
    match = kept(RouteMatch(prefix="/"))
    first, second = (plain(Route(name=name, match=match)) for name in "ab")
    first["match"]["prefix"] = "/changed"
    assert second["match"] == {"prefix": "/"}
    assert plain(kept(Packed.of(match))) == plain(PackedAny.pack(match))


def test_a_struct_that_keeps_its_content_is_written_and_read_as_one() -> None:
    content: dict[str, Any] = {"text": "a", "number": 1, "yes": True, "nothing": None, "list": [1.5, {"b": [[]]}]}
    made = KeptStruct.of(content)
    assert made.to_dict() == content
    # 1 and 1.0 are equal, and not the same text.
    assert repr(plain(made)) == repr(Struct.parse(bytes(Struct.from_dict(content))).to_dict())
