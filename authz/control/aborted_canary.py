"""Which candidate was aborted, kept over a restart."""

import json
from pathlib import Path

ABORTED_FILE = "canary-aborted.json"


class AbortedCanary:
    """One file of a directory."""

    def __init__(self, keep: Path) -> None:
        self.path = keep / ABORTED_FILE

    def reason(self, key: str) -> str | None:
        """Why this candidate was aborted; empty when another one was; None when nothing is kept."""
        try:
            found = json.loads(self.path.read_text())
            return str(found["reason"]) if found["version"] == key else ""
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError) as error:
            return f"what `{self.path}` says of it cannot be read: {error}"

    def keep(self, key: str, reason: str, now: float) -> None:
        """Keep that it was; ``now`` is in seconds since the epoch. Raises OSError."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.path.with_name(f".{self.path.name}.new")
        fresh.write_text(json.dumps({"version": key, "reason": reason, "time": now}))
        fresh.replace(self.path)

    def forget(self) -> None:
        """Keep nothing. Raises OSError."""
        self.path.unlink(missing_ok=True)
