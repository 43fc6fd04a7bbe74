"""What several authorities have in common, by a real server of NATS: tokens, rules, the record, changes of the root."""

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from authz.bundles.bundle_signatures import VerifyingKey, new_key_pair, read_verifying_key
from authz.cli import application
from authz.cli.enrol import Enrolling, keep_renewed
from authz.control.authority.authority_files import AuthorityFiles
from authz.control.authority.authority_server import AuthorityServer, Doors
from authz.control.authority.common_ledger import LedgerSender, read_common_ledger
from authz.control.authority.common_state import CommonState
from authz.control.authority.common_tokens import CommonTokens
from authz.control.authority.spent_tokens import KEPT_SECONDS, SPENT_DIRECTORY
from authz.core.errors import SettingsError
from authz.core.spiffe import SpiffeId
from authz.identity.announcing import another_authority, keep_announced, own_svid
from authz.identity.authority import AuthorityState
from authz.identity.ca import BUNDLE_FILE, CertificateAuthority, Issued
from authz.identity.join_tokens import UNKNOWN, TakenToken, digest_of, make_token, write_token
from authz.identity.jwt_keys import JwtKeys
from authz.identity.keys import KeyType
from authz.identity.ledger import LEDGER_FILE, Ledger
from authz.identity.registrar import Issuance
from authz.identity.rotation_plan import write_plan
from authz.identity.secret_files import SECRET_MODE, write_file, write_secret_files
from authz.identity.svid_validation import Examined, Rejection, validate_svid
from authz.truth.server_configuration import TruthRole
from authz.truth.truth_address import TruthAccess
from authz.truth.truth_bucket import LEDGER, SECURITY, TruthBucket
from authz.truth.truth_client import TruthAway, TruthClient, TruthRefused
from tests.control.authority.test_sds import enrol, refusal
from tests.control.authority.test_several_authorities import MESH, RATINGS, Member, renewed
from tests.nats_server import NAME, NatsServers, emptied, shared_servers, truth_servers

ENTRIES = f"entries:\n- {{ spiffeID: {RATINGS}, parentID: spiffe://mesh.test/node/a }}\n"


truth = shared_servers()


@pytest.fixture
def client(truth: NatsServers) -> Iterator[TruthClient]:
    """Connected, and nothing is in the buckets."""
    with truth.client() as client:
        for what in (SECURITY, LEDGER):
            emptied(client, what)
        yield client


@pytest.fixture
def maker(tmp_path: Path) -> Path:
    """The directory of an authority that makes tokens."""
    CertificateAuthority.create("mesh.test", time.time()).save(tmp_path / "maker")
    return tmp_path / "maker"


@asynccontextmanager
async def authorities(
    folder: Path, truth: NatsServers, *names: str, keys: tuple[VerifyingKey, ...] = ()
) -> AsyncIterator[list[Member]]:
    first = CertificateAuthority.create("mesh.test", time.time())
    members = []
    for name in names:
        one = first if name == "first" else another_authority(first, name, time.time())
        one.save(folder / name)
        files = AuthorityFiles(folder / name, is_common=True)
        doors = Doors(listen="localhost:0", enrol="localhost:0", dns=("localhost",))
        common = CommonState(truth.client(), files, keys)
        members.append(Member(folder / name, AuthorityServer(files, doors, common=common)))
    try:
        for member in members:
            await member.server.start()
        yield members
    finally:
        for member in members:
            await member.server.stop(0)


async def until(happened: Callable[[], bool], *members: Member, seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not happened():
            await asyncio.sleep(0.05)
            for member in members:
                member.server.look()


async def authz(*arguments: str) -> tuple[int, str]:
    """A command, beside the authorities that run on this loop."""
    done = await asyncio.to_thread(CliRunner().invoke, application, list(arguments), catch_exceptions=False)
    return done.exit_code, done.output


def token_for(spiffe_id: SpiffeId, tokens: CommonTokens, ttl_seconds: float = 60) -> str:
    text, kept = make_token(os.urandom(32), spiffe_id, time.time(), ttl_seconds)
    tokens.store(kept)
    return text


def test_of_many_who_take_a_token_at_the_same_time_one_gets_it(client: TruthClient, maker: Path) -> None:
    bucket = TruthBucket(client, SECURITY)
    for _ in range(5):
        text = token_for(RATINGS, CommonTokens(bucket, maker))
        together = threading.Barrier(8)
        answers: list[TakenToken | Rejection] = []

        def take(text: str, together: threading.Barrier, answers: list[TakenToken | Rejection]) -> None:
            together.wait(10)
            answers.append(CommonTokens(bucket, maker).take(text, time.time()))

        threads = [threading.Thread(target=take, args=(text, together, answers)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert sum(isinstance(answer, TakenToken) for answer in answers) == 1
        assert len(answers) == 8


def test_a_token_is_given_back_expires_and_is_never_kept_as_it_is(client: TruthClient, maker: Path) -> None:
    bucket = TruthBucket(client, SECURITY)
    tokens = CommonTokens(bucket, maker)
    text = token_for(RATINGS, tokens)
    assert text.encode() not in b"".join(key.encode() + entry.value for key, entry in bucket.entries().items())
    taken = tokens.take(text, time.time())
    assert isinstance(taken, TakenToken)
    assert tokens.take(text, time.time()) == Rejection("the join token is unknown or was used before")
    taken.give_back()
    assert tokens.take(text, time.time() + 60) == Rejection("the join token has expired")
    assert tokens.take(text, time.time()) == Rejection("the join token is unknown or was used before")


def test_a_used_token_that_somebody_puts_back_is_not_good_where_it_was_used(
    client: TruthClient, maker: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bucket, began = TruthBucket(client, SECURITY), time.time()
    text = token_for(RATINGS, CommonTokens(bucket, maker))
    key = f"tokens.{digest_of(text)}"
    record = bucket.get(key)
    assert record is not None
    assert isinstance(CommonTokens(bucket, maker).take(text, began), TakenToken)
    for _ in range(2):  # in another process, too, and again
        bucket.put(key, record.value)
        assert CommonTokens(bucket, maker).take(text, began) == Rejection(UNKNOWN)
        assert bucket.get(key) is None
    assert "that was used here was in the truth again" in caplog.text
    assert text not in caplog.text
    (kept,) = (maker / SPENT_DIRECTORY).iterdir()
    assert (kept.name, kept.stat().st_mode & 0o777) == (digest_of(text), 0o600)
    late = began + 120 + KEPT_SECONDS
    again = CommonTokens(bucket, maker)
    other, told = make_token(os.urandom(32), RATINGS, late, 60)
    again.store(told)
    assert isinstance(again.take(other, late), TakenToken)
    assert [one.name for one in (maker / SPENT_DIRECTORY).iterdir()] == [told.digest], "what has expired is forgotten"


def test_a_token_of_which_nobody_could_remember_that_it_was_used_is_not_used(client: TruthClient, maker: Path) -> None:
    bucket = TruthBucket(client, SECURITY)
    tokens = CommonTokens(bucket, maker)
    text = token_for(RATINGS, tokens)
    (maker / SPENT_DIRECTORY).write_text("in the way, as a full disk is")
    with pytest.raises(OSError, match="exists"):
        tokens.take(text, time.time())
    (maker / SPENT_DIRECTORY).unlink()
    assert isinstance(tokens.take(text, time.time()), TakenToken)


def test_a_token_that_no_authority_made_is_good_for_nobody(client: TruthClient, maker: Path, tmp_path: Path) -> None:
    bucket, own = TruthBucket(client, SECURITY), CommonTokens(TruthBucket(client, SECURITY), maker)
    CertificateAuthority.create("mesh.test", time.time()).save(tmp_path / "stranger")
    stranger = CommonTokens(bucket, tmp_path / "stranger")
    text, unsigned = make_token(os.urandom(32), RATINGS, time.time(), 60)
    bucket.put(f"tokens.{unsigned.digest}", write_token(unsigned))
    other, moved = token_for(RATINGS, own), make_token(os.urandom(32), RATINGS, time.time(), 60)
    record = bucket.get(f"tokens.{digest_of(other)}")
    assert record is not None
    bucket.put(f"tokens.{moved[1].digest}", record.value)
    for forged in (text, token_for(RATINGS, stranger), moved[0]):
        refused = own.take(forged, time.time())
        assert isinstance(refused, Rejection)
        assert refused.reason.startswith("no authority made the join token: ")
        assert own.take(forged, time.time()) == Rejection("the join token is unknown or was used before")


async def test_two_authorities_share_tokens_rules_and_what_they_announce(
    tmp_path: Path, truth: NatsServers, client: TruthClient
) -> None:
    bucket = TruthBucket(client, SECURITY)
    async with authorities(tmp_path, truth, "first", "b", "c") as (a, b, c):
        await until(lambda: all(len(one.server.stock.registrar.ca.others) == 2 for one in (a, b, c)), a, b, c)
        for one in (a, b, c):
            assert len(one.server.stock.registrar.trust_bundle.jwt_keys) == 3

        text = token_for(RATINGS, CommonTokens(bucket, a.directory))
        async with a.channel("enrol") as first, b.channel("enrol") as second:
            answers = await asyncio.gather(enrol(first, text), enrol(second, text), return_exceptions=True)
        assert sum(not isinstance(answer, BaseException) for answer in answers) == 1
        (refused,) = (str(answer) for answer in answers if isinstance(answer, BaseException))
        assert "in the truth of the fleet, where `authz ca token create" in refused

        (tmp_path / "entries.yaml").write_text(ENTRIES)
        push = (
            "ca",
            "entry",
            "push",
            str(tmp_path / "entries.yaml"),
            "--trust-domain",
            "mesh.test",
            "--if-revision",
            "0",
        )
        assert (await authz(*push, "--truth", str(truth.address)))[0] == 0
        assert "changed by somebody else" in (await authz(*push, "--truth", str(truth.address)))[1]
        await until(lambda: len(b.server.stock.registrar.entries) == len(a.server.stock.registrar.entries) == 1, a, b)

        held = a.ca.issue_svid(RATINGS, time.time())
        await renewed(b, held)
        (tmp_path / "revoked.txt").write_text(f"serial:{held.serial:x}\n")
        assert (await authz("ca", "revocation", "push", str(tmp_path / "revoked.txt"), "--truth", str(truth.address)))[
            0
        ] == 0
        await until(lambda: bool(b.server.stock.registrar.revocations.serials), b)
        async with b.channel("listen", held) as channel:
            assert (await refusal(enrol(channel)))[0] == "PERMISSION_DENIED"

        bucket.put("entries", b"entries: [{")  # by somebody who does not validate
        assert b.server.common is not None
        await until(lambda: "entries" in "".join(b.server.common.problems if b.server.common else ()), b)
        assert len(b.server.stock.registrar.entries) == 1


async def test_a_push_waits_until_every_authority_has_said_that_it_has_it_in_force(
    tmp_path: Path, truth: NatsServers, client: TruthClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("authz.control.authority.common_state.LOOK_SECONDS", 0.2)
    monkeypatch.setattr("authz.control.authority.authority_server.LOOK_SECONDS", 0.2)
    private, public = new_key_pair()
    write_file(tmp_path / "key", private, SECRET_MODE)
    listed = tmp_path / "revoked.txt"
    listed.write_text("")
    place = ("--key", str(tmp_path / "key"), "--truth", str(truth.address), "--ca", str(tmp_path / "first"))

    async def push(*more: str) -> tuple[int, str]:
        return await authz("ca", "revocation", "push", str(listed), *place, *more)

    assert (await push())[0] == 0
    async with authorities(tmp_path, truth, "first", "b", keys=(read_verifying_key(public),)) as (a, b):
        await until(lambda: len(a.ca.others) == len(b.ca.others) == 1)
        listed.write_text("serial:4f7f\n")
        code, told = await push("--wait", "10")
        assert (code, "every authority has them in force" in told) == (0, True)
        for one in (a, b):
            assert one.server.stock.registrar.revocations.serials == {0x4F7F}
        b.server.files.common[1].unlink()  # so that what it is given is not in force there
        b.server.files.common[1].mkdir()
        listed.write_text("serial:1\n")
        code, told = await push("--wait", "1.5")
        assert (code, "authority `b` does not say that it has them" in told, "`first`" in told) == (3, True, False)
        assert a.server.stock.registrar.revocations.serials == {1}


async def test_without_the_truth_certificates_are_renewed_and_tokens_are_refused(
    tmp_path: Path, client: TruthClient
) -> None:
    with truth_servers(tmp_path / "truth") as own:
        async with authorities(tmp_path, own, "first") as (a,):
            with own.client() as there:
                text = token_for(RATINGS, CommonTokens(TruthBucket(there, SECURITY), a.directory))
            own.kill(0)
            async with a.channel("enrol") as channel:
                code, reason = await refusal(enrol(channel, text))
            assert (code, "nobody can say now" in reason) == ("INTERNAL", True)
            await renewed(a, a.ca.issue_svid(RATINGS, time.time()))
            common = a.server.common
            assert common is not None
            await until(lambda: "join tokens are refused" in "".join(common.problems))
            own.start(0)
            await until(lambda: common.problems == ())
            with own.client() as there:
                ledger = TruthBucket(there, LEDGER)
                mine = list(Ledger(a.directory / LEDGER_FILE).read())
                await until(lambda: len(list(read_common_ledger(ledger))) == len(mine))
            assert {one.is_issued for one in mine} == {True, False}
            async with a.channel("enrol") as channel:
                await enrol(channel, text)


def test_an_authority_that_never_saw_the_truth_does_not_start(tmp_path: Path) -> None:
    CertificateAuthority.create("mesh.test", time.time()).save(tmp_path)
    common = CommonState(NatsServers(tmp_path / "truth", 1, None).client(), AuthorityFiles(tmp_path, is_common=True))
    with pytest.raises(SettingsError, match="entries and revocations are not known yet"):
        common.begin(0.1)


def test_the_record_is_sent_once_in_spite_of_a_restart_and_of_a_file_put_aside(
    tmp_path: Path, client: TruthClient
) -> None:
    bucket = TruthBucket(client, LEDGER)
    ledger = Ledger(tmp_path / LEDGER_FILE)

    def record(number: int) -> None:
        ledger.record(Issuance(number, "somebody", str(RATINGS), True, serial=number))

    record(1)
    LedgerSender(tmp_path, "a", bucket).send()
    record(2)
    (tmp_path / LEDGER_FILE).rename(tmp_path / f"{LEDGER_FILE}.1")
    record(3)
    sender = LedgerSender(tmp_path, "a", bucket)
    sender.send()
    sender.send()
    (tmp_path / "issued.sent").unlink()
    LedgerSender(tmp_path, "a", bucket).send()
    assert [one.serial for one in read_common_ledger(bucket)] == [1, 2, 3]


@pytest.mark.slow
async def test_the_root_is_changed_across_all_authorities_and_nobody_who_is_late_is_left_behind(
    tmp_path: Path, truth: NatsServers, client: TruthClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with authorities(tmp_path, truth, "first", "b", "c") as (a, b, c):
        for module in (
            "authz.cli.enrol",
            "authz.control.authority.common_state",
            "authz.control.authority.authority_server",
        ):
            monkeypatch.setattr(f"{module}.LOOK_SECONDS", 0.2)
        old = a.ca.active
        steps = ("--ca", str(a.directory), "--truth", str(truth.address), "--wait")

        async def step(name: str, *more: str) -> tuple[int, str]:
            return await authz("ca", "root", name, *steps, "20", *more)

        await until(lambda: len(a.ca.others) == 2)
        held = b.ca.issue_svid(RATINGS, time.time())
        await c.server.stop(0)
        code, told = await authz("ca", "root", "prepare", *steps, "0")
        assert (code, "authority `c` cannot sign below" in told) == (3, True)
        code, told = await authz("ca", "root", "activate", "--unchecked", *steps, "0")
        assert (code, "authority `c` cannot sign below" in told) == (3, True)
        assert a.ca.active.id == old.id

        files = AuthorityFiles(c.directory, is_common=True)
        doors = Doors(listen="localhost:0", enrol="localhost:0", dns=("localhost",))
        c.server = AuthorityServer(files, doors, common=CommonState(truth.client(), files))
        await c.server.start()
        try:
            code, told = await step("prepare")
            assert code == 0, told
            code, told = await authz("ca", "root", "activate", *steps, "0")
            assert (code, "no proxy has said what it trusts" in told) == (3, True)
            async with proxy(tmp_path / "certs", held, a, c) as certs:
                for name in ("activate", "taint", "retire"):
                    code, told = await step(name)
                    assert code == 0, told
                assert len({one.ca.bundle_pem for one in (a, b, c)}) == 1
                assert (certs / "ca.crt").read_bytes() != old.root_pem
            for one in (a, b, c):
                (only,) = one.ca.authorities
                assert (only.state, only.id != old.id, len(one.ca.others)) == (AuthorityState.ACTIVE, True, 2)
                assert len(list(one.directory.glob("*/root.key"))) == (one is a)
            chain = (certs / "tls.crt").read_bytes()
            assert isinstance(validate_svid(chain, {MESH: b.ca.trust_bundle}, time.time()), Examined)
        finally:
            await c.server.stop(0)


@asynccontextmanager
async def proxy(out: Path, held: Issued, *members: Member) -> AsyncIterator[Path]:
    """What ``authz ca join --watch`` does for a proxy, in a thread."""
    write_secret_files(out, "tls", held.chain_pem, held.key_pem)
    servers = tuple(f"localhost:{member.server.ports['listen']}" for member in members)
    bundle = members[0].directory / BUNDLE_FILE
    stopping = threading.Event()
    joined = Enrolling(servers, bundle, out, KeyType.ECDSA_P256)
    thread = threading.Thread(target=keep_renewed, args=(joined, stopping))
    thread.start()
    try:
        yield out
    finally:
        stopping.set()
        await asyncio.to_thread(thread.join, 20)  # it may be asking those who run here


def test_what_is_not_signed_by_an_authority_changes_nothing(tmp_path: Path, client: TruthClient) -> None:
    ca = CertificateAuthority.create("mesh.test", time.time())
    ca.save(tmp_path / "a")
    stranger = CertificateAuthority.create("mesh.test", time.time())
    stranger.save(tmp_path / "x")
    bucket = TruthBucket(client, SECURITY)
    bucket.put("authorities.x", keep_announced(tmp_path / "x", stranger, JwtKeys(), time.time()))
    bucket.put("plan", write_plan(stranger, time.time(), signed_by=stranger))
    state = CommonState(client, AuthorityFiles(tmp_path / "a", is_common=True))
    state.look()
    assert [problem.partition(":")[0] for problem in state.problems] == [
        "`authorities.x` is not believed",
        "the plan for the roots is not believed",
    ]
    assert CertificateAuthority.load(tmp_path / "a").roots == ca.roots


async def test_an_authority_has_all_rights_that_it_needs_by_its_own_certificate_and_nobody_else_has(
    tmp_path: Path,
) -> None:
    ca = CertificateAuthority.create("mesh.test", time.time())
    ca.save(tmp_path / "ca")
    with truth_servers(tmp_path / "truth", tls=True, ca=ca) as servers:
        place = (
            "--truth",
            str(servers.address),
            "--truth-name",
            NAME,
            "--truth-ca",
            str(tmp_path / "ca" / BUNDLE_FILE),
        )
        assert (await authz("ca", "token", "create", str(RATINGS), "--ca", str(tmp_path / "ca"), *place))[0] == 0
        certificate, key = own_svid(tmp_path / "ca", time.time())
        access = TruthAccess(tmp_path / "ca" / BUNDLE_FILE, certificate, key, NAME)
        common = CommonState(TruthClient(servers.address, access), AuthorityFiles(tmp_path / "ca", is_common=True))
        try:
            common.begin()
            Ledger(tmp_path / "ca" / LEDGER_FILE).record(Issuance(1, "somebody", str(RATINGS), True, serial=1))
            common.look()
            assert common.problems == ()
        finally:
            common.stop()
        with servers.client(TruthRole.READER) as reader, pytest.raises((TruthAway, TruthRefused)):
            TruthBucket(reader, SECURITY).put("entries", b"entries: []")
