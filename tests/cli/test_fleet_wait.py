"""How waiting for a revision ended, in words."""

import pytest

from authz.cli.fleet_wait import say_waited
from authz.truth.fleet_merge import merge_reports
from authz.truth.fleet_report import CONTROL, ProxyReport, ReplicaReport, Reported


def test_who_is_connected_nowhere_is_not_waited_for_and_that_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    replica = ReplicaReport("one", CONTROL, 100.0, "7", 50.0)
    proxies = (ProxyReport("web", True, True), ProxyReport("api"))
    assert say_waited(merge_reports([Reported(100.0, replica, proxies)], 100.0), "7")
    said = capsys.readouterr()
    assert said.out == "revision 7: 1 replica and 1 proxy have acknowledged it\n"
    assert "1 proxy is connected nowhere, and not waited for" in said.err
