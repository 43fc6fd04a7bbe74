"""The candidate as the page shows it: what it would change, with examples, its cost, and the commands that end it."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from authz.admin.explained import Sources
from authz.admin.merge import JsonAnswer
from authz.admin.policies import problem_json
from authz.analysis.offline.as_json import rule_json
from authz.core.attributes import Json
from authz.telemetry.status import CandidateDifference, CandidateStatus, PolicySourceStatus

EXAMPLES = 3
_SUMS = ("uncounted", "timed", "own_seconds", "check_seconds")


def candidate_json(
    candidate: CandidateStatus | None, sources: Sources, source: PolicySourceStatus | None = None
) -> dict[str, Json]:
    """
    What came of the candidate. ``is_set`` is False without the setting; without a candidate, ``version`` is None.

    ``source`` is where published policies come from: a candidate that lies beside them was pushed there.
    """
    if candidate is None:
        return {"is_set": False, "version": None}
    reload = candidate.reload
    return {
        "is_set": True,
        "version": reload.policy_version or None,
        "since": candidate.since or None,
        "reload_ok": reload.is_ok,
        "problems": [problem_json(problem) for problem in reload.problems if problem.is_error],
        "results": dict(candidate.of_version),
        "differences": [difference_json(one) for one in candidate.differences],
        "uncounted": candidate.uncounted,
        "timed": candidate.timed,
        "own_seconds": candidate.own_seconds,
        "check_seconds": candidate.check_seconds,
        "commands": _commands(sources, source.source if source is not None else ""),
    }


def _commands(sources: Sources, source: str) -> dict[str, Json]:
    if source and Path(sources.candidate).parent == Path(sources.policies).parent.parent:
        ending = shlex.join(["--to", source])
        return {
            "diff": shlex.join(["authz", "diff", sources.policies, sources.candidate]),
            "promote": f"authz candidate promote {ending} --key bundle.key",
            "abort": f"authz candidate abort {ending}",
        }
    mesh = ["--mesh", sources.mesh] if sources.mesh else []
    own = ["--candidate", sources.candidate]
    return {
        "diff": shlex.join(["authz", "diff", sources.policies, sources.candidate, *mesh]),
        "promote": shlex.join(["authz", "candidate", "promote", *own, "--policies", sources.policies, *mesh]),
        "abort": shlex.join(["authz", "candidate", "abort", *own]),
    }


def difference_json(one: CandidateDifference) -> dict[str, Json]:
    """Decisions of one workload that differ alike, with examples."""
    return {
        "result": one.result,
        "namespace": one.namespace,
        "workload": one.workload,
        "rule": rule_json(one.rule),
        "candidate_rule": rule_json(one.candidate_rule),
        "count": one.count,
        "first_at": one.first_at,
        "last_at": one.last_at,
        "decisions": [*one.decision_ids],
    }


def merge_candidates(found: Sequence[JsonAnswer]) -> JsonAnswer:
    """Add the numbers of all workers at the version of the first that has one; of one that refused it, tell why."""
    first = next((one for one in found if one["version"]), found[0])
    alike = [one for one in found if one["is_set"] and one["version"] == first["version"]]
    if not alike:
        return first
    refused = next((one for one in found if one["is_set"] and not one["reload_ok"]), first)
    kinds: dict[tuple[object, ...], dict[str, Any]] = {}
    for one in alike:
        for difference in one["differences"]:
            key = (*(difference[name] for name in ("result", "namespace", "workload")), *_names(difference))
            known = kinds.get(key)
            kinds[key] = difference if known is None else _both(known, difference)
    return {
        **first,
        "reload_ok": refused["reload_ok"],
        "problems": refused["problems"],
        "since": min((one["since"] for one in alike if one["since"]), default=None),
        "results": {name: sum(one["results"][name] for one in alike) for name in first["results"]},
        "differences": sorted(kinds.values(), key=lambda one: -one["count"]),
        **{name: sum(one[name] for one in alike) for name in _SUMS},
    }


def _names(difference: JsonAnswer) -> tuple[object, ...]:
    return tuple((difference[name] or {}).get("name") for name in ("rule", "candidate_rule"))


def _both(one: JsonAnswer, other: JsonAnswer) -> JsonAnswer:
    newest = max(one, other, key=lambda difference: difference["last_at"])
    oldest = other if newest is one else one
    return {
        **newest,
        "count": one["count"] + other["count"],
        "first_at": min(one["first_at"], other["first_at"]),
        "decisions": [*newest["decisions"], *oldest["decisions"]][:EXAMPLES],
    }
