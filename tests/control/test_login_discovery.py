"""What an issuer of a login says of itself: asked by HTTP, judged, and kept for when it does not answer."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from authz.control.login_discovery import discover_logins, read_endpoints
from authz.core.errors import FetchError, LoadError
from authz.demo.issuer import TokenIssuer, application
from authz.envoy.browser_login import kept_document, kept_file
from authz.mesh.description import read_mesh_description
from authz.mesh.login import Login, LoginEndpoints
from authz.mesh.nouns import Mesh
from tests.demo.serving import serving
from tests.envoy.rig import Authority
from tests.mesh.meshes import Ports, description

ISSUER = "https://issuer.example"
DOCUMENT = {
    "issuer": ISSUER,
    "authorization_endpoint": f"{ISSUER}/authorize",
    "token_endpoint": f"{ISSUER}/token",
    "end_session_endpoint": f"{ISSUER}/logout",
    "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post", "private_key_jwt"],
}


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, LoginEndpoints(f"{ISSUER}/authorize", f"{ISSUER}/token", f"{ISSUER}/logout")),
        ({"end_session_endpoint": ""}, LoginEndpoints(f"{ISSUER}/authorize", f"{ISSUER}/token")),
        (
            {"token_endpoint_auth_methods_supported": ["client_secret_basic"]},
            LoginEndpoints(f"{ISSUER}/authorize", f"{ISSUER}/token", f"{ISSUER}/logout", basic=True),
        ),
    ],
    ids=["usual", "no logout", "basic only"],
)
def test_what_a_login_needs_is_read(changes: dict[str, object], found: LoginEndpoints) -> None:
    assert read_endpoints({**DOCUMENT, **changes}, ISSUER) == found


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"issuer": "https://other.example"}, "is of the issuer `https://other.example`"),
        ({"issuer": f"{ISSUER}/"}, "is of the issuer"),
        ({"authorization_endpoint": None}, "no usable `authorization_endpoint`"),
        ({"token_endpoint": "http://issuer.example/token"}, "no usable `token_endpoint`"),
        ({"token_endpoint": "http://127.0.0.1/token"}, "no usable `token_endpoint`"),
        ({"token_endpoint": ["https://issuer.example"]}, "no usable `token_endpoint`"),
        ({"end_session_endpoint": "javascript:alert(1)"}, "no usable `end_session_endpoint`"),
        ({"token_endpoint_auth_methods_supported": ["private_key_jwt"]}, "takes a client's secret neither by"),
    ],
    ids=str,
)
def test_a_document_that_cannot_be_meant_is_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(FetchError, match=words):
        read_endpoints({**DOCUMENT, **changes}, ISSUER)


def of(issuer: str, bundle: str = "") -> Mesh:
    login = Login(issuer, "shop", "shop-login", ca_certificates=bundle)
    mesh, problems = read_mesh_description([("mesh.yaml", description(Ports()))])
    assert problems == ()
    ingress = mesh.workload("ingress")
    server = replace(ingress.servers[0], login=login)
    others = tuple(workload for workload in mesh.workloads if workload != ingress)
    return replace(mesh, workloads=(*others, replace(ingress, servers=(server,))))


def keep(out: Path, mesh: Mesh, endpoints: LoginEndpoints) -> None:
    (login,) = mesh.logins
    (out / "login").mkdir()
    (out / kept_file(login)).write_bytes(kept_document(login, endpoints))


async def test_an_issuer_that_does_not_answer_is_an_error_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(LoadError) as raised:
        await discover_logins(of("http://127.0.0.1:9"), tmp_path)
    (problem,) = raised.value.problems
    assert "the issuer of a login cannot be used: http://127.0.0.1:9/.well-known/openid-configuration" in str(problem)
    assert problem.help.startswith("start it")


async def test_what_was_kept_is_used_when_it_does_not_answer(tmp_path: Path) -> None:
    mesh, kept = of("http://127.0.0.1:9"), LoginEndpoints("http://127.0.0.1:9/a", "http://127.0.0.1:9/t", basic=True)
    keep(tmp_path, mesh, kept)
    found, (remark,) = await discover_logins(mesh, tmp_path)
    assert found == {"http://127.0.0.1:9": kept}
    assert remark.startswith("what was kept of the issuer http://127.0.0.1:9 is used: ")


async def test_what_came_with_the_description_is_used_when_nothing_was_kept_yet(tmp_path: Path) -> None:
    mesh, kept = of("http://127.0.0.1:9"), LoginEndpoints("http://127.0.0.1:9/a", "http://127.0.0.1:9/t", basic=True)
    (tmp_path / "own").mkdir()
    keep(tmp_path / "own", mesh, kept)
    found, (remark,) = await discover_logins(mesh, tmp_path / "out", beside=tmp_path / "own")
    assert found == {"http://127.0.0.1:9": kept}
    assert "is used" in remark


async def test_what_was_kept_of_another_issuer_is_not_used(tmp_path: Path) -> None:
    keep(tmp_path, of("http://127.0.0.1:8"), LoginEndpoints("http://127.0.0.1:8/a", "http://127.0.0.1:8/t"))
    with pytest.raises(LoadError):
        await discover_logins(of("http://127.0.0.1:9"), tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{", json.dumps({"issuer": "http://127.0.0.1:9"})])
async def test_a_broken_file_keeps_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "login").mkdir()
    (tmp_path / "login" / "shop-login.json").write_text(text)
    with pytest.raises(LoadError):
        await discover_logins(of("http://127.0.0.1:9"), tmp_path)


async def test_an_issuer_is_asked_and_its_certificate_verified(tmp_path: Path) -> None:
    authority, other = Authority.new(), Authority.new()
    authority.issue(tmp_path / "issuer", "localhost")
    authority.publish(tmp_path / "certs" / "issuer" / "ca.crt")
    other.publish(tmp_path / "certs" / "other" / "ca.crt")
    issuer = TokenIssuer("")
    with serving(application(issuer), tmp_path / "issuer") as url:
        issuer.url = url
        found, remarks = await discover_logins(of(url, "certs/issuer/ca.crt"), tmp_path)
        assert (found[url].token, found[url].basic, remarks) == (f"{url}/token", False, ())
        for bundle in ("", "certs/other/ca.crt", "certs/none/ca.crt"):
            with pytest.raises(LoadError):
                await discover_logins(of(url, bundle), tmp_path)


async def test_an_issuer_may_be_starting(tmp_path: Path) -> None:
    asked: list[str] = []

    async def discovery(request: Request) -> Response:
        asked.append(request.url.path)
        base = str(request.base_url).removesuffix("/")
        found = {**DOCUMENT, "issuer": base, "authorization_endpoint": f"{base}/a", "token_endpoint": f"{base}/t"}
        del found["end_session_endpoint"]
        return JSONResponse(found) if len(asked) > 2 else Response(status_code=503)

    with serving(Starlette(routes=[Route("/.well-known/openid-configuration", discovery)])) as url:
        found, remarks = await discover_logins(of(url), tmp_path, patience_seconds=60)
    assert (found[url].token, remarks, len(asked)) == (f"{url}/t", (), 3)
