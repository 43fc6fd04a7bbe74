"""A browser login at a real Envoy, with an issuer behind TLS: what the demo's scenarios of signing in do not show."""

import asyncio
import http.client
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest

from authz.control.login_discovery import discover_logins
from authz.demo.issuer import TokenIssuer
from authz.demo.issuer import application as issuer_application
from authz.demo.sign_in import Client, Provider
from authz.envoy.options import RenderOptions
from authz.envoy.render import render_all
from authz.envoy.rendered_files import make_login_keys, write_files
from authz.mesh.description import read_mesh_description
from authz.mesh.login import LoginEndpoints
from authz.mesh.nouns import Mesh
from tests.demo.serving import serving
from tests.envoy.rig import Application, Authority, CheckServer, application, envoys, free_ports
from tests.mesh.meshes import Ports, description

pytestmark = pytest.mark.envoy
NAVIGATE = {"sec-fetch-mode": "navigate"}
SECRET = "the client's secret: a+b/c=d&e"  # of this test, with what has to be encoded on its way
GATEWAY = "metadata: {name: web, namespace: istio-system}\n"
LOGIN = """metadata:
  name: web
  namespace: istio-system
  annotations:
    mesh.authz/login: |
      issuer: %s
      clientId: shop
      credentialName: shop-login
      openPaths: [/, /open, /static/*]
      redirectPath: /login
      caCertificates: certs/issuer/ca.crt
"""


def ask(port: int, roots: Path, path: str, headers: dict[str, str]) -> http.client.HTTPResponse:
    """One request, and the answer after its body was read."""
    context = ssl.create_default_context(cafile=roots)
    connection = http.client.HTTPSConnection("localhost", port, context=context, timeout=10)
    connection.putrequest("GET", path, skip_host=True)
    for name, value in ({"host": "localhost"} | headers).items():
        connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer


@dataclass
class Rig:
    """A gateway, the issuer, the application behind it, and a browser's cookies."""

    port: int
    state: Path
    roots: Path
    issuer: httpx.Client
    app: Application
    checks: CheckServer
    cookies: dict[str, str] = field(default_factory=dict)

    def ask(self, path: str, headers: dict[str, str] | None = None, host: str = "localhost") -> tuple[int, str]:
        """A request with the cookies: status, and where it leads."""
        cookie = {"cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items())}
        sent = {"host": host} | (cookie if self.cookies else {}) | (headers or {})
        answer = ask(self.port, self.roots, path, sent)
        for text in answer.headers.get_all("set-cookie", ()):
            name, _, rest = text.partition("=")
            self.cookies[name] = rest.partition(";")[0]
        self.cookies = {name: value for name, value in self.cookies.items() if value != "deleted"}
        return answer.status, answer.headers.get("location", "")

    def sign_in(self, person: str) -> tuple[int, str]:
        """Be led to the issuer, choose a person, and come back: the answer to that."""
        self.cookies = {}
        asked = parse_qsl(urlsplit(self.ask("/page", NAVIGATE)[1]).query)
        back = self.issuer.post("/authorize", data=dict([*asked, ("person", person)])).headers["location"]
        path, found, query = back.removeprefix("https://localhost").partition("?")
        assert (path, found) == ("/login", "?"), back
        return self.ask(f"/login?{query}", NAVIGATE)


class BasicOnly(TokenIssuer):
    """An issuer that takes a client's secret as HTTP Basic credentials alone, which is the default of the standard."""

    def discovery(self) -> dict[str, object]:
        kept = TokenIssuer.discovery(self)
        del kept["token_endpoint_auth_methods_supported"]
        return kept


def described(issuer: str, ports: Ports, hosts: str, more: str) -> Mesh:
    text = description(ports).decode()
    assert GATEWAY in text
    text = text.replace(GATEWAY, LOGIN % issuer + more)
    text = text.replace('HTTPS}\n    hosts: ["*"]\n', f"HTTPS}}\n    hosts: {hosts}\n")
    mesh, problems = read_mesh_description([("mesh.yaml", text.encode())])
    assert problems == ()
    return mesh


@contextmanager
def running(
    state: Path, issuer: TokenIssuer, hosts: str = '["*"]', more: str = "", secret: str = SECRET
) -> Iterator[Rig]:
    ports, ours, theirs = Ports(*free_ports(12)), Authority.new(), Authority.new()
    ours.issue(state / "certs" / "web", "localhost")
    ours.publish(state / "certs" / "roots" / "ca.crt")
    theirs.issue(state / "issuer", "localhost")
    theirs.publish(state / "certs" / "issuer" / "ca.crt")
    (state / "certs" / "shop-login").mkdir()
    (state / "certs" / "shop-login" / "client-secret").write_text(secret)
    provider = Provider(Client("shop", secret))
    with serving(issuer_application(issuer, provider=provider), state / "issuer") as url:
        issuer.url = url
        mesh = described(url, ports, hosts, more)
        logins, remarks = asyncio.run(discover_logins(mesh, state))
        assert remarks == ()
        write_files(state, render_all(mesh, options=RenderOptions(logins=logins)))
        assert make_login_keys(state, mesh.logins) == ()
        for name in ("ingress", "server-v1"):
            ours.issue(state / "certs" / name, str(mesh.workload(name).spiffe_id))
        (state / "run").mkdir()
        trusted = ssl.create_default_context(cafile=state / "certs" / "issuer" / "ca.crt")
        with (
            CheckServer().serving(f"unix:{state}/run/authz-0.sock") as checks,
            application(ports.app_http) as app,
            envoys(state, "ingress", "server-v1"),
            httpx.Client(base_url=url, verify=trusted, trust_env=False) as client,
        ):
            yield Rig(ports.ingress, state, state / "certs" / "roots" / "ca.crt", client, app, checks)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with running(tmp_path_factory.mktemp("plain"), TokenIssuer("")) as rig:
        yield rig


@pytest.fixture
def gateway(plain: Rig) -> Rig:
    """The gateway, and nobody is signed in."""
    plain.cookies = {}
    plain.app.headers.clear()
    plain.checks.asked.clear()
    return plain


def test_whoever_signed_in_is_known_by_a_token_and_no_cookie_of_the_session_goes_further(gateway: Rig) -> None:
    assert gateway.sign_in("bob") == (302, "https://localhost/page")
    assert gateway.checks.asked == []  # the login answers for itself
    for theirs in ({}, {"theme": "dark"}, {"theme": "dark", "__Host-own": "1"}):
        gateway.app.headers.clear()
        gateway.checks.asked.clear()
        session = dict(gateway.cookies)
        for jar in (theirs | session, session | theirs):
            gateway.cookies = jar
            assert gateway.ask("/page", NAVIGATE)[0] == 200
        gateway.cookies = session
        for seen in gateway.app.headers:
            assert seen["authorization"].startswith("Bearer ey")
            kept = {cookie for cookie in seen.get("cookie", "").split("; ") if cookie}
            assert kept == {f"{name}={value}" for name, value in theirs.items()}
        assert not any(b"RefreshToken" in asked for asked in gateway.checks.asked)


def test_cookies_of_a_session_go_no_further_either_beside_a_token_of_ones_own(gateway: Rig) -> None:
    gateway.sign_in("bob")
    gateway.ask("/page", {"authorization": "Bearer of.ones.own"})
    assert "cookie" not in gateway.app.headers[-1]


def test_the_session_is_in_cookies_that_no_script_and_no_other_site_can_use(gateway: Rig) -> None:
    gateway.sign_in("alice")
    assert all(name.startswith("__Host-") for name in gateway.cookies)
    assert not any(value.startswith("ey") for value in gateway.cookies.values()), "a token that is not encrypted"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/", 200),
        ("/open", 200),
        ("/open?to=/page", 200),
        ("/static/x.css", 200),
        ("/opened", 302),
        ("/open/more", 302),
        ("/page?x=/open", 302),
        ("/page?x=/static/", 302),
        ("/static/../page", 302),
        ("/static/%2e%2e/page", 302),
        ("/static/..%2fpage", 302),
        ("//static/", 200),
        ("/Static/", 302),
    ],
)
def test_only_paths_that_are_open_are_open(gateway: Rig, path: str, expected: int) -> None:
    assert gateway.ask(path, NAVIGATE)[0] == expected


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (NAVIGATE, 302),
        ({}, 200),
        ({"sec-fetch-mode": "cors"}, 401),
        ({"sec-fetch-mode": "same-origin"}, 401),
        ({"sec-fetch-mode": "no-cors"}, 401),
        ({"sec-fetch-mode": "websocket"}, 401),
        ({"sec-fetch-mode": ""}, 401),
        ({"authorization": "Bearer of.ones.own"} | NAVIGATE, 200),
        ({"authorization": "Basic eDp5"} | NAVIGATE, 200),
        ({"cookie": "__Host-BearerToken=ey.ey.x; __Host-OauthHMAC=x; __Host-OauthExpires=9999999999"} | NAVIGATE, 302),
    ],
)
def test_who_is_led_to_the_issuer_and_who_is_not(gateway: Rig, headers: dict[str, str], expected: int) -> None:
    """200 is what the check says of it: it allows everything here."""
    assert gateway.ask("/page", headers)[0] == expected
    assert bool(gateway.checks.asked) == (expected == 200)


def test_without_a_session_no_header_pretends_that_there_is_one(gateway: Rig) -> None:
    gateway.ask("/open", {"cookie": "__Host-BearerToken=ey.ey.x; theme=dark"})
    assert "authorization" not in gateway.app.headers[0]


def test_another_key_ends_every_session_at_once_and_no_proxy_is_restarted(gateway: Rig) -> None:
    gateway.sign_in("alice")
    assert gateway.ask("/page", NAVIGATE)[0] == 200
    key = gateway.state / "certs" / "shop-login" / "hmac"
    assert key.stat().st_mode & 0o777 == 0o600
    fresh = key.with_name(".fresh")
    fresh.write_text("another key, of thirty-two bytes or more")
    fresh.rename(key)
    ends = time.monotonic() + 20
    while (found := gateway.ask("/page", NAVIGATE)[0]) == 200 and time.monotonic() < ends:
        time.sleep(0.05)
    assert found == 302
    assert gateway.sign_in("alice")[0] == 302
    assert gateway.ask("/page", NAVIGATE)[0] == 200


def test_the_id_token_may_be_the_one_and_the_secret_go_as_basic_credentials(tmp_path: Path) -> None:
    """
    And a gateway with hosts leads nobody back to another one.

    Envoy 1.40 does not encode Basic credentials as RFC 6749 wants: a secret of letters and digits works anyhow.
    """
    with running(tmp_path, BasicOnly(""), "[localhost]", "      token: id\n", "s3cret") as gateway:
        assert gateway.sign_in("alice") == (302, "https://localhost/page")
        assert gateway.ask("/page", NAVIGATE)[0] == 200
        assert gateway.app.headers[-1]["authorization"].startswith("Bearer ey")
        assert gateway.ask("/page", NAVIGATE | {"authorization": "Bearer of.ones.own"})[0] == 200
        assert gateway.app.headers[-1]["authorization"] == "Bearer of.ones.own"
        gateway.cookies = {}
        assert gateway.ask("/page")[0] == 200
        assert "authorization" not in gateway.app.headers[-1]
        assert not any("x-authz-id-token" in seen or "cookie" in seen for seen in gateway.app.headers)
        assert gateway.ask("/page", NAVIGATE, host="evil.example") == (401, "")


def test_a_token_in_the_query_passes_by_and_is_in_no_log(gateway: Rig) -> None:
    assert gateway.ask("/page?access_token=of.ones.own", {"sec-fetch-mode": "cors"})[0] == 200
    assert "of.ones.own" not in (gateway.state / "logs" / "ingress.json").read_text()


def test_a_key_is_made_once_beside_the_clients_secret_and_what_is_wrong_with_that_is_said(tmp_path: Path) -> None:
    (login,) = described("https://issuer.example", Ports(), '["*"]', "").logins
    (missing,) = make_login_keys(tmp_path, [login])
    secret, key = (tmp_path / "certs" / "shop-login" / name for name in ("client-secret", "hmac"))
    assert missing.startswith(f"`{secret}` is missing: ")
    assert not secret.parent.exists()
    secret.parent.mkdir(parents=True)
    secret.write_text("s3cret\n")
    (broken,) = make_login_keys(tmp_path, [login], lambda size: "k" * size)
    assert "line break, which Envoy sends as part of it" in broken
    assert (key.read_text(), key.stat().st_mode & 0o777) == ("k" * 32, 0o600)
    secret.write_text("100%")
    assert "has a `%`" in make_login_keys(tmp_path, [login])[0]
    secret.write_text("s3cret")
    assert make_login_keys(tmp_path, [login]) == ()
    assert key.read_text() == "k" * 32


def test_a_gateway_without_the_clients_secret_answers_503_to_everything(tmp_path: Path) -> None:
    mesh = described("https://issuer.example", Ports(*free_ports(12)), '["*"]', "")
    endpoints = LoginEndpoints("https://issuer.example/a", "https://127.0.0.1:9/t")
    write_files(tmp_path, render_all(mesh, options=RenderOptions(logins={"https://issuer.example": endpoints})))
    authority = Authority.new()
    authority.issue(tmp_path / "certs" / "web", "localhost")
    authority.issue(tmp_path / "certs" / "ingress", str(mesh.workload("ingress").spiffe_id))
    for name in ("roots", "issuer"):
        authority.publish(tmp_path / "certs" / name / "ca.crt")
    (tmp_path / "certs" / "shop-login").mkdir()
    with envoys(tmp_path, "ingress") as proxies:
        proxies["ingress"].wait_for_stat("sds.shop-login.client-secret.update_rejected", 1)
        roots = tmp_path / "certs" / "roots" / "ca.crt"
        port = mesh.workload("ingress").servers[0].port
        for path, headers in (("/page", NAVIGATE), ("/", {}), ("/page", {"authorization": "Bearer of.ones.own"})):
            assert ask(port, roots, path, headers).status == 503
