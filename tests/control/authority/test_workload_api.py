"""The SPIFFE Workload API over the real socket: what the standard says, message by message."""

import asyncio
import hashlib
import os
import shutil
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, load_der_private_key
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from authz._proto import sds_pb2
from authz._proto import workload_pb2 as wire
from authz.core.spiffe import SpiffeId, TrustDomain
from authz.identity.bundle import TrustBundle
from authz.identity.bundle_document import write_bundle_document, write_key_set
from authz.identity.ca import CertificateAuthority
from authz.identity.jwt_keys import JwtKeys, change_jwt_keys
from authz.identity.jwt_svid import sign_jwt_svid
from authz.identity.ledger import LEDGER_FILE, Ledger
from authz.identity.registrar import SigningLimit
from authz.identity.rotation import activate, prepare, taint
from authz.identity.svid_validation import Examined, validate_svid
from tests.control.authority.workload import (
    ME,
    RATINGS,
    REVIEWS,
    Stream,
    ask,
    authority,
    certificates,
    channel,
    entry,
    svids,
)

OTHER = TrustDomain("other.test")
CALLS: list[tuple[str, Message, type[Message]]] = [
    ("FetchX509SVID", wire.X509SVIDRequest(), wire.X509SVIDResponse),
    ("FetchX509Bundles", wire.X509BundlesRequest(), wire.X509BundlesResponse),
    ("FetchJWTBundles", wire.JWTBundlesRequest(), wire.JWTBundlesResponse),
    ("FetchJWTSVID", wire.JWTSVIDRequest(audience=["a"]), wire.JWTSVIDResponse),
    ("ValidateJWTSVID", wire.ValidateJWTSVIDRequest(audience="a", svid="b"), wire.ValidateJWTSVIDResponse),
]


def records(directory: Path) -> list[tuple[str, str, bool]]:
    return [(r.kind, r.spiffe_id, r.is_issued) for r in Ledger(directory / "ca" / LEDGER_FILE).read()]


async def tokens(to: grpc.aio.Channel, *audience: str, spiffe_id: str = "") -> dict[str, str] | tuple[str, str]:
    request = wire.JWTSVIDRequest(audience=audience, spiffe_id=spiffe_id)
    answer = await ask(to, "FetchJWTSVID", request, wire.JWTSVIDResponse)
    return answer if isinstance(answer, tuple) else {svid.spiffe_id: svid.svid for svid in answer.svids}


async def token(to: grpc.aio.Channel, *audience: str) -> str:
    found = await tokens(to, *audience)
    assert isinstance(found, dict), found
    return found[REVIEWS]


async def validated(to: grpc.aio.Channel, text: str, audience: str) -> wire.ValidateJWTSVIDResponse | tuple[str, str]:
    request = wire.ValidateJWTSVIDRequest(audience=audience, svid=text)
    return await ask(to, "ValidateJWTSVID", request, wire.ValidateJWTSVIDResponse)


# Who asks


@pytest.mark.parametrize(("method", "request_message", "answer"), CALLS, ids=[call[0] for call in CALLS])
@pytest.mark.parametrize("metadata", [(), (("workload.spiffe.io", "false"),)], ids=["none", "false"])
async def test_a_call_without_the_header_is_refused(
    directory: Path, method: str, request_message: Message, answer: type[Message], metadata: tuple[tuple[str, str], ...]
) -> None:
    expected = ("INVALID_ARGUMENT", "the metadata `workload.spiffe.io: true` is missing")
    async with authority(directory), channel(directory) as to:
        assert await Stream(to, method, request_message, answer, metadata).read() == expected


@pytest.mark.parametrize(("method", "request_message", "answer"), CALLS, ids=[call[0] for call in CALLS])
async def test_who_has_no_entry_is_told_that_there_is_no_identity(
    directory: Path, method: str, request_message: Message, answer: type[Message]
) -> None:
    async with authority(directory, entry(REVIEWS, "unix:uid:424242")), channel(directory) as to:
        assert await Stream(to, method, request_message, answer).read() == ("PERMISSION_DENIED", "no identity issued")
        assert records(directory) == [("x509-svid", "", False)]


async def test_who_gets_an_entry_is_served_by_the_connection_that_it_makes_next(directory: Path) -> None:
    async with authority(directory, entry(REVIEWS, "unix:uid:424242")) as server, channel(directory) as to:
        assert await svids(to).read() == ("PERMISSION_DENIED", "no identity issued")
        (directory / "entries.yaml").write_text("entries:\n" + entry())
        server.look()
        async with asyncio.timeout(10):
            while isinstance(answer := await svids(to).read(), tuple):  # noqa: ASYNC110  # the old connection ends first
                await asyncio.sleep(0.02)
        assert [svid.spiffe_id for svid in answer.svids] == [REVIEWS]


async def test_secret_discovery_is_served_beside_it(directory: Path) -> None:
    async with authority(directory), channel(directory) as to:
        call = to.unary_unary(
            "/envoy.service.secret.v3.SecretDiscoveryService/FetchSecrets",
            sds_pb2.DiscoveryRequest.SerializeToString,
            sds_pb2.DiscoveryResponse.FromString,
        )
        secrets = await call(sds_pb2.DiscoveryRequest(resource_names=[REVIEWS]))
        chain = sds_pb2.Secret.FromString(secrets.resources[0].value).tls_certificate.certificate_chain.inline_bytes
        (svid,) = (await svids(to).read()).svids
        assert b"".join(c.public_bytes(Encoding.PEM) for c in certificates(svid.x509_svid)) == chain  # the very same


# X.509-SVIDs


async def test_an_application_gets_each_of_its_identities_in_the_order_of_the_entries(directory: Path) -> None:
    async with authority(directory, entry(RATINGS), entry(REVIEWS)) as server, channel(directory) as to:
        answer = await svids(to).read()
        assert [svid.spiffe_id for svid in answer.svids] == [RATINGS, REVIEWS]
        bundle = server.stock.registrar.trust_bundle
        for svid in answer.svids:
            chain = certificates(svid.x509_svid)
            key = load_der_private_key(svid.x509_svid_key, None)
            assert key.public_key() == chain[0].public_key()
            assert certificates(svid.bundle) == list(bundle.roots)
            pem = b"".join(certificate.public_bytes(Encoding.PEM) for certificate in chain)
            examined = validate_svid(pem, {bundle.trust_domain: bundle}, time.time())
            assert isinstance(examined, Examined)
            assert str(examined.spiffe_id) == svid.spiffe_id
        assert records(directory) == [("x509-svid", RATINGS, True), ("x509-svid", REVIEWS, True)]


async def test_a_renewal_is_pushed(directory: Path) -> None:
    async with authority(directory) as server, channel(directory) as to:
        stream = svids(to)
        first = (await stream.read()).svids[0]
        due = server.stock.shelf.next_due()
        assert due is not None
        server.stock.tick(due)
        second = (await stream.read()).svids[0]
        assert (second.spiffe_id, second.bundle) == (first.spiffe_id, first.bundle)
        assert second.x509_svid != first.x509_svid


async def test_a_new_root_is_pushed_and_then_certificates_of_it(directory: Path) -> None:
    async with authority(directory) as server, channel(directory) as to:
        stream, bundles = svids(to), Stream(to, "FetchX509Bundles", wire.X509BundlesRequest(), wire.X509BundlesResponse)
        first = await stream.read()
        assert list((await bundles.read()).bundles) == ["spiffe://mesh.test"]
        prepared = prepare(server.stock.registrar.ca, time.time())
        prepared.save(directory / "ca")
        server.look()
        second = await stream.read()
        assert second.svids[0].x509_svid == first.svids[0].x509_svid
        assert len(certificates(second.svids[0].bundle)) == 2
        assert (await bundles.read()).bundles["spiffe://mesh.test"] == second.svids[0].bundle
        taint(activate(prepared)).save(directory / "ca")
        server.look()
        third = await stream.read()
        assert certificates(third.svids[0].x509_svid)[-1].issuer == prepared.authorities[-1].root.subject
        assert third.svids[0].x509_svid != first.svids[0].x509_svid


async def test_an_identity_that_is_taken_away_is_redacted_and_the_last_one_ends_the_stream(directory: Path) -> None:
    async with authority(directory, entry(REVIEWS), entry(RATINGS)) as server, channel(directory) as to:
        stream = svids(to)
        assert len((await stream.read()).svids) == 2
        (directory / "entries.yaml").write_text("entries:\n" + entry(RATINGS))
        server.look()
        assert [svid.spiffe_id for svid in (await stream.read()).svids] == [RATINGS]
        (directory / "entries.yaml").write_text("entries: []")
        server.look()
        assert await stream.read() == ("PERMISSION_DENIED", "no identity issued")
        assert server.workload.streams == 0


async def test_a_stream_is_not_sent_the_same_twice(directory: Path) -> None:
    async with authority(directory) as server, channel(directory) as to:
        stream = svids(to)
        await stream.read()
        server.stock.tell()
        with pytest.raises(TimeoutError):
            await stream.read(0.3)


async def test_bundles_of_others_go_to_those_whose_entry_says_so(directory: Path) -> None:
    other = CertificateAuthority.create(OTHER, time.time())
    keys = JwtKeys().kept_current(time.time())
    document = write_bundle_document(_with_keys(other, keys), 1, 300)
    (directory / "other.json").write_bytes(document)
    (directory / "third.pem").write_bytes(CertificateAuthority.create("third.test", time.time()).bundle_pem)
    files = {
        "federated": ((OTHER, directory / "other.json"), (TrustDomain("third.test"), directory / "third.pem")),
    }
    federating = entry(REVIEWS, federatesWith=["other.test"])
    async with authority(directory, federating, files=files) as server, channel(directory) as to:
        answer = await svids(to).read()
        assert list(answer.federated_bundles) == ["spiffe://other.test"]
        assert certificates(answer.federated_bundles["spiffe://other.test"]) == list(other.roots)
        x509s = await Stream(to, *CALLS[1]).read()
        assert sorted(x509s.bundles) == ["spiffe://mesh.test", "spiffe://other.test"]
        jwts = await Stream(to, *CALLS[2]).read()
        assert jwts.bundles["spiffe://other.test"] == write_key_set(keys.public, "jwt-svid")
        signing = keys.active(time.time())
        assert signing is not None
        stranger = sign_jwt_svid(signing, SpiffeId(OTHER, "/a"), ("reports",), time.time(), 60)
        good = await validated(to, stranger.token, "reports")
        assert isinstance(good, wire.ValidateJWTSVIDResponse), good
        assert good.spiffe_id == "spiffe://other.test/a"
        # The owner says that nothing is to be trusted any more.
        (directory / "other.json").write_bytes(b'{"keys": []}')
        server.look()
        assert await validated(to, stranger.token, "reports") == (
            "INVALID_ARGUMENT",
            f"`other.test` has no key `{signing.kid}` for ES256",
        )


def _with_keys(ca: CertificateAuthority, keys: JwtKeys) -> TrustBundle:
    return replace(ca.trust_bundle, jwt_keys=keys.public)


# JWT-SVIDs


async def test_a_token_is_for_the_audience_and_every_identity(directory: Path) -> None:
    async with authority(directory, entry(REVIEWS), entry(RATINGS, jwtSVIDTTL=60)), channel(directory) as to:
        found = await tokens(to, "reports", "billing", "reports")
        assert isinstance(found, dict)
        assert list(found) == [REVIEWS, RATINGS]
        for spiffe_id, life in ((REVIEWS, 300), (RATINGS, 60)):
            answer = await validated(to, found[spiffe_id], "billing")
            assert isinstance(answer, wire.ValidateJWTSVIDResponse), answer
            claims = MessageToDict(answer.claims)
            assert (answer.spiffe_id, claims["sub"], claims["aud"]) == (
                spiffe_id,
                spiffe_id,
                ["reports", "billing"],
            )
            assert claims["exp"] - claims["iat"] == life
            assert set(claims) == {"sub", "aud", "iat", "exp"}
        assert await tokens(to, "reports", spiffe_id=RATINGS) != found
        kinds = Ledger(directory / "ca" / LEDGER_FILE).read()
        assert [(r.kind, r.spiffe_id, r.audience) for r in kinds] == [
            ("jwt-svid", REVIEWS, ("reports", "billing")),
            ("jwt-svid", RATINGS, ("reports", "billing")),
            ("jwt-svid", RATINGS, ("reports",)),
        ]


async def test_the_issuer_is_named_where_the_operator_wants_one(directory: Path) -> None:
    async with authority(directory, jwt_issuer="https://ca.example"), channel(directory) as to:
        answer = await validated(to, await token(to, "reports"), "reports")
        assert isinstance(answer, wire.ValidateJWTSVIDResponse), answer
        assert MessageToDict(answer.claims)["iss"] == "https://ca.example"


WRONG_TOKEN_REQUESTS = [
    ((), "", "INVALID_ARGUMENT", "an audience is needed: who shall accept the token"),
    (("",), "", "INVALID_ARGUMENT", "an audience is needed: who shall accept the token"),
    (tuple(map(str, range(33))), "", "INVALID_ARGUMENT", "a token has at most 32 audiences of 4096 bytes together"),
    (("a" * 4097,), "", "INVALID_ARGUMENT", "a token has at most 32 audiences of 4096 bytes together"),
    (("a",), "nonsense", "INVALID_ARGUMENT", "`nonsense` is not a SPIFFE ID: expected it to begin with `spiffe://`"),
    (("a",), RATINGS, "PERMISSION_DENIED", f"no registration entry grants `{RATINGS}` to {ME},gid:{os.getgid()}"),
]


@pytest.mark.parametrize(("audience", "spiffe_id", "code", "message"), WRONG_TOKEN_REQUESTS)
async def test_a_token_that_cannot_be_had_is_refused_with_the_reason(
    directory: Path, audience: tuple[str, ...], spiffe_id: str, code: str, message: str
) -> None:
    async with authority(directory), channel(directory) as to:
        assert await tokens(to, *audience, spiffe_id=spiffe_id) == (code, message)


async def test_asking_again_signs_nothing_and_signing_is_limited(directory: Path) -> None:
    limit = SigningLimit(per_peer=0.001, burst=2)
    async with authority(directory, limit=limit) as server, channel(directory) as to:
        first = await token(to, "one")
        assert await token(to, "one") == first
        await token(to, "two")
        assert await tokens(to, "three") == (
            "UNAVAILABLE",
            f"too many tokens for {ME},gid:{os.getgid()}, try again later",
        )
        assert server.record.counts.jwts == 2
        assert [is_issued for _, _, is_issued in records(directory)] == [True, True, False]


async def test_a_stolen_key_is_revoked_at_once(directory: Path) -> None:
    async with authority(directory) as server, channel(directory) as to:
        stream = Stream(to, *CALLS[2])
        before = (await stream.read()).bundles["spiffe://mesh.test"]
        old = await token(to, "reports")
        change_jwt_keys(directory / "ca", lambda keys: keys.revoked(time.time()))
        server.look()
        assert (await stream.read()).bundles["spiffe://mesh.test"] != before
        code, message = await validated(to, old, "reports")  # type: ignore[misc]  # a refusal is a pair
        assert (code, "has no key" in message) == ("INVALID_ARGUMENT", True)
        assert await token(to, "reports") != old  # the one on the shelf is of no use any more


async def test_a_planned_rotation_is_seen_before_it_signs(directory: Path) -> None:
    async with authority(directory) as server, channel(directory) as to:
        old = await token(to, "reports")
        keys = change_jwt_keys(directory / "ca", lambda before: before.rotated(time.time(), 3600))
        server.look()
        assert server.stock.registrar.trust_bundle.jwt_keys == keys.public
        assert isinstance(await validated(to, old, "reports"), wire.ValidateJWTSVIDResponse)
        signing = [server.stock.registrar.jwt_keys.active(time.time() + seconds) for seconds in (0, 3601)]
        assert [key and key.kid for key in signing] == [key.kid for key in keys.keys]


async def test_a_revoked_identity_has_no_valid_token(directory: Path) -> None:
    files = {"revocations": directory / "revoked.txt"}
    (directory / "revoked.txt").write_text("")
    async with authority(directory, files=files) as server, channel(directory) as to:
        held = await token(to, "reports")
        (directory / "revoked.txt").write_text(REVIEWS)
        server.look()
        assert await validated(to, held, "reports") == ("INVALID_ARGUMENT", f"the identity `{REVIEWS}` is revoked")
        assert await tokens(to, "reports") == ("PERMISSION_DENIED", f"the identity `{REVIEWS}` is revoked")


async def test_keys_that_cannot_be_written_are_told_and_the_old_ones_go_on(directory: Path) -> None:
    async with authority(directory) as server, channel(directory) as to:
        (directory / "ca" / "jwt_keys.json").chmod(0o644)  # others may read it: it is not taken
        server.clock = lambda: time.time() + 6.5 * 24 * 3600
        server.look()
        assert "others may read" in server.reload.jwt_keys
        assert await token(to, "reports")


# Binaries


PYTHON = os.path.realpath("/proc/self/exe")
PERL = (found := shutil.which("perl")) and os.path.realpath(found)


@pytest.mark.skipif(PERL is None, reason="there is no other interpreter to tell apart")
@pytest.mark.parametrize("kind", ["path", "sha256"])
async def test_a_binary_is_told_from_another_of_the_same_user(directory: Path, kind: str) -> None:
    python, perl = PYTHON, str(PERL)
    selector = f"unix:path:{python}" if kind == "path" else f"unix:sha256:{_digest(python)}"
    async with authority(directory, entry(REVIEWS, ME, selector)) as server:
        async with channel(directory) as to:
            (svid,) = (await svids(to).read()).svids
            assert svid.spiffe_id == REVIEWS
        await asyncio.to_thread(
            subprocess.run, ["perl", "-MSocket", "-e", CONNECT, str(directory / "sds.sock")], check=True, timeout=10
        )
        shown = f"path:{perl}" if kind == "path" else f"sha256:{_digest(perl)}"
        reasons = [r.reason for r in Ledger(directory / "ca" / LEDGER_FILE).read() if not r.is_issued]
        assert reasons == [f"no registration entry is for {ME},gid:{os.getgid()},{shown}"]
        assert server.stock.registrar.grants(next(iter(server.stock.shelf.kept))[0])


@pytest.mark.skipif(PERL is None, reason="there is no other interpreter to tell apart")
async def test_a_peer_that_went_makes_room_for_another(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a machine whose binaries are renewed often would run out of places for them."""
    monkeypatch.setattr("authz.service.ports.unix_peers.MAX_PEERS", 1)
    connect = ["perl", "-MSocket", "-e", CONNECT, str(directory / "sds.sock")]
    async with authority(directory, entry(REVIEWS), entry(RATINGS, "unix:path:/nowhere")) as server:
        for _ in range(3):
            async with channel(directory) as to:
                assert len((await svids(to).read()).svids) == 1
                busy = await asyncio.to_thread(subprocess.run, connect, timeout=10, capture_output=True)
                assert busy.returncode != 0  # there is one place, and it is taken
            assert server._unix is not None
            async with asyncio.timeout(10):
                while server._unix._connections:  # noqa: ASYNC110  # the relay's end has no event
                    await asyncio.sleep(0.02)
            await asyncio.to_thread(subprocess.run, connect, timeout=10, check=True)


async def test_an_entry_that_asks_for_a_binary_ends_connections_of_which_nobody_knows_it(directory: Path) -> None:
    async with authority(directory) as server, channel(directory) as to:
        stream = svids(to)
        await stream.read()
        (directory / "entries.yaml").write_text("entries:\n" + entry(REVIEWS, "unix:path:/nowhere"))
        server.look()
        code, _ = await stream.read()
        assert code in ("UNAVAILABLE", "PERMISSION_DENIED")
        assert await svids(to).read() == ("PERMISSION_DENIED", "no identity issued")


CONNECT = "socket(S, AF_UNIX, SOCK_STREAM, 0); connect(S, sockaddr_un($ARGV[0])) or die; sysread(S, $b, 9) == 9 or die"


def _digest(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()
