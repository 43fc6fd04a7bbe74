"""Key sets that a command is given as ``--jwks URI=FILE``."""

from collections.abc import Sequence
from pathlib import Path

import click

JWKS = click.option(
    "--jwks", multiple=True, metavar="URI=FILE", help="Keys of a jwksUri, or of an issuer without one; may be repeated."
)
"""The option; ``read_key_sets`` reads its values."""


def read_key_sets(written: Sequence[str]) -> dict[str, str]:
    """
    Texts by ``JwtRule.keys_from``: what is given may be a ``jwksUri`` or an issuer whose keys are discovered.

    Raises click.UsageError, OSError.
    """
    found: dict[str, str] = {}
    for one in written:
        uri, equals, path = one.rpartition("=")
        if not equals or not uri:
            raise click.UsageError(f"`--jwks {one}` is not of the form URI=FILE")
        text = Path(path).read_text(encoding="utf-8")
        found |= {f"uri:{uri}": text, f"oidc:{uri}": text}
    return found
