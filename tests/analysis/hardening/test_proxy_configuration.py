"""What is rendered has no finding, in either form; the smallest change for the worse has one."""

import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import authz
from authz.analysis.hardening.proxy_configuration import judge_configuration
from authz.cli import application
from tests.yaml_text import read_yaml

ROOT = Path(authz.__file__).parent.parent
RENDERED = sorted((ROOT / "envoy-configs" / "lds").glob("*.yaml"))


@cache
def read(file: Path) -> Any:
    return read_yaml(file.read_bytes())


def found(*configs: Any) -> list[str]:
    return [one.what for one in judge_configuration("web", json.dumps({"configs": list(configs)}))]


@pytest.mark.parametrize("file", RENDERED, ids=lambda file: file.stem)
def test_rendered_listeners_have_no_finding(file: Path) -> None:
    assert found(read(file)) == []


def test_a_rendered_bootstrap_has_no_finding() -> None:
    for file in (ROOT / "envoy-configs" / "envoy").glob("*.yaml"):
        assert found({"bootstrap": read(file)}) == []


@pytest.mark.slow
def test_rendered_native_filters_have_no_finding(tmp_path: Path) -> None:
    """Tokens may be missing there, as Istio has it, and the rules behind ask."""
    shutil.copytree(ROOT / "envoy-configs" / "login", tmp_path / "login")  # what the demo's issuer said of itself
    arguments = ["--mesh", str(ROOT / "envoy-configs" / "mesh.yaml"), "--policies", str(ROOT / "policies")]
    arguments += ["--out", str(tmp_path), "--enforce", "native", "--validate", "off"]
    assert CliRunner().invoke(application, ["mesh", "render", *arguments]).exit_code == 0
    assert "allow_missing" in (tmp_path / "ecds" / "ingressgateway.authz-rules.json").read_text()
    for listeners in (tmp_path / "lds").glob("*.yaml"):
        slots = [json.loads(one.read_bytes()) for one in (tmp_path / "ecds").glob(f"{listeners.stem}.*.json")]
        assert found(read(listeners), *slots) == []


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"encode_raw_headers": true', '"encode_raw_headers": false', "judged joined"),
        ('"encode_raw_headers": true', '"encode_raw_headers": true, "failure_mode_allow": true', "does not answer"),
        ('"encode_raw_headers": true', '"encode_raw_headers": true, "allowed_headers": {}', "do not see all headers"),
    ],
)
def test_a_small_change_for_the_worse_is_found(old: str, new: str, words: str) -> None:
    text = json.dumps(read(ROOT / "envoy-configs" / "lds" / "reviews-v1.yaml"))
    assert old in text
    worse = json.loads(text.replace(old, new))
    assert any(words in what for what in found(worse))


def test_a_tcp_filter_that_fails_open_is_found() -> None:
    kind = "type.googleapis.com/envoy.extensions.filters.network.ext_authz.v3.ExtAuthz"
    assert found({"filters": [{"@type": kind, "failure_mode_allow": True}]}) == [
        "requests pass while the server does not answer (ext_authz `failure_mode_allow`)"
    ]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"configs": 1}', "[" * 100_000])
def test_what_is_no_dump_is_said(text: str) -> None:
    with pytest.raises(ValueError):
        list(judge_configuration("web", text))
