"""
Who is not the rightful holder of a valid certificate gets nothing, at any door that knows people by certificates.

One table of callers, one of doors; each must refuse each, and the rightful holder passes every one of them.
"""

import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import grpc
import pytest

from authz._proto import sds_pb2 as wire
from authz.control.authority.authority_files import AuthorityFiles
from authz.control.authority.authority_server import AuthorityServer, Doors
from authz.core.compiler import compile_engine
from authz.core.resources import Action, AuthorizationPolicy, MeshConfig, Metadata, Resources, Rule, Target
from authz.core.spiffe import SpiffeId
from authz.identity.ca import BUNDLE_FILE, INTERMEDIATES_FILE, CertificateAuthority, Issued
from authz.identity.keys import generate_key
from authz.identity.registrar import write_certificate_request
from authz.identity.secret_files import write_secret_files
from authz.service.check_function import CheckFunction
from authz.service.evidence import PeerEvidence
from authz.service.ids import DecisionIds
from authz.service.loading.snapshot import Snapshot
from authz.service.ports.server_tls import ServerCertificate
from authz.service.server import CheckServer
from authz.settings.precedence import read_settings
from authz.settings.sections import PeerSettings
from tests.service.messages import LABELS, check_request, peer, response
from tests.service.recording import Recorder
from tests.service.running import check_call, refuse

REVIEWS, RATINGS = (SpiffeId.parse(f"spiffe://mesh.test/ns/shop/sa/{name}") for name in ("reviews", "ratings"))
SDS, ENROLMENT = "/envoy.service.secret.v3.SecretDiscoveryService", "/authz.identity.v1.Enrolment"


@dataclass
class World:
    ca: CertificateAuthority
    authority: AuthorityServer
    evidence: PeerEvidence
    check: CheckFunction
    check_address: str

    def channel(self, address: str, held: Issued | None) -> grpc.aio.Channel:
        key, chain = (held.key_pem, held.chain_pem) if held else (None, None)
        credentials = grpc.ssl_channel_credentials(self.ca.bundle_pem, key, chain)
        return grpc.aio.secure_channel(address, credentials, options=[("grpc.use_local_subchannel_pool", 1)])

    def door(self, name: str, held: Issued | None) -> grpc.aio.Channel:
        return self.channel(f"localhost:{self.authority.ports[name]}", held)


@asynccontextmanager
async def world(directory: Path) -> AsyncIterator[World]:
    """An authority, and an authorization server that demands certificates of it, with one list of revocations."""
    now = time.time()
    ca = CertificateAuthority.create("mesh.test", now)
    ca.save(directory / "ca")
    (directory / "entries.yaml").write_text(f"entries: [{{spiffeID: '{REVIEWS}', parentID: '{REVIEWS}'}}]")
    revoked = directory / "revoked.txt"
    revoked.write_text("")
    files = AuthorityFiles(directory / "ca", directory / "entries.yaml", revoked)
    authority = AuthorityServer(files, Doors(listen="localhost:0", enrol="localhost:0", dns=("localhost",)))
    bundles = {"mesh.test": f"{directory / 'ca' / BUNDLE_FILE},{directory / 'ca' / INTERMEDIATES_FILE}"}
    told = {"peer_certificate": "required", "peer_trust_bundles": json.dumps(bundles), "peer_revocations": str(revoked)}
    evidence = PeerEvidence.of(PeerSettings.of(read_settings(dict(told), environment={})), time.time)
    assert evidence is not None
    evidence.load()
    check = CheckFunction(Recorder(), DecisionIds(now, b"abc"), judge_peer=evidence.judge)
    policy = AuthorizationPolicy(Metadata("all", "shop"), Target(), Action.ALLOW, (Rule(),))
    engine = compile_engine(Resources((policy,), version="v1"), MeshConfig())
    check.replace(Snapshot(engine, MeshConfig(), "v1", now))
    own = ca.issue_svid(SpiffeId.parse("spiffe://mesh.test/authz/server"), now, dns=("localhost",))
    certificate, key = write_secret_files(directory / "own", "tls", own.chain_pem, own.key_pem)
    credentials = ServerCertificate(certificate, key, directory / "ca" / BUNDLE_FILE).credentials()
    server = CheckServer(
        check, refuse, max_message_bytes=1 << 20, credentials=credentials, judge_caller=evidence.judge_caller
    )
    await authority.start()
    await server.start(["127.0.0.1:0"])
    try:
        port = server.addresses[0].rpartition(":")[2]
        yield World(ca, authority, evidence, check, f"localhost:{port}")
    finally:
        await server.stop(0)
        await authority.stop(0)


async def sidecar(here: World, held: Issued) -> str:
    """What Envoy asks for a request of somebody who claims to be reviews: its own handshake is not relied on."""
    leaf = held.chain_pem.decode().partition("-----END CERTIFICATE-----\n")
    source = peer(str(REVIEWS), certificate=quote(leaf[0] + leaf[1], safe=""))
    message = check_request(source=source, destination=peer("", "10.1.0.5", 8080, LABELS))
    answer = here.check.check(message, (), time.time())
    assert isinstance(answer, bytes)
    return "something" if response(answer).status.code == 0 else "denied"


async def check_port(here: World, held: Issued) -> str:
    """The authorization server's own port."""
    async with here.channel(here.check_address, held) as channel:
        return await _told(check_call(channel)(check_request(path="/open")))


async def secrets(here: World, held: Issued) -> str:
    """One's certificate by secret discovery."""
    return await _fetched(here, held, str(REVIEWS))


async def bundle(here: World, held: Issued) -> str:
    """The roots by secret discovery: public, and yet not for everybody."""
    return await _fetched(here, held, "ROOTCA")


async def stream(here: World, held: Issued) -> str:
    async with here.door("listen", held) as channel:
        call = channel.stream_stream(
            f"{SDS}/StreamSecrets", wire.DiscoveryRequest.SerializeToString, wire.DiscoveryResponse.FromString
        )()  # type: ignore[call-arg]  # without an iterator the requests are written one by one
        try:
            await call.write(wire.DiscoveryRequest(resource_names=[str(REVIEWS)]))
            return "something" if isinstance(await call.read(), wire.DiscoveryResponse) else "nothing"
        except grpc.aio.AioRpcError as error:
            return error.code().name


async def renewal(here: World, held: Issued) -> str:
    """Another certificate for reviews; whose it is, is what the handshake said."""
    return await _enrolled(here, "listen", "Enrol", held)


async def trust(here: World, held: Issued) -> str:
    return await _enrolled(here, "listen", "Trust", held)


async def join(here: World, held: Issued) -> str:
    """The door for tokens, with a certificate and without a token."""
    return await _enrolled(here, "enrol", "Enrol", held)


async def _fetched(here: World, held: Issued, name: str) -> str:
    async with here.door("listen", held) as channel:
        call = channel.unary_unary(
            f"{SDS}/FetchSecrets", wire.DiscoveryRequest.SerializeToString, wire.DiscoveryResponse.FromString
        )
        return await _told(call(wire.DiscoveryRequest(resource_names=[name]), timeout=5))


async def _enrolled(here: World, door: str, method: str, held: Issued) -> str:
    async with here.door(door, held) as channel:
        call = channel.unary_unary(
            f"{ENROLMENT}/{method}", wire.EnrolRequest.SerializeToString, wire.EnrolResponse.FromString
        )
        request = wire.EnrolRequest(certificate_request=write_certificate_request(generate_key()))
        return await _told(call(request, timeout=5))


async def _told(answer: Awaitable[object]) -> str:
    try:
        await answer
    except grpc.aio.AioRpcError as error:
        return error.code().name
    return "something"


Door = Callable[[World, Issued], Awaitable[str]]
DOORS: list[Door] = [sidecar, check_port, secrets, bundle, stream, renewal, trust, join]
OTHERS_OWN = {check_port, bundle, renewal, trust}
"""What every member of the mesh may have, for itself: another workload gets its own there, and never reviews'."""


def callers(ca: CertificateAuthority) -> dict[str, Issued]:
    now = time.time()
    elsewhere = CertificateAuthority.create("other.test", now)
    return {
        "another workload's": ca.issue_svid(RATINGS, now),
        "expired": ca.issue_svid(REVIEWS, now - 3600, ttl_seconds=60),
        "not yet valid": ca.issue_svid(REVIEWS, now + 3600),
        "of another trust domain": elsewhere.issue_svid(SpiffeId.parse("spiffe://other.test/ns/shop/sa/reviews"), now),
        "self-made": CertificateAuthority.create("mesh.test", now).issue_svid(REVIEWS, now),
        "revoked": ca.issue_svid(REVIEWS, now),
        "a web server's": ca.issue_server_certificate(("localhost",), now),
    }


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)
async def test_nobody_but_the_rightful_holder_gets_anything(tmp_path: Path, door: Door) -> None:
    async with world(tmp_path) as here:
        strangers = callers(here.ca)
        rightful = here.ca.issue_svid(REVIEWS, time.time())
        (tmp_path / "revoked.txt").write_text(f"serial:{strangers['revoked'].serial:x}\n")
        here.evidence.load()
        here.authority.look()
        got = {name: await door(here, held) for name, held in strangers.items()}
        if door in OTHERS_OWN:
            assert got.pop("another workload's") == "something"
        assert {name for name, answer in got.items() if answer == "something"} == set(), got
        assert await door(here, rightful) == ("PERMISSION_DENIED" if door is join else "something")


async def test_a_renewal_is_of_the_identity_that_the_handshake_proved(tmp_path: Path) -> None:
    """Another workload's certificate gives another certificate of that workload, whatever is written in the request."""
    async with world(tmp_path) as here:
        held = here.ca.issue_svid(RATINGS, time.time())
        async with here.door("listen", held) as channel:
            call = channel.unary_unary(
                f"{ENROLMENT}/Enrol", wire.EnrolRequest.SerializeToString, wire.EnrolResponse.FromString
            )
            request = wire.EnrolRequest(certificate_request=write_certificate_request(generate_key()))
            answer = await call(request, timeout=5)
        assert isinstance(answer, wire.EnrolResponse)
        assert answer.spiffe_id == str(RATINGS)


async def test_a_revocation_ends_a_connection_s_rights_at_the_authorization_server_too(tmp_path: Path) -> None:
    async with world(tmp_path) as here:
        held = here.ca.issue_svid(REVIEWS, time.time())
        async with here.channel(here.check_address, held) as channel:
            ask = check_call(channel)
            assert await _told(ask(check_request(path="/open"))) == "something"
            (tmp_path / "revoked.txt").write_text(f"{REVIEWS}\n")
            here.evidence.load()
            assert await _told(ask(check_request(path="/open"))) == "UNAUTHENTICATED"
