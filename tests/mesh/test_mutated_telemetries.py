"""Mutated Telemetries: refused with their place and what to do, or rendered to something Envoy accepts."""

from pathlib import Path

import pytest
import yaml

from authz.core.errors import Problem, Severity
from authz.mesh.cel_syntax import cel_fault
from authz.mesh.description import read_mesh_description
from authz.mesh.format_commands import checked_format
from authz.mesh.nouns import Mesh
from tests.mesh.meshes import ONE_SIDECAR
from tests.mesh.mutated import ODD, accepted_by_envoy, mutations
from tests.yaml_text import read_all_yaml, read_yaml

COUNT = 600
WITH_ENVOY = 20
SEED = 15
GOOD = """
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: api, namespace: shop}
spec:
  selector: {matchLabels: {app: api}}
  accessLogging:
  - match: {mode: CLIENT_AND_SERVER}
    providers: [{name: envoy}, {name: file}, {name: otel}]
    filter: {expression: "response.code >= 400 && request.path.matches('^/a')"}
  - {match: {mode: CLIENT}, providers: [{name: file}], disabled: true}
  tracing:
  - providers: [{name: spans}]
    randomSamplingPercentage: 12.5
    disableSpanReporting: false
    useRequestIdForTraceSampling: false
    enableIstioTags: true
    disableContextPropagation: true
    customTags:
      a: {literal: {value: b}}
      b: {environment: {name: HOME, defaultValue: x}}
      c: {header: {name: x-user, defaultValue: nobody}}
      d: {formatter: {value: "%REQ(:PATH)% %START_TIME(%s)%"}}
  metrics:
  - overrides: [{match: {metric: REQUEST_COUNT, mode: SERVER}, disabled: true}]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
spec:
  extensionProviders:
  - {name: file, envoyFileAccessLog: {path: /dev/stdout, logFormat: {labels: {a: {b: "%PROTOCOL%"}}}}}
  - {name: otel, envoyOtelAls: {service: otel.example.com, port: 4317, logFormat: {text: "%DURATION%", labels: {a: b}}}}
  - {name: spans, opentelemetry: {service: otel.example.com, port: 4317, maxTagLength: 99, grpc: {timeout: 2s}}}
"""


def read(text: str) -> tuple[Mesh, list[Problem]]:
    """Either document, which was mutated, beside the good other one; settings are text within YAML."""
    made = {one["kind"]: one for one in read_all_yaml(GOOD)} | {(one := read_yaml(text))["kind"]: one}
    settings = made["ConfigMap"]
    settings["data"] = {"mesh": yaml.safe_dump(settings.pop("spec", {}))}
    files = [("case.yaml", yaml.safe_dump_all(made.values())), ("shop.yaml", ONE_SIDECAR)]
    mesh, problems = read_mesh_description([(name, content.encode()) for name, content in files])
    return mesh, [one for one in problems if one.severity is Severity.ERROR]


@pytest.mark.slow
def test_a_mutated_document_is_refused_with_its_place_or_read() -> None:
    accepted = 0
    for text in mutations(list(read_all_yaml(GOOD)), SEED, COUNT):
        _, problems = read(text)
        accepted += not problems
        for problem in problems:
            assert problem.location.file == "case.yaml", (str(problem), text)
            assert problem.location.line > 0, (str(problem), text)
    assert COUNT / 20 < accepted < COUNT * 19 / 20


@pytest.mark.envoy
@pytest.mark.slow
def test_what_is_accepted_envoy_accepts(tmp_path: Path) -> None:
    tried = 0
    for i, text in enumerate(mutations(list(read_all_yaml(GOOD)), SEED + 1, COUNT)):
        mesh, problems = read(text)
        if not problems:
            tried += 1
            state = tmp_path / str(i)
            state.mkdir()
            assert accepted_by_envoy(mesh, ("api-v1",), state) == "", text
        if tried == WITH_ENVOY:
            return
    raise AssertionError(f"only {tried} were accepted")


@pytest.mark.parametrize("odd", [one for one in ODD if isinstance(one, str)])
def test_odd_expressions_and_formats_are_told_not_raised(odd: str) -> None:
    for text in (
        odd,
        f"'{odd}'",
        f"request.headers[{odd}]",
        f"request.path.matches('{odd}')",
        f"%REQ({odd})%",
        f"%{odd}",
    ):
        fault = cel_fault(text)
        assert fault is None or 0 <= fault.offset <= len(text)
        made, faults = checked_format(text)
        assert faults or made.count("%") % 2 == 0
