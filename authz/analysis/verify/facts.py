"""One request of a trial as its facts: for the engine as attributes, for Envoy as bytes."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from authz.analysis.offline.request import OfflineRequest, OfflineWorkload, to_attributes
from authz.core.attributes import AttributeContext, Json
from authz.core.resources import JwtRule, MeshConfig

DESTINATION = "10.1.0.5"
_ENDS = re.compile(r"[\r\n\0]")


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that rules ask about and a client can choose."""

    port: int
    method: str = "GET"
    host: str = "verify.test"
    path: str = "/"
    headers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    identity: str = ""
    """Empty: plain text."""
    source_ip: str = "127.0.0.1"
    """An address of this machine: Envoy's RBAC looks at the physical peer, whatever the PROXY protocol says."""
    remote_ip: str = ""
    """The address that the PROXY protocol or ``x-forwarded-for`` tells; empty stands for the peer."""
    destination_ip: str = DESTINATION
    sni: str = ""
    claims: Mapping[str, Json] | None = None
    """The claims of the token; None without one."""

    def put(self, part: str, value: object) -> "Facts":
        """The same request with one part changed: a field, ``header:NAME``, ``claim:PATH`` or ``principal``."""
        kind, _, name = part.partition(":")
        if kind == "header":
            assert isinstance(value, tuple)
            return replace(self, headers={**self.headers, name: value})
        if kind == "principal":
            assert isinstance(value, tuple)
            return replace(self, claims={**(self.claims or {}), "iss": value[0], "sub": value[1]})
        if kind == "claim":
            return replace(self, claims=_with_claim(self.claims or {}, tuple(name.split("\0")), value))
        change: dict[str, Any] = {part: value}
        return replace(self, **change)

    def attributes(
        self, target: OfflineWorkload, mesh: MeshConfig, token: "Bearer | None", *, gateway: bool
    ) -> AttributeContext:
        """The request as Envoy would ask about it, the token still unread."""
        made = to_attributes(self.offline(token), target, mesh, gateway=gateway)
        if not self.remote_ip:
            return made
        return replace(made, source=replace(made.source, remote_ip=self.remote_ip))

    def offline(self, token: "Bearer | None") -> OfflineRequest:
        """As a person would describe it."""
        path = self.path
        headers = [(name, value) for name, values in self.headers.items() for value in values]
        if token is not None:
            path, headers = token.put(path, headers)
        return OfflineRequest(
            source_principal=self.identity,
            source_ip=self.source_ip,
            destination_ip=self.destination_ip,
            destination_port=self.port,
            sni=self.sni,
            method=self.method,
            host=self.host,
            path=path,
            scheme="https" if self.identity else "http",
            headers=tuple(headers),
        )

    @property
    def connection(self) -> tuple[str, str, str, str, int, str]:
        """The facts that all requests of one connection share."""
        return self.identity, self.sni, self.source_ip, self.destination_ip, self.port, self.remote_ip

    def as_json(self) -> dict[str, Json]:
        """Tell people what was sent, without the token itself."""
        return {
            "method": self.method, "host": self.host, "path": self.path, "port": self.port,
            "headers": {name: list(values) for name, values in self.headers.items()},
            "source_principal": self.identity.removeprefix("spiffe://") or None, "source_ip": self.source_ip,
            "remote_ip": self.remote_ip or None, "destination_ip": self.destination_ip, "sni": self.sni or None,
            "claims": dict(self.claims) if self.claims is not None else None,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Bearer:
    """A token, and the place from which the rule of its issuer takes it (RA-10 to RA-14)."""

    text: str = field(repr=False)
    rule: JwtRule

    def put(self, path: str, headers: list[tuple[str, str]]) -> tuple[str, list[tuple[str, str]]]:
        """Path and headers with the token at its place."""
        rule = self.rule
        if rule.from_headers:
            one = rule.from_headers[0]
            return path, [*headers, (one.name.lower(), one.prefix + self.text)]
        if rule.from_params:
            return f"{path}{'&' if '?' in path else '?'}{rule.from_params[0]}={self.text}", headers
        if rule.from_cookies:
            return path, [*headers, ("cookie", f"{rule.from_cookies[0]}={self.text}")]
        return path, [*headers, ("authorization", f"Bearer {self.text}")]


def _with_claim(claims: Mapping[str, Json], path: tuple[str, ...], value: object) -> dict[str, Json]:
    name, *rest = path
    found = dict(claims)
    if rest:
        inside = found.get(name)
        found[name] = _with_claim(inside if isinstance(inside, dict) else {}, tuple(rest), value)
    elif value is None:
        found.pop(name, None)
    else:
        found[name] = value  # type: ignore[assignment]  # the values of ``edges.claims`` are JSON
    return found


def request_bytes(request: OfflineRequest, *extra: tuple[str, str]) -> bytes:
    """
    HTTP/1.1, byte for byte.

    Raises ValueError for what would end a line: it would be another request, and Envoy would wait for its rest.
    """
    lines = [f"{request.method} {request.path or '/'} HTTP/1.1", f"host: {request.host}"]
    lines += [f"{name}: {value}" for name, value in (*request.headers, *extra)]
    if any(_ENDS.search(line) for line in lines):
        raise ValueError("a value with a line feed cannot be sent")
    return "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape")
