"""Where commands ask who runs what: the truth of a fleet, or the admin addresses of its control planes."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click
import httpx

from authz.cli.status import admin_client
from authz.core.errors import FetchError
from authz.truth.fleet_merge import FleetView, merge_reports
from authz.truth.fleet_report import CONTROL, ReplicaReport, Reported, read_reported

REPORT_PAGE = "/fleet/report"
Look = Callable[[], FleetView]
"""Asks once. Raises AuthzError when nobody answers."""
_Decorated = TypeVar("_Decorated", bound=Callable[..., Any])
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def fleet_options(function: _Decorated) -> _Decorated:
    """The options of every command that asks a fleet; they become the arguments of ``looking_at``."""
    for option in reversed(
        (
            click.option("--truth", metavar="URL", help="The truth of the fleet: nats://HOST:PORT/FLEET."),
            click.option("--truth-ca", type=_FILE, help="PEM bundle that alone vouches for its servers."),
            click.option("--truth-cert", type=_FILE, help="PEM chain to show to them."),
            click.option("--truth-key", type=_FILE, help="PEM key of --truth-cert."),
            click.option("--truth-name", default="", help="The DNS name in every server's certificate."),
            click.option(
                "--admin",
                metavar="ADDRESS",
                multiple=True,
                help="Without a truth: the --admin of each control plane, host:port or unix:/path; may be repeated.",
            ),
        )
    ):
        function = option(function)
    return function


@contextmanager
def looking_at(
    truth: str | None,
    truth_ca: Path | None,
    truth_cert: Path | None,
    truth_key: Path | None,
    truth_name: str,
    admin: tuple[str, ...],
) -> Iterator[Look]:
    """
    What asks the fleet.

    Raises:
        click.UsageError: neither or both places are given.
        SettingsError: the address or a file cannot be used.
        TruthAway: no server answers.
    """
    if (truth is None) is not bool(admin):
        raise click.UsageError("say where to ask: either --truth, or --admin of every control plane")
    if truth is None:
        yield lambda: look_at_admins(admin)
        return
    from authz.truth.report_store import ReportReader  # nats is slow to import
    from authz.truth.truth_address import TruthAccess, read_truth_address
    from authz.truth.truth_client import TruthClient

    access = TruthAccess(truth_ca, truth_cert, truth_key, truth_name)
    with TruthClient(read_truth_address(truth), access, name="authz fleet") as client:
        reader = ReportReader(client)

        def look() -> FleetView:
            return merge_reports(*reader.read())

        yield look


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
