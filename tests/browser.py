"""A real Chromium for tests: whatever it complains of fails them."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next((p for p in (os.environ.get("CHROMIUM", ""), "/usr/bin/chromium") if p and Path(p).exists()), "")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
needs_chromium = pytest.mark.skipif(
    not CHROMIUM, reason="no Chromium: apt-get install chromium, or set CHROMIUM to its path"
)


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """Start it; skips the test where the package playwright is not installed."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            yield started
        finally:
            started.close()


def open_context(
    browser: Any,
    base: str | tuple[str, ...],
    complaints: list[str],
    *,
    width: int = 1280,
    height: int = 800,
    **options: Any,
) -> Any:
    """A page in a context of its own; errors, warnings, dialogues and requests to elsewhere go to ``complaints``."""
    bases = (base,) if isinstance(base, str) else base
    page = browser.new_context(viewport={"width": width, "height": height}, **options).new_page()
    page.on("console", lambda m: complaints.append(m.text) if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: complaints.append(f"dialog: {dialog.message}"))
    page.on("request", lambda r: None if r.url.startswith((*bases, "data:")) else complaints.append(r.url))
    return page
