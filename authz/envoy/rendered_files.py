"""Rendered files on disk: written by rename, as Envoy wants it (XA-150), and compared with what they should be."""

from collections.abc import Mapping
from pathlib import Path

from authz.envoy.options import FILTERS_HEADER, HEADER, RENDERED_DIRECTORIES


def write_files(out: Path, files: Mapping[str, bytes]) -> tuple[str, ...]:
    """
    Write what is new or different, each file renamed into place, in the given order; return the names written.

    Running Envoys follow. Raises OSError.
    """
    written = []
    for name, content in files.items():
        path = out / name
        if path.is_file() and path.read_bytes() == content:
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f".{path.name}.new")  # a dot: nobody takes it for a resource
        fresh.write_bytes(content)
        fresh.replace(path)
        written.append(name)
    return tuple(written)


def differences(out: Path, files: Mapping[str, bytes]) -> tuple[str, ...]:
    """Say, one line each and sorted, which files are missing, different, or left over. Raises OSError."""
    found = []
    for name, content in files.items():
        path = out / name
        if not path.is_file():
            found.append(f"{name}: missing")
        elif path.read_bytes() != content:
            found.append(f"{name}: differs")
    found += [f"{name}: left over" for name in left_over(out, files)]
    return tuple(sorted(found))


def left_over(out: Path, files: Mapping[str, bytes]) -> tuple[str, ...]:
    """Find files that, by their first line, were rendered once and are not rendered any longer. Raises OSError."""
    found = []
    for directory in RENDERED_DIRECTORIES:
        for path in sorted((out / directory).glob("*.*")):
            name = f"{directory}/{path.name}"
            if name not in files and path.read_bytes().startswith((HEADER, FILTERS_HEADER)):
                found.append(name)
    return tuple(found)
