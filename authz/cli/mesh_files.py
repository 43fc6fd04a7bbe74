"""What commands about a mesh read: its description, and the bundles of issuers."""

from pathlib import Path

import click

from authz.cli import terminal
from authz.core.errors import LoadError, Severity
from authz.mesh.description import read_mesh_description
from authz.mesh.nouns import Mesh
from authz.sources.policies.directory import read_directory


def ca_bundles(written: tuple[str, ...]) -> dict[str, str]:
    """Files by issuer, as --jwks-ca-bundle names them. Raises click.UsageError."""
    found = dict(one.rpartition("=")[::2] for one in written)
    if "" in found:
        raise click.UsageError("--jwks-ca-bundle is ISSUER=FILE")
    return found


def read_description(path: Path, traffic: Path | None) -> Mesh:
    """The description, with its warnings as remarks. Raises LoadError, OSError."""
    more = read_directory(traffic) if traffic is not None else []
    mesh, problems = read_mesh_description([*read_directory(path), *more])
    if any(problem.is_error for problem in problems):
        raise LoadError(problems)
    for problem in problems:
        if problem.severity is Severity.WARNING:
            terminal.remark(f"{problem}")
    return mesh
