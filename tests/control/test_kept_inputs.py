"""What was last in force, kept whole in one file, and laid out again."""

import os
import time
from pathlib import Path

import pytest

from authz.control.kept_inputs import KEPT_FILE, InputPaths, KeptInputs

LATER = 4e9, 4e9  # whenever a test is run


@pytest.fixture
def paths(tmp_path: Path) -> InputPaths:
    policies, traffic, mesh = tmp_path / "policies", tmp_path / "traffic", tmp_path / "mesh.yaml"
    (policies / "shop").mkdir(parents=True)
    traffic.mkdir()
    for path in (policies / "a.yaml", policies / "shop" / "b.yaml", traffic / "t.yaml", mesh):
        path.write_text(f"# {path.name}\n")
    (policies / "notes.txt").write_text("no policy")
    return InputPaths(policies, mesh, traffic)


def texts(paths: InputPaths) -> dict[str, str]:
    found = {}
    for kind, path in paths.named().items():
        for file in [path] if path.is_file() else sorted(one for one in path.rglob("*") if one.is_file()):
            found[f"{kind}/{path.name if path.is_file() else file.relative_to(path)}"] = file.read_text()
    return found


def test_what_is_kept_is_laid_out_as_it_was(tmp_path: Path, paths: InputPaths) -> None:
    assert KeptInputs(tmp_path / "keep").keep(paths, *LATER)
    (paths.policies / "a.yaml").write_text("broken")
    found = KeptInputs(tmp_path / "keep").unpack()
    assert found is not None
    assert texts(found) == {
        "policies/a.yaml": "# a.yaml\n",
        "policies/shop/b.yaml": "# b.yaml\n",
        "mesh/mesh.yaml": "# mesh.yaml\n",
        "traffic/t.yaml": "# t.yaml\n",
    }
    assert (tmp_path / "keep" / KEPT_FILE).stat().st_mode & 0o077 == 0


def test_a_file_of_policies_no_traffic_and_no_policies_are_kept_too(tmp_path: Path, paths: InputPaths) -> None:
    for number, policies in enumerate((paths.policies / "a.yaml", tmp_path / "empty")):
        (tmp_path / "empty").mkdir(exist_ok=True)
        kept = KeptInputs(tmp_path / f"keep{number}")
        assert kept.keep(InputPaths(policies, paths.mesh), *LATER)
        found = kept.unpack()
        assert found is not None
        assert found.traffic is None
        assert sorted(texts(found)) == [*["mesh/mesh.yaml"], *(["policies/a.yaml"] if not number else [])]


@pytest.mark.parametrize("change", ["write", "rename", "add", "remove", "link"])
def test_what_changed_since_it_was_read_is_not_kept(tmp_path: Path, paths: InputPaths, change: str) -> None:
    kept = KeptInputs(tmp_path / "keep")
    link = tmp_path / "current"
    link.symlink_to(paths.policies)
    linked = InputPaths(link, paths.mesh)
    changed = paths.policies / "a.yaml"
    if change == "write":
        changed.write_text("other")
        os.utime(changed, (0, 0))
    elif change == "rename":
        changed.rename(changed.with_name("c.yaml"))
    elif change == "add":
        (paths.policies / "shop" / "c.yaml").write_text("new")
    elif change == "remove":
        changed.unlink()
    else:
        link.unlink()
        link.symlink_to(paths.policies / "shop")
    assert not kept.keep(linked, time.time(), 0.0)
    assert kept.unpack() is None


def test_traffic_may_have_been_read_later_than_policies(tmp_path: Path, paths: InputPaths) -> None:
    before = time.time() + 0.1
    late = before + 5.0
    os.utime(paths.mesh)
    for path in (paths.policies, paths.mesh):
        assert path.stat().st_ctime < before
    kept = KeptInputs(tmp_path / "keep")
    assert kept.keep(paths, before, late)
    assert not kept.keep(paths, before, 0.0)


def test_without_anything_kept_there_is_nothing(tmp_path: Path) -> None:
    assert KeptInputs(tmp_path).unpack() is None


def test_what_was_changed_or_cut_off_is_not_used(tmp_path: Path, paths: InputPaths) -> None:
    assert KeptInputs(tmp_path).keep(paths, *LATER)
    whole = (tmp_path / KEPT_FILE).read_bytes()
    for data in (b"", b"nothing", whole[:-40], whole.replace(b"# a.yaml", b"# x.yaml"), whole[: len(whole) // 2]):
        if data != whole:
            (tmp_path / KEPT_FILE).write_bytes(data)
            with pytest.raises(OSError, match="is not what was kept"):
                KeptInputs(tmp_path).unpack()
