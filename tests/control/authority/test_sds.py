"""The authority's doors over real gRPC: Unix credentials, mutual TLS, enrolment, reload, refusals and their record."""

import asyncio
import logging
import os
import shutil
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from authz._proto import sds_pb2 as wire
from authz.control.authority.authority_files import AuthorityFiles
from authz.control.authority.authority_server import AuthorityServer, Doors
from authz.control.discovery.discovered import SECRET_TYPE
from authz.control.discovery.secrets import ROOTS
from authz.core.errors import LoadError, SettingsError
from authz.core.spiffe import SpiffeId, TrustDomain
from authz.identity.ca import CertificateAuthority, Issued
from authz.identity.join_tokens import TOKENS_DIRECTORY, TokenDirectory, make_token
from authz.identity.keys import generate_key
from authz.identity.ledger import LEDGER_FILE, Ledger
from authz.identity.registrar import SigningLimit, write_certificate_request
from authz.identity.rotation import activate, prepare, retire, taint
from authz.identity.svid_validation import Examined, validate_svid
from authz.service.ports.attestation import peer_credentials

MESH, OTHER = TrustDomain("mesh.test"), TrustDomain("other.test")
REVIEWS, RATINGS, STRANGER = (f"spiffe://mesh.test/ns/shop/sa/{name}" for name in ("reviews", "ratings", "stranger"))
SERVICE = "/envoy.service.secret.v3.SecretDiscoveryService"
ENTRIES = f"""
entries:
- {{ spiffeID: {REVIEWS}, selectors: ['unix:uid:{os.getuid()}'], federatesWith: [other.test] }}
- {{ spiffeID: {RATINGS}, selectors: ['unix:uid:4242'] }}
"""

Stream = grpc.aio.StreamStreamCall[wire.DiscoveryRequest, wire.DiscoveryResponse]


@dataclass
class Authority:
    directory: Path
    server: AuthorityServer
    ca: CertificateAuthority

    def write(self, name: str, text: str) -> None:
        (self.directory / name).write_text(text)
        self.server.look()

    def change(self, ca: CertificateAuthority) -> None:
        ca.save(self.directory / "ca")
        self.ca = ca
        self.server.look()

    def refusals(self) -> list[str]:
        return [i.reason for i in Ledger(self.directory / "ca" / LEDGER_FILE).read() if not i.is_issued]

    def issue(self, spiffe_id: str, ttl_seconds: float = 600) -> Issued:
        return self.ca.issue_svid(SpiffeId.parse(spiffe_id), time.time(), ttl_seconds=ttl_seconds)

    def channel(self, door: str, held: Issued | None) -> grpc.aio.Channel:
        key, chain = (held.key_pem, held.chain_pem) if held else (None, None)
        credentials = grpc.ssl_channel_credentials(self.ca.bundle_pem, key, chain)
        return grpc.aio.secure_channel(f"localhost:{self.server.ports[door]}", credentials)

    def token(self, ttl_seconds: float = 60, spiffe_id: str = RATINGS) -> str:
        text, kept = make_token(os.urandom(32), SpiffeId.parse(spiffe_id), time.time(), ttl_seconds)
        TokenDirectory(self.directory / "ca" / TOKENS_DIRECTORY).store(kept)
        return text


@pytest.fixture
def directory() -> Iterator[Path]:
    """Short (a socket's path has at most 107 bytes) and open to other users, as a shared ``run`` would be."""
    path = Path(tempfile.mkdtemp(prefix="authz-test-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@asynccontextmanager
async def running(directory: Path, limit: SigningLimit | None = None) -> AsyncIterator[Authority]:
    ca = CertificateAuthority.create(MESH, time.time())
    ca.save(directory / "ca")
    (directory / "entries.yaml").write_text(ENTRIES)
    (directory / "revoked.txt").write_text("")
    (directory / "other.pem").write_bytes(CertificateAuthority.create(OTHER, time.time()).bundle_pem)
    (directory / "third.pem").write_bytes(CertificateAuthority.create("third.test", time.time()).bundle_pem)
    federated = ((OTHER, directory / "other.pem"), (TrustDomain("third.test"), directory / "third.pem"))
    files = AuthorityFiles(directory / "ca", directory / "entries.yaml", directory / "revoked.txt", federated)
    doors = Doors(directory / "sds.sock", "localhost:0", "localhost:0", ("localhost",))
    server = AuthorityServer(files, doors, limit=limit or SigningLimit())
    await server.start()
    try:
        yield Authority(directory, server, ca)
    finally:
        await server.stop(0)


def local(directory: Path) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(f"unix:{directory}/sds.sock")


def opened(response: wire.DiscoveryResponse) -> dict[str, wire.Secret]:
    secrets = [wire.Secret.FromString(resource.value) for resource in response.resources]
    return {secret.name: secret for secret in secrets}


async def fetch(channel: grpc.aio.Channel, *names: str) -> dict[str, wire.Secret]:
    call = channel.unary_unary(
        f"{SERVICE}/FetchSecrets",
        request_serializer=wire.DiscoveryRequest.SerializeToString,
        response_deserializer=wire.DiscoveryResponse.FromString,
    )
    return opened(await call(wire.DiscoveryRequest(resource_names=names), timeout=5))


def stream(channel: grpc.aio.Channel) -> Stream:
    call = channel.stream_stream(
        f"{SERVICE}/StreamSecrets",
        request_serializer=wire.DiscoveryRequest.SerializeToString,
        response_deserializer=wire.DiscoveryResponse.FromString,
    )
    return call()  # type: ignore[call-arg]  # without an iterator the requests are written one by one


async def read(call: Stream) -> wire.DiscoveryResponse:
    response = await asyncio.wait_for(call.read(), 5)
    assert isinstance(response, wire.DiscoveryResponse)
    return response


async def enrol(channel: grpc.aio.Channel, token: str = "", request: bytes | None = None) -> wire.EnrolResponse:
    call = channel.unary_unary(
        "/authz.identity.v1.Enrolment/Enrol",
        request_serializer=wire.EnrolRequest.SerializeToString,
        response_deserializer=wire.EnrolResponse.FromString,
    )
    csr = write_certificate_request(generate_key()) if request is None else request
    answer = await call(wire.EnrolRequest(join_token=token, certificate_request=csr), timeout=5)
    assert isinstance(answer, wire.EnrolResponse)
    return answer


def chain_of(secret: wire.Secret) -> bytes:
    return secret.tls_certificate.certificate_chain.inline_bytes


async def refusal(answer: object) -> tuple[str, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await answer  # type: ignore[misc]  # any awaitable
    return caught.value.code().name, caught.value.details() or ""


# Local peers


async def test_a_local_peer_gets_its_certificate_and_the_roots(directory: Path) -> None:
    async with running(directory) as authority, local(directory) as channel:
        secrets = await fetch(channel, REVIEWS, ROOTS)
        assert secrets[ROOTS].validation_context.trusted_ca.inline_bytes == authority.ca.bundle_pem
        answer = validate_svid(chain_of(secrets[REVIEWS]), {MESH: authority.ca.trust_bundle}, time.time())
        assert isinstance(answer, Examined)
        assert str(answer.spiffe_id) == REVIEWS
        assert b"PRIVATE KEY" in secrets[REVIEWS].tls_certificate.private_key.inline_bytes


NOT_MINE = [
    (RATINGS, f"no registration entry grants `{RATINGS}` to unix:uid:{os.getuid()},gid:{os.getgid()}"),
    (STRANGER, f"no registration entry grants `{STRANGER}` to unix:uid:{os.getuid()},gid:{os.getgid()}"),
    ("default", "there is no secret `default`"),
    ("spiffe://third.test", f"the bundle of `spiffe://third.test` is not for unix:uid:{os.getuid()},gid:{os.getgid()}"),
]


@pytest.mark.parametrize(("name", "reason"), NOT_MINE)
async def test_a_local_peer_gets_nothing_else(directory: Path, name: str, reason: str) -> None:
    async with running(directory), local(directory) as channel:
        assert await refusal(fetch(channel, name)) == ("PERMISSION_DENIED", reason)
        call = stream(channel)
        await call.write(wire.DiscoveryRequest(resource_names=[name]))
        assert await refusal(read(call)) == ("PERMISSION_DENIED", reason)


async def test_federated_bundles_go_to_those_whose_entry_says_so(directory: Path) -> None:
    async with running(directory), local(directory) as channel:
        secrets = await fetch(channel, "spiffe://other.test", "ALL")
        bundle = (directory / "other.pem").read_bytes()
        assert secrets["spiffe://other.test"].validation_context.trusted_ca.inline_bytes == bundle
        config = secrets["ALL"].validation_context.custom_validator_config.typed_config
        domains = wire.SpiffeCertValidatorConfig.FromString(config.value).trust_domains
        assert [domain.name for domain in domains] == ["mesh.test", "other.test"]


CONNECT = "socket(S, AF_UNIX, SOCK_STREAM, 0); connect(S, sockaddr_un($ARGV[0])) or die; print sysread(S, $b, 9);"
"""In Perl: the interpreter that runs the tests may lie where other users cannot reach it."""


@pytest.mark.skipif(os.getuid() != 0 or not shutil.which("perl"), reason="only root can become somebody else")
@pytest.mark.parametrize(("uid", "is_served"), [(4242, True), (4243, False), (65534, False)])
async def test_another_user_is_told_apart_by_the_kernel(directory: Path, uid: int, is_served: bool) -> None:
    """Each user has a private socket of its own; whoever has no entry comes to the one where everything is refused."""
    async with running(directory) as authority:
        run = await asyncio.to_thread(
            subprocess.run,
            ["perl", "-MSocket", "-e", CONNECT, str(directory / "sds.sock")],
            user=uid,
            group=uid,
            extra_groups=[],
            capture_output=True,
            text=True,
            cwd="/",
            timeout=5,
        )
        assert run.stdout == "9", run.stderr  # a gRPC server speaks first: its settings
        assert authority.server._unix is not None
        private = os.listdir(authority.server._unix._directory)
        assert private == [f"{uid}-{uid}-1.sock" if is_served else "1.sock"]
        expected = [] if is_served else [f"no registration entry is for unix:uid:{uid},gid:{uid}"]
        assert authority.refusals() == expected


async def test_the_credentials_are_the_kernels() -> None:
    one, two = socket.socketpair()
    with one, two:
        peer = peer_credentials(one)
        assert (peer.uid, peer.gid) == (os.getuid(), os.getgid())


async def test_more_peers_than_are_served_are_refused_and_recorded(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("authz.service.ports.unix_peers.MAX_PEERS", 0)
    async with running(directory) as authority, local(directory) as channel:
        assert (await refusal(fetch(channel, ROOTS)))[0] in ("UNAVAILABLE", "DEADLINE_EXCEEDED")
        assert set(authority.refusals()) == {"more than 0 different Unix peers are served already"}


async def test_private_sockets_are_out_of_others_reach_and_go_away(directory: Path) -> None:
    async with running(directory) as authority:
        async with local(directory) as channel:
            await fetch(channel, ROOTS)
        assert authority.server._unix is not None
        private = authority.server._unix._directory
        assert stat.S_IMODE(os.stat(private).st_mode) == 0o700
        assert os.listdir(private) == [f"{os.getuid()}-{os.getgid()}-1.sock"]
        assert stat.S_IMODE((directory / "sds.sock").stat().st_mode) == 0o666
    assert os.path.basename(private) not in os.listdir(tempfile.gettempdir())
    assert not (directory / "sds.sock").exists()


async def test_a_socket_left_behind_is_replaced(directory: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(directory / "sds.sock"))
    async with running(directory), local(directory) as channel:
        assert set(await fetch(channel, ROOTS)) == {ROOTS}


async def test_a_second_authority_does_not_steal_the_socket(directory: Path) -> None:
    async with running(directory), local(directory) as channel:
        second = AuthorityServer(AuthorityFiles(directory / "ca"), Doors(directory / "sds.sock"))
        with pytest.raises(SettingsError, match="another server holds it"):
            await second.start()
        assert set(await fetch(channel, ROOTS)) == {ROOTS}


async def test_signing_is_limited(directory: Path) -> None:
    limit = SigningLimit(per_peer=0.001, burst=1)
    async with running(directory, limit) as authority, local(directory) as channel:
        await fetch(channel, REVIEWS)
        await fetch(channel, REVIEWS)  # the same certificate again: nothing is signed
        authority.server.stock.shelf.renew_due(time.time(), ())
        code, reason = await refusal(fetch(channel, REVIEWS))
        assert code == "RESOURCE_EXHAUSTED"
        assert reason.startswith("too many certificates for unix:uid:")


async def test_refusals_in_a_loop_do_not_fill_the_record(directory: Path) -> None:
    async with running(directory) as authority, local(directory) as channel:
        for _ in range(30):
            await refusal(fetch(channel, STRANGER))
        assert 10 <= len(authority.refusals()) < 20
        assert authority.server.record.counts.unrecorded == 30 - len(authority.refusals())


async def test_too_many_names_on_one_stream_are_refused(directory: Path) -> None:
    async with running(directory) as authority, local(directory) as channel:
        names = [f"{REVIEWS}-{i}" for i in range(65)]
        code, reason = await refusal(fetch(channel, *names))
        assert authority.refusals() == [reason]
        assert (code, reason) == (
            "PERMISSION_DENIED",
            "65 secrets were asked for, at most 64 are served on one stream",
        )


# Streams


async def test_a_stream_is_pushed_what_changes_and_nothing_after_a_nack(
    directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(directory) as authority, local(directory) as channel:
        call = stream(channel)
        node = wire.Node(id="reviews-v1")
        await call.write(wire.DiscoveryRequest(resource_names=[REVIEWS], type_url=SECRET_TYPE, node=node))
        first = await read(call)
        ack = wire.DiscoveryRequest(
            resource_names=[REVIEWS], type_url=SECRET_TYPE, version_info=first.version_info, response_nonce=first.nonce
        )
        await call.write(ack)
        authority.change(taint(activate(prepare(authority.ca, time.time()))))
        second = await read(call)
        assert chain_of(opened(second)[REVIEWS]) != chain_of(opened(first)[REVIEWS])
        nack = wire.DiscoveryRequest(
            resource_names=[REVIEWS],
            version_info=first.version_info,
            response_nonce=second.nonce,
            error_detail=wire.Status(code=13, message="KEY_VALUES_MISMATCH"),
        )
        with caplog.at_level(logging.ERROR):
            await call.write(nack)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(call.read(), 0.3)
        assert f"reviews-v1 refused {REVIEWS}, keeps the old one: KEY_VALUES_MISMATCH" in caplog.text
        assert authority.server.secrets.figures.rejected == 1
        assert "PRIVATE KEY" not in caplog.text


async def test_the_roots_follow_a_rotation_step_by_step(directory: Path) -> None:
    async with running(directory) as authority, local(directory) as channel:
        call = stream(channel)
        await call.write(wire.DiscoveryRequest(resource_names=[ROOTS]))
        seen = [opened(await read(call))[ROOTS].validation_context.trusted_ca.inline_bytes]
        authority.change(prepare(authority.ca, time.time()))
        seen.append(opened(await read(call))[ROOTS].validation_context.trusted_ca.inline_bytes)
        authority.change(retire(taint(activate(authority.ca))))
        seen.append(opened(await read(call))[ROOTS].validation_context.trusted_ca.inline_bytes)
        assert [bundle.count(b"BEGIN") for bundle in seen] == [1, 2, 1]
        assert seen[1] == seen[0] + seen[2]
        call.cancel()


async def test_something_else_than_secrets_is_refused(directory: Path) -> None:
    async with running(directory), local(directory) as channel:
        call = stream(channel)
        await call.write(wire.DiscoveryRequest(resource_names=[ROOTS], type_url="type.googleapis.com/x"))
        assert (await refusal(read(call)))[0] == "INVALID_ARGUMENT"


async def test_an_entry_that_is_taken_away_ends_the_stream(directory: Path) -> None:
    async with running(directory) as authority, local(directory) as channel:
        call = stream(channel)
        await call.write(wire.DiscoveryRequest(resource_names=[REVIEWS]))
        await read(call)
        authority.write("entries.yaml", "entries: []")
        assert (await refusal(read(call)))[0] == "PERMISSION_DENIED"


async def test_a_broken_change_keeps_what_was_in_force(directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with running(directory) as authority, local(directory) as channel:
        authority.write("entries.yaml", "entries:\n- { spiffeID: nonsense }\n")
        (directory / "ca/authorities.json").write_text("{")
        authority.server.look()
        assert set(await fetch(channel, REVIEWS)) == {REVIEWS}
        assert "entries.yaml:2:15" in caplog.text
        assert "a change of the authority is not taken, the old one stays" in caplog.text


# Remote peers


async def test_the_holder_of_an_svid_renews_it_and_gets_nobody_elses(directory: Path) -> None:
    async with running(directory) as authority, authority.channel("listen", authority.issue(REVIEWS)) as channel:
        secrets = await fetch(channel, REVIEWS)
        assert set(secrets) == {REVIEWS}
        assert await refusal(fetch(channel, RATINGS)) == (
            "PERMISSION_DENIED",
            f"no registration entry grants `{RATINGS}` to {REVIEWS}",
        )
        key = generate_key()
        answer = await enrol(channel, request=write_certificate_request(key))
        examined = validate_svid(answer.chain, {MESH: authority.ca.trust_bundle}, time.time())
        assert isinstance(examined, Examined)
        assert str(examined.spiffe_id) == answer.spiffe_id == REVIEWS


async def test_the_doors_own_certificate_follows_a_rotation(directory: Path) -> None:
    """Who trusts only the new root can connect, without a restart."""
    async with running(directory) as authority:
        async with authority.channel("listen", authority.issue(REVIEWS)) as channel:
            assert set(await fetch(channel, ROOTS)) == {ROOTS}
        authority.change(retire(taint(activate(prepare(authority.ca, time.time())))))
        async with authority.channel("listen", authority.issue(REVIEWS)) as channel:
            assert set(await fetch(channel, REVIEWS)) == {REVIEWS}


async def test_a_revoked_svid_renews_nothing(directory: Path) -> None:
    async with running(directory) as authority:
        held = authority.issue(REVIEWS)
        authority.write("revoked.txt", f"serial:{held.serial:x}\n")
        async with authority.channel("listen", held) as channel:
            expected = ("PERMISSION_DENIED", f"the certificate with serial number {held.serial:x} is revoked")
            assert await refusal(fetch(channel, REVIEWS)) == expected
            assert await refusal(enrol(channel)) == expected


async def test_a_stranger_does_not_get_past_the_handshake(directory: Path) -> None:
    async with running(directory) as authority:
        strangers = [
            None,
            CertificateAuthority.create(MESH, time.time()).issue_svid(SpiffeId.parse(REVIEWS), time.time()),
            CertificateAuthority.create(OTHER, time.time()).issue_svid(
                SpiffeId.parse("spiffe://other.test/a"), time.time()
            ),
            authority.ca.issue_svid(SpiffeId.parse(REVIEWS), time.time() - 3600, ttl_seconds=60),
            authority.ca.issue_server_certificate(("localhost",), time.time()),
        ]
        for held in strangers:
            async with authority.channel("listen", held) as channel:
                assert (await refusal(fetch(channel, REVIEWS)))[0] == "UNAVAILABLE"


async def test_an_expiry_during_a_connection_ends_its_rights(directory: Path) -> None:
    """The handshake looked once; every call is judged again."""
    async with running(directory) as authority, authority.channel("listen", authority.issue(REVIEWS, 600)) as channel:
        assert set(await fetch(channel, ROOTS)) == {ROOTS}
        authority.server.stock.clock = lambda: time.time() + 700
        code, reason = await refusal(fetch(channel, REVIEWS))
        assert (code, reason.split(" expired")[0]) == ("UNAUTHENTICATED", "the certificate")


async def test_a_stream_ends_with_the_certificate_that_opened_it(directory: Path) -> None:
    """Who holds a stream open must not be given certificates for ever on the strength of one that has expired."""
    async with running(directory) as authority, authority.channel("listen", authority.issue(REVIEWS, 600)) as channel:
        call = stream(channel)
        await call.write(wire.DiscoveryRequest(resource_names=[REVIEWS], type_url=SECRET_TYPE))
        assert set(opened(await read(call))) == {REVIEWS}
        later = time.time() + 700
        authority.server.stock.clock = lambda: later
        authority.server.stock.tick(later)
        expected = "the certificate that opened this stream has expired"
        assert await refusal(read(call)) == ("PERMISSION_DENIED", expected)
        assert authority.refusals() == [expected]


async def test_a_join_token_gives_one_certificate_for_its_identity(directory: Path) -> None:
    async with running(directory) as authority, authority.channel("enrol", None) as channel:
        token = authority.token()
        answer = await enrol(channel, token)
        assert answer.spiffe_id == RATINGS
        assert answer.bundle == authority.ca.bundle_pem
        assert isinstance(validate_svid(answer.chain, {MESH: authority.ca.trust_bundle}, time.time()), Examined)
        where = "it was looked for in the directory of this authority, which has no `--truth`"
        unknown = ("PERMISSION_DENIED", f"the join token is unknown or was used before: {where}")
        assert await refusal(enrol(channel, token)) == unknown
        assert await refusal(enrol(channel, "made up")) == unknown
        assert await refusal(enrol(channel)) == unknown
        assert token not in (directory / "ca" / LEDGER_FILE).read_text()
        assert authority.refusals() == [unknown[1]] * 3


async def test_a_bad_request_does_not_spend_the_token_and_an_old_token_is_refused(directory: Path) -> None:
    async with running(directory) as authority, authority.channel("enrol", None) as channel:
        token = authority.token()
        assert await refusal(enrol(channel, token, b"nonsense")) == (
            "INVALID_ARGUMENT",
            "not a PEM certificate request",
        )
        assert (await enrol(channel, token)).spiffe_id == RATINGS
        assert await refusal(enrol(channel, authority.token(-1))) == (
            "PERMISSION_DENIED",
            "the join token has expired",
        )


async def test_a_rate_limit_does_not_spend_the_token(directory: Path) -> None:
    limit = SigningLimit(per_peer=0.001, burst=100, total=0.001, total_burst=1)
    async with running(directory, limit) as authority, authority.channel("enrol", None) as channel:
        await enrol(channel, authority.token())
        token = authority.token()
        assert (await refusal(enrol(channel, token)))[0] == "RESOURCE_EXHAUSTED"
        authority.server._registrar.limit = SigningLimit()
        assert (await enrol(channel, token)).spiffe_id == RATINGS
        assert (await refusal(enrol(channel, token)))[0] == "PERMISSION_DENIED"


async def test_strangers_who_guess_tokens_keep_nobody_from_renewing(directory: Path) -> None:
    limit = SigningLimit(per_peer=0.001, burst=100, total=0.001, total_burst=3)
    async with running(directory, limit) as authority:
        async with authority.channel("enrol", None) as channel:
            for _ in range(5):
                assert (await refusal(enrol(channel, "guessed")))[0] == "PERMISSION_DENIED"
        async with authority.channel("listen", authority.issue(RATINGS)) as channel:
            assert (await enrol(channel)).spiffe_id == RATINGS


async def test_the_enrolment_door_serves_no_secrets(directory: Path) -> None:
    async with running(directory) as authority, authority.channel("enrol", authority.issue(REVIEWS)) as channel:
        assert (await refusal(fetch(channel, REVIEWS)))[0] == "UNIMPLEMENTED"


# Starting


async def test_an_authority_that_cannot_be_read_is_a_setting_that_is_wrong(directory: Path) -> None:
    (directory / "ca").mkdir()
    (directory / "ca/authorities.json").write_text("{}")
    with pytest.raises(SettingsError, match="is not a list of authorities"):
        await AuthorityServer(AuthorityFiles(directory / "ca"), Doors(directory / "s")).start()


async def test_broken_entries_refuse_the_start(directory: Path) -> None:
    CertificateAuthority.create(MESH, time.time()).save(directory / "ca")
    (directory / "entries.yaml").write_text("entries: [3]")
    with pytest.raises(LoadError):
        await AuthorityServer(
            AuthorityFiles(directory / "ca", directory / "entries.yaml"), Doors(directory / "s")
        ).start()
