"""Options that name a candidate, for whom it is, and when it is taken back."""

from collections.abc import Callable
from fractions import Fraction
from functools import wraps
from pathlib import Path

import click

from authz.canary.canary_judge import WINDOW_SECONDS, AbortBound
from authz.canary.canary_selection import CanarySelection, read_share
from authz.canary.canary_source import CanarySource

CANARY = click.option("--canary", metavar="SHARE", help="The share of workloads that get it, such as `5%`.")
CANARY_WORKLOAD = click.option(
    "--canary-workload", multiple=True, metavar="NAME", help="A workload that gets it; may be repeated."
)
ABORT_ABOVE = click.option(
    "--abort-above",
    metavar="SHARE",
    help="Take it back when a workload that has it refuses so much more of its requests than before.",
)
ABORT_WINDOW = click.option(
    "--abort-window",
    type=click.IntRange(1, 86400),
    default=int(WINDOW_SECONDS),
    show_default=True,
    help="For --abort-above: the seconds of which requests count.",
)


def canary_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command their options; it gets ``canary``: a ``CanarySource``, which may choose nobody, or None."""

    @wraps(command)
    def with_canary(
        candidate: Path | None,
        canary: str | None,
        canary_workload: tuple[str, ...],
        abort_above: str | None,
        abort_window: int,
        **others: object,
    ) -> None:
        if candidate is None and (canary is not None or canary_workload or abort_above is not None):
            raise click.UsageError("--canary, --canary-workload and --abort-above need --candidate")
        source = None
        if candidate is not None:
            share = read_share(canary) if canary is not None else Fraction(0)
            bound = AbortBound(read_share(abort_above), abort_window) if abort_above is not None else None
            source = CanarySource(candidate, CanarySelection(share, frozenset(canary_workload)), bound)
        command(canary=source, **others)

    candidate = click.option(
        "--candidate",
        type=click.Path(path_type=Path),
        help="Other policies, in force for a part of the mesh; nothing there: there are none.",
    )
    for option in (ABORT_WINDOW, ABORT_ABOVE, CANARY_WORKLOAD, CANARY, candidate):
        with_canary = option(with_canary)
    return with_canary
