"""Where commands ask who runs what: the truth of a fleet, or the admin addresses of its control planes."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import httpx

from authz.cli.status import admin_client
from authz.cli.truth_options import truth_options
from authz.core.errors import FetchError
from authz.truth.fleet_merge import FleetView, merge_reports
from authz.truth.fleet_report import CONTROL, ReplicaReport, Reported, read_reported

if TYPE_CHECKING:
    from authz.truth.truth_client import TruthClient

REPORT_PAGE = "/fleet/report"
Look = Callable[[], FleetView]
"""Asks once. Raises AuthzError when nobody answers."""


def fleet_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of every command that asks a fleet; they become the arguments of ``looking_at``."""
    admin = click.option(
        "--admin",
        metavar="ADDRESS",
        multiple=True,
        help="Without --truth: the --admin of each control plane, host:port or unix:/path; may be repeated.",
    )
    return truth_options(admin(command))


@contextmanager
def looking_at(truth: "TruthClient | None", admin: tuple[str, ...]) -> Iterator[Look]:
    """
    What asks the fleet.

    Raises:
        click.UsageError: neither or both places are given.
        TruthAway: no server answers.
    """
    if (truth is None) is not bool(admin):
        raise click.UsageError("say where to ask: either --truth, or --admin of every control plane")
    if truth is None:
        yield lambda: look_at_admins(admin)
        return
    with truth as client:
        yield look_through(client)


def look_through(client: "TruthClient") -> Look:
    """What asks the truth of a fleet, by a client that is connected."""
    from authz.truth.report_store import ReportReader  # nats is slow to import

    reader = ReportReader(client)
    return lambda: merge_reports(*reader.read())


def look_at_admins(addresses: tuple[str, ...]) -> FleetView:
    """Ask several control planes; those that do not answer are silent. Raises FetchError when none answers."""
    reports, failures = [], []
    for address in addresses:
        try:
            reports.append(_ask(address))
        except FetchError as error:
            failures.append(error)
            report = ReplicaReport(address, CONTROL, 0.0, "", 0.0, str(error))
            reports.append(Reported(0.0, report, is_whole=False))
    if len(failures) == len(addresses):
        raise failures[0]
    return merge_reports(reports, time.time())


def _ask(admin: str) -> Reported:
    """Raises FetchError."""
    socket = Path(admin.removeprefix("unix:"))
    if admin.startswith("unix:") and not socket.exists():  # httpcore would leave its own socket open
        raise FetchError(f"`{admin}` does not answer: there is no such socket")
    try:
        with admin_client(admin, None, None) as client:
            response = client.get(REPORT_PAGE)
        if response.status_code != httpx.codes.OK:
            raise FetchError(f"`{admin}` is not the admin address of a control plane")
        return read_reported(response.json(), time.time())
    except httpx.HTTPError as error:
        raise FetchError(f"`{admin}` does not answer: {str(error) or type(error).__name__}") from error
    except (json.JSONDecodeError, ValueError) as error:
        raise FetchError(f"`{admin}` is not the admin address of a control plane") from error
