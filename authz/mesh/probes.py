"""Probes of WorkloadGroups: how a proxy sees whether the application beside it can work."""

from dataclasses import dataclass
from enum import StrEnum


class ProbeKind(StrEnum):
    """What is asked of the application."""

    HTTP = "httpGet"
    TCP = "tcpSocket"
    GRPC = "grpc"


@dataclass(frozen=True, slots=True)
class Probe:
    """A ``probe`` of a WorkloadGroup; Istio's defaults."""

    kind: ProbeKind
    port: int
    path: str = "/"
    service: str = ""
    """For gRPC: whose health is asked; empty: that of the server."""
    headers: tuple[tuple[str, str], ...] = ()
    timeout_seconds: int = 1
    period_seconds: int = 10
    success_threshold: int = 1
    failure_threshold: int = 3
