"""What whoever renders asks of policies, so that they may come from one engine or from several."""

from typing import Protocol

from authz.core.attributes import Workload
from authz.core.engine import WorkloadPolicies
from authz.core.resources import AuthorizationPolicy, MeshConfig


class PoliciesByWorkload(Protocol):
    """An ``Engine``, or one of several by workload."""

    @property
    def mesh(self) -> MeshConfig:
        """The settings that they were read with."""

    @property
    def version(self) -> str:
        """Of all of them."""

    def for_workload(self, workload: Workload) -> WorkloadPolicies:
        """As ``Engine.for_workload``."""

    def written_for(self, workload: Workload) -> tuple[AuthorizationPolicy, ...]:
        """As ``Engine.written_for``."""

    def digests_for(self, workload: Workload) -> tuple[bytes, ...]:
        """As ``Engine.digests_for``."""
