"""Two sets of policies in force at the same time: a candidate's for some workloads, and the others' for all others."""

from authz.core.attributes import Workload
from authz.core.engine import Engine, WorkloadPolicies
from authz.core.policies_by_workload import PoliciesByWorkload
from authz.core.resources import AuthorizationPolicy, MeshConfig
from authz.core.touched import FiledWorkloads, touched


class CanaryEngine:
    """Every question about a workload goes to the engine whose policies it has."""

    def __init__(self, base: Engine, candidate: Engine, names: frozenset[str]) -> None:
        """
        Args:
            base: of whoever is not named.
            candidate: of the workloads named, by ``Workload.name``. It was read with the same settings of the mesh.
            names: of workloads as the mesh description has them, each once.
        """
        assert base.mesh == candidate.mesh, "whoever loads a candidate loads it for the same mesh"
        self.base, self.candidate, self.names = base, candidate, names

    def is_like(self, other: object) -> bool:
        """Whether every workload has the very same policies by another one, which each rendering makes anew."""
        if not isinstance(other, CanaryEngine):
            return False
        return (self.base, self.candidate, self.names) == (other.base, other.candidate, other.names)

    @property
    def mesh(self) -> MeshConfig:
        """The same for both."""
        return self.base.mesh

    @property
    def version(self) -> str:
        """Of the policies that most have."""
        return self.base.version

    def for_workload(self, workload: Workload) -> WorkloadPolicies:
        """As ``Engine.for_workload``."""
        return self._of(workload).for_workload(workload)

    def written_for(self, workload: Workload) -> tuple[AuthorizationPolicy, ...]:
        """As ``Engine.written_for``."""
        return self._of(workload).written_for(workload)

    def digests_for(self, workload: Workload) -> tuple[bytes, ...]:
        """As ``Engine.digests_for``."""
        return self._of(workload).digests_for(workload)

    def _of(self, workload: Workload) -> Engine:
        return self.candidate if workload.name in self.names else self.base


def touched_names(
    before: PoliciesByWorkload, after: PoliciesByWorkload, workloads: FiledWorkloads
) -> frozenset[str] | None:
    """Names of the workloads whose policies may differ between two sets, with a candidate or without; None: any."""
    if not (isinstance(before, Engine | CanaryEngine) and isinstance(after, Engine | CanaryEngine)):
        return None
    (base, candidate, names), (new_base, new_candidate, new_names) = _parts(before), _parts(after)
    of_base = touched(base, new_base, workloads)
    of_candidate = touched(candidate, new_candidate, workloads) if names & new_names else frozenset()
    if of_base is None or of_candidate is None:
        return None
    stay_with_base = frozenset(one.name for one in of_base) - names - new_names
    stay_with_candidate = frozenset(one.name for one in of_candidate) & names & new_names
    return stay_with_base | stay_with_candidate | (names ^ new_names)


def _parts(policies: Engine | CanaryEngine) -> tuple[Engine, Engine, frozenset[str]]:
    """Without a candidate nobody has it."""
    if isinstance(policies, CanaryEngine):
        return policies.base, policies.candidate, policies.names
    return policies, policies, frozenset()
