"""Who may ask at a door, and how it is opened."""

import asyncio
import json
import ssl
import stat
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives import serialization

from authz.core.errors import SettingsError
from authz.settings.precedence import read_settings
from tests.service.doors.opened import WHOLE, opened
from tests.service.doors.pages import configuration
from tests.service.doors.test_forms import ASKED, POLICIES
from tests.service.ports.test_server_tls import Pair
from tests.service.test_app import worker, write_policies

DOOR: dict[str, Any] = {"kind": "nginx", "namespace": "shop", "labels": {"app": "api"}}


def write(pair: Pair, folder: Path, name: str) -> tuple[Path, Path]:
    certificate, key = folder / f"{name}.crt", folder / f"{name}.key"
    certificate.write_bytes(pair.certificate.public_bytes(serialization.Encoding.PEM))
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    key.write_bytes(pair.key.private_bytes(pem, pkcs8, serialization.NoEncryption()))
    return certificate, key


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0", "192.0.2.1:0", "proxy.example:0"])
@pytest.mark.parametrize("tls", [False, True])
async def test_a_door_that_strangers_could_reach_does_not_open(listen: str, tls: bool, tmp_path: Path) -> None:
    """Whoever asks there is believed; a certificate of its own keeps nobody out."""
    certificate, key = write(Pair("server"), tmp_path, "server")
    settings = {"tls_certificate": certificate, "tls_key": key} if tls else {}
    with pytest.raises(SettingsError, match="can be reached from other machines"):
        async with opened(POLICIES, tmp_path, "nginx", listen=listen, settings=settings, **WHOLE):
            pass


async def test_a_unix_socket_has_the_permissions_of_the_setting(tmp_path: Path) -> None:
    async with opened(POLICIES, tmp_path, "nginx", settings={"socket_mode": "600"}, **WHOLE) as door:
        assert stat.S_IMODE((tmp_path / "door.sock").stat().st_mode) == 0o600
        assert (await door.client.get("/", headers=ASKED["nginx"])).status_code == 200
        with pytest.raises(SettingsError, match="another server holds it"):
            async with opened(POLICIES, tmp_path, "nginx", **WHOLE):
                pass
    assert not (tmp_path / "door.sock").exists()


def client(ca: Path, own: tuple[Path, Path] | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(ca))
    context.check_hostname = False
    if own is not None:
        context.load_cert_chain(*own)
    return context


@pytest.mark.parametrize(
    ("who", "status"),
    [
        ("spiffe://cluster.local/ns/shop/sa/web", 200),
        ("spiffe://cluster.local/ns/other/sa/web", 403),
        ("spiffe://cluster.local/ns/shop/sa/other", 403),
        ("proxy.example", 200),
        ("revoked", 403),
    ],
)
async def test_a_proxy_that_asks_by_certificate_asks_for_the_doors_own_workload(
    who: str, status: int, tmp_path: Path
) -> None:
    authority = Pair("authority")
    ca, _ = write(authority, tmp_path, "ca")
    certificate, key = write(Pair("server", authority), tmp_path, "server")
    own = write(Pair("proxy", authority, spiffe=who if who.startswith("spiffe:") else ""), tmp_path, "proxy")
    settings = {"tls_certificate": certificate, "tls_key": key, "tls_client_ca": ca}
    door_ = {**WHOLE, "service_account": "web"}

    def judge(certificate: str, now: float) -> str:
        assert certificate.startswith("-----BEGIN CERTIFICATE-----")
        return "it is revoked" if who == "revoked" else ""

    async with opened(
        POLICIES, tmp_path, "nginx", listen="0.0.0.0:0", settings=settings, judge_caller=judge,
        verify=client(ca, own), **door_,
    ) as door:  # fmt: skip
        port = door.address.rpartition(":")[2]
        answer = await door.client.get(f"https://127.0.0.1:{port}/", headers=ASKED["nginx"])
        assert answer.status_code == status
        async with httpx.AsyncClient(verify=client(ca, None), trust_env=False) as stranger:
            with pytest.raises(httpx.HTTPError):
                await stranger.get(f"https://127.0.0.1:{port}/", headers=ASKED["nginx"])


@pytest.mark.parametrize(
    ("door", "said"),
    [
        ({"namespace": ""}, "`namespace` is missing"),
        ({"labels": {}}, "`labels` is missing"),
        ({"kind": "apache"}, "kind"),
        ({"path_prefix": "/x"}, "`path_prefix` is that of `envoy-http`"),
        ({"kind": "envoy-http", "path_prefix": "x"}, "begins with a slash"),
        ({"kind": "grpc-web"}, "`namespace` is not for `grpc-web`"),
        ({"upstream": []}, "unknown setting `http_doors.0.upstream`"),
    ],
)
def test_a_door_that_is_not_whole_is_refused_by_name(door: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError) as refused:
        read_settings({"http_doors": [{"listen": "unix:/x", **DOOR, **door}]}, environment={})
    assert said in str(refused.value)
    assert "http_doors" in str(refused.value)


def test_a_door_comes_from_a_file_or_as_json_from_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "authz.yaml"
    file.write_text(configuration("yaml", "The server's side"))
    door = read_settings({}, file=file, environment={}).http_doors[0]
    assert (door.kind, door.listen, door.upstream_headers) == ("nginx", "unix:/run/authz/nginx.sock", ("x-subject",))
    told = json.dumps([{"listen": "unix:/x", **DOOR}])
    assert read_settings({}, environment={"AUTHZ_HTTP_DOORS": told}).http_doors[0].labels == {"app": "api"}
    with pytest.raises(SettingsError, match="in the environment as JSON"):
        read_settings({}, environment={"AUTHZ_HTTP_DOORS": "nginx"})


@pytest.mark.slow
async def test_a_server_of_several_workers_opens_its_doors_once_and_closes_them(tmp_path: Path) -> None:
    doors = json.dumps([{"listen": f"unix:{tmp_path}/door.sock", **DOOR, "gateway": True, "all_headers": True}])
    flags = ["--policies", str(write_policies(tmp_path)), "--listen", f"unix:{tmp_path}/authz-0.sock"]
    flags += ["--workers", "2", "--drain-delay-seconds", "0"]
    async with worker(*flags, http_doors=doors) as service:
        await service.says(r"door      nginx unix:")
        await service.says("workers serve")
        transport = httpx.AsyncHTTPTransport(uds=f"{tmp_path}/door.sock")
        async with httpx.AsyncClient(transport=transport, base_url="http://door") as asking:
            headers = {**ASKED["nginx"], "x-original-uri": "/open"}
            assert (await asking.get("/", headers=headers)).status_code == 200
            shut = await asking.get("/", headers={**headers, "x-original-uri": "/shut"})
            assert (shut.status_code, shut.text) == (403, "RBAC: access denied")
        service.process.terminate()
        async with asyncio.timeout(60):
            assert await service.process.wait() == 0
        assert not (tmp_path / "door.sock").exists()
