"""Values of settings as somebody writes them: addresses, sinks, and files by name."""

import json
from collections.abc import Iterator

MAX_PORT = 65_535


def named_files(text: str) -> Iterator[tuple[str, object]]:
    """Name and file of ``NAME=FILE;NAME=FILE`` or of a JSON object. Raises ValueError."""
    if text.lstrip().startswith("{"):
        try:
            yield from json.loads(text).items()
        except ValueError as error:
            raise ValueError("expected a JSON object") from error
        return
    for part in filter(None, (part.strip() for part in text.split(";"))):
        name, equals, file = (one.strip() for one in part.rpartition("="))
        if not (name and equals and file):
            raise ValueError(f"`{part}` is neither NAME=FILE nor a JSON object")
        yield name, file


def read_sinks(text: str) -> tuple[str, ...]:
    """Sinks of audit records, with commas between them; an address of several servers has some, too."""
    sinks: list[str] = []
    for part in (part.strip() for part in text.split(",")):
        if sinks and sinks[-1].startswith("nats://") and "/" not in sinks[-1].removeprefix("nats://"):
            sinks[-1] += f",{part}"
        elif part:
            sinks.append(part)
    return tuple(sinks)


def is_address(text: str) -> bool:
    """Whether one can listen there; gRPC would take port 99999 for 34463."""
    kind, _, rest = text.partition(":")
    if kind in ("unix", "unix-abstract"):
        return bool(rest)
    host, _, port = text.rpartition(":")
    return bool(host) and port.isascii() and port.isdigit() and len(port) <= 5 and int(port) <= MAX_PORT
