"""The metrics of ``authz.telemetry`` by who shows them; a new one is in a set by its constant's name."""

from authz.telemetry import fleet_names, names


def _of(*prefixes: str) -> tuple[names.Metric, ...]:
    return tuple(
        value
        for name, value in {**vars(names), **vars(fleet_names)}.items()
        if isinstance(value, names.Metric) and name.startswith(prefixes)
    )


WORKERS = _of("WORKER_")
NATIVE = _of("NATIVE_")
CANDIDATE = _of("CANDIDATE_")
RATE_LIMITS = _of("RATE_LIMITS")
PUBLISHED = _of("PUBLISHED_")
AUTHORITY = _of("CA_", "SDS_", "WORKLOAD_STREAMS")
FLEET = _of("XDS_", "FLEET_", "CANARY_")
_ROTATION = _of("SERVED_EXPIRY", "DRIFT")
PROCESS = tuple(
    metric
    for metric in _of("")
    if metric not in {*WORKERS, *NATIVE, *CANDIDATE, *RATE_LIMITS, *PUBLISHED, *AUTHORITY, *FLEET, *_ROTATION}
)
"""What every server shows."""
SERVER = (*PROCESS, *WORKERS, *NATIVE, *CANDIDATE, *RATE_LIMITS, *PUBLISHED)
"""What a server may show."""
