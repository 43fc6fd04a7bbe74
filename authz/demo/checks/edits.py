"""Change a file for a while, as an editor does when it saves."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from authz.demo.layout import DemoError


@asynccontextmanager
async def changed(path: Path, change: Callable[[str], str]) -> AsyncIterator[None]:
    """Keep in the file, for a while, what ``change`` makes of its text; a file that did not exist is removed again."""
    before = _read(path)
    replace_file(path, change(before or ""))
    try:
        yield
    finally:
        _put_back(path, before)


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None


def _put_back(path: Path, before: str | None) -> None:
    if before is None:
        path.unlink()
    else:
        replace_file(path, before)


def replaced(file: str, text: str, old: str, new: str) -> str:
    """Put ``new`` in place of ``old``. Raises DemoError when ``old`` is not there."""
    if old not in text:
        raise DemoError(f"`{file}` no longer contains `{old}`, which this scenario edits")
    return text.replace(old, new)


def replace_file(path: Path, text: str) -> None:
    """Write as an editor saves: another file, renamed."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
