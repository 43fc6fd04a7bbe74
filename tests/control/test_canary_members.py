"""Which workloads can have a candidate: those whose own Envoy decides by what is in force, and by the candidate."""

import pytest

from authz.control.canary_members import decides, undecidable
from authz.core.compiler import compile_engine
from authz.core.engine import Engine
from authz.core.resources import MeshConfig
from authz.core.spiffe import SpiffeId
from authz.envoy.options import RenderOptions
from authz.mesh.nouns import Enforce, MeshWorkload
from authz.policy.reader import read_policies

NATIVE = RenderOptions(enforce=Enforce.NATIVE)
WEB, API = (
    MeshWorkload(
        name, "shop", name, SpiffeId.parse(f"spiffe://mesh.test/ns/shop/sa/{name}"), {"app": name},
        "10.0.0.1", "10.9.0.1",
    )
    for name in ("web", "api")
)  # fmt: skip


def policies(presence: str = "") -> Engine:
    """Of which an Envoy decides all, or not those of ``api``: Istio's filters do not know ``presence``."""
    written = f", presence: {presence}" if presence else ""
    text = (
        "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {name: jwt, namespace: shop}\n"
        "spec:\n  selector: {matchLabels: {app: api}}\n"
        f"  jwtRules: [{{issuer: https://idp.test, jwksUri: https://idp.test/keys{written}}}]\n"
    )
    return compile_engine(read_policies([("p.yaml", text.encode())]).resources, MeshConfig())


@pytest.mark.parametrize(
    ("options", "presence", "workload", "is_so"),
    [
        (NATIVE, "", API, True),
        (NATIVE, "REQUIRED", API, False),
        (NATIVE, "REQUIRED", WEB, True),
        (RenderOptions(enforce=Enforce.NATIVE, include_peer_certificate=True), "", WEB, False),
        (RenderOptions(enforce=Enforce.NATIVE, keep_check=frozenset({"web"})), "", WEB, False),
        (RenderOptions(), "", WEB, False),
    ],
    ids=["native", "a rule that stays", "a rule of another", "evidence", "kept", "a server asked"],
)
def test_an_envoy_decides_where_nothing_stays_with_the_check(
    options: RenderOptions, presence: str, workload: MeshWorkload, is_so: bool
) -> None:
    assert decides(workload, policies(presence), options) is is_so


def test_why_an_envoy_could_not_decide_by_a_candidate_names_workload_and_rule() -> None:
    assert undecidable(policies(), (WEB, API), NATIVE) == ""
    assert undecidable(policies("REQUIRED"), (WEB,), NATIVE) == ""
    assert undecidable(policies("REQUIRED"), (WEB, API), NATIVE) == (
        "`api` cannot decide it by itself: "
        "RequestAuthentication shop/jwt rules[0]: Istio's filters do not know `presence: REQUIRED`"
    )
