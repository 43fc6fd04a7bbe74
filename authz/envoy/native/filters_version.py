"""
Which policies a workload's filters were made from: one short text, in the filters and so in every entry of the log.

It is the workload's own, so that a policy that does not concern a workload changes nothing in its filters.
"""

from hashlib import sha256

from authz.core.attributes import Workload
from authz.core.policies_by_workload import PoliciesByWorkload

LENGTH = 12


def filters_version(engine: PoliciesByWorkload, workload: Workload) -> str:
    """
    The digest of all that decides for a workload: policies, token rules, mesh settings; keys are not part of it.

    Equal texts, equal policies, whoever read them; empty for an engine whose policies were not read from text.
    """
    digests = engine.digests_for(workload)
    return sha256(b"".join(digests)).hexdigest()[:LENGTH] if digests else ""
