"""Files are put in place so that no proxy is ever without a cluster that its routes lead to."""

import json
from pathlib import Path

import pytest

from authz.control.state_directory import RETIRE_SECONDS, StateDirectory
from authz.envoy.options import HEADER


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def clusters(*names: str) -> bytes:
    return HEADER + json.dumps({"resources": [{"name": name} for name in names]}).encode()


def named(path: Path) -> list[str]:
    return [one["name"] for one in json.loads(path.read_bytes().removeprefix(HEADER))["resources"]]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def state(tmp_path: Path, clock: Clock) -> StateDirectory:
    return StateDirectory(tmp_path, clock)


def test_a_cluster_that_goes_stays_until_routes_have_changed(
    state: StateDirectory, tmp_path: Path, clock: Clock
) -> None:
    state.put({"cds/a.yaml": clusters("v1", "v2"), "rds/a.x.yaml": HEADER + b"one", "eds/v2.yaml": HEADER})
    after = {"cds/a.yaml": clusters("v1", "v3"), "rds/a.x.yaml": HEADER + b"two"}
    put = state.put(after)
    assert put.again_seconds == RETIRE_SECONDS
    assert named(tmp_path / "cds/a.yaml") == ["v1", "v3", "v2"]
    assert (tmp_path / "rds/a.x.yaml").read_bytes() == HEADER + b"two"
    assert (tmp_path / "eds/v2.yaml").exists()
    clock.now += RETIRE_SECONDS / 2
    assert state.put(after).again_seconds == RETIRE_SECONDS / 2
    clock.now += RETIRE_SECONDS / 2
    assert state.put(after) == (("cds/a.yaml",), ("eds/v2.yaml",), None)
    assert named(tmp_path / "cds/a.yaml") == ["v1", "v3"]
    assert state.put(after) == ((), (), None)


def test_what_another_run_left_is_retired_too(tmp_path: Path, clock: Clock) -> None:
    StateDirectory(tmp_path, clock).put({"cds/a.yaml": clusters("old")})
    StateDirectory(tmp_path, clock).put({"cds/a.yaml": clusters("new")})
    assert named(tmp_path / "cds/a.yaml") == ["new", "old"]


def test_a_clock_that_goes_back_keeps_nothing_for_ever(state: StateDirectory, tmp_path: Path, clock: Clock) -> None:
    state.put({"cds/a.yaml": clusters("old")})
    state.put({"cds/a.yaml": clusters("new")})
    clock.now -= 5000
    state.put({"cds/a.yaml": clusters("new", "newer")})
    assert named(tmp_path / "cds/a.yaml") == ["new", "newer"]


def test_a_failed_writing_is_done_again_whole(state: StateDirectory, tmp_path: Path) -> None:
    files = {"cds/a.yaml": clusters("one"), "eds/a.yaml": HEADER}
    (tmp_path / "cds").write_bytes(b"in the way")
    with pytest.raises(OSError, match="cds"):
        state.put(files)
    (tmp_path / "cds").unlink()
    assert state.put(files).written == ("cds/a.yaml",)  # the other file is there already


def test_proxies_that_only_look_now_and_then_see_a_new_cluster_before_the_route(tmp_path: Path, clock: Clock) -> None:
    seen: list[tuple[list[str], bytes]] = []
    endpoints = ("eds/v2.yaml", "eds-compose/v2.yaml")

    def look(seconds: float) -> None:
        assert seconds == 0.5
        assert all((tmp_path / name).exists() for name in endpoints), "a proxy refuses a cluster without this file"
        seen.append((named(tmp_path / "cds/a.yaml"), (tmp_path / "rds/a.x.yaml").read_bytes()))

    state = StateDirectory(tmp_path, clock, settle_seconds=0.5, pause=look)
    state.put({"cds/a.yaml": clusters("v1"), "rds/a.x.yaml": HEADER + b"one"})
    assert seen == []  # nobody runs yet
    new = {"cds/a.yaml": clusters("v2"), "rds/a.x.yaml": HEADER + b"two"}
    state.put(new | dict.fromkeys(endpoints, HEADER))
    assert seen == [(["v2", "v1"], HEADER + b"one")]
    state.put({"cds/a.yaml": (tmp_path / "cds/a.yaml").read_bytes(), "rds/a.x.yaml": HEADER + b"three"})
    assert len(seen) == 1  # clusters are as they were
