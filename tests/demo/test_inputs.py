"""Which policies the demo runs: a checkout's, else a copy that the user may edit."""

from pathlib import Path

import pytest

from authz.demo.inputs import FOLDER, MESH, POLICIES, TRAFFIC, Inputs, find_inputs
from authz.demo.layout import DemoError


def lay(root: Path, text: str) -> Path:
    """A folder with both."""
    (root / POLICIES / "more").mkdir(parents=True)
    (root / POLICIES / "a.yaml").write_text(text)
    (root / POLICIES / "more" / "b.yaml").write_text(text)
    (root / MESH).parent.mkdir(parents=True)
    (root / MESH).write_text(text)
    return root


@pytest.fixture
def packaged(tmp_path: Path) -> Path:
    return lay(tmp_path / "packaged", "packaged")


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """An empty working directory."""
    (tmp_path / "here").mkdir()
    return tmp_path / "here"


def find(here: Path, packaged: Path, *, to_edit: bool = True, checkout: Path | None = None) -> Inputs:
    return find_inputs(here, to_edit=to_edit, checkout=checkout or here / "none", packaged=packaged)


def test_what_the_working_directory_has_is_run_where_it_is(here: Path, packaged: Path) -> None:
    assert find(lay(here, "mine"), packaged) == Inputs(here / POLICIES, here / MESH)


def test_policies_of_the_users_own_are_not_taken_for_the_demos(here: Path, packaged: Path) -> None:
    (here / POLICIES).mkdir()
    assert find(here, packaged).policies == here / FOLDER / POLICIES


def test_a_checkout_is_run_from_anywhere(here: Path, packaged: Path, tmp_path: Path) -> None:
    checkout = lay(tmp_path / "checkout", "checkout")
    assert find(here, packaged, checkout=checkout) == Inputs(checkout / POLICIES, checkout / MESH)
    assert list(here.iterdir()) == []


def test_an_installed_package_lays_a_copy_and_says_where(here: Path, packaged: Path) -> None:
    found = find(here, packaged)
    assert found.note == f"copied policies and mesh description to {here / FOLDER}/: edit them there"
    assert [path.read_text() for path in (found.policies / "a.yaml", found.policies / "more/b.yaml", found.mesh)] == [
        "packaged"
    ] * 3
    assert [path.name for path in here.iterdir()] == [FOLDER]


def test_what_the_user_edited_stays(here: Path, packaged: Path) -> None:
    edited = find(here, packaged).policies / "a.yaml"
    edited.write_text("edited")
    assert find(here, packaged).note == f"policies and mesh description are those of {here / FOLDER}/"
    assert edited.read_text() == "edited"


def test_rules_of_traffic_are_laid_with_their_examples_where_there_are_any(here: Path, packaged: Path) -> None:
    (packaged / TRAFFIC / "examples").mkdir(parents=True)
    (packaged / TRAFFIC / "examples" / "a.yaml.off").write_text("packaged")
    laid = find(here, packaged).traffic
    assert laid == here / FOLDER / TRAFFIC
    assert (laid / "examples" / "a.yaml.off").read_text() == "packaged"


def test_a_check_reads_the_packages_files_and_leaves_nothing_behind(here: Path, packaged: Path) -> None:
    assert find(here, packaged, to_edit=False) == Inputs(packaged / POLICIES, packaged / MESH)
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(("made", "missing"), [("other", f"{POLICIES}/"), (POLICIES, MESH)])
def test_a_folder_of_that_name_with_something_else_is_not_touched(
    made: str, missing: str, here: Path, packaged: Path
) -> None:
    (here / FOLDER / made).mkdir(parents=True)
    with pytest.raises(DemoError, match=f"lacks {missing}: move it away"):
        find(here, packaged)


def test_a_folder_that_cannot_be_written_is_named(packaged: Path, tmp_path: Path) -> None:
    with pytest.raises(DemoError, match="start it in a folder of your own"):
        find(tmp_path / "gone", packaged)


def test_a_package_without_its_files_says_so(here: Path, tmp_path: Path) -> None:
    with pytest.raises(DemoError, match="install the wheel again, or name --policies and --mesh"):
        find(here, tmp_path / "nothing")
