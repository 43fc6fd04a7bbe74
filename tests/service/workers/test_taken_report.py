"""A server whose policies come from the truth reports there which revision it has taken: by a real server of NATS."""

import hashlib
import time
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from authz.bundles.whole_bundle import build_bundle, sign_bundle
from authz.service.workers.published import published_policies
from authz.service.workers.taken_report import TakenReport, server_name
from authz.settings.settings import Settings
from authz.sources.published.policy_follower import PolicyFollower
from authz.truth.fleet_report import ReplicaReport
from authz.truth.policy_head import PolicyHead
from authz.truth.policy_revisions import PolicyRevisions
from authz.truth.report_store import ReportReader
from authz.truth.server_configuration import read_member
from authz.truth.truth_client import TruthClient
from tests.nats_server import truth_servers
from tests.service.workers.test_published import POLICY
from tests.sources.published.published import KEY


def push(client: TruthClient, number: int) -> None:
    files = {"policies/read.yaml": (POLICY % f"/{number}").encode()}
    data = sign_bundle(build_bundle(files, fleet="shop", revision=number, created=int(time.time())), KEY)
    revisions = PolicyRevisions(client)
    head = PolicyHead(number, hashlib.sha256(data).hexdigest(), int(time.time()), "ann", "why", 1)
    revisions.publish(head, data, revisions.head())


def reported(client: TruthClient, revision: str) -> ReplicaReport:
    until = time.monotonic() + 30
    while True:
        found = [one.report for one in ReportReader(client).read()[0]]
        if [one.revision for one in found] == [revision]:
            return found[0]
        assert time.monotonic() < until, found
        time.sleep(0.05)


def test_a_server_reports_what_it_has_taken_and_says_farewell(tmp_path: Path) -> None:
    pem = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "bundle.pub").write_bytes(pem)
    with truth_servers(tmp_path / "truth") as servers, servers.client() as client:
        push(client, 1)
        settings = Settings(
            policies=str(servers.address),
            policies_cache=tmp_path / "cache",
            policies_public_keys=(tmp_path / "bundle.pub",),
        )
        with published_policies(settings, lambda line: None):
            first = reported(client, "1")
            assert (first.kind, first.problem) == ("serve", "")
            assert abs(first.since - time.time()) < 60
            push(client, 2)
            assert reported(client, "2").name == first.name
        assert ReportReader(client).read()[0] == []


def test_a_member_reports_by_its_own_name_and_a_stranger_to_that_is_told_who_may(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    web, ann = read_member("reader/web-1"), read_member("publisher/ann")
    status = SimpleNamespace(revision="7", taken_at=1.0, error="")
    follower = cast(PolicyFollower, SimpleNamespace(status=status, candidate=None))
    with truth_servers(tmp_path / "truth", tls=True, members=(web, ann)) as servers, servers.client() as client:
        for member in (ann, web):
            access = servers.access(f"{member.role.path}/{member.name}")
            report = TakenReport(servers.address, access, follower, tmp_path)
            try:
                if member == web:
                    assert reported(client, "7").name == "web-1"
                else:
                    until = time.monotonic() + 10
                    while "report with a certificate of `/authz/reader`" not in caplog.text:
                        assert time.monotonic() < until
                        time.sleep(0.05)
            finally:
                report.stop()
        assert ReportReader(client).read()[0] == []


def test_the_name_of_a_server_is_the_machines_and_differs_by_its_cache() -> None:
    assert server_name("VM_3.example", Path("/var/a")).startswith("vm-3-")
    assert server_name("vm", Path("/var/a")) != server_name("vm", Path("/var/b"))
    assert server_name("", Path("/a")).startswith("server-")
