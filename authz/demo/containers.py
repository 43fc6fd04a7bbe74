"""
The programs that containers of the demo's compose file run besides the product itself.

    python -m authz.demo.containers certificates     makes the mesh's authority and publishes its roots as they change
    python -m authz.demo.containers web              issues the gateway's certificate, and again at half of its life
    python -m authz.demo.containers outside          plays the world outside, with a certificate of its own authority
    python -m authz.demo.containers configuration    renders Envoy's configuration, and again when its sources change

With ``--enforce native`` the last one renders native filters, too, and follows the issuer's keys, which belong to them.

All work in the state directory (``layout``), of which each container mounts its own part, and rename files into
place, which readers follow. ``/tmp/ready`` says that everything was written once.
"""

import argparse
import asyncio
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from authz.control.login_discovery import discover_logins
from authz.control.mesh_follower import MeshFollower
from authz.core.errors import LoadError
from authz.demo.apps.__main__ import main as run_app
from authz.demo.certificates import (
    CERTIFICATE_TTL_SECONDS,
    NOTHING_REVOKED,
    issue_outside,
    issue_web,
    make_client_secrets,
)
from authz.demo.layout import OTLP_SOCKET, DemoError, Layout, describe
from authz.demo.prepare import PolicyState, options, policy_state, read_engine
from authz.demo.traffic_rules import TrafficRendering, TrafficState, read_again, traffic_state, why_not
from authz.envoy.browser_login import kept_file
from authz.envoy.options import RenderOptions, Secrets
from authz.envoy.rendered_files import make_login_keys
from authz.identity.ca import BUNDLE_FILE, INTERMEDIATES_FILE, STATE_FILE, CertificateAuthority
from authz.identity.certificate_template import SERVER_TTL_SECONDS
from authz.identity.secret_files import write_file
from authz.mesh.description import read_mesh_description
from authz.mesh.nouns import Enforce

STATE = Path("/mesh")
READY = Path("/tmp/ready")  # noqa: S108  # a tmpfs of the container's own
WORKERS = 2
"""Replicas of the authorization server in docker-compose.yaml."""
OTLP = f"run/authz/{Path(OTLP_SOCKET).name}"
"""The collector's socket as proxies see it: beside that of the authorization server."""
LOOK_SECONDS = 0.2
DESCRIPTION, POLICIES, TRAFFIC = "envoy-configs/mesh.yaml", "policies", "traffic"
"""Places below the state directory, mounted from the checkout."""
IN_FORCE = "description/mesh.yaml"
"""The description and the rules in ``traffic/`` as one, which the servers follow."""


def read_layout(state: Path = STATE, enforce: Enforce = Enforce.CHECK) -> Layout:
    """Read the mesh description of the state directory, without traffic rules. Raises DemoError, OSError."""
    path = state / DESCRIPTION
    mesh, problems = read_mesh_description([(str(path), path.read_bytes())])
    if errors := describe(problems):
        raise DemoError(f"the mesh description cannot be used:\n{errors}")
    rules = state / TRAFFIC
    traffic = rules if rules.is_dir() else None
    return Layout(
        *(state, state / POLICIES, mesh), secrets=Secrets.SDS, enforce=enforce, traffic=traffic, mesh_file=IN_FORCE
    )


def rendering(layout: Layout) -> RenderOptions:
    """The options of the process demo, with the sockets of these containers."""
    return replace(options(layout), workers=WORKERS, otlp_compose=OTLP)


def certificates(layout: Layout) -> None:
    """Make the authority, and publish its roots until the container is stopped."""
    make_authority(layout, time.time())
    seen: dict[str, bytes] = {}
    while True:
        for name in publish(layout, seen):
            _say(f"certs/roots/{name} written")
        READY.touch()
        time.sleep(LOOK_SECONDS)


def make_authority(layout: Layout, now: float) -> None:
    """Unless there is one already: it is never replaced, not even when it is broken."""
    if not (layout.state / "ca" / STATE_FILE).exists():
        CertificateAuthority.create(layout.mesh.config.trust_domain, now).save(layout.state / "ca")
    if not layout.revocations.exists():
        write_file(layout.revocations, NOTHING_REVOKED)


def publish(layout: Layout, seen: dict[str, bytes]) -> list[str]:
    """
    Copy what others need to judge certificates, intermediates first, and return what changed.

    ``seen`` is what was published before, by name.
    """
    changed = []
    for source, name in ((INTERMEDIATES_FILE, "intermediates.crt"), (BUNDLE_FILE, "ca.crt")):
        found = (layout.state / "ca" / source).read_bytes()
        if seen.get(name) != found:
            write_file(layout.state / "certs" / "roots" / name, found)
            seen[name] = found
            changed.append(name)
    return changed


def web(layout: Layout) -> None:
    """Make the secrets of the login, issue the web certificate, and again at half of its life, until stopped."""
    make_client_secrets(layout)
    make_login_keys(layout.state, layout.mesh.logins)
    while True:
        issue_web(layout, time.time())
        _say(f"a web certificate issued for {CERTIFICATE_TTL_SECONDS / 3600:.0f} h")
        READY.touch()
        time.sleep(CERTIFICATE_TTL_SECONDS / 2)


def outside(layout: Layout) -> None:
    """Serve until SIGTERM, with a certificate that outlives a demo."""
    issue_outside(layout, time.time(), SERVER_TTL_SECONDS)
    pair = layout.state / "certs" / "outside-server"
    port = next(
        endpoint.place.compose.port
        for service in layout.mesh.services
        if service.external
        for endpoints in service.endpoints.values()
        for endpoint in endpoints
    )
    told = ("--certificate", str(pair / "tls.crt"), "--key", str(pair / "tls.key"))
    run_app(["outside", "--host", "0.0.0.0", "--port", str(port), *told])  # noqa: S104  # it has no sidecar


def configuration(layout: Layout) -> None:
    """Render for ever. What cannot be used changes nothing and is reported."""
    if layout.enforce is Enforce.NATIVE:
        asyncio.run(follow(layout))
        return
    checked = CheckConfiguration(layout)
    while True:
        if checked.look():
            READY.touch()
        time.sleep(LOOK_SECONDS)


def read_sources(layout: Layout) -> Layout:
    """
    Join the description and the rules as they are now, for the servers and for whoever renders.

    Raises DemoError (nothing was written), OSError.
    """
    try:
        text = (layout.state / DESCRIPTION).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DemoError(f"cannot read the mesh description `{DESCRIPTION}`: {error}") from error
    return read_again(replace(layout, alone=text))


class CheckConfiguration:
    """
    Everything but filters, for proxies that ask the authorization server.

    It has the addresses of both worlds: containers mount ``eds-compose/`` where proxies look for ``eds/`` (XA-190).
    """

    def __init__(self, layout: Layout) -> None:
        take_kept(layout)
        self._layout = layout
        self._seen: tuple[PolicyState, TrafficState] | None = None
        self._rendering: TrafficRendering | None = None

    def look(self) -> bool:
        """Render again if a source has changed; return whether everything was written."""
        found = policy_state(self._layout.policies), _mesh_state(self._layout)
        if found == self._seen:
            if self._rendering is not None:
                self._rendering.retire()
            return False
        self._seen = found
        try:
            layout = read_sources(self._layout)
            if self._rendering is None or layout.mesh.logins != self._layout.mesh.logins:
                layout = replace(layout, logins=asyncio.run(discover_logins(layout.mesh, layout.state))[0])
                self._rendering = TrafficRendering(layout, rendering(layout))
            self._layout = layout
            written = self._rendering.render(layout, read_engine(layout))
        except FileNotFoundError:  # a file vanished while it was read
            self._seen = None
            return False
        except (DemoError, LoadError) as error:
            _say(f"this cannot be used, what was rendered stays:\n{why_not(error)}")
            return False
        _say(f"{written} files written")
        return True


def _mesh_state(layout: Layout) -> TrafficState:
    """What says whether the description or the rules have changed."""
    description = layout.state / DESCRIPTION
    try:
        facts = description.stat()
    except OSError:
        return traffic_state(layout.traffic)
    return ((str(description), facts.st_mtime_ns, facts.st_size), *traffic_state(layout.traffic))


def take_kept(layout: Layout) -> None:
    """Copy what the checkout keeps of the login's issuer, which cannot be asked here without a network."""
    for login in layout.mesh.logins:
        kept = (layout.state / DESCRIPTION).parent / kept_file(login)
        if kept.exists():
            target = layout.state / kept_file(login)
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(kept.read_bytes())


async def follow(layout: Layout) -> None:
    """
    Do what ``authz mesh render --enforce native --watch`` does, for ever.

    Exits with 1 where sources cannot be used and there is nothing yet to keep: no proxy starts then.
    """
    take_kept(layout)
    seen = _mesh_state(layout)
    description = layout.state / layout.mesh_file
    follower = MeshFollower(layout.policies, description, layout.state, rendering(layout), clock=time.time, say=_say)
    try:
        layout = await asyncio.to_thread(read_sources, layout)
        await follower.start()
        await asyncio.to_thread(READY.touch)
        async with asyncio.TaskGroup() as together:
            together.create_task(_follow_sources(layout, seen))
            together.create_task(follower.run())
    except (DemoError, LoadError) as error:
        _say(f"this cannot be used, nothing was rendered:\n{why_not(error)}")
        raise SystemExit(1) from None
    finally:
        await follower.close()


async def _follow_sources(layout: Layout, seen: TrafficState) -> None:
    """Join the description and the rules again when they change; the follower sees that."""
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        found = _mesh_state(layout)
        if found == seen:
            continue
        try:
            layout = await asyncio.to_thread(read_sources, layout)
            seen = found
        except FileNotFoundError:
            continue  # a file vanished while it was read
        except DemoError as error:
            seen = found
            _say(f"this cannot be used, the last good description stays:\n{why_not(error)}")


PARTS = {"certificates": certificates, "web": web, "outside": outside, "configuration": configuration}


def main(arguments: Sequence[str]) -> None:
    """Run one part of the demo, as a container's command."""
    parser = argparse.ArgumentParser(prog="python -m authz.demo.containers")
    parser.add_argument("what", choices=tuple(PARTS))
    parser.add_argument("--enforce", choices=[way.value for way in Enforce], default=Enforce.CHECK.value)
    given = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # the first process of a container has no default for it
    os.umask(0o022)
    try:
        PARTS[given.what](read_layout(enforce=Enforce(given.enforce)))
    except DemoError as error:
        sys.exit(str(error))


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
