"""The options by which ``authz control`` takes the records of decisions, and what they come to."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from authz.core.errors import SettingsError
from authz.settings.audit_section import AuditSettings
from authz.settings.precedence import read_settings
from authz.settings.sections import OtlpSettings, Sections, TruthSettings
from authz.truth.truth_address import TruthAccess

if TYPE_CHECKING:
    from authz.control.records.record_receiver import RecordReceiver

SPOOL_DIRECTORY = "audit-spool"
"""Below ``--keep``."""
_VERIFY = "access_log_verify"
_ABOUT_RECORDS = {
    _VERIFY,
    *(name for section in (AuditSettings, OtlpSettings, TruthSettings) for name in section.flat_names().values()),
}
_OPTIONS = (
    click.option(
        "--audit",
        "sinks",
        multiple=True,
        metavar="SINK",
        help="Take the record of every decision from the proxies that decide by themselves, and write it: file:PATH, "
        "stdout, otlp, or nats://HOST:PORT/FLEET with the options of --truth; may be repeated. Without it each proxy "
        "writes a log on its own machine.",
    ),
    click.option(
        "--audit-settings",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="More about these records: a YAML file of the settings of `authz serve` that begin with audit, otlp and "
        "truth, and access_log_verify.",
    ),
)


@dataclass(frozen=True, slots=True)
class RecordPlace:
    """What the command line says."""

    sinks: tuple[str, ...]
    file: Path | None

    @property
    def are_taken(self) -> bool:
        """Whether any are."""
        return bool(self.sinks) or self.file is not None

    def receiver(self, keep: Path, truth: TruthAccess | None, clock: Callable[[], float]) -> "RecordReceiver | None":
        """
        Open what records are written to; None where nobody takes any.

        Args:
            keep: the directory for what outlives the process: records that wait for the truth among it.
            truth: by what the servers of a truth know us.
            clock: seconds since the epoch.

        Raises:
            SettingsError: names every setting that cannot be used.
        """
        if not self.are_taken:
            return None
        settings = record_settings(self.sinks, self.file, keep, truth)
        from authz.control.records.record_receiver import RecordReceiver  # grpc is slow to import

        return RecordReceiver(settings, keep, clock)


def record_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options; its function gets them as one argument, ``records``."""

    @wraps(command)
    def with_records(*arguments: Any, sinks: tuple[str, ...], audit_settings: Path | None, **others: Any) -> Any:
        return command(*arguments, records=RecordPlace(sinks, audit_settings), **others)

    for option in reversed(_OPTIONS):
        with_records = option(with_records)
    return with_records


def record_settings(sinks: tuple[str, ...], file: Path | None, keep: Path, truth: TruthAccess | None) -> Sections:
    """
    The settings of records, from flags and a file.

    What the command knows already need not be said again: where records wait (below ``keep``), and by what the servers
    of the truth know us.

    Raises:
        SettingsError: names every setting that cannot be used, or that is not about records.
    """
    flags: dict[str, Any] = {"policies": "."}  # needed by all who serve, and by nothing here
    if sinks:
        flags["audit"] = sinks
    told = read_settings(flags, file=file, environment={})
    if strangers := sorted(told.model_fields_set - _ABOUT_RECORDS - set(flags)):
        named = ", ".join(f"`{name}`" for name in strangers)
        raise SettingsError(f"{file}: {named}: not about records, which is all that --audit-settings may say")
    if "audit" not in told.model_fields_set:
        raise SettingsError(f"{file}: there is no `audit`, and no --audit: say where records go")
    if "none" in told.audit:
        raise SettingsError("setting `audit`: `none` would record nothing and have no proxy write a log: name a sink")
    known: dict[str, Any] = {}
    if told.audit_spool is None:
        known["audit_spool"] = keep / SPOOL_DIRECTORY
    if truth is not None and told.truth_ca is None:
        own = (truth.ca, truth.certificate, truth.key, truth.name)
        known |= dict(zip(("truth_ca", "truth_certificate", "truth_key", "truth_name"), own, strict=True))
    return Sections.of(told.model_copy(update=known))
