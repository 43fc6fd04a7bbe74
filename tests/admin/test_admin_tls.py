"""Who reads the operator's side over TLS: real handshakes, with, without and with foreign client certificates."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from authz.cli import application
from authz.core.errors import SettingsError
from authz.service.ports.http import AdminServer, make_admin_server
from authz.settings.sections import AdminSettings
from authz.settings.settings import Settings
from tests.service.ports.test_server_tls import Pair

TOKEN = "correct-horse-battery"
LONG_AGO = timedelta(days=2)


@pytest.fixture(scope="module")
def authority() -> Pair:
    return Pair("ca")


@pytest.fixture(scope="module")
def stranger() -> Pair:
    return Pair("another ca")


@pytest.fixture
def pki(tmp_path: Path, authority: Pair, stranger: Pair) -> Path:
    """Folders by who shows it, each with ``tls.crt`` and ``tls.key``; beside them ``ca.crt`` and ``token``."""
    for name, pair in {
        "server": Pair("server", authority),
        "client": Pair("client", authority),
        "foreign": Pair("foreign", stranger),
        "self-signed": Pair("client"),
        "expired": Pair("client", authority, began=datetime.now(UTC) - LONG_AGO),
    }.items():
        (tmp_path / name).mkdir()
        pair.write(tmp_path / name)
    (tmp_path / "ca.crt").write_bytes(authority.pem)
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    return tmp_path


@asynccontextmanager
async def serving(pki: Path, *, asks_certificate: bool, asks_token: bool) -> AsyncIterator[AdminServer]:
    """The page's server at an address that other machines reach."""
    settings = Settings(
        admin="0.0.0.0:0",
        admin_tls_certificate=pki / "server/tls.crt",
        admin_tls_key=pki / "server/tls.key",
        admin_tls_client_ca=pki / "ca.crt" if asks_certificate else None,
        admin_token_file=pki / "token" if asks_token else None,
    )

    async def page(request: Request) -> PlainTextResponse:
        return PlainTextResponse("the page")

    async def well(request: Request) -> PlainTextResponse:
        return PlainTextResponse('{"causes": []}')

    routes = [Route("/", page), *(Route(path, well) for path in ("/readyz", "/healthz", "/metrics"))]
    server = make_admin_server(Starlette(routes=routes), AdminSettings.of(settings))
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


async def read(server: AdminServer, pki: Path, shows: str, token: str) -> int | str:
    """The status of the answer, or ``refused`` where the handshake, or the first read after it in TLS 1.3, failed."""
    context = ssl.create_default_context(cafile=str(pki / "ca.crt"))
    if shows:
        context.load_cert_chain(pki / shows / "tls.crt", pki / shows / "tls.key")
    headers = {"authorization": f"Bearer {token}"} if token else {}
    port = server.address.rpartition(":")[2]
    try:
        async with httpx.AsyncClient(verify=context, trust_env=False) as client:
            return (await client.get(f"https://127.0.0.1:{port}/", headers=headers)).status_code
    except httpx.TransportError:
        return "refused"


@pytest.mark.parametrize(
    ("asks_certificate", "asks_token", "shows", "token", "expected"),
    [
        (True, False, "client", "", 200),
        (True, False, "", "", "refused"),
        (True, False, "foreign", "", "refused"),
        (True, False, "self-signed", "", "refused"),
        (True, False, "expired", "", "refused"),
        (True, False, "", TOKEN, "refused"),
        (True, True, "client", TOKEN, 200),
        (True, True, "client", "", 401),
        (True, True, "", TOKEN, "refused"),
        (False, True, "", TOKEN, 200),
        (False, True, "", "wrong-horse-battery", 401),
        (False, True, "", "", 401),
        (False, True, "foreign", "", 401),
    ],
)
async def test_only_who_shows_what_is_asked_for_reads(
    pki: Path, *, asks_certificate: bool, asks_token: bool, shows: str, token: str, expected: int | str
) -> None:
    async with serving(pki, asks_certificate=asks_certificate, asks_token=asks_token) as server:
        assert await read(server, pki, shows, token) == expected


@pytest.mark.parametrize(
    ("shows", "code", "said"),
    [
        (("--certificate", "client/tls.crt", "--key", "client/tls.key"), 0, ""),
        (("--certificate", "foreign/tls.crt", "--key", "foreign/tls.key"), 1, "does not answer"),
        ((), 1, "does not answer"),
        (("--certificate", "client/tls.crt"), 2, "--ca, --certificate and --key go together"),
    ],
)
async def test_authz_status_shows_a_client_certificate(
    pki: Path, monkeypatch: pytest.MonkeyPatch, shows: tuple[str, ...], code: int, said: str
) -> None:
    monkeypatch.chdir(pki)
    async with serving(pki, asks_certificate=True, asks_token=False) as server:
        address = f"127.0.0.1:{server.address.rpartition(':')[2]}"
        command = ["status", "--admin", address, "--ca", "ca.crt", *shows]
        result = await asyncio.to_thread(CliRunner().invoke, application, command)
    assert (result.exit_code, said in result.stderr) == (code, True), result.output


async def test_plain_http_gets_no_answer_from_a_port_that_speaks_tls(pki: Path) -> None:
    async with (
        serving(pki, asks_certificate=True, asks_token=False) as server,
        httpx.AsyncClient(trust_env=False) as client,
    ):
        with pytest.raises(httpx.TransportError):
            await client.get(f"http://127.0.0.1:{server.address.rpartition(':')[2]}/")


async def test_tls_without_anything_to_show_does_not_start(pki: Path) -> None:
    """TLS alone says who answers, not who asks."""
    with pytest.raises(SettingsError, match="can be reached from other machines"):
        async with serving(pki, asks_certificate=False, asks_token=False):
            pass


def shown(server: AdminServer) -> bytes:
    """The server's certificate, as a new connection sees it."""
    return ssl.get_server_certificate(("127.0.0.1", int(server.address.rpartition(":")[2])), timeout=10).encode()


async def test_a_renewed_certificate_is_taken_up_and_half_a_renewal_is_not(pki: Path, authority: Pair) -> None:
    first, second = (pki / "server/tls.crt").read_bytes(), Pair("server", authority)
    async with serving(pki, asks_certificate=False, asks_token=True) as server:
        assert not server.renew()
        assert await asyncio.to_thread(shown, server) == first
        (pki / "server/tls.crt").write_bytes(second.pem)
        assert not server.renew(), "its key is still the old one"
        assert await asyncio.to_thread(shown, server) == first
        second.write(pki / "server")
        assert server.renew()
        assert await asyncio.to_thread(shown, server) == second.pem
        assert await read(server, pki, "", TOKEN) == 200


@pytest.mark.parametrize(
    "spoil",
    [
        lambda pki: (pki / "server/tls.key").write_bytes((pki / "client/tls.key").read_bytes()),
        lambda pki: (pki / "server/tls.crt").unlink(),
        lambda pki: (pki / "ca.crt").write_text("no certificate"),
    ],
    ids=["key of another", "no file", "no authority"],
)
async def test_files_that_cannot_be_used_refuse_the_start(pki: Path, spoil: Callable[[Path], object]) -> None:
    spoil(pki)
    with pytest.raises(SettingsError, match="the files cannot be used"):
        async with serving(pki, asks_certificate=True, asks_token=False):
            pass
