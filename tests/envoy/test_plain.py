"""What is written of Envoy's messages, as trees and as bytes, is what their library writes."""

import pytest
from betterproto2 import Message
from envoy_data_plane.envoy.config.core.v3 import Metadata, SocketAddress, TypedExtensionConfig
from envoy_data_plane.envoy.config.endpoint.v3 import LbEndpoint
from envoy_data_plane.envoy.config.route.v3 import Route, RouteMatch
from envoy_data_plane.envoy.type.v3 import Int64Range, Percent
from envoy_data_plane.google.protobuf import Any as PackedAny
from envoy_data_plane.google.protobuf import Struct
from envoy_data_plane.message_pool import default_message_pool

from authz.envoy.bootstrap import bootstrap
from authz.envoy.clusters import clusters
from authz.envoy.endpoints import endpoint_files
from authz.envoy.listeners import listeners
from authz.envoy.options import Listeners, RenderOptions, Secrets
from authz.envoy.packed_tree import Unpackable, packed
from authz.envoy.plain import Packed, plain
from authz.envoy.render import permissive
from authz.envoy.route_tables import route_tables
from authz.mesh.nouns import Enforce
from tests.envoy.test_render import OF_BOOKINFO, bookinfo

DEEP = {"text": "a", "number": 1.5, "yes": True, "nothing": None, "list": [1, {"b": [[]]}], "empty": {}}
MESSAGES: list[Message] = [
    Route(match=RouteMatch(prefix="")),
    LbEndpoint(metadata=Metadata(filter_metadata={"a": Struct.from_dict(DEEP), "b": Struct()})),
    TypedExtensionConfig(name="x", typed_config=PackedAny.pack(Percent(value=float("inf")))),
    PackedAny.pack(Struct.from_dict(DEEP)),
    PackedAny(),
    Int64Range(start=-1, end=2**60),
    SocketAddress(address="é", port_value=0),
]


def read_back(message: Message) -> Message:
    """The message whose tree was written as bytes, read by the library."""
    url, written = packed(plain(Packed.of(message)))
    assert url == default_message_pool.type_to_url[type(message)]
    return type(message).parse(written)


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_tree_is_written_as_the_bytes_of_its_message(message: Message) -> None:
    assert plain(read_back(message)) == plain(message)


@pytest.mark.parametrize(
    ("tree", "why"),
    [
        ({"@type": "type.googleapis.com/envoy.none.v3.Nothing"}, "the type `.*Nothing` is not known"),
        ({"@type": "type.googleapis.com/envoy.type.v3.Percent", "values": 1}, "has no field `values`"),
    ],
)
def test_what_is_not_known_is_not_written(tree: dict[str, object], why: str) -> None:
    with pytest.raises(Unpackable, match=why):
        packed(tree)


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_message_is_written_as_its_library_writes_it(message: Message) -> None:
    assert plain(message) == message.to_dict(casing=str)  # type: ignore[arg-type]  # any callable serves


@pytest.mark.filterwarnings("ignore:RouteAction.max_grpc_timeout is deprecated")  # Envoy has nothing in its place
@pytest.mark.parametrize(
    "options",
    [
        OF_BOOKINFO,
        RenderOptions(
            logins=OF_BOOKINFO.logins,
            listeners=Listeners.STATIC,
            secrets=Secrets.SDS,
            enforce=Enforce.NATIVE,
            otlp="127.0.0.1:1",
            include_peer_certificate=True,
            source_addresses=True,
        ),
    ],
    ids=["files", "all in one"],
)
def test_everything_rendered_is_written_as_its_library_writes_it(options: RenderOptions) -> None:
    """The library checks every value against its field's type while it writes, too."""
    mesh = bookinfo()
    for workload in mesh.workloads:
        found = listeners(mesh, workload, permissive, options)
        made: list[Message] = [*found, *clusters(mesh, workload, options), *route_tables(mesh, workload)]
        for message in [*made, bootstrap(mesh, workload, found, options)]:
            assert plain(message) == message.to_dict(casing=str)  # type: ignore[arg-type]  # any callable serves
            assert plain(read_back(message)) == plain(message)
    for assignment in endpoint_files(mesh, permissive, options, compose=False).values():
        assert plain(assignment) == assignment.to_dict(casing=str)  # type: ignore[arg-type]  # any callable serves


def test_a_packed_message_is_read_back_and_written_as_bytes() -> None:
    packed, message = Packed.of(Percent(value=3)), Percent(value=3)
    assert packed.unpack() == message
    assert bytes(packed) == bytes(PackedAny.pack(message))
    assert bytes(TypedExtensionConfig(name="x", typed_config=packed)) == bytes(
        TypedExtensionConfig(name="x", typed_config=PackedAny.pack(message))
    )
