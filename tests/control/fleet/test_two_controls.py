"""Two control planes, each with an authority of its own below one root, and a real Envoy that knows both."""

import asyncio
import time
from pathlib import Path

import pytest

from authz.control.authority.authority_files import AuthorityFiles
from authz.control.authority.authority_server import AuthorityServer, Doors
from authz.control.fleet.control_plane import ControlPlane, MeshSources
from authz.envoy.options import RenderOptions
from authz.identity.announcing import another_authority
from authz.mesh.nouns import Enforce
from tests.control.fleet.fleet_rig import API, WEB, Rig, allow, answers, free_ports, until

pytestmark = pytest.mark.envoy


async def test_a_proxy_goes_on_with_the_other_control_when_one_is_gone(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.join("web-v1", WEB)
    rig.join("api-v1", API)
    (port,) = free_ports(1)
    rig.controls.append(port)
    another_authority(rig.ca, "b", time.time()).save(tmp_path / "ca-b")
    authority = AuthorityServer(AuthorityFiles(tmp_path / "ca-b"), Doors(listen=f"127.0.0.1:{port}"))
    sources = MeshSources(rig.policies, rig.mesh, keep=tmp_path / "keep-b")
    other = ControlPlane(
        sources, RenderOptions(enforce=Enforce.NATIVE), authority, clock=time.time, say=rig.said.append
    )
    await rig.start()
    await other.start()
    following = asyncio.create_task(other.run())
    try:
        async with rig.application():
            with rig.envoy("web-v1"), rig.envoy("api-v1"):
                await answers(rig.out, "/one", "200")
                await rig.stop()
                rig.write_policy(allow("/two"))
                await answers(rig.out, "/two", "200")

                async def both_are_there() -> bool:
                    return all(state.is_connected for state in other.discovery.states())

                await until(both_are_there)
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await other.stop()
        await rig.stop()
