"""Options that name a candidate and for whom it is: ``--candidate``, ``--canary`` and ``--canary-workload``."""

from collections.abc import Callable
from fractions import Fraction
from functools import wraps
from pathlib import Path

import click

from authz.canary.canary_selection import CanarySelection, CanarySource, read_share


def canary_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the three options; it gets ``canary``: a ``CanarySource``, or None."""

    @wraps(command)
    def with_canary(
        candidate: Path | None, canary: str | None, canary_workload: tuple[str, ...], **others: object
    ) -> None:
        if candidate is None and (canary is not None or canary_workload):
            raise click.UsageError("--canary and --canary-workload need --candidate: the policies to try")
        if candidate is not None and canary is None and not canary_workload:
            raise click.UsageError("--candidate needs --canary or --canary-workload: who gets it")
        source = None
        if candidate is not None:
            share = read_share(canary) if canary is not None else Fraction(0)
            source = CanarySource(candidate, CanarySelection(share, frozenset(canary_workload)))
        command(canary=source, **others)

    for option in (
        click.option(
            "--canary-workload", multiple=True, metavar="NAME", help="A workload that gets it; may be repeated."
        ),
        click.option("--canary", metavar="SHARE", help="The share of workloads that get it, such as `5%`."),
        click.option(
            "--candidate",
            type=click.Path(path_type=Path),
            help="Other policies, in force for a part of the mesh; nothing there: there are none.",
        ),
    ):
        with_canary = option(with_canary)
    return with_canary
