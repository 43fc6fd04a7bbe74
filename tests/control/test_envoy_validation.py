"""Filters are shown to a real Envoy before proxies get them; what it refuses replaces nothing."""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

from authz.control.envoy_validation import Filters, RefusedError, Validator
from authz.core.attributes import Json
from authz.envoy.native import value_matchers
from authz.envoy.native.binary import EnvoyError, find_envoy
from tests.control.following import following
from tests.control.test_mesh_follower import Followed, policy

pytestmark = pytest.mark.envoy
pytest.importorskip("envoy")

TYPE = "type.googleapis.com/"


def slot(config: dict[str, object]) -> bytes:
    resource = {
        "@type": f"{TYPE}envoy.config.core.v3.TypedExtensionConfig",
        "name": "authz-rules",
        "typed_config": config,
    }
    return json.dumps({"version_info": "1", "resources": [resource]}).encode()


GOOD = slot({"@type": f"{TYPE}envoy.extensions.filters.http.rbac.v3.RBAC"})
BAD = slot({"@type": f"{TYPE}envoy.extensions.filters.http.rbac.v3.RBAC", "rules": {"policies": {"p": {}}}})
ASKING = slot(
    {
        "@type": f"{TYPE}envoy.extensions.filters.http.ext_authz.v3.ExtAuthz",
        "grpc_service": {"envoy_grpc": {"cluster_name": "outbound|9000||ext"}},
        "transport_api_version": "V3",
    }
)


@pytest.mark.parametrize("content", [GOOD, ASKING])
def test_what_envoy_takes_passes(content: bytes, tmp_path: Path) -> None:
    validator = Validator.of("auto")
    assert validator is not None
    assert validator.validate(tmp_path, {"ecds/a.b.authz-rules.json": content, "lds/a.yaml": b""}) == ""


def test_what_envoy_refuses_is_told_by_workload_in_its_words(tmp_path: Path) -> None:
    validator = Validator.of("auto")
    assert validator is not None
    files = {"ecds/good.authz-rules.json": GOOD, "ecds/bad.v1.authz-rules.json": BAD}
    with pytest.raises(RefusedError, match=r"Envoy refuses the filters of `bad\.v1`: .*Policy") as caught:
        validator.validate(tmp_path, files)
    assert "good" not in str(caught.value)


def network(rules: dict[str, object]) -> Filters:
    kind = f"{TYPE}envoy.extensions.filters.network.rbac.v3.RBAC"
    asks: dict[str, Json] = {
        "@type": f"{TYPE}envoy.extensions.filters.network.ext_authz.v3.ExtAuthz",
        "stat_prefix": "tcp.",
        "transport_api_version": "V3",
        "grpc_service": {"envoy_grpc": {"cluster_name": "outbound|9000||ext"}},
    }
    rbac: dict[str, Json] = json.loads(json.dumps({"@type": kind, "stat_prefix": "tcp.", "rules": rules}))
    return (
        {"name": "envoy.filters.network.rbac", "typed_config": rbac},
        {"name": "envoy.filters.network.ext_authz", "typed_config": asks},
    )


def test_filters_of_tcp_ports_are_shown_too(tmp_path: Path) -> None:
    validator = Validator.of("auto")
    assert validator is not None
    good, bad = network({"action": "DENY", "policies": {}}), network({"action": "DENY", "policies": {"p": {}}})
    files = {"ecds/web.authz-rules.json": GOOD}
    assert validator.validate(tmp_path, files, {"web": good, "db": good, "none": ()}) == ""
    with pytest.raises(RefusedError, match=r"Envoy refuses the filters of `db`: .*Policy") as caught:
        validator.validate(tmp_path, files, {"web": good, "db": bad})
    assert "web" not in str(caught.value)
    with pytest.raises(RefusedError, match="`web`"):
        validator.validate(tmp_path, files, {"web": bad})


async def test_a_change_of_the_rules_of_a_tcp_port_is_shown_before_it_is_written(tmp_path: Path) -> None:
    """And what is not a change is not shown again."""
    shown: list[Mapping[str, Filters]] = []

    class Looks(Validator):
        def validate(
            self, out: Path, files: Mapping[str, bytes], network: Mapping[str, Filters] = MappingProxyType({})
        ) -> str:
            shown.append({proxy: filters for proxy, filters in network.items() if filters})
            return super().validate(out, files, network)

    mesh = Followed(tmp_path, Looks(find_envoy()))
    ports = "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: n, namespace: app}\n"
    ports += 'spec: {action: DENY, rules: [{to: [{operation: {ports: ["PORT"]}}]}]}\n'
    mesh.write("tcp.yaml", ports.replace("PORT", "7001"))
    async with following(mesh):
        proxies = set(shown[0])
        assert proxies
        mesh.write("a.yaml", policy("two", "/two"))
        await mesh.becomes("/two")
        mesh.write("tcp.yaml", ports.replace("PORT", "7002"))
        await mesh.becomes("7002")
    assert proxies == set(shown[-1])
    assert '"destination_port": 7002' in json.dumps(shown[-1])


def test_what_did_not_change_is_not_shown_again(tmp_path: Path) -> None:
    (tmp_path / "ecds").mkdir()
    (tmp_path / "ecds" / "a.authz-rules.json").write_bytes(BAD)
    assert Validator("/no/envoy").validate(tmp_path, {"ecds/a.authz-rules.json": BAD}) == ""


def test_auto_leaves_out_what_takes_seconds_and_says_so(tmp_path: Path) -> None:
    assert "more than --validate auto" in Validator("/no/envoy", 10).validate(tmp_path, {"ecds/a.s.json": GOOD})


@pytest.mark.parametrize(("how", "expected"), [("off", None), ("true", "true")])
def test_how_is_chosen(how: str, expected: str | None) -> None:
    found = Validator.of(how)
    assert (found and Path(found.binary).name) == expected


def test_a_path_that_is_no_program_is_an_error() -> None:
    with pytest.raises(EnvoyError, match="`/no/envoy` is not a program that can be run"):
        Validator.of("/no/envoy")


async def test_a_refused_set_keeps_every_file_and_the_next_good_one_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mesh = Followed(tmp_path, Validator.of("auto"))
    async with following(mesh):
        before = mesh.filters()
        with monkeypatch.context() as patched:
            patched.setitem(value_matchers._TEMPLATE, "{*}", "{")  # a template that only Envoy refuses
            mesh.write("a.yaml", policy("two", "/two/{*}"))
            async with asyncio.timeout(30):
                while not any("Envoy refuses the filters of" in line for line in mesh.said):  # noqa: ASYNC110  # no event tells it
                    await asyncio.sleep(0.05)
            assert mesh.filters() == before
        mesh.write("a.yaml", policy("three", "/three"))
        await mesh.becomes("/three")
