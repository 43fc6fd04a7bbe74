"""The options of ``authz policies push`` and ``rollback``."""

from pathlib import Path

import click

EXISTING = click.Path(exists=True, path_type=Path)
PEM = click.Path(exists=True, dir_okay=False, path_type=Path)
KEY = click.option("--key", type=PEM, help="Ed25519 key that signs, PKCS#8 PEM; not needed with --dry-run.")
MESSAGE = click.option("--message", "-m", default="", help="Why, for those who read the history.")
AUTHOR = click.option("--author", default="", help="Who; by default the one of the git commit, or of the machine.")
EXPIRES = click.option("--expires", default="", metavar="TIME", help="How long it may be put in force: 30d, 12h, 90m.")
IF_REVISION = click.option(
    "--if-revision", type=click.IntRange(0), metavar="N",
    help="Only if revision N is in force, 0 for none; by default the one that the set was compared with.",
)  # fmt: skip
WAIT = click.option(
    "--wait", metavar="SECONDS", type=click.FloatRange(0), default=0.0,
    help="How long to wait until every live replica and proxy has acknowledged it (`authz fleet wait`).",
)  # fmt: skip
DRY_RUN = click.option("--dry-run", is_flag=True, help="Check and compare, and push nothing.")
OVER_DAMAGED = click.option(
    "--over-damaged",
    is_flag=True,
    help="Replace a head that cannot be read; the set is compared with the newest revision that can.",
)
