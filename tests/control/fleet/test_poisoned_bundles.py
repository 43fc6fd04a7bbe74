"""What nobody may put in force stands in the truth: both control planes keep the last good one, and say so."""

import asyncio
import hashlib
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from click.testing import CliRunner
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from authz.bundles.whole_bundle import build_bundle, sign_bundle
from authz.cli import application
from authz.cli.control_policies import PolicyPlace, opened
from authz.control.authority.authority_files import AuthorityFiles
from authz.control.authority.authority_server import AuthorityServer, Doors
from authz.control.fleet.control_plane import ControlPlane, MeshSources
from authz.control.fleet.fleet_reporter import Replica, ReportStore
from authz.envoy.options import RenderOptions
from authz.mesh.nouns import Enforce
from authz.sources.published.opening import PublishedPolicies
from authz.truth.policy_head import PolicyHead, write_head
from authz.truth.policy_revisions import HEAD, PolicyRevisions
from authz.truth.report_store import ReportReader, ReportWriter
from authz.truth.truth_bucket import POLICIES, TruthArchives, TruthBucket
from authz.truth.truth_client import TruthClient
from tests.control.fleet.fleet_rig import Rig, allow, served, until
from tests.nats_server import FLEET, NatsServers, truth_servers

OURS, STRANGERS = (Ed25519PrivateKey.from_private_bytes(bytes([number]) * 32) for number in (1, 2))


def bundle(number: int, text: str, key: Ed25519PrivateKey = OURS) -> bytes:
    files = {"policies/api.yaml": text.encode()}
    return sign_bundle(build_bundle(files, fleet=FLEET, revision=number, created=int(time.time())), key)


def head_of(number: int, data: bytes) -> PolicyHead:
    return PolicyHead(number, hashlib.sha256(data).hexdigest(), int(time.time()), "eve", "", 1)


def push(client: TruthClient, number: int, data: bytes) -> None:
    revisions = PolicyRevisions(client)
    revisions.publish(head_of(number, data), data, revisions.head())


def put_other_bytes(client: TruthClient, number: int) -> None:
    """The archive of a head is replaced by another bundle, which is signed as it should be."""
    head = head_of(number, bundle(number, allow("/poison")))
    TruthArchives(client).put(head.digest, bundle(number, allow("/other")))
    TruthBucket(client, POLICIES).put(HEAD, write_head(head))


def forge_head(client: TruthClient) -> None:
    TruthBucket(client, POLICIES).put(HEAD, b'{"format": "authz-policies/1", "number": 5}')


POISONS: tuple[tuple[Callable[[TruthClient], None], str], ...] = (
    (lambda client: push(client, 2, bundle(2, allow("/poison"), STRANGERS)), "none of the keys given here signed it"),
    (lambda client: push(client, 3, bundle(3, "kind: Nonsense\n")), "its policies are refused"),
    (lambda client: put_other_bytes(client, 4), "has another digest than its head says"),
    (forge_head, "the head of the policies in the truth is damaged"),
)


@asynccontextmanager
async def control(rig: Rig, name: str, servers: NatsServers) -> AsyncIterator[ControlPlane]:
    """A replica that follows the truth, and reports there by this name."""
    key = rig.folder / "bundle.pub"
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    key.write_bytes(OURS.public_key().public_bytes(serialization.Encoding.PEM, form))
    told = PublishedPolicies(rig.folder / f"cache-{name}", FLEET, [key], truth=servers.access(""))
    place = PolicyPlace(str(servers.address), told)
    truth = servers.client()
    truth.begin()
    authority = AuthorityServer(AuthorityFiles(rig.folder / "ca"), Doors(listen="127.0.0.1:0", dns=("localhost",)))
    own = Replica(name, ReportStore(ReportWriter(truth, name), ReportReader(truth, but=name)))
    with opened(place, rig.mesh, None) as found:
        sources = MeshSources(found.policies, found.mesh, keep=rig.folder / f"keep-{name}")
        options = RenderOptions(enforce=Enforce.NATIVE)
        plane = ControlPlane(
            sources, options, authority, clock=time.time, say=rig.said.append, replica=own, source=found.status
        )  # fmt: skip
        try:
            async with served(plane):
                yield plane
        finally:
            await asyncio.to_thread(truth.stop)


def healthz(plane: ControlPlane) -> str:
    """Every cause that a control plane gives for ``/healthz``."""
    return "; ".join(str(cause["message"]) for cause in plane.causes())


async def status(servers: NatsServers) -> tuple[set[str], dict[str, tuple[str, str, str]]]:
    """By ``authz fleet status``: who is not as it should be; of each replica its state, revision and problem."""
    told = ["fleet", "status", "--truth", str(servers.address), "-o", "json", "--older-than", "0s"]
    done = await asyncio.to_thread(CliRunner().invoke, application, told)
    found = json.loads(done.stdout)
    assert done.exit_code == (3 if found["lagging"] else 0)
    return set(found["lagging"]), {
        one["name"]: (one["state"], one["revision"], one["problem"]) for one in found["replicas"]
    }


def version(plane: ControlPlane) -> str:
    page = plane.page("/fleet")
    assert isinstance(page, dict)
    return str(page["policies"])


async def test_every_control_keeps_the_last_good_one_and_says_so_until_a_good_one_is_there(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    with truth_servers(tmp_path / "truth") as servers, servers.client() as client:
        push(client, 1, bundle(1, allow("/one")))
        async with control(rig, "one", servers) as one, control(rig, "two", servers) as two:
            planes, good = (one, two), version(one)
            await until(lambda: _is(servers, "current", "1", ""))
            for poison, said in POISONS:
                await asyncio.to_thread(poison, client)

                async def all_say_so(said: str = said) -> bool:
                    return all(said in healthz(plane) for plane in planes)

                await until(all_say_so)
                await until(partial(_is, servers, "refusing", "1", said))
                assert {version(plane) for plane in planes} == {good}
                for name in ("one", "two"):
                    kept = next((tmp_path / f"cache-{name}").rglob("current/policies/api.yaml"))
                    assert kept.read_text() == allow("/one")
            forged = TruthBucket(client, POLICIES).get(HEAD)
            assert forged is not None
            data = bundle(6, allow("/two"))
            TruthArchives(client).put(head_of(6, data).digest, data)
            TruthBucket(client, POLICIES).update(HEAD, write_head(head_of(6, data)), forged.revision)
            await until(lambda: _is(servers, "current", "6", ""))
            assert not any("policies" in str(cause["part"]) for plane in planes for cause in plane.causes())
            assert good not in {version(plane) for plane in planes}


async def _is(servers: NatsServers, state: str, revision: str, said: str) -> bool:
    """Whether both replicas are shown so."""
    late, replicas = await status(servers)
    are_shown = replicas.keys() == {"one", "two"} and all(
        (one[0], one[1]) == (state, revision) and said in one[2] for one in replicas.values()
    )
    return are_shown and (late & replicas.keys() == (set() if state == "current" else {"one", "two"}))
