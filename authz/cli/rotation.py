"""``authz rotation``: does every proxy serve what was issued, and a drill that changes the root."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from authz.cli import terminal
from authz.cli.ca_common import issued_anywhere
from authz.cli.ca_files import load
from authz.cli.envoy_admin import proxy_name, read_proxies
from authz.cli.truth_options import truth_options
from authz.core.attributes import Json
from authz.core.errors import FetchError, SettingsError
from authz.identity.authority import AuthorityState
from authz.identity.ca import CertificateAuthority
from authz.identity.drift import (
    Drift,
    DriftKind,
    Expected,
    Served,
    expected_serials,
    find_drift,
    serials_of_files,
    still_served,
    trusts,
)
from authz.identity.ledger import LEDGER_FILE, Ledger
from authz.identity.rotation import activate, prepare, retire, taint
from authz.telemetry.counters import Labels
from authz.telemetry.names import DRIFT, SERVED_EXPIRY
from authz.telemetry.text import metric_lines

if TYPE_CHECKING:
    from authz.truth.truth_client import TruthClient  # nats is slow to import

ADMIN = click.option(
    "--admin",
    "admins",
    multiple=True,
    help="An Envoy's admin interface: the path of its socket, or host:port; may be repeated.",
)
CA = click.option(
    "--ca",
    "directory",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The authority's directory.",
)


@click.group()
def rotation() -> None:
    """
    Watch and steer the rotation of certificates.

    \b
    authz rotation check --ca ca --admin run/web.admin.sock --admin run/cart.admin.sock
    authz rotation drill --ca ca --admin run/web.admin.sock --admin run/cart.admin.sock
    """


@rotation.command()
@ADMIN
@CA
@click.option(
    "--certs",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Certificates delivered as files below this directory, instead of the authority's own record.",
)
@click.option(
    "--expiring-within", type=click.FloatRange(0), help="Seconds. By default a third of each certificate's life."
)
@terminal.answer_form("table", "json", "metrics", name="form")
@truth_options
def check(
    admins: tuple[str, ...],
    directory: Path | None,
    certs: Path | None,
    expiring_within: float | None,
    form: str,
    truth: "TruthClient | None",
) -> None:
    """
    Compare what was issued with what each Envoy serves and trusts; with --truth, what any authority issued.

    Exit code: 0 all as it should be, 3 drift or approaching expiry (also: a proxy cannot be asked), 1 no answer.

    \b
    authz rotation check --ca ca --admin run/web.admin.sock --admin run/cart.admin.sock
    authz rotation check --certs certs/ --admin 127.0.0.1:9901 -o metrics
    """
    if not admins:
        raise click.UsageError("at least one --admin is needed")
    now = time.time()
    expected = _expected(directory, certs, truth, now)
    found: list[Drift] = []
    served: dict[str, tuple[Served, ...]] = {}
    for address in admins:
        name = proxy_name(address)
        try:
            served |= read_proxies([address])
            found += find_drift(name, served[name], expected, now, expiring_within)
        except FetchError as error:
            found.append(Drift(name, DriftKind.UNREADABLE, "", str(error)))
    _print(form, served, found, now)
    sys.exit(terminal.Exit.NO if found else terminal.Exit.YES)


@rotation.command()
@ADMIN
@click.option(
    "--ca",
    "directory",
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The authority's directory.",
)
@click.option("--timeout", type=click.FloatRange(1), default=60.0, help="Seconds for each step.")
@click.option(
    "--settle",
    type=click.FloatRange(0),
    default=0.0,
    help="Seconds to wait before the old root is retired, for connections that began with its certificates.",
)
def drill(admins: tuple[str, ...], directory: Path, timeout: float, settle: float) -> None:
    """
    Change the root with overlap: prepare, activate, taint, retire, each when every Envoy is ready for it.

    The authority must be served (authz ca serve). Exit code: 0 done, 3 an Envoy was not ready in time (the steps done
    so far stay and do no harm), 1 no answer.

    Where the authorization server judges the caller's certificate on every request, set --settle to how long a
    connection may live (`authz mesh render`: 600 s): a request on one that is older than its root is refused.

    \b
    authz rotation drill --ca ca --admin run/web.admin.sock --admin run/cart.admin.sock
    """
    if not admins:
        raise click.UsageError("at least one --admin is needed: the drill is about seeing that proxies follow")
    ca = load(directory)
    steps = Steps(ca, directory, admins, timeout, settle)
    try:
        steps.run()
    except ValueError as error:
        raise SettingsError(str(error)) from error


class Steps:
    """The drill. Every step is written down before it is waited for, so that it can be resumed."""

    def __init__(
        self, ca: CertificateAuthority, directory: Path, admins: tuple[str, ...], timeout: float, settle: float
    ) -> None:
        self.ca = ca
        self.settle = settle
        self.directory = directory
        self.admins = admins
        self.timeout = timeout

    def run(self) -> None:
        """Raises ValueError when the authority is in no state to begin."""
        old = self.ca.active
        prepared = [a for a in self.ca.authorities if a.state is AuthorityState.PREPARED]
        if not prepared:
            self._save(prepare(self.ca, time.time()))
        new = next(a for a in self.ca.authorities if a.state is AuthorityState.PREPARED)
        terminal.say(f"prepared   {new.id}: trusted besides {old.id}")
        self._wait(lambda served: trusts(served, new.root.serial_number), "trusts the new root")
        self._save(activate(self.ca))
        terminal.say(f"activated  {new.id}: it signs from now on")
        self._save(taint(self.ca, old.id))
        terminal.say(f"tainted    {old.id}: what it signed is renewed")
        ledger = Ledger(self.directory / LEDGER_FILE)
        self._wait(
            lambda served: not still_served(served, ledger.read(), [new.id]), "serves certificates of the new authority"
        )
        if self.settle:
            terminal.say(f"settling   {self.settle:.0f} s: connections that began with the old one end")
            time.sleep(self.settle)
        self._save(retire(self.ca, old.id))
        terminal.say(f"retired    {old.id}: it is no longer trusted")
        self._wait(lambda served: not trusts(served, old.root.serial_number), "has dropped the old root")

    def _save(self, ca: CertificateAuthority) -> None:
        self.ca = ca
        ca.save(self.directory)

    def _wait(self, holds: Callable[[tuple[Served, ...]], bool], what: str) -> None:
        deadline = time.monotonic() + self.timeout
        waiting = list(self.admins)
        while waiting:
            served = read_proxies(waiting)
            for address in list(waiting):
                if holds(served[proxy_name(address)]):
                    waiting.remove(address)
                    terminal.say(f"             {proxy_name(address)} {what}")
            if waiting and time.monotonic() > deadline:
                names = ", ".join(proxy_name(address) for address in waiting)
                terminal.remark(f"not in {self.timeout:.0f} s: {names} {what}; the drill stops here")
                sys.exit(terminal.Exit.NO)
            time.sleep(0.2 if waiting else 0)


def _expected(directory: Path | None, certs: Path | None, truth: "TruthClient | None", now: float) -> Expected:
    serials = None
    roots = None
    if directory is not None:
        ca = load(directory)
        roots = frozenset(root.serial_number for root in ca.roots)
        issued = Ledger(directory / LEDGER_FILE).read() if truth is None else issued_anywhere(truth)
        serials = expected_serials(issued, now)
    if certs is not None:
        serials = serials_of_files(path.read_bytes() for path in sorted(certs.rglob("*.crt")))
    return Expected(serials, roots)


def _print(form: str, served: dict[str, tuple[Served, ...]], found: list[Drift], now: float) -> None:
    if form == "metrics":
        click.echo("\n".join(drift_metrics(served, found)))
    elif form == "json":
        drifts: list[Json] = [
            {"proxy": d.proxy, "kind": d.kind.value, "subject": d.subject, "message": d.message} for d in found
        ]
        terminal.print_json({"drift": drifts, "proxies": len(served)})
    else:
        rows = [
            (name, certificate.identity, f"{certificate.serial:x}"[:12], f"{certificate.end - now:.0f} s")
            for name, contexts in served.items()
            for context in contexts
            for certificate in context.certificates
        ]
        terminal.print_table(("proxy", "serves", "serial", "expires in"), sorted(set(rows)))
        for drift in found:
            terminal.say(
                f"{drift.proxy}: {drift.kind}: {f'`{drift.subject}` ' if drift.subject else ''}{drift.message}"
            )


def drift_metrics(served: dict[str, tuple[Served, ...]], found: list[Drift]) -> list[str]:
    """Prometheus text: when each served certificate expires, and how much drift of each kind there is, zeros too."""
    ends: dict[Labels, float] = {
        (name, certificate.identity): certificate.end
        for name, contexts in served.items()
        for context in contexts
        for certificate in context.certificates
    }
    drifts: dict[Labels, float] = {
        (name, kind.value): sum(drift.proxy == name and drift.kind is kind for drift in found)
        for name in sorted({*served, *(drift.proxy for drift in found)})
        for kind in DriftKind
    }
    return [*metric_lines(SERVED_EXPIRY, dict(sorted(ends.items()))), *metric_lines(DRIFT, drifts)]
