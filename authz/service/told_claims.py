"""
Claims of verified tokens that rate limits count by: told to the proxy with an answer, as dynamic metadata.

A proxy that enforces by itself has them from its own filter.
"""

from collections.abc import Iterable, Mapping

from authz.core.attributes import AttributeContext, Json, Workload
from authz.mesh.rate_limits import AppliedLimit
from authz.wire.answer import write_claims

ClaimPath = tuple[str, ...]


class ToldClaims:
    """The claims that the limits in force ask for, by workload."""

    def __init__(self, limits: Mapping[Workload, tuple[AppliedLimit, ...]]) -> None:
        self._asked: dict[Workload, tuple[ClaimPath, ...]] = {
            workload: _paths(applied) for workload, applied in limits.items()
        }
        self._all = _paths(one for applied in limits.values() for one in applied)

    def __bool__(self) -> bool:
        """Whether any limit asks for a claim."""
        return bool(self._all)

    def for_request(self, attributes: AttributeContext) -> bytes:
        """
        The part of an answer that tells them; empty where there are none.

        Only texts are told. A workload that is not described exactly so gets what any limit asks for: too few would
        let its requests go uncounted.
        """
        token = attributes.authentication.token
        if token is None:
            return b""
        told: dict[str, Json] = {}
        for path in self._asked.get(attributes.destination.workload, self._all):
            _put(told, path, token.claims)
        return write_claims(told) if told else b""


def _paths(limits: Iterable[AppliedLimit]) -> tuple[ClaimPath, ...]:
    return tuple(sorted({path for one in limits for path in one.rule.claims}))


def _put(told: dict[str, Json], path: ClaimPath, claims: Mapping[str, Json]) -> None:
    value: Json = dict(claims)
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    if not isinstance(value, str):
        return
    for name in path[:-1]:
        inner = told.setdefault(name, {})
        if not isinstance(inner, dict):
            return
        told = inner
    told.setdefault(path[-1], value)
