"""Telemetries as they are read: every mistake at its place, no token in a log or span, and no metric by halves."""

from pathlib import Path

import pytest

from authz.core.errors import Problem
from authz.mesh.cel_syntax import cel_fault
from authz.mesh.description import read_mesh_description
from authz.mesh.format_commands import checked_format
from authz.mesh.nouns import Mesh
from authz.mesh.telemetry_kind import FileLog, OtlpTracer, OwnLog, SpanTag, TagSource
from tests.mesh.meshes import ONE_SIDECAR

PROVIDERS = """apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data:
  mesh: |
    defaultProviders: {tracing: [spans]}
    extensionProviders:
    - {name: file, envoyFileAccessLog: {path: /tmp/x.log, logFormat: {text: "%REQ(:PATH)% %DURATION%"}}}
    - {name: http, envoyHttpAls: {service: als.example.com, port: 1}}
    - {name: spans, opentelemetry: {service: otel.example.com, port: 4317}}
    - {name: zip, zipkin: {service: zipkin.example.com, port: 9411}}
"""
HEAD = """apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: api, namespace: shop}
spec: """


def read(spec: str, head: str = HEAD) -> tuple[Mesh, tuple[Problem, ...]]:
    files = [("t.yaml", f"{head}{spec}\n"), ("shop.yaml", f"{PROVIDERS}\n---\n{ONE_SIDECAR}")]
    return read_mesh_description([(name, text.encode()) for name, text in files])


WRONG = [
    # the spec, the text at the place of the problem, its code and some of its words
    ("{tracin: []}", "tracin", "ME-2", "did you mean `tracing`?"),
    ("{selector: {matchLabels: {app: '*'}}}", "{app: '*'}", "ME-1", "a star selects nothing"),
    ("{selector: {matchLabels: {app: other}}}", "{selector", "ME-4", "selects no workload"),
    ("{selector: {}, targetRef: {kind: Gateway}}", "{kind", "ME-1", "are both given"),
    ("{targetRefs: [{kind: Service, group: core, name: x}]}", "Service", "ME-6", "are not supported here"),
    ("{accessLogging: [{providers: [{name: fil}]}]}", "fil}", "ME-4", "no provider is called `fil`"),
    ("{accessLogging: [{providers: [{name: http}]}]}", "http}", "ME-6", "a token may stand"),
    ("{accessLogging: [{providers: [{name: spans}]}]}", "spans}", "ME-4", "is not one for `accessLogging`"),
    ("{accessLogging: [{providers: [{}]}]}", "{}", "ME-3", "`name` is missing"),
    ("{accessLogging: [{disabled: 1}]}", "1}", "ME-1", "expected true or false"),
    ("{accessLogging: [{match: {mode: BOTH}}]}", "BOTH", "ME-1", "is not one of CLIENT_AND_SERVER"),
    ("{accessLogging: [{providers: [{name: envoy}], filter: {}}]}", "{}}", "ME-3", "`expression` is missing"),
    (
        "{accessLogging: [{providers: [{name: envoy}], filter: {expression: respones.code > 1}}]}",
        "respones",
        "ME-1",
        "did you mean `response`?",
    ),
    ("{tracing: [{randomSamplingPercentage: 101}]}", "101", "ME-1", "from 0 to 100"),
    ("{tracing: [{randomSamplingPercentage: x}]}", "x}", "ME-1", "from 0 to 100"),
    ("{tracing: [{providers: [{name: zip}]}]}", "zip}", "ME-6", "use `opentelemetry`"),
    ("{tracing: [{providers: [{name: spans}, {name: spans}]}]}", "[{name: spans}, ", "ME-6", "to one provider"),
    ("{tracing: [{customTags: {a: b}}]}", "b}}]", "ME-1", "expected a mapping"),
    ("{tracing: [{customTags: {a: {}}}]}", "{}", "ME-3", "a tag has one of"),
    ("{tracing: [{customTags: {a: {literal: {value: ''}}}}]}", "''", "ME-1", "is empty"),
    ("{tracing: [{customTags: {http.url: {literal: {value: x}}}}]}", "{literal", "ME-6", "the proxy's own"),
    ("{tracing: [{customTags: {a: {header: {name: Authorization}}}}]}", "Authorization", "ME-6", "is a credential"),
    ("{tracing: [{customTags: {a: {header: {name: cookie}}}}]}", "cookie", "ME-6", "is a credential"),
    ("{tracing: [{customTags: {a: {header: {name: ':path'}}}}]}", "':path'", "ME-6", "tells a query"),
    (
        "{tracing: [{customTags: {a: {formatter: {value: '%REQ(X?AUTHORIZATION)%'}}}}]}",
        "'%REQ",
        "ME-6",
        "is a credential",
    ),
    ("{metrics: [{}]}", "{}", "ME-6", "metrics cannot be had here"),
    ("{metrics: [{overrides: [{match: {metric: REQUEST_COUNT}}]}]}", "{match", "ME-6", "can only be disabled here"),
    ("{metrics: [{overrides: [{tagOverrides: {a: {operation: REMOVE}}}]}]}", "{a:", "ME-6", "`tagOverrides`"),
    ("{metrics: [{reportingInterval: 5s, overrides: [{disabled: true}]}]}", "5s", "ME-6", "`reportingInterval`"),
]


@pytest.mark.parametrize(("spec", "at", "code", "words"), WRONG)
def test_what_is_wrong_is_refused_at_its_place(spec: str, at: str, code: str, words: str) -> None:
    _, problems = read(spec)
    column = f"spec: {spec}".index(at, 6) + 1
    found = [(p.code, str(p.location)) for p in problems if p.is_error and words in f"{p.message} {p.help}"]
    assert (code, f"t.yaml:4:{column}") in found, "\n".join(map(str, problems))


def test_all_mistakes_are_told_at_once() -> None:
    _, problems = read("{accessLogging: [{disabled: 1}], tracing: [{randomSamplingPercentage: -1}], metrics: [{}]}")
    assert [one.code for one in problems if one.is_error] == ["ME-1", "ME-1", "ME-6"]


def test_another_version_of_the_kind_is_refused() -> None:
    _, problems = read("{}", HEAD.replace("telemetry.istio.io/v1", "telemetry.istio.io/v2"))
    assert [one.code for one in problems if one.is_error] == ["ME-1"]
    for version in ("v1", "v1alpha1"):
        assert not any(p.is_error for p in read("{}", HEAD.replace("istio.io/v1", f"istio.io/{version}"))[1])


def test_a_provider_that_nobody_uses_may_be_of_any_type() -> None:
    mesh, problems = read("{accessLogging: [{providers: [{name: FILE}]}]}")
    assert [str(one) for one in problems if one.is_error] == []
    (log,) = mesh.workload("api-v1").telemetry.server.logs or ()
    assert isinstance(log.sink, FileLog)
    assert log.sink.format.text == "%PATH(NQ:PATH)% %DURATION%"


def test_a_filter_of_nothing_and_a_telemetry_that_is_never_used_are_warned_of() -> None:
    second = f"\n---\n{HEAD.replace('name: api', 'name: zzz')}{{}}"
    _, problems = read("{accessLogging: [{filter: {expression: response.code > 1}}]}" + second)
    assert [(one.severity, one.code) for one in problems] == [("warning", "ME-3"), ("warning", "ME-5")]


def test_what_stands_twice_is_refused() -> None:
    _, problems = read("{}\n---\n" + HEAD + "{}")
    assert [one.code for one in problems if one.is_error] == ["ME-5"]


def test_a_disabled_metric_is_not_there_as_told() -> None:
    _, problems = read("{metrics: [{providers: [{name: prometheus}], overrides: [{disabled: true}]}]}")
    assert problems == ()


def test_tags_of_all_sources_are_read() -> None:
    tags = """{tracing: [{customTags: {
    a: {literal: {value: x}}, b: {environment: {name: ZONE, defaultValue: none}}, c: {header: {name: x-user}},
    d: {formatter: {value: "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH):20%"}}}}]}"""
    mesh, problems = read(tags)
    assert problems == ()
    spans = mesh.workload("api-v1").telemetry.client.spans
    assert spans is not None
    assert spans.tags == {
        "a": SpanTag(TagSource.LITERAL, "x"),
        "b": SpanTag(TagSource.ENVIRONMENT, "ZONE", "none"),
        "c": SpanTag(TagSource.HEADER, "x-user"),
        "d": SpanTag(TagSource.FORMATTER, "%PATH(NQ:ORIG_OR_PATH):20%"),
    }
    assert isinstance(spans.tracer, OtlpTracer)
    assert spans.tracer.collector.service == "otel.example.com"


def test_the_own_log_is_the_provider_that_is_always_there() -> None:
    mesh, _ = read("{accessLogging: [{match: {mode: CLIENT}}]}")
    telemetry = mesh.workload("api-v1").telemetry
    assert telemetry.server.logs is None
    assert [log.sink for log in telemetry.client.logs or ()] == [OwnLog()]


@pytest.mark.parametrize(
    ("provider", "words"),
    [
        ("envoyFileAccessLog: {path: logs/x.json}", "is not the absolute path of a file"),
        ("envoyFileAccessLog: {path: /x, logFormat: {text: '%REQ(COOKIE)%'}}", "is a credential"),
        ("envoyFileAccessLog: {path: /x, logFormat: {labels: {a: {b: '%QUERY_PARAM(access_token)%'}}}}", "may hold"),
        ("envoyFileAccessLog: {path: /x, logFormat: {text: '100%'}}", "is not a command"),
        ("envoyFileAccessLog: {path: /x, logFormat: {text: a, labels: {}}}", "exclude each other"),
        ("envoyFileAccessLog: {pth: /x}", "did you mean `path`?"),
        ("envoyTcpAls: {port: 1}", "`service` is missing"),
        ("envoyOtelAls: {service: x}", "`port` is missing"),
        ("opentelemetry: {service: x, port: 1, http: {path: /x}}", "not done here"),
        ("opentelemetry: {service: x, port: 1, grpc: {initialMetadata: []}}", "collector's credential"),
        ("opentelemetry: {service: x, port: 1, grpc: {timeout: soon}}", "is not a duration"),
    ],
)
def test_a_provider_that_cannot_be_used_is_refused_in_the_settings(provider: str, words: str) -> None:
    text = PROVIDERS + f"    - {{name: wrong, {provider}}}\n"
    _, problems = read_mesh_description([("m.yaml", f"{text}\n---\n{ONE_SIDECAR}".encode())])
    (problem,) = (one for one in problems if one.is_error)
    assert words in f"{problem.message} {problem.help}"
    assert str(problem.location).startswith("m.yaml:12:")


EXPRESSIONS = Path(__file__).parent / "cel_expressions.txt"


@pytest.mark.parametrize("line", [one for one in EXPRESSIONS.read_text().splitlines() if one[:2] in ("+ ", "- ", "? ")])
def test_expressions_are_taken_or_refused(line: str) -> None:
    assert (cel_fault(line[2:].encode().decode("unicode_escape")) is None) == line.startswith("+ ")


def test_the_place_in_an_expression_is_told() -> None:
    fault = cel_fault("response.code >= 400 && request.heders['a'] == ''")
    assert fault is not None
    assert (fault.offset, fault.advice) == (32, "did you mean `headers`?")
    assert cel_fault("(" * 40 + "1" + ")" * 40) is not None
    assert cel_fault("1 ==" * 3000 + "1") is not None


@pytest.mark.parametrize(
    ("written", "made"),
    [
        ("%REQ(:PATH)%", "%PATH(NQ:PATH)%"),
        ("%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%", "%PATH(NQ:ORIG_OR_PATH)%"),
        ("%REQ_WITHOUT_QUERY(X-ENVOY-ORIGINAL-PATH?:PATH):9%", "%PATH(NQ:ORIG_OR_PATH):9%"),
        ("%PATH(WQ:ORIG)% %PATH%", "%PATH(NQ:ORIG)% %PATH(NQ:ORIG_OR_PATH)%"),
        ("100%% %REQ(X-A?X-B):3%", "100%% %REQ(X-A?X-B):3%"),
        ("%START_TIME(%Y (%Z))%%REQ(:PATH)%", "%START_TIME(%Y (%Z))%%PATH(NQ:PATH)%"),
    ],
)
def test_paths_lose_their_query_and_nothing_else_changes(written: str, made: str) -> None:
    assert checked_format(written) == (made, ())


@pytest.mark.parametrize(
    "written",
    [
        *("%REQ(authorization)%", "%REQ(x?cookie)%", "%RESP(set-cookie)%", "%REQ(REFERER)%", "%RESP(location)%"),
        *("%CEL(request.headers.cookie)%", "%QUERY_PARAMS%", "%QUERY_PARAM(code)%", "%SECRET(a)%", "%REQ%", "%NO%"),
        *("%QUERY_PARAM(JWT)%", "%QUERY_PARAM(password)%", "%REQ(x-forwarded-access-token)%"),
        *("%START_TIME(()%%REQ(cookie)%)%START_TIME(%START_TIME(%)%", "%START_TIME(()%", "%START_TIME(a)b)%"),
        *("%DURATION(a)%", "%DURATION:3%", "50%", "%REQ(a", "%PATH(XX:YY)%", "%REQ_WITHOUT_QUERY(REFERER)%"),
    ],
)
def test_a_format_that_tells_a_secret_or_means_nothing_is_refused(written: str) -> None:
    assert checked_format(written)[1] != ()


def test_a_secret_between_two_commands_is_seen_where_envoy_sees_it() -> None:
    faults = checked_format("%START_TIME(()%%REQ(cookie)%)%START_TIME(%START_TIME(%)%")[1]
    assert any("`cookie` is a credential" in fault.message for fault in faults), faults
