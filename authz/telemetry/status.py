"""The shapes in which the rooms report how they are: for metrics, health and the page. Values, nothing else."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from authz.core.decision import RuleReference
from authz.core.errors import Problem


@dataclass(frozen=True, slots=True)
class ReloadStatus:
    """The policies in force and how the last reload went. Times in seconds since the epoch."""

    policy_version: str = ""
    """Empty before the first set was accepted."""
    loaded_at: float = 0.0
    is_ok: bool = True
    """False while the last change is refused and the previous set stays in force."""
    successes: int = 0
    failures: int = 0
    problems: tuple[Problem, ...] = ()
    """The problems that the last reload found, warnings included."""
    documents: tuple[tuple[str, int], ...] = ()
    """(kind, number) of the documents in force."""

    @property
    def counted(self) -> str:
        """The documents in force, for people."""
        return ", ".join(f"{number} {kind}" for kind, number in self.documents)


@dataclass(frozen=True, slots=True)
class PolicySourceStatus:
    """The source that policies are fetched from. Times in seconds since the epoch, 0 for never."""

    source: str
    """Its address, without anything secret."""
    revision: str = ""
    """What is in force: the number of a bundle, the commit of a repository; empty before the first."""
    number: int = 0
    """Grows with every revision."""
    created: float = 0.0
    """When its author made it."""
    taken_at: float = 0.0
    """When it was put in force here."""
    asked_at: float = 0.0
    """When the source last said what is to be in force, and it was."""
    error: str = ""
    """Why it did not the last time; empty when it did."""
    is_kept: bool = False
    """Whether what is in force was kept on disk, because the source has not delivered since the start."""
    successes: int = 0
    failures: int = 0
    candidate_problem: str = ""
    """Why the candidate that was pushed there is not one here; empty when it is, or there is none."""

    @property
    def problem(self) -> str:
        """What stays in force, and why; empty while the source delivers."""
        if not self.error:
            return ""
        kept = f"revision {self.revision} stays{', as it was kept on disk' if self.is_kept else ''}"
        return f"{self.source}: {kept}: {self.error}"


@dataclass(frozen=True, slots=True)
class PeerTrustStatus:
    """The trust bundles and revocations by which peers' certificates are judged. Times in seconds since the epoch."""

    loaded_at: float = 0.0
    problem: str = ""
    """Why the files as they are now are not in force; empty when they are."""
    successes: int = 0
    failures: int = 0


@dataclass(frozen=True, slots=True)
class KeySetStatus:
    """One key set: ``name`` is ``JwtRule.keys_from`` or what people should see instead."""

    name: str
    keys: int = 0
    fetched_at: float | None = None
    """None when it was never read: tokens of its issuer are denied."""
    error: str = ""
    """The reason why the last attempt failed; empty after a success."""
    successes: int = 0
    failures: int = 0
    skipped: tuple[str, ...] = ()
    """Which keys of the set are not used and why, one line each."""


@dataclass(frozen=True, slots=True)
class IntrospectionStatus:
    """One issuer that is asked about its tokens; numbers only ever grow."""

    issuer: str
    hits: int = 0
    """Tokens for which an answer was remembered."""
    misses: int = 0
    """Tokens that it was asked about."""
    refusals: int = 0
    """Tokens that it said are not active."""
    failures: int = 0
    """Tokens refused because it did not answer, or was not asked after it had failed too often."""
    error: str = ""
    """Why it gave no answer last time; empty when it did."""


@dataclass(frozen=True, slots=True)
class CacheStatus:
    """The cache of verified tokens."""

    hits: int = 0
    misses: int = 0
    entries: int = 0
    capacity: int = 0


@dataclass(frozen=True, slots=True)
class CertificateStatus:
    """A certificate that will expire. ``kind`` is ``workload``, ``server``, ``intermediate`` or ``root``."""

    kind: str
    not_after: float
    namespace: str = ""
    workload: str = ""
    identity: str = ""
    """SPIFFE ID; for people only, never a label."""
    not_before: float = 0.0
    """0 when it is not known: the share of its life that is left cannot then be told."""


@dataclass(frozen=True, slots=True)
class NativeStatus:
    """The results of following the access logs of proxies that enforce by themselves."""

    entries: Mapping[tuple[str, str], int]
    """Entries by carrier and result."""
    verdicts: Mapping[str, int]
    """The results of deciding them again."""
    disagreements: Mapping[tuple[str, str], int]
    """Disagreements by namespace and workload."""
    newest_at: float = 0.0
    """End of the newest request that was recorded, in seconds since the epoch."""
    waiting_bytes: int = 0
    """Bytes of followed files that are not yet read."""
    missing: Mapping[str, int] = field(default_factory=dict)
    """Requests without a record, by proxy."""
    unreachable: Mapping[str, bool] = field(default_factory=dict)
    """For each proxy, whether its counters could not be read at the last attempt."""
    in_force: Mapping[str, bool] = field(default_factory=dict)
    """For each proxy that answered, whether it runs the filters that were rendered for it."""
    problem: str = ""
    """Why logs cannot be followed; empty when they can."""


@dataclass(frozen=True, slots=True)
class CandidateDifference:
    """Decisions of one workload that differ alike. Times in seconds since the epoch."""

    result: str
    """As ``CandidateResult``."""
    namespace: str
    workload: str
    rule: RuleReference | None
    """The rule in force; None where none decided."""
    candidate_rule: RuleReference | None
    count: int
    first_at: float
    last_at: float
    decision_ids: tuple[str, ...]
    """Some of the newest, the newest first."""


@dataclass(frozen=True, slots=True)
class RateLimitStatus:
    """The results of counting requests for rate limits; numbers only ever grow."""

    results: Mapping[tuple[str, str, str, str], int]
    """By policy's namespace and name, number of the rule, and ``allowed``, ``refused``, ``shadow``, ``uncounted``."""
    unknown: int = 0
    """Rules that a proxy asked about and that the description here does not have."""
    problem: str = ""
    """Why the store did not answer the last time it was asked; empty when it did."""


@dataclass(frozen=True, slots=True)
class CandidateStatus:
    """The candidate policies and how their decisions compare with those in force."""

    reload: ReloadStatus
    results: Mapping[str, int]
    """
    Decisions by ``same``, ``newly_denied``, ``newly_allowed``, ``other_status``, ``other_rule``, ``undecided`` and
    ``failed``; numbers only ever grow.
    """
    since: float = 0.0
    """When this version began to decide in shadow, in seconds since the epoch; 0 while there is none."""
    of_version: Mapping[str, int] = field(default_factory=dict)
    """As ``results``, of this version only."""
    differences: tuple[CandidateDifference, ...] = ()
    """Of this version."""
    uncounted: int = 0
    """Decisions that differ, of so many kinds that they are not among the differences."""
    timed: int = 0
    """Requests of which the time was taken."""
    own_seconds: float = 0.0
    """What the candidate took for them."""
    check_seconds: float = 0.0
    """What their checks took without it."""


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """Everything the service reports about itself; a fresh value for each question, made in microseconds."""

    reload: ReloadStatus = ReloadStatus()
    key_sets: tuple[KeySetStatus, ...] = ()
    token_cache: CacheStatus | None = None
    certificates: tuple[CertificateStatus, ...] = ()
    tls_problem: str = ""
    """Why the certificate of the gRPC port is not the one in its files; empty when it is."""
    refused_handshakes: int = 0
    """TLS handshakes that our own ports refused."""
    sidecar_remarks: tuple[tuple[str, int], ...] = (("hidden_headers", 0), ("other_labels", 0))
    """(kind, number) of requests whose sidecar hides headers or sends other labels than the mesh description has."""
    peer_trust: PeerTrustStatus | None = None
    """None where peers' certificates are not judged."""
    native: NativeStatus | None = None
    """None where no access logs are taken."""
    rate_limits: RateLimitStatus | None = None
    """None where no requests are counted."""
    is_starting: bool = False
    """True until gRPC health says SERVING for the first time: key sets are still awaited."""
    is_draining: bool = False
    """True after SIGTERM: no longer ready, still alive."""
    introspections: tuple[IntrospectionStatus, ...] = ()
    """Issuers that are asked about their tokens."""
    candidate: CandidateStatus | None = None
    """None without the setting ``candidate``."""
    policy_source: PolicySourceStatus | None = None
    """None where policies are a directory."""


@dataclass(slots=True)
class SinkStatus:
    """How one sink is doing. The writer thread changes its own; ``status`` hands out copies."""

    name: str
    written: int = 0
    lost: int = 0
    """Records it refused permanently."""
    errors: int = 0
    error: str = ""
    """Last error, empty again after a success."""
    is_late: bool = False
    """Whether that is about records that are kept, to be delivered later: none is lost yet."""
    waiting: int | None = None
    """Bytes that are kept until they can be delivered; None for a sink that keeps none."""


@dataclass(frozen=True, slots=True)
class TrailStatus:
    """The trail as metrics and readiness see it."""

    queued: int
    capacity: int
    written: int
    """Records handed to the sinks."""
    dropped: int
    """Records lost to a full queue."""
    filtered: int
    """Records left out on purpose by a drop rule."""
    failed: int
    """Records that could not be built: our own mistakes, see the log."""
    sinks: tuple[SinkStatus, ...]
    tracing: str
    """The complaint of the export of spans, or empty."""
    is_running: bool
    denies: bool = False
    """Whether a record that cannot be kept refuses the request."""
