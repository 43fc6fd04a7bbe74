"""``authz ca join`` against a real authority: the first certificate, renewal, a new root, refusals and exit codes."""

import asyncio
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509

from authz.cli.enrol import Declined, Enrolling, keep_renewed
from authz.control.authority.authority_files import AuthorityFiles
from authz.control.authority.authority_server import AuthorityServer, Doors
from authz.core.errors import FetchError
from authz.core.spiffe import SpiffeId
from authz.identity.ca import BUNDLE_FILE, CertificateAuthority
from authz.identity.join_tokens import TOKENS_DIRECTORY, TokenDirectory, make_token
from authz.identity.keys import KeyType
from authz.identity.ledger import LEDGER_FILE, Ledger
from authz.identity.registrar import Issuance
from authz.identity.rotation import activate, prepare, retire, taint
from authz.identity.secret_files import write_secret_files

pytestmark = pytest.mark.slow
RATINGS = SpiffeId.parse("spiffe://mesh.test/ns/shop/sa/ratings")


@dataclass
class Running:
    """An authority in a thread of its own, as the command's own calls block."""

    directory: Path
    ca: CertificateAuthority
    server: AuthorityServer
    loop: asyncio.AbstractEventLoop

    def change(self, ca: CertificateAuthority) -> None:
        self.ca = ca
        ca.save(self.directory / "ca")
        self.do(self.server.look)

    def write(self, name: str, text: str) -> None:
        (self.directory / name).write_text(text)
        self.do(self.server.look)

    def do(self, call: Callable[[], None]) -> None:
        async def doing() -> None:
            call()

        asyncio.run_coroutine_threadsafe(doing(), self.loop).result(10)

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self.server.stop(0), self.loop).result(10)

    @property
    def out(self) -> Path:
        return self.directory / "certs"

    def arguments(self, door: str, *more: str) -> list[str]:
        bundle = self.directory / "ca" / BUNDLE_FILE
        where = f"localhost:{self.server.ports[door]}"
        return ["ca", "join", "--server", where, "--bundle", str(bundle), "--out", str(self.out), *more]

    def token(self) -> str:
        text, kept = make_token(os.urandom(32), RATINGS, time.time(), 60)
        TokenDirectory(self.directory / "ca" / TOKENS_DIRECTORY).store(kept)
        (self.directory / "token").write_text(text)
        return str(self.directory / "token")

    def enrolling(self) -> Enrolling:
        where = f"localhost:{self.server.ports['listen']}"
        return Enrolling((where,), self.directory / "ca" / BUNDLE_FILE, self.out, KeyType.ECDSA_P256)

    def deliver(self, ttl_seconds: float = 3600, age_seconds: float = 0) -> None:
        issued = self.ca.issue_svid(RATINGS, time.time() - age_seconds, ttl_seconds=ttl_seconds)
        write_secret_files(self.out, "tls", issued.chain_pem, issued.key_pem)

    def held(self) -> x509.Certificate:
        return x509.load_pem_x509_certificate((self.out / "tls.crt").read_bytes())


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    ca = CertificateAuthority.create("mesh.test", time.time())
    ca.save(tmp_path / "ca")
    for name in ("entries.yaml", "revoked.txt"):
        (tmp_path / name).write_text("")
    files = AuthorityFiles(tmp_path / "ca", tmp_path / "entries.yaml", tmp_path / "revoked.txt")
    server = AuthorityServer(files, Doors(listen="localhost:0", enrol="localhost:0", dns=("localhost",)))
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    asyncio.run_coroutine_threadsafe(server.start(), loop).result(10)
    authority = Running(tmp_path, ca, server, loop)
    yield authority
    authority.stop()
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()


def authz(*arguments: str) -> tuple[int, str]:
    done = subprocess.run([sys.executable, "-m", "authz", *arguments], capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout + done.stderr


def until(happened: Callable[[], bool], seconds: float = 15) -> None:
    ends = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < ends
        time.sleep(0.05)


def test_a_token_gives_a_certificate_once_and_that_renews_itself(running: Running) -> None:
    token = running.token()
    code, told = authz(*running.arguments("enrol", "--token-file", token))
    assert (code, "tls.crt, valid until" in told) == (0, True)
    first = running.held().serial_number
    assert (running.out / "tls.key").stat().st_mode & 0o777 == 0o600
    code, told = authz(*running.arguments("enrol", "--token-file", token))
    assert code == 3
    assert "refused: the join token is unknown or was used before: it was looked for in the directory of this" in told
    assert authz(*running.arguments("listen"))[0] == 0
    assert running.held().serial_number != first


REFUSED = [
    ("revoked", 3, "is revoked"),
    ("expired", 3, "and renews nothing; a join token is needed"),
    ("nothing there", 1, "there is no SVID `tls` in"),
    ("no answer", 1, "gave no answer"),
    ("self-made", 1, "gave no answer"),
    ("readable by others", 1, "is a private key that others may read"),
    ("garbage", 1, "is not a PEM certificate"),
]


@pytest.mark.parametrize(("case", "code", "reason"), REFUSED, ids=[row[0] for row in REFUSED])
def test_what_ends_a_renewal_is_said_and_has_its_exit_code(running: Running, case: str, code: int, reason: str) -> None:
    if case != "nothing there":
        running.deliver(60 if case == "expired" else 3600, 120 if case == "expired" else 0)
    arguments = running.arguments("listen")
    match case:
        case "revoked":
            running.write("revoked.txt", f"serial:{running.held().serial_number:x}\n")
        case "no answer":
            arguments[3] = "localhost:1"
        case "self-made":
            issued = CertificateAuthority.create("mesh.test", time.time()).issue_svid(RATINGS, time.time())
            write_secret_files(running.out, "tls", issued.chain_pem, issued.key_pem)
        case "readable by others":
            (running.out / "tls.key").chmod(0o644)
        case "garbage":
            (running.out / "tls.crt").write_text("garbage")
    found, told = authz(*arguments)
    assert (found, reason in told) == (code, True), told
    assert "Traceback" not in told
    assert "ssl_transport" not in told


def test_an_impostor_of_the_authority_never_sees_a_token(running: Running, tmp_path: Path) -> None:
    """Its certificate is held against the bundle before anything is said: the token stays good."""
    (tmp_path / "impostor").mkdir()
    CertificateAuthority.create("mesh.test", time.time()).save(tmp_path / "impostor")
    impostor = AuthorityServer(AuthorityFiles(tmp_path / "impostor"), Doors(enrol="localhost:0", dns=("localhost",)))
    asyncio.run_coroutine_threadsafe(impostor.start(), running.loop).result(10)
    token = Path(running.token()).read_text()
    real = running.server.ports["enrol"]
    bundle = running.directory / "ca" / BUNDLE_FILE
    try:
        joining = Enrolling((f"localhost:{impostor.ports['enrol']}",), bundle, running.out, KeyType.ECDSA_P256)
        with pytest.raises(FetchError, match="gave no answer"):
            joining.enrol(time.time(), token)
    finally:
        asyncio.run_coroutine_threadsafe(impostor.stop(0), running.loop).result(10)
    assert impostor.record.counts.issued == sum(impostor.record.counts.refused.values()) == 0
    assert not (running.out / "tls.key").exists()
    Enrolling((f"localhost:{real}",), bundle, running.out, KeyType.ECDSA_P256).enrol(time.time(), token)
    assert running.held().extensions


def test_the_next_authority_is_asked_when_one_is_down_and_comes_first_from_then_on(running: Running) -> None:
    with socket.socket() as taken:  # bound and not listening: refused at once
        taken.bind(("127.0.0.1", 0))
        dead = f"127.0.0.1:{taken.getsockname()[1]}"
        joining = running.enrolling()
        (alive,) = joining.servers
        joining.servers = (dead, alive)
        running.deliver()
        before = running.held().serial_number
        joining.enrol(time.time())
        assert running.held().serial_number != before
        assert joining.servers == (alive, dead)
        joining.servers = (dead,)
        with pytest.raises(FetchError, match="gave no answer"):
            joining.enrol(time.time())


@pytest.mark.parametrize(
    ("ahead_seconds", "reason"),
    [(3600.0, "not valid now: whose clock is wrong"), (48 * 3600.0, "the certificate expired")],
    ids=["its certificates begin later", "it takes ours to be expired"],
)
def test_the_next_authority_is_asked_when_the_clock_of_one_is_wrong(
    running: Running, ahead_seconds: float, reason: str
) -> None:
    ahead = [0.0]  # only later, for otherwise its own certificate is refused first
    files, doors = AuthorityFiles(running.directory / "ca"), Doors(listen="localhost:0", dns=("localhost",))
    wrong = AuthorityServer(files, doors, clock=lambda: time.time() + ahead[0])
    asyncio.run_coroutine_threadsafe(wrong.start(), running.loop).result(10)
    ahead[0] = ahead_seconds
    joining = running.enrolling()
    (right,) = joining.servers
    joining.servers = (f"localhost:{wrong.ports['listen']}", right)
    running.deliver()
    before = running.held().serial_number
    try:
        joining.enrol(time.time())
        assert joining.servers[0] == right
        assert running.held().serial_number != before
        joining.servers = joining.servers[1:]
        with pytest.raises((FetchError, Declined), match=reason):
            joining.enrol(time.time())
    finally:
        asyncio.run_coroutine_threadsafe(wrong.stop(0), running.loop).result(10)


def test_a_bundle_that_holds_no_certificate_is_said(running: Running) -> None:
    (running.directory / "empty.pem").write_text("nothing")
    arguments = running.arguments("enrol", "--token-file", running.token())
    arguments[5] = str(running.directory / "empty.pem")
    code, told = authz(*arguments)
    assert code == 1
    assert "empty.pem` is not a trust bundle: not a PEM certificate" in told


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (("--watch", "--token-file", "TOKEN"), "needs --renew: the door for tokens renews nothing"),
        (("--renew", "localhost:1"), "--renew needs --watch"),
        (("--on-renewal", "true"), "--on-renewal needs --watch"),
    ],
)
def test_options_that_cannot_work_together_are_wrong_usage(
    running: Running, more: tuple[str, ...], reason: str
) -> None:
    token = running.token()
    code, told = authz(*running.arguments("enrol", *(token if part == "TOKEN" else part for part in more)))
    assert (code, reason in told) == (2, True), told


def test_one_command_line_serves_the_first_start_and_every_other_and_ends_on_a_signal(running: Running) -> None:
    """The second start finds a spent token and a dead authority, and does not mind."""
    renew = f"localhost:{running.server.ports['listen']}"
    command = running.arguments("enrol", "--token-file", running.token(), "--watch", "--renew", renew)
    for start in range(2):
        if start:
            running.stop()
        with subprocess.Popen(
            [sys.executable, "-m", "authz", *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            assert "tls.crt, valid until" in process.stdout.readline()
            time.sleep(0.5)
            process.terminate()
            assert process.wait(15) == 0


def test_a_certificate_in_files_is_renewed_at_half_of_its_life(running: Running) -> None:
    running.write("entries.yaml", f"entries: [{{spiffeID: '{RATINGS}', parentID: '{RATINGS}', x509SVIDTTL: 4}}]")
    running.deliver(4)
    with watching(running):
        until(lambda: len({i.serial for i in issued(running)}) >= 3)
    assert running.held().serial_number in {i.serial for i in issued(running)}


def test_whoever_asks_again_needs_no_other_handshake_until_its_certificate_is_another(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    real = grpc.secure_channel

    def open_one(target: str, *arguments: Any, **options: Any) -> grpc.Channel:
        opened.append(target)
        return real(target, *arguments, **options)

    monkeypatch.setattr(grpc, "secure_channel", open_one)
    running.deliver()
    joining = running.enrolling()
    for _ in range(3):
        assert not joining.follow(time.time())
    joining.hang_up()
    joining.hang_up()
    assert len(opened) <= 2  # the first answer may bring other roots than those of the start
    joining.enrol(time.time())
    before = len(opened)
    joining.follow(time.time())
    assert len(opened) == before + 1
    joining.hang_up()


def test_whoever_watches_asks_as_often_as_the_authority_can_answer(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    running.deliver()
    joining = running.enrolling()
    joining.follow(time.time())
    assert joining.again == 0
    monkeypatch.setattr("authz.control.authority.holders.ASKS_PER_SECOND", 0.05)
    joining.follow(time.time())
    assert joining.again == 20
    joining.hang_up()


def test_a_new_root_reaches_files_as_it_reaches_secret_discovery(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trusted within seconds of `prepare`, signed by it within seconds of `activate`; half a life is far away."""
    monkeypatch.setattr("authz.cli.enrol.LOOK_SECONDS", 0.2)
    running.deliver()
    old = running.held()
    with watching(running):
        running.change(prepare(running.ca, time.time()))
        until(lambda: (running.out / "ca.crt").exists() and (running.out / "ca.crt").read_bytes().count(b"BEGIN") == 2)
        assert running.held() == old
        running.change(activate(running.ca))
        until(lambda: running.held() != old)
        running.change(retire(taint(running.ca)))
        until(lambda: (running.out / "ca.crt").read_bytes() == running.ca.bundle_pem)
    running.held().verify_directly_issued_by(running.ca.active.signing)


def test_whoever_watches_goes_on_until_its_certificate_has_expired(
    running: Running, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("authz.cli.enrol.LOOK_SECONDS", 0.2)
    running.deliver(3)
    running.write("revoked.txt", f"{RATINGS}\n")
    with pytest.raises(Declined):
        keep_renewed(running.enrolling(), threading.Event())
    told = capsys.readouterr().err
    assert "is revoked" in told
    assert told.count("not renewed, trying again") == 1  # said once, not with every attempt


def test_a_certificate_that_ends_while_the_authority_is_asked_is_told_as_expired(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The authority's handshake refuses it first, which looks like silence; asking again would change nothing."""
    running.deliver()

    def follow(*_: object) -> bool:
        running.deliver(ttl_seconds=60, age_seconds=61)
        raise FetchError("Socket closed")

    monkeypatch.setattr("authz.cli.enrol.LOOK_SECONDS", 0.1)
    monkeypatch.setattr(Enrolling, "follow", follow)
    with pytest.raises(Declined, match=r"expired .* a join token is needed"):
        keep_renewed(running.enrolling(), threading.Event())


class watching:
    """``keep_renewed`` in a thread while the block runs."""

    def __init__(self, running: Running) -> None:
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=keep_renewed, args=(running.enrolling(), self._stopping))

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join(15)
        assert not self._thread.is_alive()


def issued(running: Running) -> list[Issuance]:
    return [i for i in Ledger(running.directory / "ca" / LEDGER_FILE).read() if i.is_issued]
