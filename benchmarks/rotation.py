"""
An issuer's keys rotate under load, before an Envoy that decides by itself: ``python -m benchmarks.rotation``.

Prints how many tokens were refused whose key was published a rotation before, and how long a key is unknown that is
used as it is published: with the record of the access log, which hints, and without, by a refresh of half a minute.
"""

import asyncio
import tempfile
from pathlib import Path

from tests.envoy.native.rotation import rotate, rotating, seconds_unknown

REFRESH = 30.0
"""Seconds: the least that an issuer's ``max-age`` brings about."""


async def measure() -> None:
    with tempfile.TemporaryDirectory() as directory:
        async with rotating(Path(directory), refresh_seconds=1, has_record=False) as mesh:
            load = await rotate(mesh, rotations=20, seconds=2)
    print(f"{load.keys} rotations of 2 s, key sets refreshed each second: {load.sent} tokens, {load.refused} refused")
    for has_record in (True, False):
        with tempfile.TemporaryDirectory() as directory:
            async with rotating(Path(directory), refresh_seconds=REFRESH, has_record=has_record) as mesh:
                found = [await seconds_unknown(mesh, f"k{number}", 60) for number in range(1, 4)]
        times = ", ".join(f"{one:.1f}" for one in found)
        print(f"a key used as it is published, {'with' if has_record else 'without'} the record: unknown for {times} s")


if __name__ == "__main__":
    asyncio.run(measure())
