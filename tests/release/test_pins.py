"""What the image is made of is pinned: its base by digest, its packages by version and digest of every file."""

import importlib.metadata
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import authz

ROOT = Path(authz.__file__).parent.parent
FILES = ("image.txt", "build.txt", "release.txt")
ENTRY = re.compile(r"^([\w.-]+)==(\S+)(?: ; ([^\\\n]+?))? ?((?:\\\n    --hash=sha256:[0-9a-f]{64} ?)+)$", re.MULTILINE)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def pinned(file: str) -> dict[str, str]:
    """Name to version of every entry that has digests."""
    text = (ROOT / "requirements" / file).read_text()
    return {canonicalize_name(name): version for name, version, _, _ in ENTRY.findall(text)}


def wanted(file: str) -> list[str]:
    project = PROJECT["project"]
    if file == "image.txt":
        return [*project["dependencies"], *project["optional-dependencies"]["image"]]
    build: list[str] = PROJECT["build-system"]["requires"]
    if file == "build.txt":
        return build
    lines = (ROOT / "requirements" / "release.in").read_text().splitlines()
    return [*build, *(line.partition("#")[0].strip() for line in lines)]


@pytest.mark.parametrize("file", FILES)
def test_every_line_is_a_version_with_digests(file: str) -> None:
    text = (ROOT / "requirements" / file).read_text()
    assert "://" not in text, "no index is named"
    left = ENTRY.sub("", text)
    assert [line for line in left.splitlines() if line.strip() and not line.startswith("#")] == []


@pytest.mark.parametrize("file", FILES)
def test_every_dependency_of_the_image_is_pinned_and_hashed(file: str) -> None:
    """Those of pyproject.toml in a version that it allows, and what they need in turn, where it is installed here."""
    found = pinned(file)
    for text in wanted(file):
        requirement = Requirement(text)
        pin = found.get(canonicalize_name(requirement.name))
        assert pin is not None, f"{text} is not pinned: run `make requirements`"
        assert requirement.specifier.contains(pin, prereleases=True), f"{text} is pinned as {pin}"
    missing = set()
    for name, version in found.items():
        try:
            if importlib.metadata.version(name) != version:
                continue  # a newer one may need something else
            needs = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        for need in map(Requirement, needs):
            is_needed = need.marker is None or need.marker.evaluate({"extra": ""})
            if is_needed and canonicalize_name(need.name) not in found:
                missing.add(f"{name} needs {need}")
    assert missing == set()


def test_the_image_installs_nothing_without_a_digest() -> None:
    joined = DOCKERFILE.replace("\\\n", " ")
    commands = [part for line in joined.splitlines() if line.startswith("RUN") for part in line.split("&&")]
    installs = [part for part in commands if re.search(r"\bpip\b.*\b(install|wheel)\b", part)]
    assert len(installs) >= 3
    assert [part for part in installs if "--require-hashes" not in part and "--no-deps" not in part] == []
    assert all("--no-build-isolation" in part for part in installs if " wheel " in part.partition("pip")[2])


def test_the_base_of_a_released_image_is_named_by_digest() -> None:
    (base,) = re.findall(r"^ARG BASE=(\S+)$", DOCKERFILE, re.MULTILINE)
    pinned = (ROOT / "requirements" / "base-image.txt").read_text().strip()
    assert re.fullmatch(rf"{re.escape(base)}@sha256:[0-9a-f]{{64}}", pinned)
    assert "--build-arg BASE=$$(cat requirements/base-image.txt)" in (ROOT / "Makefile").read_text()
    assert set(re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)) == {"${BASE}"}
