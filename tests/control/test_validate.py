"""Filters are shown to a real Envoy before proxies get them; what it refuses replaces nothing."""

import asyncio
import json
from pathlib import Path

import pytest

from authz.control.validate import RefusedError, Validator
from authz.envoy.native import values
from authz.envoy.native.binary import EnvoyError
from tests.control.test_follow import Followed, policy

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
    await mesh.follower.start(keys_timeout_seconds=0.1)
    running = asyncio.create_task(mesh.follower.run())
    try:
        before = mesh.filters()
        with monkeypatch.context() as patched:
            patched.setitem(values._TEMPLATE, "{*}", "{")  # a template that only Envoy refuses
            mesh.write("a.yaml", policy("two", "/two/{*}"))
            async with asyncio.timeout(30):
                while not any("Envoy refuses the filters of" in line for line in mesh.said):  # noqa: ASYNC110  # no event tells it
                    await asyncio.sleep(0.05)
            assert mesh.filters() == before
        mesh.write("a.yaml", policy("three", "/three"))
        await mesh.becomes("/three")
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await mesh.follower.close()
