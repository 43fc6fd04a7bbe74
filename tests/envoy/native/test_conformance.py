"""
The conformance corpus through native filters, on a real Envoy: HTTP in both forms, TCP in its one.

One Envoy for a file; a listener for every group, workload and form. ``source.ip`` of RBAC is the physical peer, which
here is always this machine, so the filters look at the address of the PROXY protocol instead. Where a case must tell
that address from another one, its addresses become those of this machine, and the filters stay as they are.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from time import time

import pytest

from authz.analysis.offline.request import OfflineRequest
from authz.analysis.suites.placeholders import substitute_keys, substitute_tokens
from authz.analysis.suites.run import compile_texts
from authz.analysis.suites.suite import Case, Group, PolicyText
from authz.analysis.suites.suite_reader import read_suite
from authz.analysis.verify.proxy import NUMBER, Connection, Endpoints, Running, Told, listener, running
from authz.analysis.verify.trial_certificates import Identities
from authz.core.attributes import Json
from authz.core.engine import Engine
from authz.core.resources import ExtensionProvider
from authz.envoy.native.filters import http_filters, tcp_filters
from authz.envoy.native.indexed import Form
from authz.envoy.native.linear import Filter
from authz.envoy.native.value_matchers import TYPE, Message
from authz.tokens.signing import KeyPool, make_keys, make_tokens
from tests.envoy.client import http1_bytes
from tests.envoy.corpus import _as_sent
from tests.envoy.native.equality import CONNECTIONS, Numbered, connections, opens, shadow, tcp_listener
from tests.envoy.native.providers import providers, stub_cluster
from tests.envoy.native.speaking import Line
from tests.envoy.native.worlds import World

pytestmark = [pytest.mark.envoy, pytest.mark.slow]

CORPUS = Path(__file__).parents[2] / "conformance"
FILES = sorted(path.name for path in CORPUS.glob("[0-9]*.yaml") if path.name != "14-peer-authentication.yaml")
KEYS = KeyPool()
OVER_HTTP1 = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH")
FORWARDED = "x-forwarded-for"
_RULE = re.compile(r"ns\[(.*?)\]-policy\[(.*?)\]-rule\[(\d+)\]")
DOCUMENTED, HERE = "192.0.2.", "127.0.2."
"""Addresses of the corpus, and those of this machine that stand for them where the physical peer counts."""


def is_direct(group: Group) -> bool:
    """Whether the group tells the physical peer from the one that a header names."""
    forwarded = any(name.lower() == FORWARDED for case in group.cases for name, _ in case.request.headers)
    return forwarded and any("ipBlocks" in text.text or "source.ip" in text.text for text in group.policies)


def moved(group: Group) -> Group:
    """The group with addresses of this machine."""

    def here(text: str) -> str:
        return text.replace(DOCUMENTED, HERE)

    def request(told: OfflineRequest) -> OfflineRequest:
        return replace(told.substituted(here), source_ip=here(told.source_ip))

    policies = tuple(replace(one, text=here(one.text)) for one in group.policies)
    return replace(group, policies=policies, cases=tuple(replace(c, request=request(c.request)) for c in group.cases))


def by_proxy_protocol(filters: tuple[Filter, ...]) -> list[Filter]:
    text = json.dumps([one.as_extension() for one in filters]).replace('"direct_remote_ip"', '"remote_ip"')
    return [Filter(one["name"], one["typed_config"]) for one in json.loads(text)]


@dataclass(frozen=True)
class Prepared:
    """A group ready to be sent."""

    group: Group
    engine: Engine
    key_sets: Mapping[str, str]
    tokens: Mapping[str, str]

    @classmethod
    def of(cls, group: Group) -> "Prepared":
        keys = make_keys(group.keys, KEYS)
        texts: list[PolicyText] = []
        sets: dict[str, str] = {}
        for policies in group.policies:
            written = substitute_keys(policies.text, keys)
            texts.append(PolicyText(policies.file, written.text, policies.line, policies.indent))
            sets |= {f"uri:{uri}": text for uri, text in written.documents.items()}
        engine = compile_texts(texts, group.mesh)
        assert isinstance(engine, Engine), engine
        return cls(group, engine, sets, make_tokens(group.tokens, keys, time()))

    def cluster_of(self, provider: ExtensionProvider) -> str:
        return stub_cluster(provider.protocol, self.group.stubs.get(provider.name, "error"))

    def listeners(self, case: Case, directory: Path) -> Iterator[tuple[str, Message]]:
        workload = case.target.workload
        if case.request.is_tcp:
            tcp = tcp_filters(self.engine, workload, cluster_of=self.cluster_of)
            yield (
                self.name("tcp", case),
                tcp_listener(self.name("tcp", case), by_proxy_protocol(tcp.filters), directory),
            )
            return
        is_gateway = self.group.is_gateway
        seen = list if self.is_direct(case) else by_proxy_protocol
        fields = World(self.group.mesh, is_gateway, is_tcp=False, documents="").fields
        before = [_sets_metadata(case.request.metadata)] if case.request.metadata else []
        for form in (Form.LINEAR, Form.INDEXED):
            native = http_filters(
                self.engine, workload, self.key_sets, form=form, walk=0, gateway=is_gateway, cluster_of=self.cluster_of
            )
            filters: list[Filter] = [*before, *seen(native.filters)]
            yield self.name(form, case), listener(self.name(form, case), filters, directory, **fields)

    def is_direct(self, case: Case) -> bool:
        """Whether the case comes from its own address, which is one of this machine."""
        return case.request.source_ip.startswith(HERE)

    def name(self, form: str, case: Case) -> str:
        workload = case.target.workload
        metadata = json.dumps(case.request.metadata) if case.request.metadata else ""
        peer = "direct" if self.is_direct(case) else ""
        return f"{form}|{self.group.id}|{workload.namespace}|{sorted(workload.labels)}|{metadata}{peer}"

    def request(self, case: Case) -> OfflineRequest:
        request = case.request.substituted(lambda text: substitute_tokens(text, self.tokens))
        if self.group.is_gateway:
            request = replace(request, headers=tuple(_as_sent(request.headers, request.source_ip)))
        return replace(request, path=request.path if request.path is not None or request.method == "CONNECT" else "/")


def _sets_metadata(metadata: Mapping[str, Mapping[str, object]]) -> Filter:
    """What other filters would have found."""
    values: list[Json] = [
        {"metadata_namespace": name, "value": json.loads(json.dumps(members))} for name, members in metadata.items()
    ]
    kind = f"{TYPE}envoy.extensions.filters.http.set_metadata.v3.Config"
    return Filter("envoy.filters.http.set_metadata", {"@type": kind, "metadata": values})


@dataclass(frozen=True)
class Sent:
    """A case as it was answered: by form of the filters what came back, and by what the log knows it."""

    prepared: Prepared
    case: Case
    told: Mapping[str, tuple[Told | None, str]]
    is_open: bool | None = None

    def differences(self, log: Mapping[str, Mapping[str, Json]]) -> Iterator[str]:
        for form, (told, number) in self.told.items():
            for found in self._of(told, log[number]):
                yield f"{self.prepared.group.id}/{self.case.id} {form}: {found}"

    def _of(self, told: Told | None, line: Mapping[str, Json]) -> Iterator[str]:
        metadata: dict[str, str] = line["rbac"] if isinstance(line["rbac"], dict) else {}  # type: ignore[assignment]
        details = str(line["details"] or "")
        sets = self.prepared.engine.for_workload(self.case.target.workload)
        rule = ""
        if details.startswith("rbac_access_denied_matched_policy["):
            rule = details.partition("[")[2][:-1]
        elif details.startswith("ext_authz") or (self.is_open is False and not details):  # network filters say less
            rule = metadata.get("istio_ext_authz_shadow_effective_policy_id", "")
        elif (told is None or told.status == 200) and (sets.tcp if told is None else sets.http).allow is not None:
            rule = metadata.get("enforced_effective_policy_id", "")
        passed = self.is_open if told is None else details == "direct_response"  # gRPC is refused with status 200
        actual: dict[str, object] = {"decision": "allow" if passed else "deny", "by": _short(rule)}
        if told is not None:
            actual |= {"audit": line["audit"]}
            if told.status != 200:
                actual |= {"status": told.status, "body": told.body}
        for name, value in self.case.expect.items():
            if name == "by" and told is None and passed:
                continue  # network RBAC tells only which rule refused
            if name in actual and actual[name] != value and not self._is_ours(name, details):
                yield f"{name}: expected {value!r}, Envoy gives {actual[name]!r} ({details})"
            if name in ("dryRunAllow", "dryRunDeny"):
                kind = "allow" if name == "dryRunAllow" else "deny"
                found = shadow(metadata, f"istio_dry_run_{kind}_")
                if not _is_dry_run(found, value):
                    yield f"{name}: expected {value!r}, Envoy gives {found!r}"

    def _is_ours(self, name: str, details: str) -> bool:
        """A set without a usable key, which Envoy would refuse whole, is answered in our words by the check (RA-37)."""
        return name == "body" and "empty-key-set" in self.case.id and details.startswith("jwt_authn")


def _short(rule: str) -> str | None:
    found = _RULE.search(rule)
    return "/".join(found.groups()) if found is not None else None


def _is_dry_run(found: tuple[str, str] | None, expected: Json) -> bool:
    if not isinstance(expected, dict) or found is None:
        return expected is None and found is None
    actual = {"result": found[0], "by": _short(found[1])}
    return all(actual[name] == value for name, value in expected.items())


@pytest.mark.parametrize("file", FILES)
def test_native_filters_answer_as_expected(file: str, tmp_path: Path) -> None:
    pytest.importorskip("envoy")
    suite = read_suite(file, (CORPUS / file).read_bytes())
    identities = Identities(tmp_path)
    identities.write(tmp_path / "server", "spiffe://cluster.local/ns/x/sa/server")
    listeners: dict[str, Message] = {}
    plan: list[tuple[Prepared, Case]] = []
    for group in suite.groups:
        prepared = Prepared.of(moved(group) if is_direct(group) else group)
        for case in prepared.group.cases:
            if prepared.name("tcp" if case.request.is_tcp else Form.LINEAR, case) not in listeners:
                listeners |= dict(prepared.listeners(case, tmp_path))
            plan.append((prepared, case))
    with providers() as clusters, running(tmp_path, list(listeners.values()), identities, clusters=clusters) as envoy:
        sent = [answered(envoy, number, *one) for number, one in enumerate(plan)]
        log = envoy.logged_of({number for one in sent if one.is_open is None for _, number in one.told.values()})
        log |= connections(tmp_path / CONNECTIONS, sum(one.is_open is not None for one in sent))
    assert [difference for one in sent for difference in one.differences(log)] == []


def answered(envoy: Running, number: int, prepared: Prepared, case: Case) -> Sent:
    request = prepared.request(case)
    port = request.destination_port if request.destination_port is not None else case.target.port
    if request.is_tcp:
        own = Numbered(request.source_ip, request.destination_ip, port or 80, 1024 + number)
        is_open = opens(envoy, prepared.name("tcp", case), own, request.source_principal, request.sni)
        return Sent(prepared, case, {"tcp": (None, own.address)}, is_open)
    ends = Endpoints(request.source_ip, request.destination_ip, port or 80)
    told: dict[str, tuple[Told | None, str]] = {}
    for form in (Form.LINEAR, Form.INDEXED):
        is_http2 = request.method not in OVER_HTTP1
        numbered = replace(request, headers=(*request.headers, (NUMBER, f"{form}{number}")))
        listening = prepared.name(form, case)
        answer: Told | None
        if request.tls == "simple":
            with Connection(envoy.ports[listening], ends, envoy.identities.client(""), "a.test", "") as connection:
                answer = connection.send(http1_bytes(numbered))
        else:
            bind = prepared.is_direct(case)
            line = Line(envoy, listening, ends, request.source_principal, request.sni, is_http2, bind=bind)
            answer = line.tell(numbered)
            line.close()
        assert answer is not None, f"{prepared.group.id}/{case.id}: Envoy closed without an answer"
        told[form] = (answer, f"{form}{number}")
    return Sent(prepared, case, told)


def test_one_group_tells_the_physical_peer_from_the_one_in_a_header() -> None:
    suites = [read_suite(file, (CORPUS / file).read_bytes()) for file in FILES]
    found = [group for suite in suites for group in suite.groups if is_direct(group)]
    assert [group.id for group in found] == ["source-ip"]
    assert any(case.request.source_ip.startswith(HERE) for case in moved(found[0]).cases)
