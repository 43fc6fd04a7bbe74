"""An issuer's keys rotate while tokens come: what was published in time is known, and what was not soon is."""

from pathlib import Path

import pytest

from authz.sources.keys.source import HINT_SECONDS
from tests.envoy.native.rotation import rotate, rotating, seconds_unknown

pytestmark = pytest.mark.envoy


async def test_no_token_is_lost_whose_key_was_published_a_rotation_before(tmp_path: Path) -> None:
    """A rotation of 1.5 s stands for a minute, and a refresh of 0.75 s for the half minute below which none is."""
    pytest.importorskip("envoy")
    async with rotating(tmp_path, refresh_seconds=0.75, has_record=False) as mesh:
        load = await rotate(mesh, rotations=8, seconds=1.5)
    assert load.keys == 8
    assert load.sent > 100
    assert load.refused == 0


async def test_a_key_that_is_used_at_once_is_known_as_soon_as_the_record_tells(tmp_path: Path) -> None:
    pytest.importorskip("envoy")
    async with rotating(tmp_path, refresh_seconds=1200, has_record=True) as mesh:
        assert await seconds_unknown(mesh, "k1", limit=60) < HINT_SECONDS + 5
