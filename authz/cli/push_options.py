"""The options of ``authz policies push`` and ``rollback``."""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import wraps
from pathlib import Path
from typing import Any

import click

from authz.canary.canary_judge import AbortBound
from authz.canary.canary_selection import CanarySelection, read_share
from authz.cli.canary_options import ABORT_ABOVE, ABORT_WINDOW, CANARY, CANARY_WORKLOAD

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
    help="How long to wait until every live replica and proxy has acknowledged it (`authz fleet wait`); of a candidate "
    "that is pushed, every live replica and the live proxies that it is for.",
)  # fmt: skip
DRY_RUN = click.option("--dry-run", is_flag=True, help="Check and compare, and push nothing.")
OVER_DAMAGED = click.option(
    "--over-damaged",
    is_flag=True,
    help="Replace a head that cannot be read; the set is compared with the newest revision that can.",
)


@dataclass(frozen=True, slots=True)
class WantedCandidate:
    """For whom a candidate shall be, and when it is taken back."""

    selection: CanarySelection
    bound: AbortBound | None


def candidate_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of a candidate; it gets ``wanted``: a ``WantedCandidate``, or None."""

    @wraps(command)
    def with_candidate(
        *arguments: Any,
        candidate: bool,
        canary: str | None,
        canary_workload: tuple[str, ...],
        abort_above: str | None,
        abort_window: int,
        **others: Any,
    ) -> Any:
        chooses = canary is not None or bool(canary_workload)
        if not candidate and (chooses or abort_above is not None):
            raise click.UsageError("--canary, --canary-workload and --abort-above need --candidate")
        if abort_above is not None and not chooses:
            raise click.UsageError("--abort-above is for those that --canary or --canary-workload choose")
        wanted = None
        if candidate:
            share = read_share(canary) if canary is not None else Fraction(0)
            bound = AbortBound(read_share(abort_above), abort_window) if abort_above is not None else None
            wanted = WantedCandidate(CanarySelection(share, frozenset(canary_workload)), bound)
        return command(*arguments, wanted=wanted, **others)

    candidate = click.option("--candidate", is_flag=True, help="As a candidate beside what is in force.")
    for option in (ABORT_WINDOW, ABORT_ABOVE, CANARY_WORKLOAD, CANARY, candidate):
        with_candidate = option(with_candidate)
    return with_candidate
