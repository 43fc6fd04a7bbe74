"""``authz control`` with policies, and the description, from an address: what is fetched is followed and served."""

from dataclasses import replace
from pathlib import Path

import click
import pytest
from cryptography.hazmat.primitives import serialization

from authz.bundles.whole_bundle import build_bundle, sign_bundle
from authz.cli.control_policies import PolicyPlace, opened
from authz.core.errors import SettingsError
from authz.sources.published.opening import PublishedPolicies
from authz.truth.truth_address import TruthAccess
from tests.control.fleet.fleet_rig import Rig, allow, until
from tests.control.fleet.test_fleet_envoys import SECOND
from tests.sources.published.published import KEY

PUBLIC = (serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    made = Rig(tmp_path)
    (tmp_path / "bundle.pub").write_bytes(KEY.public_key().public_bytes(*PUBLIC))
    return made


def publish(rig: Rig, revision: int, policy: str, **others: str) -> PolicyPlace:
    """Put a bundle at its place, with the rig's description unless another is given."""
    texts = {"policies/api.yaml": policy, "mesh.yaml": rig.mesh.read_text()} | others
    files = {name: text.encode() for name, text in texts.items() if text}
    made = sign_bundle(build_bundle(files, revision=revision, fleet="shop", created=0, expires=None), KEY)
    fresh = rig.folder / ".shop.tar.gz"
    fresh.write_bytes(made)
    fresh.replace(rig.folder / "shop.tar.gz")
    told = PublishedPolicies(None, "shop", [rig.folder / "bundle.pub"], poll_seconds=0.1)
    return PolicyPlace(f"file://{rig.folder}/shop.tar.gz", told).kept_below(rig.folder / "keep")


async def test_a_bundle_with_a_description_is_served_and_followed(rig: Rig) -> None:
    place = publish(rig, 1, allow("/one"), **{"traffic/t.yaml": SECOND.format(port=rig.inbound)})
    written = rig.mesh
    with opened(place, None, None) as found:
        rig.policies, rig.mesh, rig.source = found.policies, found.mesh, found.status
        assert found.traffic is not None
        await rig.start()
        assert rig.plane is not None
        try:
            first = rig.version()
            rig.mesh = written
            publish(rig, 2, allow("/two"))

            async def is_other() -> bool:
                return rig.version() != first

            await until(is_other)
            second = rig.version()
            publish(rig, 3, allow("/three"), **{"mesh.yaml": "kind: Nonsense\n"})

            async def is_refused() -> bool:
                assert rig.plane is not None
                return any(one["part"] == "policies" for one in rig.plane.causes())

            await until(is_refused)
            assert rig.version() == second
            figures = {metric.name: value for metric, value in rig.plane.figures()}
            assert figures["authz_policy_source_revision"] == 2
            assert figures["authz_policy_source_failing"] == 1.0
        finally:
            await rig.stop()


async def test_traffic_that_a_later_bundle_brings_is_followed_and_goes_with_it_again(rig: Rig) -> None:
    place = publish(rig, 1, allow("/one"))
    written, said = rig.mesh, "traffic/t.yaml"
    with opened(place, None, None) as found:
        rig.policies, rig.mesh, rig.traffic = found.policies, found.mesh, found.traffic
        await rig.start()
        try:
            assert set(rig.status()) == {"web-v1", "api-v1"}
            rig.mesh = written
            for revision, more in ((2, {said: SECOND.format(port=rig.inbound)}), (3, {})):
                publish(rig, revision, allow("/one"), **more)

                async def is_there(expected: bool = bool(more)) -> bool:
                    return ("api-v2" in rig.status()) is expected

                await until(is_there)
            assert rig.plane is not None
            assert list(rig.plane.causes()) == []
        finally:
            await rig.stop()


def test_a_description_of_ones_own_counts_instead(rig: Rig) -> None:
    place = publish(rig, 1, allow("/one"), **{"mesh.yaml": ""})
    with opened(place, rig.mesh, None) as found:
        assert (found.mesh, found.traffic) == (rig.mesh, None)
        assert (found.policies / "api.yaml").is_file()
        status = found.status()
        assert status is not None
        assert (status.revision, status.problem) == ("1", "")


def test_what_is_kept_is_served_while_the_source_is_down(rig: Rig) -> None:
    place = publish(rig, 1, allow("/one"))
    with opened(place, None, None):
        """It is kept now."""
    (rig.folder / "shop.tar.gz").unlink()
    with opened(place, None, None) as found:
        status = found.status()
        assert status is not None
        assert status.is_kept


@pytest.mark.parametrize(
    ("others", "said"),
    [({"mesh.yaml": ""}, "there is no description"), ({"traffic/t.yaml": "kind: Nonsense\n"}, "are refused")],
)
def test_a_bundle_without_a_usable_description_is_not_begun_with(rig: Rig, others: dict[str, str], said: str) -> None:
    place = publish(rig, 1, allow("/one"), **others)
    with pytest.raises(SettingsError, match=said), opened(place, None, None):
        """It does not come so far."""


def test_a_path_is_taken_as_it_is(rig: Rig) -> None:
    place = PolicyPlace(str(rig.policies), PublishedPolicies())
    assert not place.may_have_mesh
    with opened(place, rig.mesh, None) as found:
        assert (found.policies, found.mesh, found.status()) == (rig.policies, rig.mesh, None)
    with pytest.raises(click.BadParameter), opened(replace(place, address="nowhere"), rig.mesh, None):
        """There is nothing."""


def test_the_truth_is_asked_for_policies_by_the_certificate_by_which_it_is_asked_for_all_else(tmp_path: Path) -> None:
    own = TruthAccess(tmp_path / "bundle.pem", tmp_path / "tls.crt", tmp_path / "tls.key")
    place = PolicyPlace("nats://127.0.0.1:4222/shop", PublishedPolicies())
    assert place.kept_below(tmp_path / "keep", own).told.truth == own
    assert place.kept_below(tmp_path / "keep").told.truth == TruthAccess()
