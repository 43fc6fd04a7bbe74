"""The list of Envoy's weaknesses: well formed, with sources, and read as it is meant."""

import json
import re
from pathlib import Path

import pytest

from authz.analysis.hardening import envoy_versions
from authz.analysis.hardening.envoy_versions import Version, Vulnerability, judge_version, known, read_version
from authz.core.errors import Severity

NOW = known().until + 86_400.0


@pytest.mark.parametrize("one", known().vulnerabilities, ids=lambda one: one.id)
def test_every_weakness_has_an_id_a_summary_and_public_sources(one: Vulnerability) -> None:
    assert re.fullmatch(r"CVE-20\d\d-\d{4,6}|GHSA(-[0-9a-z]{4}){3}", one.id)
    assert one.summary
    assert one.fixed
    assert one.sources
    hosts = ("https://github.com/", "https://nvd.nist.gov/", "https://www.envoyproxy.io/", "https://tetrate.io/")
    assert all(source.startswith(hosts) for source in one.sources)


def test_no_weakness_is_listed_twice() -> None:
    names = [one.id for one in known().vulnerabilities]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("version", "is_affected"),
    [
        ((1, 36, 9), True),
        ((1, 36, 10), False),
        ((1, 38, 3), True),
        ((1, 38, 4), False),
        ((1, 39, 0), True),
        ((1, 39, 1), False),
        ((1, 40, 0), False),
        ((1, 35, 99), True),  # a line without a corrected version
        ((2, 0, 0), False),
    ],
)
def test_a_version_is_held_against_the_correction_of_its_own_line(version: Version, is_affected: bool) -> None:
    one = next(one for one in known().vulnerabilities if one.id == "CVE-2026-73553")
    assert one.affects(version) is is_affected


def test_a_weakness_that_came_later_does_not_affect_older_versions() -> None:
    one = next(one for one in known().vulnerabilities if one.id == "CVE-2026-47220")
    assert not one.affects((1, 36, 0))
    assert one.affects((1, 37, 4))


def test_a_finding_says_what_to_update_to_and_where_it_is_told() -> None:
    found = {one.what.partition(" ")[0]: one for one in judge_version("web", (1, 38, 3), NOW)}
    rbac = found["CVE-2026-73553"]
    assert rbac.where == "proxy web, Envoy 1.38.3"
    assert rbac.do == "update to 1.38.4; https://github.com/envoyproxy/envoy/security/advisories/GHSA-77x5-xqjg-hprq"
    assert rbac.severity is Severity.ERROR


def test_the_end_of_a_release_line_and_an_old_list_are_told() -> None:
    assert any("no longer gets corrections" in one.what for one in judge_version("web", (1, 30, 0), NOW))
    (old,) = judge_version("web", (9, 0, 0), NOW + envoy_versions.OLD_DAYS * 86_400)
    assert old.severity is Severity.INFO


def test_the_version_is_read_from_what_envoy_says() -> None:
    assert read_version("9e5580933739775e8bce696a57a2e1bc99368f23/1.40.0/Clean/RELEASE/BoringSSL") == (1, 40, 0)
    assert read_version("1.39.1-dev") == (1, 39, 1)
    with pytest.raises(ValueError, match="not a version of Envoy"):
        read_version("unknown")


def test_the_file_is_json_with_the_documented_members() -> None:
    told = json.loads((Path(envoy_versions.__file__).parent / envoy_versions.FILE).read_text())
    assert set(told) == {"until", "maintained", "maintained_source", "vulnerabilities"}
    members = {"id", "advisory", "touches", "summary", "fixed", "introduced", "sources"}
    assert all(set(one) <= members for one in told["vulnerabilities"])
