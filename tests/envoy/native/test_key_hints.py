"""Hints from the record of refusals to whoever renders key sets."""

from pathlib import Path

import pytest

from authz.core.resources import JwtRule
from authz.envoy.native.key_hints import AGAIN_SECONDS, FOLDER, Hinted, Hinter, is_of_unknown_key

FETCHED = JwtRule("https://a.test", jwks_uri="https://a.test/keys?x=1&y=../..", name="ns/jwt/0")
OTHER = JwtRule("https://b.test", name="ns/jwt/1")
INLINE = JwtRule("https://c.test", jwks='{"keys": []}', name="ns/jwt/2")


@pytest.mark.parametrize(
    ("details", "is_unknown"),
    [
        ("jwt_authn_access_denied{Jwks_doesn't_have_key_to_match_kid_or_alg_from_Jwt}", True),
        ("jwt_authn_access_denied{Jwt_verification_fails}", True),
        ("jwt_authn_access_denied{Jwt_is_expired}", False),
        ("rbac_access_denied_matched_policy[none]", False),
        ("", False),
    ],
)
def test_which_refusals_a_newer_key_set_might_mend(details: str, is_unknown: bool) -> None:
    assert is_of_unknown_key(details) is is_unknown


def test_a_hint_is_told_once_and_only_about_what_is_fetched(tmp_path: Path) -> None:
    hinted, hinter = Hinted(tmp_path), Hinter(tmp_path, lambda: 0.0)
    sources = [rule.keys_from for rule in (FETCHED, OTHER, INLINE)]
    assert hinted.new(sources) == []
    hinter.hint((FETCHED, INLINE))
    assert hinted.new(sources) == [FETCHED.keys_from]
    assert hinted.new(sources) == []
    assert len(list((tmp_path / FOLDER).iterdir())) == 1


def test_what_was_left_before_is_no_news(tmp_path: Path) -> None:
    Hinter(tmp_path, lambda: 0.0).hint((FETCHED,))
    assert Hinted(tmp_path).new([FETCHED.keys_from]) == []


def test_one_hint_in_a_while_is_enough(tmp_path: Path) -> None:
    now = 0.0
    hinted, hinter = Hinted(tmp_path), Hinter(tmp_path, lambda: now)
    told = []
    for step in range(8):
        now = step * AGAIN_SECONDS / 2
        hinter.hint((FETCHED,))
        told += hinted.new([FETCHED.keys_from])
    assert len(told) == 4


def test_a_state_directory_that_cannot_be_written_is_a_problem_and_no_error(tmp_path: Path) -> None:
    hinter = Hinter(tmp_path / "missing", lambda: 0.0)
    hinter.hint((FETCHED,))
    assert "missing" in hinter.problem
