"""
The documentation says what is: links lead somewhere, commands, settings and rooms are those of the code, examples run.

    python tests/test_docs.py     writes the table of settings into docs/operations.md anew, into
                                  docs/architecture.md which rooms each room may import, and into
                                  docs/mesh-fields.md which fields of Istio's kinds are not done
"""

import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import authz
from authz.cli import COMMANDS, application
from authz.settings.flags import setting_flags
from authz.settings.precedence import PREFIX
from authz.settings.sections import PATHS
from authz.settings.settings import Settings

ROOT = Path(authz.__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md"])
OPERATIONS = DOCS / "operations.md"
HOUSE = DOCS / "architecture.md"
ROOM = re.compile(r"^\| \[`([\w.]+)`\]\(\S+\) \|[^|]*\| ([^|]*) \|$", re.MULTILINE)
FIELDS = "<!-- fields: written by `python tests/test_docs.py` -->\n"
BEGIN, END = "<!-- settings: written by `python tests/test_docs.py` -->\n", "<!-- end of settings -->\n"
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
RUN = ("cli.md", "findings.md", "identity-providers.md", "proofs.md", "testing-policies.md", "why-was-i-denied.md")
"""Pages whose console blocks are complete: each command is run, and printed output compared."""
RUN_WHOLE = ("tutorial.md",)
"""Pages whose commands are run one after another, by `tests/up/test_tutorial.py`."""
NEVER_RUN = re.compile(r"\b(serve|demo|ca serve|fleet up|pip|make|curl|docker|openssl|sudo|systemctl)\b|--watch\b")
"""Commands that would stay, build, or need a running service; their options are checked all the same."""

TUNING = frozenset({"audit_capacity", "audit_flush_seconds", "max_token_bytes", "token_cache_size"})
"""Settings whose defaults hardly anybody changes; they stand last."""


def settings_table() -> str:
    """Every setting of ``authz serve`` by both of its names, with its default; tuning last."""
    rows = ["| setting | in a section | default | what it does |", "|---|---|---|---|"]
    for flag in sorted(setting_flags(), key=lambda flag: flag.name in TUNING):
        if flag.name in TUNING and "| **tuning** | | | |" not in rows:
            rows.append("| **tuning** | | | |")
        default = Settings.model_fields[flag.name].default
        shown = ", ".join(f"`{value}`" for value in default) if flag.several else f"`{default}`"
        empty = default is None or default == "" or default == () or default == {}
        choices = f" ({' or '.join(f'`{choice}`' for choice in flag.choices)})" if flag.choices else ""
        text = (Settings.model_fields[flag.name].description or "").replace("|", "\\|")
        rows.append(f"| `{flag.name}` | `{PATHS[flag.name]}` | {'–' if empty else shown} | {text}{choices} |")
    return "\n".join(rows) + "\n"


def slug(heading: str) -> str:
    """The anchor of a heading, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower().replace("`", "")).replace(" ", "-")


def anchors(page: Path) -> set[str]:
    return {slug(line.lstrip("#")) for line in BLOCK.sub("", page.read_text()).splitlines() if line.startswith("#")}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    dead = []
    for found in LINK.finditer(BLOCK.sub("", page.read_text())):
        target, _, anchor = (found[1] or found[2]).partition("#")
        if "://" in target:
            continue
        file = (page.parent / target).resolve() if target else page
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in anchors(file)):
            dead.append(found[0])
    assert dead == []


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda page: str(page.relative_to(DOCS)))
def test_every_page_can_be_found_from_the_readme(page: Path) -> None:
    seen: set[Path] = set()
    todo = [ROOT / "README.md"]
    while todo:
        here = todo.pop()
        if here in seen or not here.exists():
            continue
        seen.add(here)
        todo += [
            (here.parent / (found[1] or found[2]).partition("#")[0]).resolve()
            for found in LINK.finditer(here.read_text())
            if (found[1] or found[2]).partition("#")[0].endswith(".md")
        ]
    assert page in seen


def test_the_table_of_settings_is_that_of_the_code() -> None:
    text = OPERATIONS.read_text()
    assert text[text.index(BEGIN) + len(BEGIN) : text.index(END)] == settings_table(), "run `python tests/test_docs.py`"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_documented(command: str) -> None:
    text = "".join(page.read_text() for page in PAGES)
    assert re.search(rf"`authz {command}\b|^\$ authz {command}\b|^authz {command}\b", text, re.MULTILINE)


def rooms() -> dict[str, str]:
    """What each room may import, as the page of the house says it."""
    may: dict[str, frozenset[str]] = runpy.run_path(str(ROOT / "tests" / "test_layers.py"))["MAY_IMPORT"]
    return {
        room: ", ".join(sorted(others)) or "–"
        for room, others in may.items()
        if room != "authz" and not room.startswith("_")
    }


def test_every_room_is_on_the_page_of_the_house_with_what_it_may_import() -> None:
    told = {room.removesuffix(".py"): others for room, others in ROOM.findall(HOUSE.read_text())}
    assert told == rooms(), "run `python tests/test_docs.py` for the last column"


def commands() -> Iterator[tuple[str, str, str]]:
    """(page, command, what is printed there) of every console block."""
    for page in PAGES:
        for language, block in BLOCK.findall(page.read_text()):
            if language != "console":
                continue
            for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
                command, _, printed = part.replace("\\\n", " ").partition("\n")
                yield str(page.relative_to(ROOT)), command, printed


def authz_calls() -> Iterator[tuple[str, str]]:
    """Every call of ``authz`` in a block of any language."""
    for page in PAGES:
        for _, block in BLOCK.findall(page.read_text()):
            for line in block.replace("\\\n", " ").splitlines():
                found = re.search(r"(?:^|[/\s])authz ([a-z].*)", line.removeprefix("$ "))
                if found is not None and (line.startswith(("$ ", "authz ")) or "/authz serve" in line):
                    yield str(page.relative_to(ROOT)), found[1].partition(" #")[0].partition(" | ")[0]


@pytest.mark.parametrize(("page", "call"), sorted(set(authz_calls())))
def test_every_call_names_commands_and_options_that_exist(page: str, call: str) -> None:
    words = shlex.split(call)
    command: click.Command = application
    context = click.Context(application)
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        found = command.get_command(context, words.pop(0))
        assert found is not None, call
        command = found
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    known |= {"--help", "-h", "--version", "-"}
    for word in words:
        if word == "--":
            break
        name = word.partition("=")[0]
        if name.startswith("-") and not re.fullmatch(r"-\d+", name):
            assert name in known, f"{call}: {name}"


def test_every_variable_of_the_environment_is_one() -> None:
    from authz.cli.serve import _is_option

    named = {name for page in PAGES for name in re.findall(rf"\b{PREFIX}[A-Z_]+\b", page.read_text())}
    fields = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    others = {"AUTHZ_CONFIG"}
    """The settings file of a server inside a sidecar."""
    assert {name for name in named - fields - others if not _is_option(name)} == set()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "command"),
    sorted(
        {
            (page, command)
            for page, command, _ in commands()
            if Path(page).name not in (*RUN, *RUN_WHOLE)
            and command.startswith("authz ")
            and not NEVER_RUN.search(command)
        }
    ),
)
def test_an_example_runs_beside_policies_and_a_mesh(page: str, command: str, tmp_path: Path) -> None:
    """In a directory with `policies/`, `mesh.yaml` and what else the checkout has, into which it may write."""
    for name in ("policies", "envoy-configs", "docs", "tests"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "mesh.yaml").symlink_to(ROOT / "envoy-configs" / "mesh.yaml")
    shutil.copytree(ROOT / "envoy-configs" / "login", tmp_path / "state" / "login")  # the login's issuer does not run
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", "-c", command], cwd=tmp_path, env={"PATH": path}, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode in (0, 3), f"{page}: {command}\n{done.stderr}"


def write_rooms() -> None:
    """The last column of the table of rooms; a new room is told of by hand."""
    may = rooms()

    def row(found: re.Match[str]) -> str:
        return found[0][: found.start(2) - found.start()] + may[found[1].removesuffix(".py")] + " |"

    HOUSE.write_text(ROOM.sub(row, HOUSE.read_text()))


def write_settings() -> None:
    text = OPERATIONS.read_text()
    begin, end = text.index(BEGIN) + len(BEGIN), text.index(END)
    OPERATIONS.write_text(text[:begin] + settings_table() + text[end:])


def write_fields() -> None:
    """What `tests/mesh/test_istio_fields.py` compares."""
    page = DOCS / "mesh-fields.md"
    text = page.read_text()
    begin, end = text.index(FIELDS) + len(FIELDS), text.index("<!-- end of fields -->\n")
    table = runpy.run_path(str(ROOT / "tests" / "mesh" / "istio_fields.py"))["table"]
    page.write_text(text[:begin] + table() + text[end:])


if __name__ == "__main__":
    write_fields()
    write_rooms()
    write_settings()
