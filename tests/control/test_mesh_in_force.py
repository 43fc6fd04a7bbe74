"""Whom a change of policies touches: looking at those alone gives what making everything anew gives."""

from collections.abc import Mapping
from pathlib import Path
from random import Random

import pytest

from authz.canary.canary_engine import CanaryEngine
from authz.control.discovery.discovered import ProxyWorld
from authz.control.envoy_validation import Validator
from authz.control.fleet.fleet_snapshot import FleetSnapshot
from authz.control.mesh_follower import MeshFollower
from authz.core.compiler import compile_engine
from authz.core.policies_by_workload import PoliciesByWorkload
from authz.envoy.native.binary import EnvoyError
from authz.envoy.options import Listeners, RenderOptions
from authz.mesh.nouns import Enforce, Mesh, MeshWorkload
from authz.policy.memory import Memory
from authz.policy.reader import read_policies
from authz.tokens.signing import jwks_text, make_keys

OPTIONS = RenderOptions(enforce=Enforce.NATIVE, listeners=Listeners.ADS)
CONFIG = """apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data: {mesh: "{trustDomain: mesh.test, rootNamespace: root}"}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: door, namespace: shop}
spec:
  address: 127.0.0.1
  serviceAccount: door
  labels: {app: door, gateway.networking.k8s.io/gateway-name: door}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: door, namespace: shop}
spec:
  selector: {app: door}
  servers: [{port: {number: 15080, name: http, protocol: HTTP}, hosts: [shop.example.com]}]
"""
WORKLOAD = """---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  address: 10.0.0.{number}
  serviceAccount: {name}
  labels: {{app: {app}, version: {version}}}
  ports: {{http: {http}, tcp: {tcp}}}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  hosts: [{name}.{namespace}.svc.cluster.local]
  location: MESH_INTERNAL
  ports: [{{number: 80, name: http, protocol: HTTP}}, {{number: 99, name: tcp, protocol: TCP}}]
  workloadSelector: {{labels: {{app: {app}, version: {version}}}}}
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  workloadSelector: {{labels: {{app: {app}, version: {version}}}}}
  ingress:
  - {{port: {{number: {http}, protocol: HTTP, name: http}}, defaultEndpoint: "127.0.0.1:1{http}"}}
  - {{port: {{number: {tcp}, protocol: TCP, name: tcp}}, defaultEndpoint: "127.0.0.1:1{tcp}"}}
  egress: [{{port: {{number: {out}, protocol: HTTP, name: next}}, hosts: ["shop/*"]}}]
"""
WORKLOADS = (("api-v1", "shop", "api", "v1"), ("api-v2", "shop", "api", "v2"), ("web-v1", "shop", "web", "v1"),
             ("pay-v1", "bank", "api", "v1"), ("log-v1", "bank", "log", "v1"))  # fmt: skip
SELECTORS = ("", "", "{app: api}", "{app: web}", "{version: v1}", "{app: api, version: v2}", "{app: nobody}")
NAMESPACES = ("shop", "shop", "bank", "root", "elsewhere")
KEYS = [jwks_text(list(make_keys({"k": {"kty": "EC", "kid": kid}}).values())) for kid in ("one", "two")]
LONG = "x" * 9000
"""Nobody but the check compares a name as long as that."""
RULES = (
    *('to: [{operation: {paths: ["/a"]}}]', 'to: [{operation: {paths: ["/b"], methods: [GET]}}]'),
    *('to: [{operation: {ports: ["7001"]}}]', "from: [{source: {namespaces: [shop]}}]"),
    *("from: [{source: {requestPrincipals: ['*']}}]", "when: [{key: 'request.auth.claims[team]', values: [red]}]"),
    *("from: [{source: {remoteIpBlocks: [10.0.0.0/8]}}]", f"from: [{{source: {{principals: [{LONG}]}}}}]"),
)
TOKENS = (
    "{issuer: https://one.example, jwksUri: 'https://one.example/keys'}",
    "{issuer: https://one.example, jwksUri: 'https://one.example/keys', fromParams: [token]}",
    "{issuer: https://two.example, jwksUri: 'https://two.example/keys', fromHeaders: [{name: x-token}]}",
)
PEERS = ("mtls: {mode: STRICT}", "mtls: {mode: DISABLE}", "mtls: {mode: PERMISSIVE}")
PORTS = ("", ", portLevelMtls: {'7001': {mode: DISABLE}}", ", portLevelMtls: {'7001': {mode: STRICT}}")
CONFIGS = (
    ("mesh.test, ", "mesh.test, trustDomainAliases: [old.test], "),
    ("rootNamespace: root", ""),
    ("version: v2", "version: v3"),
    ("10.0.0.2", "10.0.0.7"),
    ("hosts: [shop.example", "hosts: [more.example"),
)


def document(kind: str, namespace: str, name: str, spec: str, note: str = "") -> str:
    head = f"apiVersion: security.istio.io/v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: {namespace}{note}}}\n"
    return f"{head}spec: {{{spec}}}\n"


def policy(random: Random, name: str) -> str:
    """One document of any kind for anybody."""
    namespace, selector = random.choice(NAMESPACES), random.choice(SELECTORS)
    whom = f"selector: {{matchLabels: {selector}}}, " if selector else ""
    kind = random.choice(("AuthorizationPolicy", "AuthorizationPolicy", "RequestAuthentication", "PeerAuthentication"))
    if kind == "PeerAuthentication":
        ports = random.choice(PORTS) if selector else ""
        return document(kind, namespace, name, f"{whom}{random.choice(PEERS)}{ports}")
    if random.random() < 0.15:
        whom = "targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: door}], "
    if kind == "RequestAuthentication":
        return document(kind, namespace, name, f"{whom}jwtRules: [{random.choice(TOKENS)}]")
    note = random.choice(("", "", ", annotations: {istio.io/dry-run: 'true'}"))
    action = random.choice(("ALLOW", "DENY", "AUDIT"))
    return document(kind, namespace, name, f"{whom}action: {action}, rules: [{{{random.choice(RULES)}}}]", note)


def described(edits: frozenset[int], without: int | None) -> bytes:
    text = CONFIG
    for number, (name, namespace, app, version) in enumerate(WORKLOADS):
        if number != without:
            ports = {"http": 7000 + 2 * number, "tcp": 7001 + 2 * number, "out": 7100 + number}
            own = {"name": name, "namespace": namespace, "app": app, "version": version, "number": number}
            text += WORKLOAD.format(**own, **ports)
    for number in sorted(edits):
        text = text.replace(*CONFIGS[number])
    return text.encode()


class Served:
    """What is delivered, and the fleet that is made of it."""

    def __init__(self, folder: Path, validator: Validator | None = None) -> None:
        self.snapshot = FleetSnapshot()
        self.files: dict[str, bytes] = {}
        self.some: tuple[MeshWorkload, ...] | None = None
        self.worlds: dict[str, ProxyWorld] = {}
        self.fails = False
        named = {"clock": lambda: 0.0, "say": lambda line: None, "validator": validator, "deliver": self.deliver}
        self.follower = MeshFollower(folder, folder / "mesh.yaml", folder / "state", OPTIONS, **named)  # type: ignore[arg-type]  # each is of its own kind

    def deliver(
        self, mesh: Mesh, files: Mapping[str, bytes], version: str, some: tuple[MeshWorkload, ...] | None
    ) -> None:
        if self.fails:
            raise EnvoyError("refused")
        self.files, self.some = dict(files), some
        made = {name: one.world for name, one in self.snapshot.make(mesh.workloads, files, some).items()}
        self.worlds = made if some is None else self.worlds | made

    def take(self, text: bytes, engine: PoliciesByWorkload, keys: Mapping[str, str]) -> None:
        mesh = self.follower._read(text)
        self.follower._write(mesh, dict(keys), engine)


def shown(worlds: Mapping[str, Mapping[str, Mapping[str, object]]]) -> dict[str, object]:
    return {name: {url: {n: (one, one.packed) for n, one in by.items()} for url, by in world.items()}  # type: ignore[attr-defined]  # they are Discovered
            for name, world in worlds.items()}  # fmt: skip


@pytest.mark.parametrize("seed", range(6))
def test_touching_some_gives_what_making_everything_anew_gives(seed: int, tmp_path: Path) -> None:
    random = Random(seed)  # not for secrets
    memory, served, before = Memory(), Served(tmp_path), None
    policies = {name: policy(random, name) for name in ("a", "b", "c", "d")}
    edits, without, keys, partly = frozenset[int](), None, 0, 0
    candidate, chosen = None, frozenset[str]()
    for _ in range(25):
        kept = dict(policies)
        match random.randrange(12):
            case 0:
                edits ^= {random.randrange(len(CONFIGS))}
            case 1:
                without = random.choice((None, random.randrange(len(WORKLOADS))))
            case 2:
                keys = random.randrange(4)
            case 3:
                candidate = before
                chosen = frozenset(random.sample([name for name, *_ in WORKLOADS], random.randrange(len(WORKLOADS))))
            case 4 if len(policies) > 2:
                del policies[random.choice(sorted(policies))]
            case _:
                name = random.choice("abcdefgh")
                policies[name] = policy(random, name)
        text = described(edits, without)
        config = served.follower._read(text).config
        files = [("p.yaml", "---\n".join(policies[name] for name in sorted(policies)).encode())]
        result = read_policies(files, config, None, memory)
        if result.has_errors:
            policies = kept
            continue
        engine = before = compile_engine(result.resources, config, before)
        is_canary = candidate is not None and candidate.mesh == config
        chosen -= {WORKLOADS[without][0]} if without is not None else frozenset()
        rules = [*engine.token_rules(), *(candidate.token_rules() if candidate is not None else ())]
        texts = {rule.keys_from: KEYS[keys % 2] for rule in rules if keys < 2 or "one" in rule.issuer}
        served.fails = random.random() < 0.1
        try:
            served.take(text, CanaryEngine(engine, candidate, chosen) if candidate and is_canary else engine, texts)
        except EnvoyError:
            continue
        partly += served.some is not None
        anew = Served(tmp_path)
        fresh = compile_engine(result.resources, config)
        anew.take(text, CanaryEngine(fresh, candidate, chosen) if candidate and is_canary else fresh, texts)
        assert served.files == anew.files
        assert shown(served.worlds) == shown(anew.worlds)
    assert partly  # or nothing would have been compared
