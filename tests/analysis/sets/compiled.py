"""Policies of tests in few words: compiled for one workload."""

from authz.analysis.sets.model import PolicyPair
from authz.core.attributes import Workload
from authz.core.compiler import compile_as_needed
from authz.core.engine import Engine
from authz.core.resources import ExtensionProvider, MeshConfig
from authz.policy.reader import read_policies

WORKLOAD = Workload("shop", frozenset({("app", "cart")}))
MESH = MeshConfig(extension_providers=(ExtensionProvider("ext", service="ext.test", port=9000),))
_HEAD = "apiVersion: security.istio.io/v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: shop}}\nspec: {spec}\n"


def allow(*rules: str, name: str = "a", action: str = "ALLOW") -> str:
    """An AuthorizationPolicy with rules in YAML's flow form."""
    provider = ", provider: {name: ext}" if action == "CUSTOM" else ""
    return _HEAD.format(
        kind="AuthorizationPolicy", name=name, spec=f"{{action: {action}{provider}, rules: [{', '.join(rules)}]}}"
    )


def deny(*rules: str, name: str = "d") -> str:
    """A DENY policy."""
    return allow(*rules, name=name, action="DENY")


def peer(mode: str, ports: str = "") -> str:
    """A PeerAuthentication for the workload."""
    more = f", selector: {{matchLabels: {{app: cart}}}}, portLevelMtls: {{{ports}}}" if ports else ""
    return _HEAD.format(kind="PeerAuthentication", name="p", spec=f"{{mtls: {{mode: {mode}}}{more}}}")


def tokens(*rules: str) -> str:
    """A RequestAuthentication."""
    return _HEAD.format(kind="RequestAuthentication", name="t", spec=f"{{jwtRules: [{', '.join(rules)}]}}")


def paths(*values: str) -> str:
    """A rule that asks for paths."""
    return f"{{to: [{{operation: {{paths: [{', '.join(map(repr, values))}]}}}}]}}"


def when(key: str, *values: str, negated: bool = False) -> str:
    """A rule with one condition."""
    name = "notValues" if negated else "values"
    return f"{{when: [{{key: '{key}', {name}: [{', '.join(map(repr, values))}]}}]}}"


def source(text: str) -> str:
    """A rule with one source."""
    return f"{{from: [{{source: {{{text}}}}}]}}"


def engine(*documents: str, mesh: MeshConfig = MESH) -> Engine:
    """The engine of some documents."""
    read = read_policies([("policies.yaml", "---\n".join(documents).encode())] if documents else [], mesh)
    return compile_as_needed(read.resources, mesh)


def pair(
    old: tuple[str, ...],
    new: tuple[str, ...],
    *,
    mesh: MeshConfig = MESH,
    gateway: bool = False,
    ports: tuple[int, ...] = (),
) -> PolicyPair:
    """Two sets of documents for one workload."""
    return PolicyPair(
        engine(*old, mesh=mesh).for_workload(WORKLOAD), engine(*new, mesh=mesh).for_workload(WORKLOAD), gateway, ports
    )
