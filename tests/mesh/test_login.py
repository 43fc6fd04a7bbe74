"""The login of a Gateway: what it becomes, and every mistake with its place."""

import pytest

from authz.core.errors import Problem
from authz.mesh.description import read_mesh_description
from authz.mesh.login import Login, LoginToken
from authz.mesh.nouns import Mesh
from tests.mesh.meshes import Ports, description

PLAIN = "metadata: {name: web, namespace: istio-system}\n"
WEB = """metadata:
  name: web
  namespace: istio-system
  annotations:
    mesh.authz/login: |
      issuer: https://issuer.example/realms/shop
      clientId: shop
      credentialName: shop-login
      scopes: [openid, profile]
      openPaths: [/, /static/*]
      redirectPath: /oauth2/callback
      logoutPath: /oauth2/logout
      token: id
      caCertificates: certs/issuer/ca.crt
      composeAddress: 172.30.4.91
"""


def read(old: str = "", new: str = "") -> tuple[Mesh, tuple[Problem, ...], str]:
    text = description(Ports()).decode()
    assert PLAIN in text
    text = text.replace(PLAIN, WEB)
    assert old in text
    text = text.replace(old, new, 1) if old else text
    return *read_mesh_description([("mesh.yaml", text.encode())]), text


def test_a_login_is_that_of_every_server_of_its_gateway() -> None:
    mesh, problems, _ = read()
    assert problems == ()
    login = Login(
        "https://issuer.example/realms/shop", "shop", "shop-login", ("openid", "profile"), ("/", "/static/*"),
        "/oauth2/callback", "/oauth2/logout", LoginToken.ID, "certs/issuer/ca.crt", "172.30.4.91",
    )  # fmt: skip
    assert [server.login for server in mesh.workload("ingress").servers] == [login]
    assert mesh.logins == (login,)
    assert {server.login for server in mesh.workload("egress").servers} == {None}


def test_three_fields_are_enough() -> None:
    more = WEB[WEB.index("      scopes") :]
    mesh, problems, _ = read(more, "")
    assert problems == ()
    (login,) = mesh.logins
    assert (login.scopes, login.open_paths, login.token) == (("openid",), (), LoginToken.ACCESS)
    assert (login.redirect_path, login.logout_path) == ("/login/callback", "/logout")


ISSUER = "issuer: https://issuer.example/realms/shop"
MISTAKES = [
    # what is written, what stands there instead, the text at the place of the problem, its code and some of its words
    ("clientId: shop", "clientID: shop", "clientID", "ME-2", "did you mean `clientId`?"),
    ("      clientId: shop\n", "", "issuer", "ME-3", "`clientId` is missing"),
    (f"      {ISSUER}\n", "", "clientId", "ME-3", "`issuer` is missing"),
    (ISSUER, "issuer: http://issuer.example", "http://issuer", "ME-1", "cannot be an issuer of a login"),
    (ISSUER, "issuer: issuer.example", "issuer.example", "ME-1", "write an https URL"),
    (ISSUER, "issuer: https://a:b@issuer.example", "https://a", "ME-1", "cannot be an issuer"),
    (ISSUER, "issuer: https://issuer.example#x", "https://i", "ME-1", "cannot be an issuer"),
    (ISSUER, "issuer: 'https://issuer.example:x'", "'https", "ME-1", "cannot be an issuer"),
    (ISSUER, "issuer: 7", "7", "ME-1", "expected a string"),
    ("credentialName: shop-login", "credentialName: ../shop", "../shop", "ME-1", "names a directory below certs/"),
    ("[openid, profile]", "[profile]", "[profile]", "ME-1", "`openid` is not among the scopes"),
    ("[/, /static/*]", "[static]", "[static]", "ME-1", "`static` is not a path"),
    ("[/, /static/*]", "[/*/x]", "[/*/x]", "ME-1", "`/*/x` is not a path"),
    ("/oauth2/callback", "callback", "callback", "ME-1", "`callback` is not a path of its own"),
    ("/oauth2/callback", "/", "/", "ME-1", "`/` is not a path of its own"),
    ("/oauth2/logout", "/oauth2/callback", "/oauth2/callback", "ME-5", "is the redirect path as well"),
    ("token: id", "token: refresh", "refresh", "ME-1", "`refresh` is not one of access, id"),
    ("172.30.4.91", "issuer", "issuer", "ME-1", "`issuer` is not an IP address"),
    ("clientId: shop", "clientId: [", "[", "YAML", "not YAML"),
    ("{mode: SIMPLE, credentialName: web}", "{mode: ISTIO_MUTUAL}", "{mode: ISTIO", "ME-6", "nobody can log in"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "at", "code", "words"), MISTAKES)
def test_a_mistake_is_named_with_its_place(old: str, new: str, at: str, code: str, words: str) -> None:
    _, problems, text = read(old, new)
    told = [str(problem) for problem in problems]
    found = [problem for problem in problems if problem.code == code and words in str(problem)]
    assert found, told
    place = found[0].location
    line = text.splitlines()[place.line - 1][place.column - 1 :]
    assert line.startswith(at) or code == "YAML", (line, told)


def test_a_mistake_says_its_gateway_and_the_path_of_its_field() -> None:
    _, problems, _ = read("token: id", "token: refresh")
    (told,) = (str(problem) for problem in problems)
    assert "Gateway istio-system/web" in told
    assert "metadata.annotations.mesh.authz/login.token: `refresh`" in told


@pytest.mark.parametrize("written", ["7", "{}", "[x]", "''", '"- x"', "'just words'"])
def test_what_is_no_mapping_is_no_login(written: str) -> None:
    mesh, problems, _ = read(WEB[WEB.index("mesh.authz/login") :], f"mesh.authz/login: {written}\n")
    assert [problem.code for problem in problems] == ["ME-1"]
    assert mesh.logins == ()


def test_two_gateways_with_one_credential_have_one_login() -> None:
    other = WEB.replace("name: web", "name: more").replace("clientId: shop", "clientId: other")
    gateway = (
        f"---\napiVersion: networking.istio.io/v1\nkind: Gateway\n{other}spec:\n  selector: {{istio: ingress}}\n"
        "  servers:\n  - port: {number: 15099, name: https, protocol: HTTPS}\n"
        '    hosts: ["*"]\n    tls: {mode: SIMPLE, credentialName: web}\n'
    )
    text = description(Ports()).decode().replace(PLAIN, WEB)
    same = gateway.replace("clientId: other", "clientId: shop")
    assert read_mesh_description([("mesh.yaml", (text + same).encode())])[1] == ()
    (problem,) = read_mesh_description([("mesh.yaml", (text + gateway).encode())])[1]
    assert (problem.code, problem.message.partition(", at")[0]) == (
        "ME-5",
        "another login has the credential `shop-login`",
    )
