"""Which signed entries and revocations an authority took last: a file beside them, so that it never goes back."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from authz.bundles.strict_json import read_strict_json
from authz.core.errors import SettingsError

TAKEN_FILE = "taken.json"


@dataclass(frozen=True, slots=True)
class TakenRules:
    """The signed ones that were taken last, of one kind."""

    fleet: str
    number: int
    digest: str
    expires: int | None
    """Seconds since the epoch; None: never."""


def read_taken(file: Path) -> dict[str, TakenRules]:
    """
    Read the record, by kind; empty when there is none.

    Raises:
        SettingsError: it is damaged.
        OSError: it cannot be read.
    """
    try:
        taken = {kind: TakenRules(**one) for kind, one in read_strict_json(file.read_bytes()).items()}
        if not all(map(_is_possible, taken.values())):
            raise ValueError("other types")
        return taken
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, AttributeError) as error:
        raise SettingsError(f"`{file}` is damaged; remove it to take whatever is signed now") from error


def write_taken(taken: dict[str, TakenRules]) -> bytes:
    """What ``read_taken`` reads."""
    return json.dumps({kind: asdict(one) for kind, one in taken.items()}).encode() + b"\n"


def _is_possible(one: TakenRules) -> bool:
    is_text = isinstance(one.fleet, str) and isinstance(one.digest, str)
    return is_text and type(one.number) is int and (one.expires is None or type(one.expires) is int)
