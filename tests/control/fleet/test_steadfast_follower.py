"""A control plane that is started again where what is there can no longer be used."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from authz._proto import delta_discovery_pb2 as wire
from authz.canary.canary_selection import CanarySelection
from authz.canary.canary_source import CanarySource
from authz.control.discovery.discovered import EXTENSION_TYPE, LISTENER_TYPE
from authz.control.kept_inputs import KEPT_FILE
from authz.core.errors import LoadError
from tests.control.fleet.fleet_rig import API, Rig, allow, until


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    made = Rig(tmp_path)
    yield made
    await made.stop()


def break_policies(rig: Rig) -> None:
    rig.write_policy("kind: Nonsense\n", "broken.yaml")


def break_mesh(rig: Rig) -> None:
    rig.write_mesh("---\nkind: Nonsense\n")


def mend(rig: Rig) -> None:
    (rig.policies / "broken.yaml").unlink(missing_ok=True)
    rig.write_mesh()
    rig.write_policy(allow("/two"))


async def in_force(rig: Rig, type_url: str = LISTENER_TYPE) -> str:
    """The version of something of a proxy: by default of its listeners."""
    async with rig.stream(API) as call:
        request = wire.DeltaDiscoveryRequest(type_url=type_url, resource_names_subscribe=["*"])
        request.node.id = "api-v1"
        await call.write(request)
        response = await call.read()
        assert isinstance(response, wire.DeltaDiscoveryResponse)
        return response.system_version_info


@pytest.mark.parametrize("spoil", [break_policies, break_mesh])
async def test_what_was_last_in_force_is_served_until_what_is_there_can_be_used(
    rig: Rig, spoil: Callable[[Rig], None]
) -> None:
    await rig.start()
    before = await in_force(rig)
    await rig.stop()
    spoil(rig)
    await rig.start()
    assert await in_force(rig) == before
    assert rig.plane is not None
    assert [cause["part"] for cause in rig.plane.causes()] == ["mesh"]
    assert any(line.startswith("KEPT") and KEPT_FILE in line for line in rig.said)
    version = rig.version()
    mend(rig)

    async def is_mended() -> bool:
        assert rig.plane is not None
        return not list(rig.plane.causes()) and rig.version() != version

    await until(is_mended)


async def test_a_restart_while_it_is_broken_keeps_what_was_kept(rig: Rig) -> None:
    await rig.start()
    before = await in_force(rig)
    break_policies(rig)
    for _ in range(2):
        await rig.stop()
        await rig.start()
        assert await in_force(rig) == before


async def test_a_candidate_stays_in_force_beside_what_was_kept_and_goes_when_it_is_taken_away(rig: Rig) -> None:
    candidate = rig.folder / "next"
    rig.canary = CanarySource(candidate, CanarySelection(names=frozenset({"api-v1"})))
    await rig.start()
    without = await in_force(rig, EXTENSION_TYPE)
    await rig.stop()
    candidate.mkdir()
    (candidate / "api.yaml").write_text(allow("/two"))
    await rig.start()
    before = await in_force(rig, EXTENSION_TYPE)
    assert before != without
    await rig.stop()
    break_policies(rig)
    await rig.start()
    assert await in_force(rig, EXTENSION_TYPE) == before
    assert rig.plane is not None
    shown = rig.plane.page("/canary")
    assert isinstance(shown, dict)
    assert (shown["state"], shown["chosen"]) == ("in force", ("api-v1",))
    (candidate / "api.yaml").unlink()
    candidate.rmdir()

    async def is_gone() -> bool:
        return await in_force(rig, EXTENSION_TYPE) == without

    await until(is_gone)


async def test_without_anything_kept_it_does_not_start(rig: Rig) -> None:
    break_policies(rig)
    with pytest.raises(LoadError):
        await rig.start()


async def test_what_is_kept_and_damaged_is_not_served(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    await rig.start()
    await rig.stop()
    (rig.folder / "keep" / KEPT_FILE).write_bytes(b"PK")
    break_policies(rig)
    with pytest.raises(LoadError):
        await rig.start()
    assert "is not what was kept" in caplog.text
