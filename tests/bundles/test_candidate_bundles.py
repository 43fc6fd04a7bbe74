"""A bundle is a candidate, or for all, by what was signed."""

import pytest

from authz.bundles.manifest import BundleRefused, read_manifest
from authz.bundles.whole_bundle import read_bundle, refuse_candidate, sign_bundle
from authz.canary.candidate_terms import CandidateTerms
from tests.bundles.test_whole_bundle import KEY, NOW, OTHER, TERMS, built, signed


def test_a_candidate_is_one_by_its_signature_alone() -> None:
    keys = [KEY.public_key()]
    assert refuse_candidate(read_bundle(signed(candidate=TERMS)), keys, fleet="shop", now=NOW) == TERMS
    for data, now, said in (
        (signed(), NOW, "it was signed to be in force for all"),
        (sign_bundle(built(candidate=TERMS), OTHER), NOW, "none of the keys given here"),
        (signed(candidate=TERMS, fleet="other"), NOW, "for the fleet `other`"),
        (signed(candidate=TERMS), NOW + 100, "it expired"),
    ):
        with pytest.raises(BundleRefused, match=said):
            refuse_candidate(read_bundle(data), keys, fleet="shop", now=now)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (b'"base": 6', b'"base": 7', "its terms have a `base`"),
        (b'"share": null', b'"share": 5', "its terms have a `share`"),
        (b'"candidate": {', b'"candidates": {', "exactly the members"),
    ],
)
def test_a_manifest_with_other_terms_is_refused(old: bytes, new: bytes, said: str) -> None:
    manifest = read_bundle(signed(candidate=TERMS)).manifest_bytes
    with pytest.raises(BundleRefused, match=said):
        read_manifest(manifest.replace(old, new))


def test_terms_of_another_number_are_not_written() -> None:
    with pytest.raises(BundleRefused, match="written so that"):
        built(candidate=CandidateTerms(8, 6))
