"""
Licences of everything that is installed with the program, listed in docs/licences.md and held against a list.

    python tests/release/test_licences.py     writes the table from what is installed here
"""

import importlib.metadata
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

import authz

ROOT = Path(authz.__file__).parent.parent
PAGE = ROOT / "docs" / "licences.md"
BEGIN, END = "<!-- written by `python tests/release/test_licences.py` -->\n", "<!-- end -->\n"
ROW = re.compile(r"^\| `([\w.-]+)` \| ([^|]+) \|$", re.MULTILINE)

ALLOWED = frozenset(
    {"Apache-2.0", "MIT", "MIT-0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "PSF-2.0", "MPL-2.0", "Zlib", "0BSD"}
)
"""
What may be used and handed on beside Apache-2.0 by naming it. MPL-2.0 asks for the source of its own files only, which
are handed on unchanged. No licence that asks for the source of ours.
"""
SPOKEN: Mapping[str, str] = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD-3-Clause",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "The MIT License (MIT)": "MIT",
}
"""Older packages' words."""
ELSEWHERE: Mapping[str, str] = {"async-timeout": "Apache-2.0"}
"""Packages for some Pythons or systems only, by what they say where they are installed."""


def packages() -> dict[str, str]:
    """Everything pinned for the image, with its version."""
    text = (ROOT / "requirements" / "image.txt").read_text()
    return dict(re.findall(r"^([\w.-]+)==([^\s;]+)", text, re.MULTILINE))


def licence_of(package: str) -> str | None:
    """What an installed package says of itself, in the words of SPDX; None where it is not installed."""
    try:
        metadata = importlib.metadata.metadata(package)
    except importlib.metadata.PackageNotFoundError:
        return None
    if "License-Expression" in metadata:
        return metadata["License-Expression"]
    said = metadata["License"].strip().splitlines()[:1] if "License" in metadata else []
    said += [line.rpartition(" :: ")[2] for line in metadata.get_all("Classifier") or () if "License" in line]
    for text in said:
        found = SPOKEN.get(text, text)
        if found in ALLOWED:
            return found
    return str(said)


def listed() -> dict[str, str]:
    return dict(ROW.findall(PAGE.read_text()))


def table() -> str:
    rows = [
        f"| `{name}` | {licence_of(name) or ELSEWHERE.get(name) or listed().get(name, '?')} |" for name in packages()
    ]
    return "\n".join(["| package | licence |", "|---|---|", *rows]) + "\n"


def test_every_dependency_is_listed_and_nothing_else() -> None:
    assert set(listed()) == set(packages()), "run `python tests/release/test_licences.py`"


@pytest.mark.parametrize(("package", "licence"), sorted(listed().items()))
def test_every_dependency_has_a_licence_of_the_list(package: str, licence: str) -> None:
    terms = set(re.split(r" (?:AND|OR) ", licence.replace("(", "").replace(")", "")))
    assert terms <= ALLOWED, f"{package}: {terms - ALLOWED} is not among the licences that may be used"


@pytest.mark.parametrize(("package", "licence"), sorted(listed().items()))
def test_what_is_listed_is_what_the_package_says(package: str, licence: str) -> None:
    said, pinned = licence_of(package), packages()[package]
    if said is None or importlib.metadata.version(package) != pinned:
        pytest.skip(f"{package} {pinned} is not installed here")
    assert licence == said


def test_every_vendored_script_has_its_licence_beside_it() -> None:
    vendor = ROOT / "authz" / "admin" / "static" / "vendor"
    told = (vendor / "README.md").read_text()
    for script in vendor.glob("*.js"):
        (row,) = (line for line in told.splitlines() if f"| {script.name} |" in line)
        licence, text = row.split("|")[3].split(",")
        assert licence.strip() in ALLOWED
        assert "permission" in (vendor / text.strip()).read_text().lower()


if __name__ == "__main__":
    page = PAGE.read_text()
    begin, end = page.index(BEGIN) + len(BEGIN), page.index(END)
    PAGE.write_text(page[:begin] + table() + page[end:])
