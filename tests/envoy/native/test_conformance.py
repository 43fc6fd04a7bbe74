"""
The HTTP cases of the conformance corpus through native filters in both forms, on a real Envoy.

One Envoy for a file; a listener for every group, workload and form. ``source.ip`` of RBAC is the physical peer, which
here is always this machine, so the filters look at the address of the PROXY protocol instead.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from time import time

import pytest

from authz.analysis.suites.keys import substitute_keys, substitute_tokens
from authz.analysis.suites.reader import read_suite
from authz.analysis.suites.run import compile_texts
from authz.analysis.suites.suite import Case, Group, PolicyText
from authz.analysis.verify.certificates import Identities
from authz.analysis.verify.proxy import NUMBER, Endpoints, Running, Told, listener, running
from authz.core.attributes import Json, Workload
from authz.core.engine import Engine
from authz.core.resources import MeshConfig, PathNormalization
from authz.envoy.native.filters import http_filters
from authz.envoy.native.indexed import Form
from authz.envoy.native.linear import Filter
from authz.tokens.signing import KeyPool, make_keys, make_tokens
from tests.envoy.client import http1_bytes

pytestmark = [pytest.mark.envoy, pytest.mark.slow]

CORPUS = Path(__file__).parents[2] / "conformance"
FILES = sorted(
    path.name for path in CORPUS.glob("[0-9]*.yaml") if path.name not in ("07-tcp.yaml", "14-peer-authentication.yaml")
)
KEYS = KeyPool()
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH")
_RULE = re.compile(r"ns\[(.*?)\]-policy\[(.*?)\]-rule\[(\d+)\]")
ON_PURPOSE = {
    "empty-key-set": "bodies of a set without a usable key differ (RA-37)",
}


def why_not(group: Group, case: Case) -> str:
    """Why a case is not sent here; empty: it is."""
    request = case.request
    if request.is_tcp or request.tls == "simple":
        return "not HTTP as the listeners here take it"
    if group.stubs or group.is_gateway:
        return "needs a provider's cluster, or a gateway's settings"
    if request.method not in METHODS or request.metadata is not None:
        return "needs HTTP/2 or another filter's metadata"
    if any(name.lower() == "x-forwarded-for" for name, _ in request.headers):
        return "the direct peer could not be told from the remote one"
    if str(case.expect.get("stage", "")) not in (
        "",
        "custom",
        "jwt",
        "requestAuthentication",
        "deny",
        "allow",
        "default",
    ):
        return "a stage before the filters"
    return next((reason for name, reason in ON_PURPOSE.items() if name in f"{group.id}/{case.id}"), "")


def normalization(mesh: MeshConfig) -> dict[str, Json]:
    mode = mesh.path_normalization
    decode = mode is PathNormalization.DECODE_AND_MERGE_SLASHES
    return {
        "normalize_path": mode is not PathNormalization.NONE,
        "merge_slashes": decode or mode is PathNormalization.MERGE_SLASHES,
        "path_with_escaped_slashes_action": "UNESCAPE_AND_FORWARD" if decode else "KEEP_UNCHANGED",
    }


def by_proxy_protocol(filters: tuple[Filter, ...]) -> list[Filter]:
    text = json.dumps([one.as_extension() for one in filters]).replace('"direct_remote_ip"', '"remote_ip"')
    return [Filter(one["name"], one["typed_config"]) for one in json.loads(text)]


def prepared(group: Group) -> tuple[Engine, dict[str, str], dict[str, str]]:
    keys = make_keys(group.keys, KEYS)
    texts: list[PolicyText] = []
    sets: dict[str, str] = {}
    for policies in group.policies:
        written = substitute_keys(policies.text, keys)
        texts.append(PolicyText(policies.file, written.text, policies.line, policies.indent))
        sets |= {f"uri:{uri}": text for uri, text in written.documents.items()}
    engine = compile_texts(texts, group.mesh)
    assert isinstance(engine, Engine), engine
    return engine, sets, make_tokens(group.tokens, keys, time())


def differences(case: Case, told: Told, line: dict[str, Json], *, restricted: bool) -> Iterator[str]:
    metadata = line["rbac"] if isinstance(line["rbac"], dict) else {}
    details = str(line["details"])
    rule = str(metadata.get("enforced_effective_policy_id", "")) if told.status == 200 and restricted else ""
    if details.startswith("rbac_access_denied_matched_policy["):
        rule = details.partition("[")[2][:-1]
    short = _RULE.search(rule)
    actual: dict[str, object] = {
        "decision": "allow" if details == "direct_response" else "deny",  # gRPC is refused with status 200
        "status": told.status,
        "body": told.body,
        "by": "/".join(short.groups()) if short is not None else None,
        "audit": line["audit"],
    }
    for name, value in case.expect.items():
        if name not in actual or (name == "body" and told.status == 200) or (name == "status" and told.status == 200):
            continue
        if actual[name] != value:
            yield f"{name}: expected {value!r}, Envoy gives {actual[name]!r} ({details})"


@pytest.mark.parametrize("file", FILES)
def test_native_filters_answer_as_expected(file: str, tmp_path: Path) -> None:
    pytest.importorskip("envoy")
    suite = read_suite(file, (CORPUS / file).read_bytes())
    identities = Identities(tmp_path)
    identities.write(tmp_path / "server", "spiffe://cluster.local/ns/x/sa/server")
    listeners: dict[str, dict[str, Json]] = {}
    plan: list[tuple[str, Group, Case, Engine, dict[str, str]]] = []
    for group in suite.groups:
        cases = [case for case in group.cases if not why_not(group, case)]
        if not cases:
            continue
        engine, sets, tokens = prepared(group)
        for case in cases:
            workload: Workload = case.target.workload
            name = f"{group.id}|{workload.namespace}|{sorted(workload.labels)}"
            for form in (Form.LINEAR, Form.INDEXED):
                if f"{form}|{name}" not in listeners:
                    native = http_filters(engine, workload, sets, form=form, walk=0)
                    fields = normalization(group.mesh)
                    made = listener(f"{form}|{name}", by_proxy_protocol(native.filters), tmp_path, **fields)
                    listeners[f"{form}|{name}"] = made
            plan.append((name, group, case, engine, tokens))
    with running(tmp_path, list(listeners.values()), identities) as envoy:
        told = [answers(envoy, number, *one) for number, one in enumerate(plan)]
        log = envoy.logged(2 * len(plan))
    wrong = []
    for number, (_, group, case, engine, _) in enumerate(plan):
        restricted = engine.for_workload(case.target.workload).http.allow is not None
        for form, answer in told[number].items():
            found = differences(case, answer, log[f"{form}{number}"], restricted=restricted)
            wrong += [f"{group.id}/{case.id} {form}: {difference}" for difference in found]
    assert wrong == []


def answers(
    envoy: Running, number: int, name: str, group: Group, case: Case, engine: Engine, tokens: dict[str, str]
) -> dict[Form, Told]:
    request = case.request.substituted(lambda text: substitute_tokens(text, tokens))
    port = request.destination_port if request.destination_port is not None else case.target.port
    found = {}
    for form in (Form.LINEAR, Form.INDEXED):
        data = http1_bytes(request).removesuffix(b"\r\n") + f"{NUMBER}: {form}{number}\r\n\r\n".encode()
        ends = Endpoints(request.source_ip, request.destination_ip, port or 80)
        found[form] = envoy.ask(
            f"{form}|{name}", [data], identity=request.source_principal, ends=ends, sni=request.sni, bind=False
        )[0]
    return found


def test_most_cases_are_sent() -> None:
    suites = [read_suite(file, (CORPUS / file).read_bytes()) for file in FILES]
    sent = [case for suite in suites for group in suite.groups for case in group.cases if not why_not(group, case)]
    assert len(sent) >= 500
