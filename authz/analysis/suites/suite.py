"""
A suite of test cases: groups of requests with expectations, and documents with a result of validation.

The format is that of tests/conformance/README.md. ``suite_reader`` reads it, ``run`` runs it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from authz.analysis.offline.request import OfflineRequest, OfflineWorkload
from authz.core.attributes import Json
from authz.core.errors import Location, Problem
from authz.core.resources import MeshConfig

VALIDATION_RESULTS = ("error", "warning", "ok")


@dataclass(frozen=True, slots=True)
class Upstream:
    """What the upstream must see of an accepted request."""

    present: Mapping[str, str] = field(default_factory=dict)
    absent: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PolicyText:
    """Policies as written: ``text`` begins at ``line`` (from 1) and ``indent`` columns in of ``file``."""

    file: str
    text: str
    line: int = 1
    indent: int = 0


@dataclass(frozen=True, slots=True)
class Case:
    """One request and what is expected; only the keys of ``expect`` that are written are compared."""

    id: str
    location: Location
    request: OfflineRequest
    target: OfflineWorkload
    expect: Mapping[str, Json]
    upstream: Upstream | None = None
    clauses: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()
    """Why the case cannot be run; errors only."""


@dataclass(frozen=True, slots=True)
class Group:
    """Cases that share policies, mesh settings, keys and tokens."""

    id: str
    location: Location
    mesh: MeshConfig
    is_gateway: bool
    policies: tuple[PolicyText, ...]
    keys: Mapping[str, Mapping[str, object]]
    tokens: Mapping[str, Mapping[str, object]]
    key_sets: Mapping[str, tuple[str, ...]]
    """``jwksUri`` or issuer → names of the keys that are found there; ours, for policies that are not inline."""
    stubs: Mapping[str, str]
    """Provider name → ``allow``, ``deny`` or ``error`` (cannot be asked)."""
    cases: tuple[Case, ...]
    problems: tuple[Problem, ...] = ()
    """Why no case of the group can be run; errors only."""
    request_keys: tuple[str, ...] = ()
    """Keys that the group's ``request`` gives to its cases."""


@dataclass(frozen=True, slots=True)
class DocumentCase:
    """Policies and the result that validation must have."""

    id: str
    location: Location
    expect: str
    policies: PolicyText
    clauses: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class Suite:
    """One file of test cases, read; with errors among its problems it cannot be run."""

    file: str
    groups: tuple[Group, ...]
    documents: tuple[DocumentCase, ...]
    problems: tuple[Problem, ...]
    """Everything wrong with the file, that of groups and cases included, sorted."""
