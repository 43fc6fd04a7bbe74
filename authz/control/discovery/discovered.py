"""
What proxies discover: resources as bytes that all streams share, and responses before they are bytes.

A resource is packed once, however many proxies have it. A response refers to resources, and becomes bytes only when it
is written, so that what waits for a slow proxy is a few references.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from google.protobuf.any_pb2 import Any

from authz._proto import delta_discovery_pb2 as delta
from authz._proto import sds_pb2 as sotw

PREFIX = "type.googleapis.com/"
EXTENSION_TYPE = f"{PREFIX}envoy.config.core.v3.TypedExtensionConfig"
SECRET_TYPE = f"{PREFIX}envoy.extensions.transport_sockets.tls.v3.Secret"
CLUSTER_TYPE = f"{PREFIX}envoy.config.cluster.v3.Cluster"
ENDPOINTS_TYPE = f"{PREFIX}envoy.config.endpoint.v3.ClusterLoadAssignment"
LISTENER_TYPE = f"{PREFIX}envoy.config.listener.v3.Listener"
ROUTES_TYPE = f"{PREFIX}envoy.config.route.v3.RouteConfiguration"
CHAIN = (CLUSTER_TYPE, ENDPOINTS_TYPE, LISTENER_TYPE, ROUTES_TYPE)
"""Make before break: what is referred to goes before what refers to it."""
FREE = (EXTENSION_TYPE, SECRET_TYPE)
"""What waits for nothing: filters that decide, and secrets."""
SHORT_NAMES = {
    EXTENSION_TYPE: "ecds",
    SECRET_TYPE: "sds",
    CLUSTER_TYPE: "cds",
    ENDPOINTS_TYPE: "eds",
    LISTENER_TYPE: "lds",
    ROUTES_TYPE: "rds",
}
"""Envoy's names of the types, for people and metrics."""
_RESOURCES = b"\x12"
"""Tag of field 2, ``resources`` of both responses, and ``resource`` of a delta's entry: bytes with a length."""


@dataclass(frozen=True, slots=True)
class Discovered:
    """One resource as Envoy is to see it. ``repr`` omits the bytes, which may hold a private key."""

    name: str
    version: str
    """Equal for equal resources, whoever serves them."""
    packed: bytes = field(repr=False, compare=False)
    """A serialized ``google.protobuf.Any``."""
    awaited: tuple[str, ...] = ()
    """Of a cluster: the endpoints that Envoy waits for each time the cluster changes, even if they are the same."""

    @classmethod
    def pack(cls, type_url: str, name: str, message: bytes, awaited: tuple[str, ...] = ()) -> "Discovered":
        """A resource from its serialized message; its version is the digest."""
        return cls(name, digest(message), Any(type_url=type_url, value=message).SerializeToString(), awaited)

    @property
    def message(self) -> bytes:
        """The serialized message that was packed."""
        return Any.FromString(self.packed).value


TypeWorld = Mapping[str, Discovered]
"""TypeWorld of one type by name."""
ProxyWorld = Mapping[str, TypeWorld]
"""Everything that one proxy may discover: resources by type URL."""


@dataclass(frozen=True, slots=True)
class Push:
    """One response."""

    type_url: str
    version: str
    nonce: str
    resources: tuple[Discovered, ...]
    removed: tuple[str, ...] = ()
    """Names that are gone; only a delta says so."""
    is_delta: bool = False

    def encode(self) -> bytes:
        """The message on the wire. Fields may stand in any order, so the shared bytes are put behind the others."""
        if not self.is_delta:
            head = sotw.DiscoveryResponse(version_info=self.version, type_url=self.type_url, nonce=self.nonce)
            return head.SerializeToString() + b"".join(
                part for one in self.resources for part in (_RESOURCES, _varint(len(one.packed)), one.packed)
            )
        head_of_delta = delta.DeltaDiscoveryResponse(
            system_version_info=self.version,
            type_url=self.type_url,
            nonce=self.nonce,
            removed_resources=self.removed,
        )
        parts = (_entry(one.name, one.version, one.packed) for one in self.resources)
        return b"".join((head_of_delta.SerializeToString(), *parts))


@lru_cache(maxsize=64)
def _entry(name: str, version: str, packed: bytes) -> bytes:
    """A resource of a delta, as a field; kept a moment, for new filters go to thousands of proxies in a row."""
    head = delta.Resource(name=name, version=version).SerializeToString()
    length = _varint(len(packed))
    whole = _varint(len(head) + len(_RESOURCES) + len(length) + len(packed))
    return b"".join((_RESOURCES, whole, head, _RESOURCES, length, packed))


def digest(data: bytes) -> str:
    """A version: short, and equal for equal bytes."""
    return hashlib.sha256(data).hexdigest()[:16]


def version_of(resources: Iterable[Discovered]) -> str:
    """The version of several resources together: of one alone its own."""
    found = tuple(resources)
    if len(found) == 1:
        return found[0].version
    return digest("\n".join(sorted(f"{one.name}\0{one.version}" for one in found)).encode())


def _varint(number: int) -> bytes:
    made = bytearray()
    while number > 127:
        made.append(number & 127 | 128)
        number >>= 7
    made.append(number)
    return bytes(made)
