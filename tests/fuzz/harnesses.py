"""
What is fuzzed: a function of bytes for every reader of what comes from outside, with what must hold whatever they are.

A harness raises when something does not hold; everything that a reader documents as its answer to bad input is caught
here, and nothing else. Seeds are made by the program's own tests, and lie in ``seeds/NAME/``, where what broke it once
stays.
"""

import asyncio
import gzip
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import httpx

from authz._proto import delta_discovery_pb2, ext_authz_pb2, sds_pb2
from authz._proto.rate_limit_pb2 import RateLimitResponse
from authz.analysis.invariants.invariant_reader import read_invariants
from authz.analysis.replay.least_privilege import policies_text
from authz.analysis.replay.observed import Observed
from authz.analysis.replay.replay import Replay, group_json
from authz.audit.query import read_record
from authz.audit.writer import RecordWriter
from authz.bundles.manifest import BundleRefused, read_manifest, write_manifest
from authz.bundles.signed_rules import read_signed_rules
from authz.bundles.whole_bundle import read_bundle, refuse_bundle
from authz.canary.candidate_standing import CandidateStanding, CandidateState
from authz.control.discovery.conversation import Conversation
from authz.control.discovery.discovered import CLUSTER_TYPE, ENDPOINTS_TYPE, SECRET_TYPE, Discovered
from authz.control.discovery.secrets import roots_secret, tls_secret
from authz.core.attributes import AuthenticationOutcome, Workload
from authz.core.catalog import CompileContext
from authz.core.compiler import compile_engine
from authz.core.decided import Offer
from authz.core.decision import RuleReference
from authz.core.errors import FetchError
from authz.core.normalize import normalize_path
from authz.core.resources import MeshConfig, PathNormalization
from authz.core.spiffe import TrustDomain
from authz.identity.registrar import read_certificate_request, write_certificate_request
from authz.identity.registration import read_entries
from authz.identity.revocation import read_revocations
from authz.identity.svid_validation import Examined, examine
from authz.mesh.description import read_mesh_description
from authz.mesh.rate_limits import AppliedLimit, LimitScope, LimitUnit, RateLimitRule
from authz.policy.mesh_config import read_mesh
from authz.policy.reader import read_policies
from authz.service.check_function import CheckFunction
from authz.service.doors.forms import Misasked, Reader
from authz.service.doors.grpc_web import NotGrpcWeb
from authz.service.doors.grpc_web import read_message as grpc_web_message
from authz.service.rate_limits.limiting import RateLimiter
from authz.service.rate_limits.quota_store import MemoryStore
from authz.settings.http_doors import HttpDoor
from authz.sources.introspection.exchange import read_answer
from authz.tokens.cache import TokenCache
from authz.tokens.json_text import read_object
from authz.tokens.jwks import read_key_set
from authz.truth.fleet_merge import merge_reports, view_json
from authz.truth.fleet_report import (
    CONTROL,
    ProxyReport,
    RefusedResource,
    ReplicaReport,
    Reported,
    part_value,
    read_part,
    read_replica,
    read_reported,
    replica_value,
    reported_json,
)
from authz.truth.policy_head import CandidateAbort, DamagedHead, PolicyHead, PushedCandidate, read_head, write_head
from authz.wire.access_line import LineReader
from authz.wire.access_log import NotAnEntry
from authz.wire.access_stream import read_message
from authz.wire.limit_messages import read_limit_request
from tests.bundles.test_signed_rules import signed as signed_rules
from tests.bundles.test_whole_bundle import KEY as BUNDLE_KEY
from tests.bundles.test_whole_bundle import TERMS as CANDIDATE_TERMS
from tests.bundles.test_whole_bundle import signed as signed_bundle
from tests.identity.certificates import INTERMEDIATE, LEAF, REVIEWS, ROOT, pem
from tests.identity.test_mutations import BUNDLES, as_pem
from tests.identity.test_mutations import PLAIN as CERTIFICATE
from tests.mesh.meshes import Ports, description
from tests.offers import ATTRIBUTES, DENIAL
from tests.service.messages import response
from tests.service.native.test_gaps import Trail
from tests.service.native.test_stream import message
from tests.service.test_check_function import NOW
from tests.service.test_fuzz import SECRET, base, guarded, is_what_the_rule_allows
from tests.tokens.material import judge, request
from tests.tokens.test_properties import RULE, STATES, TOKENS, same_token
from tests.wire.lines import line

SERIAL = LEAF.certificate().serial_number
SEEDS = Path(__file__).parent / "seeds"
POLICY = b"""apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: read, namespace: shop}
spec: {rules: [{from: [{source: {principals: ["*"]}}], to: [{operation: {paths: ["/a/{*}/b", "/c*"]}}],
  when: [{key: "request.auth.claims[groups]", values: [x]}]}]}
"""
JWT = b"""apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: jwt, namespace: shop}
spec: {jwtRules: [{issuer: https://i, jwksUri: https://i/keys, fromHeaders: [{name: x, prefix: "a "}]}]}
"""
INVARIANTS = b"""format: 1
invariants:
- id: i
  onlyIf:
    to: {kind: sidecar}
    when: [{path: ["/a/{*}", b*], notMethod: GET}]
    has: {claims: {"[a][b]": c}, sourceIp: 10.0.0.0/8}
"""
ENTRIES = b"entries:\n- {spiffeID: 'spiffe://mesh.test/ns/a/sa/b', selectors: [unix:uid:1], dns: [a.test]}\n"


@dataclass(frozen=True, slots=True)
class Harness:
    """``run`` raises when something does not hold."""

    run: Callable[[bytes], None]
    made: Callable[[], Iterator[bytes]]
    """Seeds that are made here."""


@cache
def _check() -> CheckFunction:
    return guarded()


def check(data: bytes) -> None:
    """Bytes of a CheckRequest: always an answer, and never an allowance without the facts."""
    answer = _check().check(data, (), NOW)
    assert isinstance(answer, bytes)
    if response(answer).status.code == 0:
        assert is_what_the_rule_allows(data) or _is_of_another_namespace(data)


def _is_of_another_namespace(data: bytes) -> bool:
    """Whether a sidecar asks that no policy is about: who it is, it says itself, and its certificate with it."""
    attributes = ext_authz_pb2.CheckRequest.FromString(data).attributes
    told = ext_authz_pb2.Peer.FromString(attributes.destination)
    said = attributes.context_extensions.get("namespace") or told.labels.get("authz/namespace")
    return said != "shop" if said else "/ns/shop/" not in str(told.principal)


def yaml(data: bytes) -> None:
    """Every reader of YAML: problems are values, and what is accepted can be compiled. The first byte chooses one."""
    which, text = data[:1], data[1:]
    match which:
        case b"m":
            read_mesh("f.yaml", text)
        case b"d":
            read_mesh_description([("f.yaml", text)])
        case b"e":
            read_entries("f.yaml", text, TrustDomain("mesh.test"))
        case b"i":
            read = read_invariants("f.yaml", text)
            for invariant in read.invariants if not read.problems else ():
                for one in (*invariant.when, *invariant.unless):
                    for asked in one.asked:
                        asked.compiled(CompileContext("shop", ("mesh.test",)))
        case b"r":
            read_revocations("f.txt", text.decode("utf-8", "replace"))
        case _:
            result = read_policies([("f.yaml", text)])
            if not result.has_errors:
                compile_engine(result.resources, MeshConfig())


def token(data: bytes) -> None:
    """A token where tokens may stand: accepted only where all that is signed is as it was signed."""
    text = data.decode("utf-8", "surrogateescape")
    cache_ = TokenCache()
    for name, state in STATES.items():
        answer = judge(request({"x-raw": text}), RULE, key_sets={RULE.keys_from: state}, cache=cache_)
        assert (answer.outcome is AuthenticationOutcome.ACCEPTED) == same_token(text, name)


def keys(data: bytes) -> None:
    """A key set: keys, or the one error that is documented."""
    try:
        found = read_key_set(data.decode("utf-8", "surrogateescape"))
    except ValueError:
        return
    assert len(found.keys) + len(found.skipped) <= 2 * 256


def path(data: bytes) -> None:
    """A path: no dot segment is left of it, and what has a slash in front keeps it."""
    text = data.decode("latin-1")
    for mode in PathNormalization:
        normal = normalize_path(text, mode)
        if normal is None or mode is PathNormalization.NONE:
            continue
        portion = normal.partition("?")[0]
        if text.startswith("/"):
            assert portion.startswith("/"), normal
            assert not {".", ".."} & set(portion.split("/")), normal
        assert all(" " < letter < "\x7f" for letter in portion)


def certificate(data: bytes) -> None:
    """Certificates and requests: nothing raises, and nothing is taken but what was issued."""
    text = as_pem(data, "CERTIFICATE")
    for chain in (data, text, text + pem(INTERMEDIATE.certificate())):
        found = examine(chain, BUNDLES)
        if isinstance(found, Examined):  # another signature of the same is what ECDSA gives each time
            assert (str(found.spiffe_id), found.serial) == (REVIEWS, SERIAL)
    read_certificate_request(data)
    read_certificate_request(as_pem(data, "CERTIFICATE REQUEST"))


def sds(data: bytes) -> None:
    """A conversation of one Envoy: the only error is the documented one, and nothing comes that was not asked for."""
    shelf: dict[str, Discovered] = {"ROOTCA": roots_secret("ROOTCA", b"roots"), "own": tls_secret("own", b"1", b"key")}
    stream = Conversation({SECRET_TYPE: shelf}, only=SECRET_TYPE)
    for number, part in enumerate(data.split(b"\0\xff\0")):
        try:
            asked = sds_pb2.DiscoveryRequest.FromString(part)
        except Exception:  # gRPC refuses it before we are asked
            continue
        try:
            told = stream.receive(asked)
        except ValueError:
            return
        shelf["own"] = tls_secret("own", str(number // 2).encode(), b"key")
        told += stream.update({SECRET_TYPE: shelf})
        wanted = stream.subscriptions[SECRET_TYPE] if stream.subscriptions else None
        for one in told:
            response = sds_pb2.DiscoveryResponse.FromString(one.encode())
            names = {sds_pb2.Secret.FromString(resource.value).name for resource in response.resources}
            assert wanted is not None
            assert wanted.is_wildcard or names <= wanted.names.keys()
        assert stream.update({SECRET_TYPE: shelf}) == [], "the same is never sent twice"


def delta_discovery(data: bytes) -> None:
    """An aggregated conversation in deltas: only what the proxy may have, and never the same twice."""
    world = {
        kind: {name: Discovered.pack(kind, name, name.encode()) for name in ("a", "b")}
        for kind in (CLUSTER_TYPE, ENDPOINTS_TYPE)
    }
    stream = Conversation(world)
    for part in data.split(b"\0\xff\0"):
        try:
            asked = delta_discovery_pb2.DeltaDiscoveryRequest.FromString(part)
        except Exception:  # gRPC refuses it before we are asked
            continue
        try:
            told = stream.receive(asked)
        except ValueError:
            return
        for one in told:
            response = delta_discovery_pb2.DeltaDiscoveryResponse.FromString(one.encode())
            assert all(resource.name in world[one.type_url] for resource in response.resources)
        assert stream.update(dict(world)) == [], "the same is never sent twice"


def access_log(data: bytes) -> None:
    """Lines and messages of access logs: entries, or the errors that are documented."""
    reader = LineReader()
    for one in data.split(b"\n"):
        for _ in range(2):  # the second time from memory
            try:
                reader.read(one)
            except NotAnEntry:
                continue
    try:
        list(read_message(data))
    except ValueError:
        return


_DOORS = {
    kind[:1].encode(): Reader(HttpDoor.model_validate({"listen": "unix:d", "kind": kind, "namespace": "shop",
                                                       "labels": {"app": "api"}, "all_headers": True}))
    for kind in ("nginx", "forward-auth", "envoy-http")
}  # fmt: skip


def limits(data: bytes) -> None:
    """A question about rate limits: an answer with a status for each descriptor, or the error that is documented."""
    rule = RateLimitRule(RuleReference("a", "b", 0, "c"), LimitScope.GLOBAL, 1, LimitUnit.SECOND)
    limiter = RateLimiter(MemoryStore(), Trail())
    limiter.replace({Workload("a"): (AppliedLimit(rule),)}, "v1")
    with suppress(ValueError):
        asked = read_limit_request(data)
        told = RateLimitResponse.FromString(asyncio.run(limiter.answer(data, {}, NOW)))
        assert len(told.statuses) == len(asked)


def doors(data: bytes) -> None:
    """Questions in plain HTTP and answers of issuers: what they are, or the errors that are documented."""
    which, rest = data[:1], data[1:]
    if which in (b"w", b"t"):
        with suppress(NotGrpcWeb):
            check(grpc_web_message(rest, text=which == b"t"))
    elif which == b"i":
        response_ = httpx.Response(200, headers={"content-type": "application/json"})
        with suppress(FetchError):
            told = read_answer(response_, rest, read_object)
            assert told.claims is None or told.claims["active"] is True
    elif which in _DOORS:
        reader, (target, *lines) = _DOORS[which], rest.split(b"\n")
        pairs = [(name.lower(), value) for name, _, value in (one.partition(b": ") for one in lines)]
        with suppress(Misasked):
            question = reader.read("GET", target.decode("latin-1"), pairs)
            answer = _check().check(question.message, question.metadata, NOW, "", reader.vouched)
            assert isinstance(answer, bytes)
            assert response(answer).status.code != 0  # the policy asks for an identity, for which no such proxy vouches


def _door_seeds() -> Iterator[bytes]:
    yield b"n/\nx-original-method: GET\nx-original-uri: /a\nx-original-host: a\nx-real-ip: 192.0.2.1\naccept: b"
    yield b"f/\nx-forwarded-method: GET\nx-forwarded-uri: /a\nx-forwarded-host: a\nx-forwarded-for: 192.0.2.1"
    yield b"e/a?b\nhost: a\nx-authz-remote-ip: 192.0.2.1\nauthorization: Bearer a.b.c"
    yield b"w\0\0\0\0" + bytes([len(base())]) + base() if len(base()) < 256 else b"w\0\0\0\0\0"
    yield b"tAAAAAAA="
    yield b'i{"active": true, "sub": "a", "exp": 1}'
    yield b'i{"active": false}'


def record(data: bytes) -> None:
    """Lines of a trail: each is decided again or counted, and what is generated of them are policies."""
    engine = compile_engine(read_policies([("p.yaml", POLICY + b"---\n" + JWT)]).resources, MeshConfig())
    replay, observed = Replay(lambda version: engine, then=lambda version: engine), Observed(2)
    records = [one for one in map(read_record, data.split(b"\n")) if one is not None]
    for one in records:
        replay.take(one)
        observed.take(one)
    assert replay.report().records == sum(group.count for group in replay.report().groups) == len(records)
    for group in replay.report().groups:
        json.dumps(group_json(group))
    found = read_policies([("generated.yaml", policies_text(observed, 1).encode())], allow_empty=True)
    assert not found.has_errors, [str(problem) for problem in found.problems]


def _record_seeds() -> Iterator[bytes]:
    writer = RecordWriter()
    lines = [
        writer.write(Offer(attributes, DENIAL, "d", 1.7e9, 0.0)).replace('"effect":"deny"', f'"effect":"{effect}"')
        for attributes in (ATTRIBUTES, replace(ATTRIBUTES, http=None))
        for effect in ("deny", "allow")
    ]
    yield "\n".join(lines).encode()
    yield lines[1].replace("/ns/", '/ns/\\u2028\\n\\"').replace("reviews", "*").encode()


def _delta_seeds() -> Iterator[bytes]:
    asking = delta_discovery_pb2.DeltaDiscoveryRequest
    first = asking(type_url=CLUSTER_TYPE, initial_resource_versions={"a": "old", "gone": "1"})
    ack = asking(type_url=CLUSTER_TYPE, response_nonce="1")
    named = asking(type_url=ENDPOINTS_TYPE, resource_names_subscribe=["a", "*", "else"])
    less = asking(type_url=ENDPOINTS_TYPE, resource_names_unsubscribe=["*"], response_nonce="2")
    less.error_detail.message = "no"
    yield b"\0\xff\0".join(one.SerializeToString() for one in (first, named, ack, less))


def _sds_seeds() -> Iterator[bytes]:
    first = sds_pb2.DiscoveryRequest(resource_names=["own"])
    ack = sds_pb2.DiscoveryRequest(resource_names=["own"], response_nonce="1", version_info="x")
    nack = sds_pb2.DiscoveryRequest(resource_names=["own", "ROOTCA"], response_nonce="1")
    nack.error_detail.message = "no"
    yield first.SerializeToString()
    yield b"\0\xff\0".join(one.SerializeToString() for one in (first, ack, nack, first))


def _certificate_seeds() -> Iterator[bytes]:
    yield CERTIFICATE
    yield pem(LEAF.certificate(), INTERMEDIATE.certificate())
    yield pem(ROOT.certificate())
    from authz.identity.keys import generate_key

    yield write_certificate_request(generate_key())


def _yaml_seeds() -> Iterator[bytes]:
    yield b"p" + POLICY
    yield b"p" + POLICY + b"---\n" + JWT
    yield b"pa: &a [b]\nc: {<<: *a}\n"
    yield b"mtrustDomain: a.test\nextensionProviders:\n- name: x\n  envoyExtAuthzGrpc: {service: s, port: 1}\n"
    yield b"d" + description(Ports())
    yield b"e" + ENTRIES
    yield b"i" + INVARIANTS
    yield b"rserial:4f\nspiffe://mesh.test/ns/a/sa/b\n"


def bundle(data: bytes) -> None:
    """A bundle, or the manifest of one: it is refused, or what it holds is what was signed."""
    for form in (data, gzip.compress(data, 1, mtime=0)):
        try:
            found = read_bundle(form)
            refuse_bundle(found, [BUNDLE_KEY.public_key()], fleet="shop", now=0)
        except BundleRefused:
            continue
        assert found.manifest_bytes == read_bundle(signed_bundle()).manifest_bytes
    with suppress(BundleRefused):
        manifest = read_manifest(data)
        assert read_manifest(write_manifest(manifest)) == manifest


def policy_head(data: bytes) -> None:
    """A head of the policies in a truth: it is refused, or it is read again as the same."""
    with suppress(DamagedHead):
        head = read_head(data)
        assert read_head(write_head(head)) == head


def fleet_report(data: bytes) -> None:
    """A report of a replica, or a part of its proxies: it is refused, or it is read again as the same and shown."""
    with suppress(ValueError):
        report = read_replica(data)
        _shown(Reported(report.clock, report))
        return
    with suppress(ValueError):
        _, proxies = read_part(data)
        _shown(Reported(_REPORT.clock, _REPORT, proxies))


def _shown(reported: Reported) -> None:
    """Anything that is raised here is a finding."""
    try:
        assert read_reported(reported_json(reported), reported.at) == replace(
            reported, report=replace(reported.report, parts=())
        )
        json.dumps(view_json(merge_reports([reported], reported.at)), allow_nan=False)
    except ValueError as error:
        raise AssertionError(str(error)) from error


def rules(data: bytes) -> None:
    """Signed entries or revocations: they are refused, or they are those that were signed."""
    with suppress(BundleRefused):
        found = read_signed_rules(data)
        if found.signed_by([BUNDLE_KEY.public_key()]):
            assert found.content == read_signed_rules(signed_rules()).content


def _bundle_seeds() -> Iterator[bytes]:
    yield signed_bundle()
    yield gzip.decompress(signed_bundle())
    yield read_bundle(signed_bundle()).manifest_bytes
    yield read_bundle(signed_bundle(candidate=CANDIDATE_TERMS)).manifest_bytes


_CANDIDATE = PushedCandidate(8, "cd" * 32, 1_800_000_000, "bob", "", 3, aborted=CandidateAbort(1, "control", "why"))
_HEAD = PolicyHead(7, "ab" * 32, 1_800_000_000, "ann", "why", 3, 1, 0, 2, 5, 8, _CANDIDATE)
_PROXY = ProxyReport("web", True, False, "6", 1.5, refusals=(RefusedResource("lds", "3", "no"),), candidate=8)
_REFUSED = CandidateStanding(8, "cd" * 32, CandidateState.REFUSED, "nobody signed it")
_REPORT = ReplicaReport("one", CONTROL, 100.0, "7", 50.0, "why", 900.0, (4,), _REFUSED)
HARNESSES: dict[str, Harness] = {
    "policy_head": Harness(policy_head, lambda: iter((write_head(_HEAD),))),
    "fleet_report": Harness(fleet_report, lambda: iter((replica_value(_REPORT), part_value([_PROXY], 1, 1 << 19)))),
    "check": Harness(check, lambda: iter((base(), base(SECRET)))),
    "yaml": Harness(yaml, _yaml_seeds),
    "token": Harness(token, lambda: (text.encode() for text in TOKENS.values())),
    "keys": Harness(keys, lambda: iter((b'{"keys":[{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}]}', b'{"a":"b"}'))),
    "path": Harness(path, lambda: iter((b"/a/../b;c/%2e%2e/%2Fd?e=%2e#f", b"//%2%61/..;x/", b"*", b"/%c0%ae/\\..\\"))),
    "certificate": Harness(certificate, _certificate_seeds),
    "sds": Harness(sds, _sds_seeds),
    "access_log": Harness(access_log, lambda: iter((line(), line(path="/a") + b"\n" + line()[:80], message("/ok")))),
    "limits": Harness(limits, lambda: iter((b"", b"\n\x05authz\x12\x16\n\x14\n\x04rule\x12\x0ca/b/global/0"))),
    "doors": Harness(doors, _door_seeds),
    "bundle": Harness(bundle, _bundle_seeds),
    "rules": Harness(rules, lambda: iter((signed_rules(),))),
    "record": Harness(record, _record_seeds),
    "delta_discovery": Harness(delta_discovery, _delta_seeds),
}


def seeds(name: str) -> list[bytes]:
    """What is made, and what lies in the folder of the harness."""
    folder = SEEDS / name
    kept = sorted(folder.iterdir()) if folder.is_dir() else []
    return [*HARNESSES[name].made(), *(file.read_bytes() for file in kept)]
