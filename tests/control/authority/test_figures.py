"""The authority's figures: names of istiod, and what an operator must be warned of."""

import asyncio
import os
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import httpx
import pytest

from authz._proto import sds_pb2 as wire
from authz.control.authority.authority_files import AuthorityFiles
from authz.control.authority.authority_server import AuthorityServer, Doors
from authz.core.errors import SettingsError
from authz.identity.ca import CertificateAuthority
from authz.identity.keys import generate_key
from authz.identity.registrar import write_certificate_request

REVIEWS, STRANGER = "spiffe://mesh.test/ns/shop/sa/reviews", "spiffe://mesh.test/ns/shop/sa/stranger"
METHOD = "/authz.identity.v1.Enrolment/Enrol"
FETCH = "/envoy.service.secret.v3.SecretDiscoveryService/FetchSecrets"


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[AuthorityServer]:
    CertificateAuthority.create("mesh.test", time.time()).save(tmp_path / "ca")
    entries = tmp_path / "entries.yaml"
    entries.write_text(f"entries: [{{spiffeID: '{REVIEWS}', selectors: ['unix:uid:{os.getuid()}']}}]")
    doors = Doors(
        socket=tmp_path / "sds.sock", enrol="localhost:0", dns=("localhost",), admin=f"unix:{tmp_path}/admin.sock"
    )
    running = AuthorityServer(AuthorityFiles(tmp_path / "ca", entries), doors)
    await running.start()
    yield running
    await running.stop()


async def get(server: AuthorityServer, path: str) -> httpx.Response:
    transport = httpx.AsyncHTTPTransport(uds=server.doors.admin.removeprefix("unix:"))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        return await client.get(path)


async def metrics(server: AuthorityServer) -> dict[str, float]:
    text = (await get(server, "/metrics")).text
    return {name: float(value) for name, value in re.findall(r"^([^#\s]\S*) (\S+)$", text, re.M)}


async def fetch(server: AuthorityServer, name: str) -> bool:
    async with grpc.aio.insecure_channel(f"unix:{server.doors.socket}") as channel:
        request = wire.DiscoveryRequest(resource_names=[name])
        call = channel.unary_unary(FETCH, wire.DiscoveryRequest.SerializeToString, wire.DiscoveryResponse.FromString)
        try:
            await call(request)
        except grpc.aio.AioRpcError:
            return False
        return True


async def test_issued_and_refused_certificates_are_counted(server: AuthorityServer) -> None:
    before = await metrics(server)
    assert await fetch(server, REVIEWS)
    assert not await fetch(server, STRANGER)
    after = await metrics(server)
    grown = {name: after[name] - before[name] for name in before if after[name] != before[name]}
    assert grown == {
        "citadel_server_csr_count": 2,
        "citadel_server_success_cert_issuance_count": 1,
        "citadel_server_authentication_failure_count": 1,
        "authz_sds_refused_total": 1,
    }
    end = after[f'authz_ca_svid_expiration_timestamp_seconds{{identity="{REVIEWS}"}}']
    assert end == pytest.approx(time.time() + 24 * 3600, abs=60)


async def enrol(server: AuthorityServer, request: bytes) -> str:
    """By the door for bearers of a token, with a token that nobody made."""
    roots = (server.files.directory / "bundle.pem").read_bytes()
    address = f"localhost:{server.ports['enrol']}"
    async with grpc.aio.secure_channel(address, grpc.ssl_channel_credentials(roots)) as channel:
        call = channel.unary_unary(METHOD, wire.EnrolRequest.SerializeToString, wire.EnrolResponse.FromString)
        try:
            await call(wire.EnrolRequest(join_token="made up", certificate_request=request))
        except grpc.aio.AioRpcError as error:
            return error.code().name
        return "OK"


@pytest.mark.parametrize(
    ("request_pem", "code", "metric"),
    [
        (b"hello", "INVALID_ARGUMENT", "citadel_server_csr_parsing_err_count"),
        (write_certificate_request(generate_key()), "PERMISSION_DENIED", "citadel_server_authentication_failure_count"),
    ],
)
async def test_refusals_are_counted_as_istiod_does(
    server: AuthorityServer, request_pem: bytes, code: str, metric: str
) -> None:
    before = await metrics(server)
    assert await enrol(server, request_pem) == code
    after = await metrics(server)
    grown = {name for name in before if after[name] != before[name]}
    assert grown == {"citadel_server_csr_count", metric}


async def test_what_should_have_been_signed_and_was_not_is_an_error_of_ours(server: AuthorityServer) -> None:
    """The authority's own certificates have expired: nobody is to blame who asks."""
    server.stock.clock = lambda: time.time() + 20 * 365 * 24 * 3600
    assert not await fetch(server, REVIEWS)
    told = await metrics(server)
    assert told['citadel_server_csr_sign_err_count{error="CERT_GEN_ERROR"}'] == 1
    assert told["citadel_server_authentication_failure_count"] == 0


async def test_a_refused_change_is_told_until_it_is_mended(server: AuthorityServer) -> None:
    entries = server.files.entries
    assert entries is not None
    good = entries.read_text()
    assert (await get(server, "/healthz")).json() == {"status": "healthy", "causes": []}
    entries.write_text("entries: [3]")
    server.look()
    (cause,) = (await get(server, "/healthz")).json()["causes"]
    assert cause["message"].startswith("a change was refused, what was in force stays: ")
    assert "entries.yaml:1:11" in cause["message"]
    assert (await get(server, "/readyz")).json() == {"status": "ready", "causes": []}
    told = await metrics(server)
    assert (told["authz_ca_last_reload_successful"], told["authz_ca_reload_failures_total"]) == (0, 1)
    assert await fetch(server, REVIEWS)
    entries.write_text(good)
    server.look()
    assert (await get(server, "/healthz")).json()["status"] == "healthy"
    assert (await metrics(server))["authz_ca_last_reload_successful"] == 1


async def test_a_certificate_of_its_own_that_cannot_be_renewed_is_told(server: AuthorityServer) -> None:
    server.clock = lambda: time.time() + 20 * 365 * 24 * 3600
    server.look()
    told = [cause["message"].partition(": ")[0] for cause in (await get(server, "/healthz")).json()["causes"]]
    assert told == ["the authority's own certificate is not renewed", "the other authorities are not told of a change"]
    server.clock = lambda: time.time() + 60
    server._own_renewal = 0
    server.look()
    assert (await get(server, "/healthz")).json()["causes"] == []


async def test_an_authority_that_has_expired_says_so_when_it_starts(tmp_path: Path) -> None:
    CertificateAuthority.create("mesh.test", time.time() - 100, intermediate_ttl_seconds=10).save(tmp_path / "ca")
    server = AuthorityServer(AuthorityFiles(tmp_path / "ca"), Doors(enrol="localhost:0"))
    with pytest.raises(SettingsError, match="cannot sign a certificate for itself: the certificate would end"):
        await server.start()


async def test_the_expiry_of_root_and_chain_is_told(server: AuthorityServer) -> None:
    told, now = await metrics(server), time.time()
    assert told["citadel_server_root_cert_expiry_timestamp"] > told["citadel_server_cert_chain_expiry_timestamp"] > now


async def test_health_is_answered_and_nothing_else(server: AuthorityServer) -> None:
    answers = await asyncio.gather(*(get(server, path) for path in ("/healthz", "/readyz", "/issued.jsonl")))
    assert [answer.status_code for answer in answers] == [200, 200, 404]


async def test_figures_are_not_for_other_machines(tmp_path: Path) -> None:
    CertificateAuthority.create("mesh.test", time.time()).save(tmp_path / "ca")
    server = AuthorityServer(AuthorityFiles(tmp_path / "ca"), Doors(admin="0.0.0.0:0"))  # it is refused
    with pytest.raises(SettingsError, match="can be reached from other machines"):
        await server.start()
