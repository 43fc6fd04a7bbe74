"""Applications as others wrote them get identities without us: py-spiffe, and a Go program with go-spiffe."""

import asyncio
import sys
import threading
import time
from pathlib import Path

import pytest
from spiffe import JwtSource, SpiffeId, WorkloadApiClient, X509Source
from spiffe.errors import PySpiffeError
from spiffe.workloadapi.x509_context import X509Context

from authz._proto import workload_pb2
from authz.identity.ca import CertificateAuthority
from tests.control.authority.workload import RATINGS, REVIEWS, authority, entry, run


def address(directory: Path) -> str:
    return f"unix://{directory}/sds.sock"


# py-spiffe


async def test_py_spiffe_gets_identities_bundles_and_tokens(directory: Path) -> None:
    def ask() -> None:
        with X509Source(socket_path=address(directory), timeout_in_seconds=10) as source:
            held_svid = source.get_x509_context().default_svid
            assert str(held_svid.spiffe_id) == REVIEWS
            bundle = source.get_bundle_for_trust_domain(held_svid.spiffe_id.trust_domain)
            assert bundle is not None
            assert len(bundle.x509_authorities) == 1
        with JwtSource(socket_path=address(directory), timeout_in_seconds=10) as tokens:
            held = tokens.fetch_svid(audience={"reports"})
            assert str(held.spiffe_id) == REVIEWS
            keys = tokens.get_bundle_for_trust_domain(held.spiffe_id.trust_domain)
            assert keys is not None
            assert len(keys.jwt_authorities) == 1
        with WorkloadApiClient(address(directory)) as client:
            context = client.fetch_x509_context()
            assert [str(svid.spiffe_id) for svid in context.x509_svids] == [REVIEWS, RATINGS]
            other = client.fetch_jwt_svid({"reports"}, SpiffeId(RATINGS))
            assert str(client.validate_jwt_svid(other.token, "reports").spiffe_id) == RATINGS
            with pytest.raises(PySpiffeError, match="not for the audience `billing`"):
                client.validate_jwt_svid(other.token, "billing")

    async with authority(directory, entry(REVIEWS), entry(RATINGS)):
        await asyncio.to_thread(ask)


async def test_py_spiffe_is_told_that_there_is_no_identity(directory: Path) -> None:
    def ask() -> None:
        with WorkloadApiClient(address(directory)) as client, pytest.raises(PySpiffeError, match="no identity issued"):
            client.fetch_x509_svid()

    async with authority(directory, entry(REVIEWS, "unix:uid:424242")):
        await asyncio.to_thread(ask)


async def test_py_spiffe_sees_a_renewal(directory: Path) -> None:
    seen: list[int] = []
    came = threading.Semaphore(0)

    def note(context: X509Context) -> None:
        seen.append(context.default_svid.leaf.serial_number)
        came.release()

    async with authority(directory) as server:
        with WorkloadApiClient(address(directory)) as client:
            stream = client.stream_x509_contexts(note, lambda _: None)
            assert await asyncio.to_thread(came.acquire, timeout=10)
            due = server.stock.shelf.next_due()
            assert due is not None
            server.stock.tick(due)
            assert await asyncio.to_thread(came.acquire, timeout=10)
            stream.cancel()
    assert len(set(seen)) == 2


def test_our_messages_have_the_numbers_of_py_spiffes() -> None:
    from spiffe._proto import workload_pb2 as theirs

    compared = 0
    for name, ours in workload_pb2.DESCRIPTOR.message_types_by_name.items():
        other = theirs.DESCRIPTOR.message_types_by_name[name]
        assert {f.name: (f.number, f.type, f.is_repeated) for f in ours.fields} == {
            f.name: (f.number, f.type, f.is_repeated) for f in other.fields
        }, name
        compared += len(ours.fields)
    assert compared == 21


# The command


async def test_the_command_serves_everything_and_ends_on_a_signal(directory: Path) -> None:
    CertificateAuthority.create("mesh.test", time.time()).save(directory / "ca")
    (directory / "entries.yaml").write_text(f"entries:\n{entry()}")
    options = ["--ca", "ca", "--entries", "entries.yaml", "--socket", "sds.sock", "--bundle-endpoint", "127.0.0.1:0"]
    command = [sys.executable, "-m", "authz", "ca", "serve", *options, "--jwt-issuer", "https://ca.example"]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, cwd=directory, stderr=pipe)
    assert process.stderr is not None
    try:
        async with asyncio.timeout(30):
            while b"serving secrets" not in (line := await process.stderr.readline()):
                assert line, "it ended"
        assert b"(bundle port " in line

        def ask() -> None:
            with WorkloadApiClient(address(directory)) as client:
                assert str(client.fetch_x509_svid().spiffe_id) == REVIEWS
                assert str(client.fetch_jwt_svid({"reports"}).spiffe_id) == REVIEWS

        await asyncio.to_thread(ask)
    finally:
        process.terminate()
        complaint = await process.stderr.read()
        code = await asyncio.wait_for(process.wait(), 20)
    assert code == 0, complaint
    assert b"Traceback" not in complaint
    assert b"eyJ" not in complaint  # what a token begins with


# go-spiffe


@pytest.mark.slow
async def test_go_spiffe_gets_an_identity_and_meets_itself_by_mutual_tls(directory: Path, go_spiffe: str) -> None:
    async with authority(directory):
        code, told, complaint = await run(go_spiffe, "identity", address(directory))
        assert (code, complaint) == (0, "")
        assert told.splitlines() == [f"svid {REVIEWS}", "bundle mesh.test 1", "mtls hello"]


@pytest.mark.slow
async def test_go_spiffe_gets_a_token_and_validates_it_both_ways(directory: Path, go_spiffe: str) -> None:
    async with authority(directory):
        code, told, complaint = await run(go_spiffe, "token", address(directory), "reports")
        assert (code, complaint) == (0, "")
        validated, parsed, refused = told.splitlines()
        assert (validated, parsed) == (f"validated {REVIEWS}", f"parsed {REVIEWS}")
        assert "code = InvalidArgument desc = the token is not for the audience `somebody-else`" in refused


@pytest.mark.slow
async def test_go_spiffe_sees_a_renewal(directory: Path, go_spiffe: str) -> None:
    async with authority(directory, entry(REVIEWS, x509SVIDTTL=4)):
        code, told, complaint = await run(go_spiffe, "renewed", address(directory))
        assert (code, told.splitlines(), complaint) == (0, [f"first {REVIEWS}", f"renewed {REVIEWS}"], "")
