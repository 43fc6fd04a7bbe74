"""
Scenarios of who gets a certificate: by mutual TLS from the authority, by its Unix socket, and what bad ones open.

There are more for the socket where proxies have users of their own (``World.has_users``).
"""

import asyncio
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import grpc

from authz.demo.checks.clients import Pair, exchange
from authz.demo.checks.scenario import Scenario
from authz.demo.checks.world import World
from authz.identity.ledger import LEDGER_FILE, Ledger
from authz.identity.secret_files import write_file
from authz.local.ready import reached

REFUSED = "refused in the handshake"
BAD = ("expired", "not yet valid", "self-made", "foreign")
FETCH = "/envoy.service.secret.v3.SecretDiscoveryService/FetchSecrets"
CALL_SECONDS = 5.0


def who_gets_one(group: str, *, has_users: bool) -> Iterator[Scenario]:
    """Yield all scenarios, in the order of the table."""
    yield Scenario(group, "expired, self-made and foreign ones, at every proxy", "all refused", _at_every_hop)
    yield Scenario(
        group, "the same at the authority", "UNAVAILABLE, recorded nowhere, nothing given", _at_the_authority
    )
    yield Scenario(group, "productpage asks for its own", "OK", _own)
    yield Scenario(group, "productpage asks for details'", "PERMISSION_DENIED, recorded", _somebody_elses)
    yield Scenario(group, "a local process asks for what no entry grants", "PERMISSION_DENIED, recorded", _unregistered)
    yield Scenario(group, "a bearer of a join token for productpage asks details", "exit code 0, 200", _joined)
    yield Scenario(group, "and joins by it once more", "exit code 3, recorded, nothing written", _joined_again)
    if has_users:
        yield Scenario(group, "productpage's sidecar asks for its own, known by its user", "OK", _own_by_user)
        yield Scenario(group, "and for details'", "PERMISSION_DENIED, recorded", _somebody_elses_by_user)
        yield Scenario(
            group, "and again, with an entry that grants it for a while", "OK, then PERMISSION_DENIED", _granted
        )
        yield Scenario(group, "a user without an entry asks", "PERMISSION_DENIED, recorded", _stranger)


async def _at_every_hop(world: World) -> str:
    mesh = world.layout.mesh
    places = [world.inbound(workload.name) for workload in mesh.sidecars]
    if mesh.egress_gateway is not None:
        places += [world.egress(server.port) for server in mesh.egress_gateway.servers if server.is_egress]
    told = Counter[str]()
    for place in places:
        for bad in BAD:
            reply = await asyncio.to_thread(exchange, place, b"PING\r\n", tls=world.mesh_tls(bad))
            told[reply.body or reply.failure] += 1
    return "all refused" if set(told) == {REFUSED} else str(dict(told))


async def _fetched(world: World, caller: str, secret: str) -> str:
    """How the authority answers by mutual TLS: the name of a gRPC status. ``""``: without a certificate."""
    return await asyncio.to_thread(_fetch, world, caller, secret)


async def _fetched_by_socket(socket_path: Path, secret: str) -> str:
    """The same by a Unix socket."""
    return await asyncio.to_thread(_answer, grpc.insecure_channel(f"unix:{reached(socket_path)}"), secret)


def _fetch(world: World, caller: str, secret: str) -> str:
    pair = world.pair(caller) if caller else None
    files = (pair.key.read_bytes(), pair.certificate.read_bytes()) if pair else (None, None)
    credentials = grpc.ssl_channel_credentials(world.layout.roots.read_bytes(), *files)
    override = (("grpc.ssl_target_name_override", "localhost"),)
    place = world.authority()
    return _answer(grpc.secure_channel(f"{place.address}:{place.port}", credentials, options=override), secret)


def _answer(channel: grpc.Channel, secret: str) -> str:
    request = b"\x1a" + bytes([len(secret)]) + secret.encode()  # DiscoveryRequest.resource_names, below 128 bytes
    with channel:
        try:
            call = channel.unary_unary(FETCH, request_serializer=bytes, response_deserializer=bytes)
            answer = call(request, timeout=CALL_SECONDS)
        except grpc.RpcError as error:
            code = error.code() if isinstance(error, grpc.Call) else None
            return code.name if code is not None else "an error"
    return "OK" if secret.encode() in answer else "OK without it"


def _refusals(world: World) -> int:
    return sum(not issuance.is_issued for issuance in Ledger(world.layout.state / "ca" / LEDGER_FILE).read())


def _is_recorded(world: World, evidence: str, secret: str) -> bool:
    issuances = Ledger(world.layout.state / "ca" / LEDGER_FILE).read()
    return any(not i.is_issued and i.spiffe_id == secret and i.evidence.startswith(evidence) for i in issuances)


async def _at_the_authority(world: World) -> str:
    """The handshake ends before anybody asks for anything, so there is nothing to record."""
    before, own = _refusals(world), _id(world, "productpage-v1")
    told = {await _fetched(world, caller, own) for caller in (*BAD, "")}
    recorded = "recorded nowhere, nothing given" if _refusals(world) == before else "recorded"
    return f"{', '.join(sorted(told))}, {recorded}"


async def _own(world: World) -> str:
    return await _fetched(world, "productpage-v1", _id(world, "productpage-v1"))


async def _somebody_elses(world: World) -> str:
    own, wanted = _id(world, "productpage-v1"), _id(world, "details-v1")
    told = await _fetched(world, "productpage-v1", wanted)
    return f"{told}, {'recorded' if _is_recorded(world, own, wanted) else 'not recorded'}"


async def _unregistered(world: World) -> str:
    wanted = f"spiffe://{world.layout.mesh.config.trust_domain}/ns/bookinfo/sa/nobody"
    told = await _fetched_by_socket(world.authority_socket(), wanted)
    return f"{told}, {'recorded' if _is_recorded(world, 'unix:uid:', wanted) else 'not recorded'}"


async def _join(world: World, name: str) -> tuple[int, Pair]:
    """Join with the token at ``check/token``: exit code, and where the certificate is then."""
    place, out = world.enrolment(), world.layout.state / "check" / name
    code, _ = await world.authz(
        *("ca", "join", "--server", f"{place.address}:{place.port}", "--server-name", "localhost"),
        *("--bundle", str(world.layout.roots), "--token-file", "check/token", "--out", str(out)),
    )
    return code, Pair(out / "tls.crt", out / "tls.key")


async def _joined(world: World) -> str:
    """Ask as a VM does that has no other proof of what it is."""
    code, told = await world.authz("ca", "token", "create", _id(world, "productpage-v1"), "--ca", "ca")
    token = next((line for line in told.splitlines() if line and " " not in line), "")  # the rest is for people
    if code or not token:
        return f"no token: {told}"
    write_file(world.layout.state / "check" / "token", token.encode())
    code, pair = await _join(world, "joined")
    if code:
        return f"exit code {code}"
    reply = await world.call(pair, "details-v1", "/details/0")
    return f"exit code {code}, {reply.status}"


async def _joined_again(world: World) -> str:
    before = _refusals(world)
    code, pair = await _join(world, "again")
    recorded = "recorded" if _refusals(world) > before else "not recorded"
    return f"exit code {code}, {recorded}, {'a certificate' if pair.certificate.exists() else 'nothing'} written"


async def _own_by_user(world: World) -> str:
    return await _fetched_by_socket(world.authority_socket(), _id(world, "productpage-v1"))


async def _somebody_elses_by_user(world: World) -> str:
    """Nothing but the kernel's word stands between one sidecar and the key of another."""
    wanted = _id(world, "details-v1")
    told = await _fetched_by_socket(world.authority_socket(), wanted)
    return f"{told}, {'recorded' if _is_recorded(world, 'unix:uid:', wanted) else 'not recorded'}"


async def _granted(world: World) -> str:
    """The word of the kernel and the entry, nothing else: it is the same process that asks."""
    wanted = _id(world, "details-v1")

    async def ask() -> str:
        return await _fetched_by_socket(world.authority_socket(), wanted)

    async with world.granted(wanted, world.sidecar_selector):
        granted = await world.becomes("OK", ask)
    return f"{_untimed(granted)}, then {_untimed(await world.becomes('PERMISSION_DENIED', ask))}"


def _untimed(told: str) -> str:
    """Files are looked at every second, so the time says little."""
    return told.partition(" within")[0].partition(" after")[0]


async def _stranger(world: World) -> str:
    """This check: it can reach the socket, and everything that it asks there is refused."""
    told = await _fetched_by_socket(world.strangers_socket(), _id(world, "details-v1"))
    return f"{told}, {'recorded' if _is_recorded(world, f'unix:uid:{os.getuid()}', '') else 'not recorded'}"


def _id(world: World, workload: str) -> str:
    return str(world.layout.mesh.workload(workload).spiffe_id)
