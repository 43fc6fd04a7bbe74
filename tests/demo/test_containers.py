"""What containers run besides the product: the authority's making, its roots as they change, and the check's relays."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from authz.demo import containers
from authz.demo.containers import (
    IN_FORCE,
    CheckConfiguration,
    follow,
    make_authority,
    publish,
    read_layout,
)
from authz.demo.layout import DemoError, Layout
from authz.demo.relay import serve
from authz.envoy.options import Secrets
from authz.identity.ca import STATE_FILE, CertificateAuthority
from authz.identity.rotation import prepare
from authz.mesh.nouns import Enforce

ROOT = Path(__file__).parents[2]
NOW = 1_800_000_000.0
POLICY = """apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: one, namespace: bookinfo}
spec: {action: DENY, rules: [{to: [{operation: {paths: [/closed]}}]}]}
"""


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    (tmp_path / "envoy-configs").symlink_to(ROOT / "envoy-configs")
    for directory in ("certs/roots", "revocations", "description"):
        (tmp_path / directory).mkdir(parents=True)
    return read_layout(tmp_path)


def test_containers_have_their_certificates_by_sds(layout: Layout) -> None:
    assert layout.secrets is Secrets.SDS


def test_rendering_needs_no_envoy(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """The image has none: Envoys are containers of their own, of a version that polls."""

    def absent() -> str:
        raise DemoError("there is no Envoy")

    monkeypatch.setattr("authz.demo.prepare.envoy_binary", absent)
    assert containers.rendering(layout).poll_seconds > 0


def test_an_authority_is_made_once_and_kept(layout: Layout) -> None:
    make_authority(layout, NOW)
    made = CertificateAuthority.load(layout.state / "ca").active.id
    make_authority(layout, NOW)
    assert CertificateAuthority.load(layout.state / "ca").active.id == made
    assert layout.revocations.read_text().startswith("#")


def test_a_broken_authority_is_left_as_it_is(layout: Layout) -> None:
    """Its keys may be all that is left of a mesh."""
    make_authority(layout, NOW)
    state = layout.state / "ca" / STATE_FILE
    state.write_text("broken")
    make_authority(layout, NOW)
    assert state.read_text() == "broken"


def test_roots_are_published_when_they_change_and_only_then(layout: Layout) -> None:
    make_authority(layout, NOW)
    seen: dict[str, bytes] = {}
    assert publish(layout, seen) == ["intermediates.crt", "ca.crt"]
    assert publish(layout, seen) == []
    prepare(CertificateAuthority.load(layout.state / "ca"), NOW).save(layout.state / "ca")
    assert publish(layout, seen) == ["intermediates.crt", "ca.crt"]
    roots = layout.state / "certs" / "roots"
    assert (roots / "ca.crt").read_bytes() == (layout.state / "ca" / "bundle.pem").read_bytes()
    assert (roots / "ca.crt").read_bytes().count(b"BEGIN CERTIFICATE") == 2
    assert not list(roots.glob("*.key"))


RULE = """apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: bookinfo}
spec: {hosts: [reviews], http: [{timeout: 7s, route: [{destination: {host: reviews}}]}]}
"""
ROUTES = "rds/productpage-v1.outbound_15112.yaml"


@pytest.fixture
def ruled(layout: Layout) -> Layout:
    layout.policies.mkdir()
    (layout.policies / "one.yaml").write_text(POLICY)
    (layout.state / "traffic").mkdir()
    return read_layout(layout.state)


def test_traffic_rules_are_rendered_again_when_they_change_and_the_servers_get_them_too(
    ruled: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    configuration, rule = CheckConfiguration(ruled), ruled.state / "traffic/reviews.yaml"
    assert configuration.look()
    assert not configuration.look(), "nothing has changed"
    assert "timeout: 7s" not in (ruled.state / ROUTES).read_text()
    rule.write_text(RULE)
    assert configuration.look()
    routes, in_force = (ruled.state / ROUTES).read_text(), (ruled.state / IN_FORCE).read_text()
    assert "timeout: 7s" in routes
    assert RULE in in_force
    rule.write_text(RULE.replace("timeout", "timeouts"))
    assert not configuration.look()
    assert "reviews.yaml:4" in capsys.readouterr().err
    assert ((ruled.state / ROUTES).read_text(), (ruled.state / IN_FORCE).read_text()) == (routes, in_force)
    rule.unlink()
    assert configuration.look()
    assert "timeout: 7s" not in (ruled.state / ROUTES).read_text()


class Ready:
    """In the place of the file that the health check looks for: what was there when it was made."""

    def __init__(self, state: Path) -> None:
        self.done = asyncio.Event()
        self.found: set[str] = set()
        self._loop = asyncio.get_running_loop()
        self._state = state

    def touch(self) -> None:
        self.found = {str(path.relative_to(self._state)) for path in self._state.glob("*/*.*")}
        self._loop.call_soon_threadsafe(self.done.set)


@pytest.fixture
def native(layout: Layout) -> Layout:
    layout.policies.mkdir()
    (layout.policies / "one.yaml").write_text(POLICY)
    return read_layout(layout.state, Enforce.NATIVE)


async def test_who_renders_native_filters_is_healthy_when_all_are_there(
    native: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready = Ready(native.state)
    monkeypatch.setattr(containers, "READY", ready)
    following = asyncio.create_task(follow(native))
    async with asyncio.timeout(60):
        await ready.done.wait()
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    for workload in native.mesh.workloads:
        assert {f"envoy/{workload.name}.yaml", f"lds/{workload.name}.yaml"} <= ready.found
        is_http = bool(workload.servers) or any(port.protocol.is_http for port in workload.inbound)
        assert any(name.startswith(f"ecds/{workload.name}.") for name in ready.found) is is_http, workload.name
    assert "path: run/authz/authz-1.sock" in (native.state / "eds-compose/authz.yaml").read_text()


async def until(happened: Callable[[], bool]) -> None:
    for _ in range(1500):
        if happened():
            return
        await asyncio.sleep(0.02)
    pytest.fail("it did not happen")


async def test_native_filters_follow_traffic_rules_too(
    ruled: Layout, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ready, rule = Ready(ruled.state), ruled.state / "traffic/reviews.yaml"
    monkeypatch.setattr(containers, "READY", ready)
    following = asyncio.create_task(follow(read_layout(ruled.state, Enforce.NATIVE)))
    async with asyncio.timeout(60):
        await ready.done.wait()
        rule.write_text(RULE)
        await until(lambda: "timeout: 7s" in (ruled.state / ROUTES).read_text())
        rule.write_text(RULE.replace("timeout", "timeouts"))
        await until(lambda: "reviews.yaml:4" in capsys.readouterr().err)
    assert RULE in (ruled.state / IN_FORCE).read_text()
    assert not following.done()
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)


async def test_without_usable_policies_nothing_is_rendered_and_no_proxy_starts(
    native: Layout, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ready = Ready(native.state)
    monkeypatch.setattr(containers, "READY", ready)
    (native.policies / "one.yaml").write_text(POLICY.replace("rules", "rulez"))
    with pytest.raises(SystemExit) as ended:
        await follow(native)
    assert ended.value.code == 1
    assert "one.yaml:4" in capsys.readouterr().err
    assert not ready.done.is_set()
    assert not (native.state / "ecds").exists()


async def test_a_relay_leads_to_a_port_or_to_the_socket_that_it_was_given(tmp_path: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.readline()).upper())
        writer.close()

    async def ask(path: Path, message: bytes) -> bytes:
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(message)
        told = await reader.read()
        writer.close()
        return told

    inner = await asyncio.start_server(answer, "127.0.0.1", 0)
    behind = await asyncio.start_unix_server(answer, str(tmp_path / "inner"))
    port = inner.sockets[0].getsockname()[1]
    serving = asyncio.create_task(serve([str(tmp_path / "a"), f"{tmp_path / 'b'}={tmp_path / 'inner'}"]))
    async with asyncio.timeout(10), inner, behind:
        for _ in range(100):  # turns of the loop, until both are open
            await asyncio.sleep(0)
        assert await ask(tmp_path / "a", f"{port}\nhello\n".encode()) == b"HELLO\n"
        assert await ask(tmp_path / "b", b"socket\n") == b"SOCKET\n"
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
