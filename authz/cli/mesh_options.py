"""Options that several commands about a mesh have, with the same words."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from authz.envoy.options import Authz
from authz.mesh.nouns import Enforce

Option = Callable[[Callable[..., Any]], Callable[..., Any]]
"""What gives a command an option."""

MESH: Option = click.option(
    "--mesh",
    "mesh_path",
    required=True,
    type=click.Path(exists=True, path_type=Path),
    help="The description: a YAML file, or a directory of them.",
)
WHO_ANSWERS: Option = click.option(
    "--authz",
    type=click.Choice([a.value for a in Authz]),
    default=Authz.SERVER.value,
    show_default=True,
    help="Who answers checks: a separate server, or every proxy itself (see `authz mesh environment`).",
)
WORKERS: Option = click.option(
    "--workers",
    type=click.IntRange(1, 256),
    default=2,
    show_default=True,
    help="How many workers the authorization server has: one address is rendered for each.",
)
VALIDATE: Option = click.option(
    "--validate",
    metavar="auto|off|PATH",
    default="auto",
    show_default=True,
    help="Try changed native filters on an Envoy before they are written or sent: auto uses one on this machine, if "
    "there is any and the filters are not too large; off uses none; PATH is the Envoy to use.",
)
JWKS_CA_BUNDLE: Option = click.option(
    "--jwks-ca-bundle",
    multiple=True,
    metavar="ISSUER=FILE",
    help="PEM bundle that alone vouches for an issuer's or a key URI's server; may be repeated.",
)


def who_decides(default: Enforce) -> Option:
    """Make ``--enforce`` with this default."""
    return click.option(
        "--enforce",
        type=click.Choice([e.value for e in Enforce]),
        default=default.value,
        show_default=True,
        help="Who decides: every Envoy by itself with native filters, or a check. `mesh.authz/enforce` on a "
        "WorkloadEntry decides it for one workload.",
    )
