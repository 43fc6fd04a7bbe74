"""A candidate in force for a part of the mesh, and none where anything is wrong with it."""

import asyncio
import contextlib
import logging
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from time import time
from typing import Any

import pytest

from authz.canary.canary_engine import CanaryEngine
from authz.canary.canary_judge import AbortBound
from authz.canary.canary_selection import CanarySelection
from authz.canary.canary_source import CanarySource
from authz.canary.canary_status import CanaryState, CanaryStatus
from authz.canary.candidate_standing import CandidateStanding, CandidateState
from authz.canary.candidate_terms import CandidateTerms
from authz.control.canary_follower import CanaryFollower
from authz.control.mesh_follower import MeshFollower
from authz.core.errors import SettingsError
from authz.core.policies_by_workload import PoliciesByWorkload
from authz.envoy.native.binary import EnvoyError
from authz.envoy.options import RenderOptions
from authz.mesh.nouns import Enforce
from tests.control.following import following
from tests.mesh.meshes import Ports, description

OPTIONS = RenderOptions(enforce=Enforce.NATIVE)


def policy(path: str) -> str:
    return (
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n"
        "metadata: {name: paths, namespace: istio-system}\n"
        f'spec: {{rules: [{{to: [{{operation: {{paths: ["{path}"]}}}}]}}]}}\n'
    )


class Rollout:
    """A mesh followed with a candidate for ``server-v1``."""

    def __init__(
        self, folder: Path, *names: str, validator: Any = None, published: Any = None, is_shadowed: bool = False
    ) -> None:
        self.folder, self.out, self.candidate = folder, folder / "state", folder / "next"
        self.mesh, self.policies = folder / "mesh.yaml", folder / "policies"
        if not self.policies.exists():
            self.policies.mkdir()
            self.mesh.write_bytes(description(Ports()))
            self.write(self.policies, policy("/old"))
        self.said: list[str] = []
        selection = CanarySelection(names=frozenset(names or (() if is_shadowed else ("server-v1",))))
        source = CanarySource(self.candidate, selection, published=published, is_shadowed=is_shadowed)
        self.canary = CanaryFollower(
            source, self.policies, self.mesh, folder / "keep", clock=time, say=self.said.append
        )
        self.follower = MeshFollower(
            self.policies,
            self.mesh,
            self.out,
            OPTIONS,
            clock=time,
            say=self.said.append,
            validator=validator,
        )
        self.follower.canary = self.canary

    def write(self, place: Path, text: str) -> None:
        place.mkdir(exist_ok=True)
        fresh = self.folder / "fresh"
        fresh.write_text(text)
        fresh.replace(place / "a.yaml")

    def files(self) -> dict[str, bytes]:
        found = {path.relative_to(self.out): path.read_bytes() for path in self.out.rglob("*") if path.is_file()}
        return {str(name): content for name, content in found.items()}

    def paths(self) -> dict[str, str]:
        """The path that each proxy allows."""
        found = {}
        for file in (self.out / "ecds").glob("*.authz-rules.json"):
            text = file.read_text()
            found[file.name.partition(".")[0]] = next(
                (path for path in ("/old", "/new", "/newest") if f'"{path}"' in text), ""
            )
        return found

    async def until(self, condition: Callable[[CanaryStatus], object]) -> CanaryStatus:
        async with asyncio.timeout(20):
            while not condition(self.canary.status):  # noqa: ASYNC110  # files tell nobody
                await asyncio.sleep(0.02)
        return self.canary.status


async def test_a_candidate_comes_and_goes_and_touches_the_filters_of_whom_it_is_for_alone(tmp_path: Path) -> None:
    async with following(Rollout(tmp_path)) as rollout:
        assert rollout.canary.status.state is CanaryState.NONE
        before = rollout.files()
        assert set(rollout.paths().values()) == {"/old"}
        rollout.write(rollout.candidate, policy("/new"))
        status = await rollout.until(
            lambda one: one.state is CanaryState.IN_FORCE and rollout.paths()["server-v1"] == "/new"
        )
        assert status.chosen == ("server-v1",)
        after = rollout.files()
        changed = {name for name, content in after.items() if before[name] != content}
        assert changed
        assert all(name.startswith("ecds/server-v1.") for name in changed)
        rollout.write(rollout.policies, policy("/newest"))
        await rollout.until(lambda _: "/newest" in rollout.paths().values())
        assert rollout.paths()["server-v1"] == "/new"
        rollout.write(rollout.policies, policy("/old"))
        shutil.rmtree(rollout.candidate)
        await rollout.until(lambda one: one.state is CanaryState.NONE and rollout.files() == before)
        assert any("in force for 1 of" in line for line in rollout.said)
        assert rollout.said.count("candidate none: every workload has the policies in force") == 1


async def test_one_that_chooses_nobody_is_beside_the_policies_in_force_and_touches_no_file(tmp_path: Path) -> None:
    seen: list[PoliciesByWorkload] = []

    def deliver(_: object, files: object, policies: PoliciesByWorkload, some: object) -> None:
        seen.append(policies)

    rollout = Rollout(tmp_path, is_shadowed=True)
    rollout.follower._deliver = deliver
    async with following(rollout):
        rollout.write(rollout.candidate, policy("/new"))
        status = await rollout.until(lambda one: one.state is CanaryState.SHADOW and len(seen) > 1)
        assert (status.chosen, status.reason) == ((), "")
        beside = seen[-1]
        assert isinstance(beside, CanaryEngine)
        assert (beside.names, beside.candidate.version) == (frozenset(), status.version)
        assert beside.version == seen[0].version
        shutil.rmtree(rollout.candidate)
        await rollout.until(lambda one: one.state is CanaryState.NONE and seen[-1] is not beside)
        assert seen[-1].version == seen[0].version
    assert any("in shadow: every workload keeps the policies in force" in line for line in rollout.said)


@pytest.mark.parametrize(
    ("names", "text", "told"),
    [
        ((), policy("/new").replace("rules", "ruels"), "unknown field"),
        (("server-v1", "nobody"), policy("/new"), "the mesh has no workload `nobody`"),
    ],
)
async def test_a_candidate_that_cannot_be_used_leaves_all_as_it_was_and_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, names: tuple[str, ...], text: str, told: str
) -> None:
    rollout = Rollout(tmp_path, *names)
    rollout.write(rollout.candidate, text)
    async with following(rollout):
        status = rollout.canary.status
        assert status.state is CanaryState.REFUSED
        assert told in status.reason
        assert told in rollout.canary.problem
        assert set(rollout.paths().values()) == {"/old"}
        assert any("every workload keeps the policies in force" in line for line in rollout.said)
        assert any(record.name == "authz.canary" and record.levelno == logging.ERROR for record in caplog.records)


async def test_a_broken_change_of_a_candidate_keeps_the_last_good_one_and_is_told(tmp_path: Path) -> None:
    rollout = Rollout(tmp_path)
    rollout.write(rollout.candidate, policy("/new"))
    async with following(rollout):
        assert rollout.paths()["server-v1"] == "/new"
        rollout.write(rollout.candidate, "nonsense: [")
        status = await rollout.until(lambda one: one.reason)
        assert status.state is CanaryState.IN_FORCE
        assert rollout.paths()["server-v1"] == "/new"
        assert rollout.canary.problem


class Judge:
    """In the place of a ``Validator``: refuses filters in which a path stands."""

    def __init__(self, refused: str) -> None:
        self.refused = refused

    def validate(self, _out: Path, filters: Mapping[str, bytes], _network: object) -> str:
        if any(self.refused.encode() in content for content in filters.values()):
            raise EnvoyError("Envoy refuses it")
        return ""


async def test_a_candidate_that_envoy_refuses_is_taken_back_and_not_tried_again(tmp_path: Path) -> None:
    rollout = Rollout(tmp_path, validator=Judge("/new"))
    rollout.write(rollout.candidate, policy("/new"))
    async with following(rollout):
        assert rollout.canary.status.state is CanaryState.REFUSED
        assert rollout.canary.status.reason == "Envoy refuses it"
        assert rollout.canary.standing is None, "a directory is nobody else's candidate"
        assert rollout.paths()["server-v1"] == "/old"
        rollout.write(rollout.candidate, policy("/neu"))
        await rollout.until(lambda one: one.state is CanaryState.IN_FORCE)


async def test_what_was_aborted_stays_so_after_a_restart_until_it_changes(tmp_path: Path) -> None:
    rollout = Rollout(tmp_path)
    rollout.write(rollout.candidate, policy("/new"))
    async with following(rollout):
        rollout.canary.abort("too many denials")
        await rollout.until(lambda _: rollout.paths()["server-v1"] == "/old")
        assert rollout.canary.status.state is CanaryState.ABORTED
        assert rollout.canary.problem == ""
    again = Rollout(tmp_path)
    async with following(again):
        assert again.canary.status.state is CanaryState.ABORTED
        assert again.canary.status.reason == "too many denials"
        assert again.paths()["server-v1"] == "/old"
        again.write(again.candidate, policy("/newest"))
        await again.until(lambda one: one.state is CanaryState.IN_FORCE and again.paths()["server-v1"] == "/newest")


async def test_a_kept_abort_that_cannot_be_read_counts_as_one(tmp_path: Path) -> None:
    rollout = Rollout(tmp_path)
    rollout.write(rollout.candidate, policy("/new"))
    (tmp_path / "keep").mkdir()
    (tmp_path / "keep" / "canary-aborted.json").write_text("{")
    async with following(rollout):
        assert rollout.canary.status.state is CanaryState.ABORTED
        assert "cannot be read" in rollout.canary.status.reason
        assert rollout.paths()["server-v1"] == "/old"


def test_a_candidate_within_the_policies_in_force_is_refused(tmp_path: Path) -> None:
    source = CanarySource(tmp_path / "policies" / "next", CanarySelection(names=frozenset({"server-v1"})))
    with pytest.raises(SettingsError, match="lie one within the other"):
        CanaryFollower(source, tmp_path / "policies", tmp_path / "mesh.yaml", tmp_path, clock=time, say=print)


class Pushed:
    """In the place of what follows the truth: terms change with the files, as in one rename."""

    def __init__(self) -> None:
        self.problem = self.aborted = ""
        self.told: CandidateTerms | None = None
        self.standing: CandidateStanding | None = None
        self.replaced = 0.0
        self.aborts: list[tuple[int, str]] = []

    def terms(self, _: Path) -> CandidateTerms | None:
        return self.told

    def replaced_at(self) -> float:
        return self.replaced

    def abort(self, number: int, reason: str) -> None:
        self.aborts.append((number, reason))


def terms(number: int, *names: str) -> CandidateTerms:
    return CandidateTerms(number, 1, CanarySelection(names=frozenset(names)), AbortBound(Fraction(1, 10)))


async def test_one_that_was_pushed_says_itself_for_whom_it_is(tmp_path: Path) -> None:
    pushed = Pushed()
    async with following(Rollout(tmp_path, published=pushed)) as rollout:
        before = rollout.files()
        pushed.problem = "nobody signed it"
        assert (rollout.canary.status.state, rollout.canary.status.reason) == (CanaryState.REFUSED, pushed.problem)
        pushed.problem, pushed.told = "", terms(2)
        rollout.write(rollout.candidate, policy("/new"))
        pushed.told = terms(3, "server-v1")
        pushed.standing = CandidateStanding(3, "cd" * 32, CandidateState.SHADOW)
        assert rollout.canary.standing == replace(pushed.standing, state=CandidateState.WAITING)
        rollout.write(rollout.candidate, policy("/new"))
        seen = set()

        def is_told(_: CanaryStatus) -> bool:
            told = rollout.canary.standing is not None and rollout.canary.standing.state is CandidateState.IN_FORCE
            seen.add((told, rollout.paths()["server-v1"]))
            return told

        status = await rollout.until(is_told)
        assert (True, "/old") not in seen, "it is in force when it was delivered, and no sooner"
        assert rollout.canary.delivered_to == ("server-v1",)
        assert rollout.paths()["server-v1"] == "/new"
        assert (status.number, status.chosen, status.selection) == (3, ("server-v1",), "server-v1")
        assert rollout.canary.bound == AbortBound(Fraction(1, 10))
        rollout.canary.abort("too much")
        await rollout.until(lambda _: rollout.files() == before and not rollout.canary.delivered_to)
        assert rollout.canary.standing == replace(pushed.standing, state=CandidateState.ABORTED, reason="too much")
        assert set(pushed.aborts) == {(3, "too much")}
        pushed.told = terms(4, "server-v1")
        rollout.write(rollout.candidate, policy("/new"))
        status = await rollout.until(lambda _: rollout.paths()["server-v1"] == "/new")
        assert status.number == 4
        pushed.told = terms(5, "server-v1")
        rollout.write(rollout.candidate, policy("/new").replace("rules", "ruels"))
        status = await rollout.until(lambda one: one.state is CanaryState.REFUSED and rollout.files() == before)
        assert "unknown field" in status.reason
        pushed.told, pushed.aborted = None, "bob: by hand"
        shutil.rmtree(rollout.candidate)
        status = await rollout.until(lambda one: one.state is CanaryState.ABORTED)
        assert (status.reason, str(rollout.canary.bound)) == ("bob: by hand", "None")


async def test_one_that_is_promoted_stays_until_what_is_in_force_was_read(tmp_path: Path) -> None:
    pushed = Pushed()
    pushed.told = terms(2, "server-v1")
    rollout = Rollout(tmp_path, published=pushed)
    rollout.write(rollout.candidate, policy("/new"))
    async with following(rollout):
        assert rollout.paths()["server-v1"] == "/new"
        seen: list[str] = []
        pushed.told, pushed.replaced = None, time()
        shutil.rmtree(rollout.candidate)

        def is_for_all(_: CanaryStatus) -> bool:
            seen.append(rollout.paths()["server-v1"])
            return set(rollout.paths().values()) == {"/new"}

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                await rollout.until(is_for_all)
        rollout.write(rollout.policies, policy("/new"))
        await rollout.until(is_for_all)
        await rollout.until(lambda one: one.state is CanaryState.NONE)
        assert set(seen) == {"/new"}
