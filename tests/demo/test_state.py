"""The state directory: ports, copies, certificates, configuration, and what is said when something is wrong."""

import os
import socket
import stat
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509

from authz.core.errors import LoadError
from authz.core.spiffe import TrustDomain
from authz.demo.certificates import issue_certificates
from authz.demo.commands import all_commands
from authz.demo.layout import DemoError, Layout, ports_of, shift_ports
from authz.demo.prepare import modes, plan, read_engine, read_engine_or_stop, render, render_again
from authz.envoy.options import Secrets
from authz.identity.registration import UnixPeer, read_entries
from authz.local.busy import busy_ports
from tests.mesh.meshes import logins

ROOT = Path(__file__).parent.parent.parent
MESH, POLICIES = ROOT / "envoy-configs" / "mesh.yaml", ROOT / "policies"


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    found = plan(tmp_path_factory.mktemp("state"), POLICIES, MESH, offset=1000)
    return replace(found, logins=logins(found.mesh))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("port: 15110", "port: 16110"),
        ("{number: 15110, name: x}", "{number: 16110, name: x}"),
        ('["15110"]', '["16110"]'),
        ("http://127.0.0.1:19191/*", "http://127.0.0.1:20191/*"),
        ("port: 15111", "port: 15111"),
        ("x15110 151100 1.15110 15110.5", "x15110 151100 1.15110 15110.5"),
    ],
)
def test_known_ports_are_shifted_and_nothing_else(text: str, expected: str) -> None:
    assert shift_ports(text, (15110, 19191), 1000) == expected
    assert shift_ports(text, (15110, 19191), 0) == text


def test_a_shifted_mesh_shares_no_port_with_the_first(layout: Layout, tmp_path: Path) -> None:
    first = plan(tmp_path, POLICIES, MESH)
    assert not set(ports_of(first.mesh)) & set(ports_of(layout.mesh, 1000))
    assert ports_of(layout.mesh, 1000) == tuple(port + 1000 for port in ports_of(first.mesh))
    assert layout.issuer_url in (layout.policies / "10-ingress.yaml").read_text()
    assert first.policies == POLICIES
    assert layout.policies == layout.state / "policies"


def test_every_process_has_a_port_of_its_own_and_a_question_that_it_answers(layout: Layout) -> None:
    commands = [command for wave in all_commands(layout) for command in wave]
    assert len({command.name for command in commands}) == len(commands)
    kinds = Counter(command.kind for command in commands)
    expected = {"Envoy sidecar": 8, "Envoy gateway": 2, "application": 7, "Redis": 1, "authorization server": 1}
    assert {kind: kinds[kind] for kind in expected} == expected
    assert all(command.ready for command in commands)
    told = " ".join(argument for command in commands for argument in command.arguments)
    assert f"database=redis://127.0.0.1:{layout.mesh.workload('ratings-v2').outbound[0].number}" in told


def test_a_busy_port_is_found() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert busy_ports([port]) == (port,)
    assert busy_ports([port]) == ()


def test_external_authorizers_are_found_on_this_machine(layout: Layout) -> None:
    (provider,) = layout.mesh.config.extension_providers
    assert (provider.service, provider.port) == ("127.0.0.1", 20190)


def test_each_proxy_gets_its_own_identity_and_nobody_else_reads_the_key(layout: Layout) -> None:
    issue_certificates(replace(layout, secrets=Secrets.FILES), time.time())
    for workload in layout.mesh.workloads:
        directory = layout.state / "certs" / workload.name
        certificate = x509.load_pem_x509_certificate((directory / "tls.crt").read_bytes())
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names.get_values_for_type(x509.UniformResourceIdentifier) == [str(workload.spiffe_id)]
        assert stat.S_IMODE((directory / "tls.key").stat().st_mode) == 0o600
    assert stat.S_IMODE(layout.state.stat().st_mode) == 0o700


def test_entries_grant_the_mesh_to_the_user_of_the_demo_and_to_nobody_else(layout: Layout) -> None:
    issue_certificates(layout, time.time())
    entries, problems = read_entries("entries.yaml", layout.entries.read_bytes(), TrustDomain("cluster.local"))
    assert problems == ()
    assert {str(entry.grant.spiffe_id) for entry in entries} == {str(w.spiffe_id) for w in layout.mesh.workloads}
    me = UnixPeer(os.getuid(), os.getgid())
    assert all(entry.is_for(me) and entry.grant.ttl_seconds == 3600 for entry in entries)
    assert not any(entry.is_for(UnixPeer(me.uid + 1, me.gid)) for entry in entries)


def test_without_sds_there_is_no_authority_among_the_processes(layout: Layout) -> None:
    def names(secrets: Secrets) -> set[str]:
        return {command.name for wave in all_commands(replace(layout, secrets=secrets)) for command in wave}

    assert names(Secrets.SDS) - names(Secrets.FILES) == {"ca"}


def test_the_authorities_are_kept_and_a_damaged_one_is_replaced(layout: Layout) -> None:
    now = time.time()
    issue_certificates(layout, now)
    kept = (layout.state / "certs/web/ca.crt").read_bytes()
    issue_certificates(layout, now)
    assert (layout.state / "certs/web/ca.crt").read_bytes() == kept
    (layout.state / "web" / "authorities.json").write_text("{}")
    issue_certificates(layout, now)
    assert (layout.state / "certs/web/ca.crt").read_bytes() != kept


def test_listeners_follow_peer_authentication(layout: Layout) -> None:
    engine = read_engine(layout)
    render(layout, engine)
    strictly = modes(layout, engine)
    assert render_again(layout, engine, strictly) == ()
    assert render_again(layout, engine, {}) == ()
    assert set(modes(layout, engine).values()) == {"STRICT"}
    mesh = layout.policies / "00-mesh.yaml"
    strict = mesh.read_text()
    mesh.write_text(strict.replace("STRICT", "PERMISSIVE"))
    engine = read_engine(layout)
    changed = render_again(layout, engine, strictly)
    mesh.write_text(strict.replace("STRICT", "DISABLE"))
    disabled = render_again(layout, read_engine(layout), modes(layout, engine))
    mesh.write_text(strict)
    assert set(modes(layout, engine).values()) == {"PERMISSIVE"}
    assert not any(name.startswith("eds/") for name in changed)
    assert any(name.startswith("eds/ratings.") for name in disabled)
    assert "lds/ratings-v1.yaml" in changed
    assert "lds/ingressgateway.yaml" not in changed


def test_the_issuer_and_the_gateway_share_a_secret_that_stays_and_sessions_have_a_key(layout: Layout) -> None:
    login = layout.login
    assert login is not None
    issue_certificates(layout, time.time())
    render(layout, read_engine(layout))
    directory = layout.state / "certs" / login.credential
    kept = {path.name: path.read_bytes() for path in directory.iterdir()}
    assert {name: len(value) > 30 for name, value in kept.items()} == {"client-secret": True, "hmac": True}
    issue_certificates(layout, time.time())
    render(layout, read_engine(layout))
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == kept
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()}
    assert modes == {"client-secret": 0o640, "hmac": 0o600}
    command = next(command for wave in all_commands(layout) for command in wave if command.name == "issuer")
    assert str(directory.relative_to(layout.state) / "client-secret") in command.arguments


def test_files_are_polled_not_watched(layout: Layout) -> None:
    """Ten proxies that watch would take 80 of a user's 128 inotify instances."""
    render(layout, read_engine(layout))
    followed = (layout.state / "envoy" / "ratings-v1.yaml").read_text()
    assert "poll_interval: 0.25s" in followed
    assert "watched_directory" not in followed


def test_a_broken_policy_stops_the_start_with_its_place(layout: Layout) -> None:
    broken = layout.policies / "99-broken.yaml"
    broken.write_text(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: x}\nspec: {acton: DENY}\n"
    )
    try:
        with pytest.raises(DemoError, match=r"99-broken\.yaml:4:8.*did you mean `action`"):
            read_engine_or_stop(layout)
        with pytest.raises(LoadError):
            read_engine(layout)
    finally:
        broken.unlink()


@pytest.mark.parametrize(
    ("mesh", "offset", "message"),
    [
        ("nothing.yaml", 0, "cannot read the mesh description `.*nothing.yaml`: No such file"),
        ("broken.yaml", 0, r"the mesh description cannot be used:\n.*broken.yaml:2:1"),
        ("mesh.yaml", 60_000, "ports 15110 to 19.* cannot be shifted by 60000"),
    ],
)
def test_what_is_wrong_with_the_mesh_is_said(tmp_path: Path, mesh: str, offset: int, message: str) -> None:
    (tmp_path / "broken.yaml").write_text("kind: [")
    (tmp_path / "mesh.yaml").write_bytes(MESH.read_bytes())
    with pytest.raises(DemoError, match=message):
        plan(tmp_path / "state", POLICIES, tmp_path / mesh, offset=offset)


def test_policies_must_be_a_directory(tmp_path: Path) -> None:
    with pytest.raises(DemoError, match="is not a directory of policies; name one with --policies"):
        plan(tmp_path, tmp_path / "none", MESH)
