"""
What containers of the demo's compose file run besides the product itself.

    python -m authz.demo.containers certificates     issues every certificate, and again at half of its life
    python -m authz.demo.containers configuration    renders Envoy's configuration, and again when policies change

Both work in the state directory (``layout``) and rename files into place, which Envoys follow. Each container mounts
only the parts of it that are its business. ``/tmp/ready`` says that everything was written once.
"""

import argparse
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from authz.core.engine import Engine
from authz.core.errors import LoadError
from authz.demo.layout import OTLP_SOCKET, DemoError, Layout, describe
from authz.demo.prepare import CERTIFICATE_TTL_SECONDS, issue_certificates, options, policy_state, read_engine
from authz.mesh.description import read_mesh_description
from authz.mesh.files import write_files
from authz.mesh.render import modes_of, render_all

STATE = Path("/mesh")
READY = Path("/tmp/ready")  # noqa: S108  # a tmpfs of the container's own
WORKERS = 2
"""Replicas of the authorization server in docker-compose.yaml."""
OTLP = f"run/authz/{Path(OTLP_SOCKET).name}"
"""The collector's socket as proxies see it: beside the authorization server's."""
LOOK_SECONDS = 0.2
DESCRIPTION, POLICIES = "envoy-configs/mesh.yaml", "policies"
"""Below the state directory, mounted from the checkout."""


def read_layout(state: Path = STATE) -> Layout:
    """Raises DemoError, OSError."""
    path = state / DESCRIPTION
    mesh, problems = read_mesh_description([(str(path), path.read_bytes())])
    if errors := describe(problems):
        raise DemoError(f"the mesh description cannot be used:\n{errors}")
    return Layout(state, state / POLICIES, mesh)


def rendered(layout: Layout, engine: Engine) -> dict[str, bytes]:
    """The files of the process demo, except that the containers' addresses are in ``eds/`` (XA-190)."""
    files = render_all(
        layout.mesh,
        modes_of(engine),
        replace(options(layout), workers=WORKERS, otlp_compose=OTLP),
    )
    here = {name: content for name, content in files.items() if not name.startswith(("eds/", "eds-compose/"))}
    places = {name: content for name, content in files.items() if name.startswith("eds-compose/")}
    return here | {name.replace("eds-compose/", "eds/"): content for name, content in places.items()}


def certificates(layout: Layout) -> None:
    """Issue for ever."""
    while True:
        issue_certificates(layout, time.time())
        _say(f"certificates of {len(layout.mesh.workloads)} proxies issued for {CERTIFICATE_TTL_SECONDS / 3600:.0f} h")
        READY.touch()
        time.sleep(CERTIFICATE_TTL_SECONDS / 2)


def configuration(layout: Layout) -> None:
    """Render for ever: listeners follow PeerAuthentication. Broken policies change nothing and are reported."""
    seen: tuple[tuple[str, int, int], ...] = ()
    while True:
        found = policy_state(layout.policies)
        if found != seen:
            seen = found
            try:
                _say(f"{len(write_files(layout.state, rendered(layout, read_engine(layout))))} files written")
                READY.touch()
            except LoadError as error:
                _say(f"the policies cannot be used, what was rendered stays:\n{describe(error.problems)}")
            except FileNotFoundError:
                seen = ()  # a file vanished while it was read
        time.sleep(LOOK_SECONDS)


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m authz.demo.containers")
    parser.add_argument("what", choices=("certificates", "configuration"))
    given = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # the first process of a container has no default for it
    os.umask(0o022)
    (certificates if given.what == "certificates" else configuration)(read_layout())


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
