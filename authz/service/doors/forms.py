"""
How proxies ask in plain HTTP: nginx's ``auth_request``, the ``forward_auth`` of Traefik and Caddy, Envoy's
``http_service``.

Each form has headers in which the proxy says what the client asked for. All of them are required, once each: a
configuration that forgets to write one, and would let the client write it, is seen at the first request.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from authz._proto import ext_authz_pb2 as pb
from authz.core.normalize import join_headers
from authz.service.vouched import Vouched
from authz.settings.http_doors import HttpDoor
from authz.wire.check import (
    DIRECT_IP_METADATA,
    NAMESPACE_LABEL,
    PROXY_LABEL,
    REMOTE_IP_METADATA,
    SERVICE_ACCOUNT_LABEL,
)

HttpHeaders = Sequence[tuple[bytes, bytes]]
"""Lower-case names and values as they came, in order."""

_CONNECTION = frozenset({
    "connection", "content-length", "expect", "host", "keep-alive", "proxy-authenticate", "proxy-authorization",
    "proxy-connection", "te", "trailer", "trailers", "transfer-encoding", "upgrade", ":scheme",
})  # fmt: skip
"""Headers of the connection between proxy and door, or not passed on: nothing of the client's is in them."""


@dataclass(frozen=True, slots=True)
class AskingForm:
    """The headers of one form; ``method``, ``path`` and ``host`` are empty where the request line and Host say it."""

    method: str
    path: str
    host: str
    client: str
    """Address of the client."""
    client_is_peer: bool
    """The last element of ``client`` is who connected; else it is the client that the proxy found (AP-40, AP-41)."""
    hidden: frozenset[str]
    """Headers that proxies of this form write themselves."""
    has_raw_path: bool = True
    told: tuple[str, ...] = ()
    removes_any: bool = False

    @property
    def required(self) -> tuple[str, ...]:
        """Every header that must be there."""
        return tuple(name for name in (self.method, self.path, self.host, self.client) if name)


FORMS = {
    "nginx": AskingForm(
        "x-original-method", "x-original-uri", "x-original-host", "x-real-ip", client_is_peer=False, hidden=frozenset()
    ),
    "forward-auth": AskingForm(
        "x-forwarded-method", "x-forwarded-uri", "x-forwarded-host", "x-forwarded-for", client_is_peer=True,
        # Go's client writes the last two where the client has none.
        hidden=frozenset({
            "x-forwarded-proto", "x-forwarded-port", "x-forwarded-server", "x-real-ip", "via", "accept-encoding",
            "user-agent",
        }),
    ),
    "envoy-http": AskingForm(
        "", "", "", REMOTE_IP_METADATA, client_is_peer=False, has_raw_path=False, told=("authorization",),
        removes_any=True,
        hidden=frozenset({"x-forwarded-for", "x-envoy-internal", "x-envoy-expected-rq-timeout-ms"}),
    ),
}  # fmt: skip


class Misasked(ValueError):
    """The proxy's question lacks something; the message says what, for the operator."""


@dataclass(frozen=True, slots=True)
class DoorQuestion:
    """A question as the check takes it."""

    message: bytes
    """A serialised CheckRequest."""
    metadata: tuple[tuple[str, str], ...]
    """As of a gRPC call: the addresses."""


class Reader:
    """Reads the questions of one door. ``vouched`` holds for all of them."""

    def __init__(self, door: HttpDoor) -> None:
        self._form = form = FORMS[door.kind]
        self._prefix = door.path_prefix.rstrip("/")
        self._dropped = _CONNECTION | form.hidden | set(form.required)
        labels = {**door.labels, NAMESPACE_LABEL: door.namespace, PROXY_LABEL: "gateway" if door.gateway else "sidecar"}
        if door.service_account:
            labels[SERVICE_ACCOUNT_LABEL] = door.service_account
        peer = pb.Peer()
        for name, value in labels.items():
            peer.labels[name] = value
        self._destination = peer.SerializeToString(deterministic=True)
        self.vouched = Vouched(
            hidden=self._dropped,
            is_partial=not door.all_headers,
            told=form.told,
            has_raw_path=form.has_raw_path,
            sets=frozenset(door.upstream_headers),
            removes_any=form.removes_any,
        )

    def read(self, method: str, target: str, headers: HttpHeaders) -> DoorQuestion:
        """
        Read one question.

        Args:
            method: of the request line.
            target: the path with its query, as it came.

        Raises:
            Misasked: a header of the form is missing or there twice, the path lacks the door's prefix, or a header
                looks like one that the proxy sets.
        """
        form = self._form
        pairs = [(name.decode("latin-1").lower(), value.decode("utf-8", "surrogateescape")) for name, value in headers]
        facts = {name: _only(name, pairs) for name in form.required}
        method = facts[form.method] if form.method else method
        path = facts[form.path] if form.path else self._without_prefix(target)
        host = facts[form.host] if form.host else _only("host", pairs)
        message = pb.CheckRequest()
        message.attributes.destination = self._destination
        http = message.attributes.request.http
        http.method, http.path, http.host = method, path, host
        shown = join_headers(pair for pair in pairs if pair[0] not in self._dropped and not pair[0].startswith(":"))
        for name, values in {":method": (method,), ":path": (path,), ":authority": (host,), **shown}.items():
            for value in values:
                http.header_map.headers.add(key=name, raw_value=value.encode("utf-8", "surrogateescape"))
        self._refuse_twins(name for name, _ in pairs)
        client = facts[form.client]
        if form.client_is_peer:
            # with several elements, other proxies wrote them: the last is the peer, and nobody knows who the client is
            metadata = ((DIRECT_IP_METADATA, client.rpartition(",")[2].strip()), (REMOTE_IP_METADATA, ""))
        else:
            metadata = ((DIRECT_IP_METADATA, ""), (REMOTE_IP_METADATA, client.strip()))
        return DoorQuestion(message.SerializeToString(), metadata)

    def _refuse_twins(self, names: Iterable[str]) -> None:
        """Many applications read ``x_subject`` as ``x-subject``, which the proxy sets or removes, unlike this one."""
        for name in names:
            if "_" in name and name.replace("_", "-") in self.vouched.sets:
                raise Misasked(f"a client sent `{name.replace('_', '-')}` of `upstream_headers` with an underscore")

    def _without_prefix(self, target: str) -> str:
        if not target.startswith(f"{self._prefix}/"):
            raise Misasked(f"the path does not begin with `path_prefix` {self._prefix}")
        return target[len(self._prefix) :]


def _only(name: str, pairs: Iterable[tuple[str, str]]) -> str:
    found = [value for key, value in pairs if key == name]
    if len(found) != 1 or not found[0]:
        how = "is missing" if not found else "is empty" if len(found) == 1 else "is there twice"
        raise Misasked(f"the header `{name}` {how}: the proxy must write it, see docs/other-proxies.md")
    if not found[0].isascii():
        raise Misasked(f"the header `{name}` is not ASCII")  # different bytes must stay different (CS-5)
    return found[0]
