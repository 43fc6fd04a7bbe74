"""Two authorities below one root, both real: what one signed is good at the other, over real mutual TLS."""

import json
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import grpc
import pytest

from authz.control.authority.authority_files import AuthorityFiles
from authz.control.authority.authority_server import AuthorityServer, Doors
from authz.core.spiffe import SpiffeId, TrustDomain
from authz.identity.announcement import OTHERS_DIRECTORY
from authz.identity.announcing import another_authority, keep_announced
from authz.identity.ca import CertificateAuthority, Issued
from authz.identity.join_tokens import TOKENS_DIRECTORY, TokenDirectory, make_token
from authz.identity.jwt_keys import change_jwt_keys, read_jwt_keys
from authz.identity.jwt_svid import ValidJwt, sign_jwt_svid, validate_jwt_svid
from authz.identity.keys import generate_key, write_key
from authz.identity.ledger import LEDGER_FILE, Ledger
from authz.identity.registrar import write_certificate_request
from authz.identity.secret_files import write_file
from authz.identity.svid_validation import Examined, validate_svid
from tests.control.authority.test_sds import enrol, refusal

MESH = TrustDomain("mesh.test")
RATINGS = SpiffeId.parse("spiffe://mesh.test/ns/shop/sa/ratings")


@dataclass
class Member:
    directory: Path
    server: AuthorityServer

    @property
    def ca(self) -> CertificateAuthority:
        return CertificateAuthority.load(self.directory)

    def channel(self, door: str, held: Issued | None = None) -> grpc.aio.Channel:
        shown = (held.key_pem, held.chain_pem) if held else (None, None)
        credentials = grpc.ssl_channel_credentials(self.ca.bundle_pem, *shown)
        return grpc.aio.secure_channel(f"localhost:{self.server.ports[door]}", credentials)

    def token(self) -> str:
        text, kept = make_token(os.urandom(32), RATINGS, time.time(), 60)
        TokenDirectory(self.directory / TOKENS_DIRECTORY).store(kept)
        return text

    def tell(self, other: "Member") -> None:
        """Bring our announcement there, as a copy or the truth would."""
        place = other.directory / OTHERS_DIRECTORY
        place.mkdir(exist_ok=True)
        write_file(place / f"{self.ca.name}.json", (self.directory / "announcement.json").read_bytes())
        other.server.look()


@asynccontextmanager
async def two(folder: Path) -> AsyncIterator[tuple[Member, Member]]:
    ca = CertificateAuthority.create(MESH, time.time())
    members = []
    (folder / "revoked.txt").write_text("")
    for name, one in (("a", ca), ("b", another_authority(ca, "b", time.time()))):
        one.save(folder / name)
        server = AuthorityServer(
            AuthorityFiles(folder / name, revocations=folder / "revoked.txt"),
            Doors(listen="localhost:0", enrol="localhost:0", dns=("localhost",)),
        )
        members.append(Member(folder / name, server))
    try:
        for member in members:
            await member.server.start()
        yield members[0], members[1]
    finally:
        for member in members:
            await member.server.stop(0)


async def renewed(at: Member, held: Issued) -> Issued:
    """The same identity with another certificate and key."""
    key = generate_key()
    async with at.channel("listen", held) as channel:
        answer = await enrol(channel, request=write_certificate_request(key))
    return replace(held, chain_pem=answer.chain, key_pem=write_key(key))


async def test_what_one_signed_the_other_renews_and_refuses_once_it_is_revoked(tmp_path: Path) -> None:
    async with two(tmp_path) as (a, b):
        for signer, other in ((a, b), (b, a)):
            held = signer.ca.issue_svid(RATINGS, time.time())
            answer = await renewed(other, held)
            bundle = signer.ca.trust_bundle
            assert isinstance(validate_svid(answer.chain_pem, {MESH: bundle}, time.time()), Examined)
            (record,) = [one for one in Ledger(other.directory / LEDGER_FILE).read() if one.is_issued]
            assert (record.evidence, record.authority_id) == (str(RATINGS), held.authority_id)
            (tmp_path / "revoked.txt").write_text(f"serial:{held.serial:x}\n")
            other.server.look()
            async with other.channel("listen", held) as channel:
                assert (await refusal(enrol(channel)))[0] == "PERMISSION_DENIED"


async def test_a_leaf_that_comes_alone_and_a_token_are_good_everywhere_once_the_other_is_known(tmp_path: Path) -> None:
    async with two(tmp_path) as (a, b):
        now = time.time()
        leaf = b.ca.issue_svid(RATINGS, now).chain_pem.split(b"-----END CERTIFICATE-----\n")[0]
        leaf += b"-----END CERTIFICATE-----\n"
        key = read_jwt_keys(b.directory).active(now)
        assert key is not None
        token = sign_jwt_svid(key, RATINGS, ("cart",), now, 60, "").token

        def judged() -> list[bool]:
            bundle = a.server.stock.registrar.trust_bundle
            answers = validate_svid(leaf, {MESH: bundle}, now), validate_jwt_svid(token, "cart", {MESH: bundle}, now)
            return [isinstance(answers[0], Examined), isinstance(answers[1], ValidJwt)]

        assert judged() == [False, False]
        b.tell(a)
        assert judged() == [True, True]
        assert b.ca.active.chain_pem in (a.directory / "intermediates.pem").read_bytes()

        change_jwt_keys(b.directory, lambda keys: keys.revoked(now))
        b.server.look()
        b.tell(a)
        assert judged() == [True, False]


async def test_a_holder_need_not_renew_because_another_authority_answers(tmp_path: Path) -> None:
    async with two(tmp_path) as (a, b):
        b.tell(a)
        sound = a.server.stock.registrar.ca.sound_pem
        assert sound == a.ca.active.chain_pem + b.ca.active.chain_pem


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda text: text.replace("b", "c", 1), "is not believed"),
        (lambda text: "{}", "it has no text `payload`"),
        (lambda text: json.dumps(json.loads(text) | {"signature": "AAAA"}), "its signature does not fit"),
        (lambda text: json.dumps(json.loads(text) | {"payload": "e30="}), "its signature does not fit"),
    ],
    ids=["a byte", "another object", "another signature", "another payload"],
)
async def test_an_announcement_that_is_not_believed_adds_nothing_and_is_said(
    tmp_path: Path, damage: "type[str]", reason: str
) -> None:
    async with two(tmp_path) as (a, b):
        b.tell(a)
        file = a.directory / OTHERS_DIRECTORY / "b.json"
        write_file(file, damage(file.read_text()).encode())
        a.server.look()
        ca = a.server.stock.registrar.ca
        assert ca.others == ()
        (told,) = ca.disbelieved
        assert reason in told
        await renewed(a, a.ca.issue_svid(RATINGS, time.time()))


def test_an_announcement_says_the_same_until_something_changes(tmp_path: Path) -> None:
    ca = CertificateAuthority.create(MESH, time.time())
    ca.save(tmp_path)
    keys = change_jwt_keys(tmp_path, lambda keys: keys.kept_current(1e9))
    first = keep_announced(tmp_path, ca, keys, 1e9)
    assert keep_announced(tmp_path, ca, keys, 1e9 + 1) == first
    assert keep_announced(tmp_path, ca, keys.revoked(1e9), 1e9 + 1) != first
