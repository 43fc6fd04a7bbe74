"""Every harness takes its seeds once, without the fuzzer: what broke a reader once stays mended."""

import pytest

from tests.fuzz.harnesses import HARNESSES, SEEDS, seeds
from tests.fuzz.run import NAMES


@pytest.mark.parametrize("name", HARNESSES)
def test_every_harness_takes_its_seeds(name: str) -> None:
    found = seeds(name)
    assert found
    for data in found:
        HARNESSES[name].run(data)
        HARNESSES[name].run(data[: len(data) // 2])
        HARNESSES[name].run(data + data[:7])
        HARNESSES[name].run(b"")


def test_every_harness_is_fuzzed_and_every_folder_of_seeds_has_one() -> None:
    assert tuple(HARNESSES) == NAMES
    assert {folder.name for folder in SEEDS.iterdir() if folder.is_dir()} <= set(HARNESSES)
