"""Where a command reads an audit trail: files and directories of them, stdin, or the stream of a fleet."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from authz.audit.query import STDIN, RecordFilter, Skipped, audit_files, find, follow
from authz.core.decided import Record
from authz.core.errors import SettingsError
from authz.truth.truth_address import SCHEME, TruthAccess, TruthAddress, read_truth_address

if TYPE_CHECKING:
    from authz.truth.truth_client import TruthClient

TrailPlace = Path | TruthAddress
"""Where a trail is."""


class TrailPath(click.Path):
    """A path as ``click.Path`` takes it, or ``nats://HOST:PORT/FLEET``."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return a ``TrailPlace``."""
        if isinstance(value, TruthAddress):
            return value
        if str(value).startswith(f"{SCHEME}://"):
            try:
                return read_truth_address(str(value))
            except SettingsError as error:
                self.fail(str(error), param, ctx)
        return super().convert(value, param, ctx)


TRAILS = TrailPath(exists=True, allow_dash=True, path_type=Path)


def found_records(
    places: Iterable[TrailPlace], access: TruthAccess, wanted: RecordFilter, skipped: Skipped
) -> Iterator[Record]:
    """
    The records of trails, each file once, the oldest first.

    Raises:
        click.ClickException: there is no file, or no client of NATS.
        AuthzError, OSError: a place cannot be read.
    """
    files = [file for place in places if isinstance(place, Path) for file in audit_files(place)]
    streams = [place for place in places if isinstance(place, TruthAddress)]
    if not files and not streams:
        raise click.ClickException(f"no audit file in {', '.join(map(str, places))}")
    for found in find(dict.fromkeys(files), wanted, skipped):
        yield found.record
    for stream in dict.fromkeys(streams):
        with _connected(stream, access) as client:
            from authz.audit.stored_trail import find_stored

            yield from find_stored(client, wanted, skipped)


def refuse_stdin_twice(places: tuple[TrailPlace, ...]) -> None:
    """Refuse what would be empty the second time. Raises UsageError."""
    if places.count(STDIN) > 1:
        raise click.UsageError("stdin (`-`) can be read only once")


def newest_records(
    place: TrailPlace, access: TruthAccess, wanted: RecordFilter, number: int, skipped: Skipped
) -> deque[Record]:
    """At most so many. Raises as ``found_records``."""
    if isinstance(place, Path):
        return deque(found_records((place,), access, wanted, skipped), maxlen=number)
    with _connected(place, access) as client:
        from authz.audit.stored_trail import newest_stored

        return newest_stored(client, wanted, number, skipped)


@contextmanager
def following(
    place: TrailPlace, access: TruthAccess, wanted: RecordFilter, wait: Callable[[], bool]
) -> Iterator[Iterator[Record]]:
    """Records that come after this call, as ``authz.audit.query.follow``. Raises as ``found_records``."""
    if isinstance(place, Path):
        yield follow(place if not place.is_dir() else audit_files(place)[-1], wanted, wait)
        return
    with _connected(place, access) as client:
        from authz.audit.stored_trail import follow_stored

        yield follow_stored(client, wanted, wait)


@contextmanager
def _connected(address: TruthAddress, access: TruthAccess) -> "Iterator[TruthClient]":
    try:
        from authz.truth.truth_client import TruthClient
    except ModuleNotFoundError as error:
        raise click.ClickException(f"{address} needs `{error.name}`: install `authz-mesh[fleet]`") from error
    with TruthClient(address, access, name="authz audit") as client:
        yield client
