"""
The situations of a request that decide which stages it meets: protocol, TLS, mode of the port, token.

Within a situation each side reads independent facts only, so that sets of requests are boxes. Both sides may see a
request differently: TLS that a sidecar does not terminate is opaque TCP to it (PA-10, PA-11).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from authz.analysis.sets.boxes import Box, Literal
from authz.analysis.sets.request_variables import IDENTITY, METHOD, PATH, PORT, SNI, SeenRequest, Variables
from authz.analysis.sets.token_cases import TokenCase
from authz.core.engine import WorkloadPolicies
from authz.core.resources import MtlsMode


@dataclass(frozen=True, slots=True)
class Situation:
    """Requests of one kind."""

    protocol: str
    """``http`` or ``tcp``: what the client speaks."""
    tls: str
    """``mtls``, ``plaintext`` or ``simple``."""
    base: Box
    """The values that requests of this kind have at all."""
    old: SeenRequest
    new: SeenRequest
    token: TokenCase
    has_path: bool = True
    """Without: a request target that is none, ``*``, which a proxy that reads HTTP answers 400 (PN-10, RA-9)."""


def seen_by(mode: MtlsMode, protocol: str, tls: str, *, gateway: bool, result: int, issuer: str | None) -> SeenRequest:
    """What a proxy sees of a request to a port of a mode (PA-9 to PA-14)."""
    is_opaque = not gateway and (
        (tls == "simple" and mode is not MtlsMode.STRICT) or (tls == "mtls" and mode is MtlsMode.DISABLE)
    )
    has_identity = tls == "mtls" and not is_opaque
    is_http = protocol == "http" and not is_opaque
    status = 403 if mode is MtlsMode.STRICT and not has_identity else 0
    has_token = is_http and result == 200
    is_token_refused = not status and is_http and result not in (0, 200)
    if is_token_refused:
        status = result
    return SeenRequest(is_http, has_identity, has_token, issuer if has_token else None, status, is_token_refused)


def situations(
    old: WorkloadPolicies, new: WorkloadPolicies, variables: Variables, tokens: list[TokenCase], *, gateway: bool
) -> Iterator[Situation]:
    """Every kind of request, each once; those that people think of first come first."""
    ports = variables.values[variables.names[PORT]]
    groups: dict[tuple[MtlsMode, MtlsMode], int] = {}
    for number, port in enumerate(ports):
        assert port is not None
        modes = (
            (MtlsMode.PERMISSIVE, MtlsMode.PERMISSIVE)
            if gateway
            else (old.mtls_mode(int(port)), new.mtls_mode(int(port)))
        )
        groups[modes] = groups.get(modes, 0) | 1 << number
    trusted = [policies.mesh.num_trusted_proxies for policies in (old, new)]
    done: set[tuple[object, ...]] = set()
    for protocol in ("http", "tcp"):
        for tls in ("mtls", "plaintext", "simple"):
            for modes, mask in groups.items():
                for token in tokens if protocol == "http" else tokens[:1]:
                    sees = []
                    for mode, result, proxies in zip(modes, (token.old, token.new), trusted, strict=True):
                        seen = seen_by(mode, protocol, tls, gateway=gateway, result=result, issuer=token.issuer)
                        sees.append(replace(seen, remote_is_source=not seen.is_http or (gateway and not proxies)))
                    if protocol == "http" and not any(seen.is_http for seen in sees):
                        continue  # opaque to both: as TCP
                    kind = (protocol, tls if SNI in variables.asked else "", mask, *sees, id(token))
                    if kind not in done:
                        done.add(kind)
                        yield from _parts(protocol, tls, mask, (sees[0], sees[1]), token, variables)


def _parts(
    protocol: str, tls: str, ports: int, sees: tuple[SeenRequest, SeenRequest], token: TokenCase, variables: Variables
) -> Iterator[Situation]:
    """The situation with a path, and that of CONNECT without one, which has no token (RA-9)."""
    names, values, space = variables.names, variables.values, variables.space
    base: Box | None = {names[PORT]: ports, **token.box}

    def only(name: str, *wanted: str | None) -> Literal:
        return Literal(names[name], sum(1 << at for at, value in enumerate(values[names[name]]) if value in wanted))

    identities = only(IDENTITY, None)
    asked = [space.negated(identities) if tls == "mtls" else identities]
    if tls == "plaintext":
        asked.append(only(SNI, ""))
    no_path = only(PATH, None)
    with_path = space.narrow_all(base, (*asked, space.negated(no_path)))
    if with_path is not None:
        yield Situation(protocol, tls, with_path, *sees, token)
    if protocol == "http" and PATH in variables.asked and token.place is None:
        looser = [replace(seen, status=0, is_token_refused=False) if seen.is_token_refused else seen for seen in sees]
        without = space.narrow_all(base, (*asked, no_path, only(METHOD, "CONNECT")))
        if without is not None:
            yield Situation(protocol, tls, without, looser[0], looser[1], token)
    if protocol == "http" and token.place is None and not token.is_preflight:
        refused = [_without_target(seen) for seen in sees]
        target = space.narrow_all(base, (*asked, only(METHOD, "OPTIONS")))
        if target is not None and refused[0].status != refused[1].status:
            yield Situation(protocol, tls, target, refused[0], refused[1], token, has_path=False)


def _without_target(seen: SeenRequest) -> SeenRequest:
    """A proxy that reads HTTP refuses it, after mutual TLS was judged; to others it is TCP."""
    if not seen.is_http or (seen.status and not seen.is_token_refused):
        return seen
    return replace(seen, status=400, is_token_refused=False)
