"""
Which records are alike for the policies of a workload: those in which all is the same that a policy asks for.

Reading a record as a request and deciding it costs many times as much as finding out that one like it was decided.
"""

from collections.abc import Mapping
from typing import Any, Generic, TypeVar

from authz.analysis.replay.bounds import BoundedPolicies
from authz.analysis.replay.recorded_request import RecordedRequest
from authz.core.attributes import Workload
from authz.core.engine import Engine

T = TypeVar("T")

GONE = "\x00"
"""Stands for a member that a record has not, which is not the same as one that is null."""


def place_of(record: Mapping[str, Any]) -> tuple[object, ...]:
    """What chooses the policies: the version, the workload, and its labels. Raises AttributeError, KeyError."""
    destination = record["destination"]
    labels = destination.get("labels")
    return (
        record.get("policy_version"),
        destination.get("namespace"),
        destination.get("workload"),
        destination.get("service_account"),
        None if labels is None else tuple(labels.items()),
        destination.get("gateway"),
    )


class AlikeRequests(Generic[T]):
    """What decides for one workload, and what came of each kind of request."""

    def __init__(self, engine: Engine, then: Engine | None, first: RecordedRequest) -> None:
        """``then``: the policies of then, if they are known."""
        workload = first.attributes.destination.workload
        self.first = first
        """The first request to it that was read."""
        self.bounded = BoundedPolicies(engine.for_workload(workload))
        self.then = BoundedPolicies(then.for_workload(workload)) if then is not None else None
        """What decided at the time."""
        self.is_labelled = selects_by_labels(engine, workload)
        """Whether labels select some of the policies that may apply."""
        self.known: dict[tuple[object, ...], T] = {}
        asked = self.bounded.asked | (self.then.asked if self.then is not None else frozenset())

        def only(name: str, *keys: str) -> tuple[str, ...]:
            return (name,) if asked.intersection(keys) else ()

        self._source = ("principal", "mtls", *only("ip", "source.ip"), *only("remote_ip", "remote.ip"))
        self._destination = ("port", *only("ip", "destination.ip"))
        self._token = ("issuer", "rule", *only("subject", "request.auth.principal", "request.auth.claims[sub]"))
        self._request = (
            *only("method", "methods", "request.headers[:method]"),
            *only("host", "hosts", "request.headers[:authority]", "request.headers[host]"),
            *only("scheme", "request.headers[:scheme]"),
            *only("user_agent", "request.headers[user-agent]"),
        )
        self._has_query = "request.headers[:path]" in asked
        self._has_path = self._has_query or "paths" in asked

    def key(self, record: Mapping[str, Any]) -> tuple[object, ...]:
        """Equal for records that are alike. Raises AttributeError, KeyError, TypeError for what is no record."""
        source, destination, request = record["source"], record["destination"], record["request"]
        token, rule = record.get("token"), record.get("rule")
        asked: list[object] = [source.get(name, GONE) for name in self._source]
        asked += [destination.get(name, GONE) for name in self._destination]
        if request is not None:
            asked += [request.get(name, GONE) for name in self._request]
            path = request.get("path", GONE)
            if not self._has_query and isinstance(path, str):
                path = path.partition("?")[0] if self._has_path else path[:1]
            asked.append(path)
        if token is not None:
            asked += [token.get(name, GONE) for name in self._token]
        return (
            record.get("effect"),
            record.get("stage"),
            record.get("status"),
            rule["name"] if rule is not None else None,
            record.get("sni", GONE),
            request is None,
            token is None,
            *asked,
        )


def selects_by_labels(engine: Engine, workload: Workload) -> bool:
    """Whether a policy that might apply to a workload is chosen by its labels (RE-16, RE-17)."""
    places = (engine.mesh.root_namespace, workload.namespace)
    resources = engine.resources
    targets = [
        *((item.metadata, item.target) for item in resources.authorization_policies),
        *((item.metadata, item.target) for item in resources.request_authentications),
    ]
    return any(
        metadata.namespace in places and (target.match_labels or target.target_refs) for metadata, target in targets
    ) or any(item.metadata.namespace in places and item.match_labels for item in resources.peer_authentications)
