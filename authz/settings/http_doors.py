"""One of the setting ``http_doors``: where a proxy that speaks no gRPC asks, and for which workload."""

import json
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator

HttpForm = Literal["nginx", "forward-auth", "envoy-http", "grpc-web"]
"""``forward-auth`` is that of Traefik and Caddy, ``envoy-http`` Envoy's ``http_service``."""


def _names(value: object) -> object:
    """Names of headers in any case."""
    return tuple(one.lower() if isinstance(one, str) else one for one in value) if isinstance(value, list) else value


class HttpDoor(BaseModel):
    """
    A door in plain HTTP. Of whoever may ask there, the form's headers are believed, and nothing else.

    ``namespace``, ``labels`` and ``service_account`` are those of the workload that the proxy asks
    for: they choose policies.
    With ``grpc-web`` the CheckRequest says that itself, as over gRPC.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    listen: str
    """``host:port`` or ``unix:/path``; beyond loopback ``tls_client_ca`` must be set."""
    kind: HttpForm
    namespace: str = ""
    labels: dict[str, str] = {}
    service_account: str = ""
    gateway: bool = False
    """It stands for a gateway, for which PeerAuthentication does not hold (PA-14)."""
    path_prefix: str = ""
    """``path_prefix`` of an Envoy's ``http_service``: cut from the path before it is judged."""
    all_headers: bool = False
    """The proxy passes on every header of the client; otherwise those that do not come are unknown."""
    upstream_headers: Annotated[tuple[str, ...], BeforeValidator(_names)] = ()
    """Headers that the proxy takes from the answer for the request that it forwards."""

    @model_validator(mode="after")
    def _fits(self) -> "HttpDoor":
        if problems := list(self._problems()):
            raise ValueError("; ".join(problems))
        return self

    def _problems(self) -> Iterator[str]:
        if self.kind == "grpc-web":
            given = [name for name in type(self).model_fields if name in self.model_fields_set - {"listen", "kind"}]
            if given:
                yield f"`{given[0]}` is not for `grpc-web`, where the CheckRequest says all"
            return
        if not self.namespace:
            yield "`namespace` is missing: it and `labels` say for which workload the proxy asks"
        if not self.labels:
            yield "`labels` is missing: without it the policies that select the workload would not hold"
        if self.path_prefix and (self.kind != "envoy-http" or not self.path_prefix.startswith("/")):
            yield "`path_prefix` is that of `envoy-http`, and begins with a slash"


def _mappings(value: object) -> object:
    """A list of mappings, or the same as JSON."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError as error:
        raise ValueError("expected a list of mappings, in the environment as JSON") from error


HttpDoors = Annotated[tuple[HttpDoor, ...], BeforeValidator(_mappings)]
