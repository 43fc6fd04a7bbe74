"""
The checklist of docs/hardening.md as values: what is asked, and what was found.

Every finding says what is wrong, where, why it matters, what to do, and the number of the check.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from authz.core.errors import Severity


@dataclass(frozen=True, slots=True)
class Concern:
    """One number of the checklist."""

    title: str
    why: str
    needs: str
    """What must be given to ask it, in the words of the options."""


CHECKS: Mapping[int, Concern] = {
    1: Concern(
        "The server's listeners",
        "whoever can ask learns what is allowed to whom, and sends entries of the record",
        "--config",
    ),
    2: Concern("The operator's side", "it shows every decision, policy and caller", "--config"),
    3: Concern("Files and sockets", "who can write them decides, and who can read keys is somebody else", "--config"),
    4: Concern("Age of keys", "a key that was copied once is good for as long as it is in use", "--config or --ca"),
    5: Concern(
        "Certificates",
        "an expired one is an outage, a long-lived one cannot be taken back",
        "--config, --ca or --envoy-admin",
    ),
    6: Concern("STRICT everywhere", "a request in plaintext has no identity, and can be read", "--policies"),
    7: Concern("Audiences", "a token for another service of the same issuer is good here too", "--policies"),
    8: Concern(
        "Nothing fails open",
        "what lets through on failure is opened by causing the failure",
        "--config, --policies or --envoy-admin",
    ),
    9: Concern("Envoy's administration", "it can stop the proxy and shows its whole configuration", "--envoy-admin"),
    10: Concern(
        "The clock", "what has expired is good again where the clock is slow", "--admin, --envoy-admin or --ask-issuers"
    ),
    11: Concern("Envoy's version", "published weaknesses are the first thing that is tried", "--envoy-admin"),
    12: Concern(
        "A user for each sidecar",
        "processes of one user can have one another's identities and keys",
        "--entries or --envoy-admin",
    ),
    13: Concern("Extensions", "what stands among a proxy's filters sees and changes what passes there", "--mesh"),
}


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """Something that is not as the checklist wants it."""

    number: int
    where: str
    """A file, a setting, a policy's place, a proxy."""
    what: str
    do: str
    severity: Severity = Severity.WARNING
    """ERROR: somebody is let in or a secret is open. WARNING: less safe than it could be. INFO: a choice."""

    @property
    def why(self) -> str:
        """Why it matters."""
        return CHECKS[self.number].why

    @property
    def is_bad(self) -> bool:
        """Whether the installation does not pass with it."""
        return self.severity is not Severity.INFO
