"""JWT-SVIDs: start from a valid token, break one thing per row (JWT-SVID 2 to 4); keys that sign them have a life."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from authz.core.attributes import Json
from authz.core.spiffe import SpiffeId, TrustDomain
from authz.identity.bundle import Bundles, TrustBundle
from authz.identity.jwt_keys import (
    JWT_KEYS_FILE,
    PUBLISHED_AHEAD_SECONDS,
    ROTATION_SECONDS,
    SIGNING_SECONDS,
    JwtKeys,
    change_jwt_keys,
    read_jwt_keys,
)
from authz.identity.jwt_svid import ValidJwt, judge_audience, sign_jwt_svid, validate_jwt_svid
from authz.identity.registration import MAX_JWT_SVID_TTL_SECONDS
from authz.identity.svid_validation import Rejection
from authz.tokens.signing import KeyPool, SigningKey, make_keys, sign_text

NOW = 1_800_000_000.0
MESH, OTHER = TrustDomain("mesh.test"), TrustDomain("other.test")
REVIEWS = SpiffeId(MESH, "/ns/shop/sa/reviews")
KEYS, STRANGE = JwtKeys().kept_current(NOW), JwtKeys().kept_current(NOW)
KEY = KEYS.keys[0]
BUNDLES: Bundles = {
    MESH: TrustBundle(MESH, (), jwt_keys=KEYS.public),
    OTHER: TrustBundle(OTHER, (), jwt_keys=STRANGE.public),
}
HEADER: Mapping[str, Json] = {"alg": "ES256", "kid": KEY.kid, "typ": "JWT"}
CLAIMS: Mapping[str, Json] = {"sub": str(REVIEWS), "aud": ["reports"], "exp": NOW + 60, "iat": NOW}
GONE = "gone"


def made(header: Mapping[str, object] | None = None, alg: str = "ES256", **claims: object) -> str:
    """A token with some things changed; ``GONE`` takes one away."""
    parts = []
    for base, changes in ((HEADER, header or {}), (CLAIMS, claims)):
        parts.append(json.dumps({n: v for n, v in {**base, **changes}.items() if v is not GONE}).encode())
    return sign_text(parts[0], parts[1], SigningKey("EC", KEY.key, {}), alg)


def reason(token: str, audience: str = "reports", now: float = NOW, bundles: Bundles = BUNDLES) -> str:
    answer = validate_jwt_svid(token, audience, bundles, now)
    assert isinstance(answer, Rejection), answer
    return answer.reason


def test_what_is_signed_is_valid_for_its_audience_and_its_life() -> None:
    issued = sign_jwt_svid(KEY, REVIEWS, ("reports", "billing"), NOW + 0.7, 300)
    for audience in ("reports", "billing"):
        answer = validate_jwt_svid(issued.token, audience, BUNDLES, NOW)
        assert isinstance(answer, ValidJwt)
        assert answer.spiffe_id == REVIEWS
        assert answer.expires_at == issued.expires_at == NOW + 300
        assert dict(answer.claims) == {
            "sub": str(REVIEWS), "aud": ["reports", "billing"], "iat": NOW, "exp": NOW + 300
        }  # fmt: skip
    assert issued.token not in repr(issued)
    assert reason(issued.token, now=NOW + 360) == "the token has expired"
    assert isinstance(validate_jwt_svid(issued.token, "reports", BUNDLES, NOW + 359), ValidJwt)


GOOD: list[dict[str, object]] = [
    {"header": {"kid": GONE}},
    {"header": {"typ": GONE}},
    {"header": {"typ": "JOSE"}},
    {"aud": "reports"},
    {"iat": GONE},
    {"nbf": NOW + 60},
    {"iss": "anybody", "role": {"deep": [1, None]}},
]


@pytest.mark.parametrize("changes", GOOD, ids=str)
def test_what_the_standard_leaves_open_is_taken(changes: dict[str, object]) -> None:
    assert isinstance(validate_jwt_svid(made(**changes), "reports", BUNDLES, NOW), ValidJwt)  # type: ignore[arg-type]


BAD: list[tuple[dict[str, object], str]] = [
    ({"header": {"alg": "none"}}, "`alg` is none of ES256, ES384, ES512, PS256, PS384, PS512, RS256, RS384, RS512"),
    ({"header": {"alg": "HS256"}}, "`alg` is none of ES256, ES384, ES512, PS256, PS384, PS512, RS256, RS384, RS512"),
    ({"header": {"alg": "EdDSA"}}, "`alg` is none of ES256, ES384, ES512, PS256, PS384, PS512, RS256, RS384, RS512"),
    ({"header": {"alg": GONE}}, "`alg` is none of ES256, ES384, ES512, PS256, PS384, PS512, RS256, RS384, RS512"),
    ({"header": {"alg": "RS256"}}, f"`mesh.test` has no key `{KEY.kid}` for RS256"),
    ({"header": {"typ": "at+jwt"}}, "`typ` is neither JWT nor JOSE"),
    ({"header": {"crit": ["exp"]}}, "the header has `crit`, which is not understood here"),
    ({"header": {"kid": 3}}, "`kid` is not a string"),
    ({"header": {"kid": "another"}}, "`mesh.test` has no key `another` for ES256"),
    ({"sub": GONE}, "there is no `sub`"),
    ({"sub": 3}, "`sub`: `` is not a SPIFFE ID: expected it to begin with `spiffe://`"),
    ({"sub": "reviews"}, "`sub`: `reviews` is not a SPIFFE ID: expected it to begin with `spiffe://`"),
    (
        {"sub": "spiffe://mesh.test"},
        "`sub`: `spiffe://mesh.test` has no path: it is a trust domain's, not a workload's",
    ),
    ({"sub": "spiffe://third.test/a"}, "the trust domain `third.test` is not trusted"),
    ({"sub": "spiffe://other.test/a"}, f"`other.test` has no key `{KEY.kid}` for ES256"),
    ({"header": {"kid": GONE}, "sub": "spiffe://other.test/a"}, "the signature is not by a key of `other.test`"),
    ({"aud": GONE}, "there is no `aud`"),
    ({"aud": []}, "`aud` is neither a string nor a list of strings"),
    ({"aud": ["reports", 3]}, "`aud` is neither a string nor a list of strings"),
    ({"aud": ["Reports"]}, "the token is not for the audience `reports`"),
    ({"exp": GONE}, "there is no `exp`"),
    ({"exp": "soon"}, "`exp` is not a time"),
    ({"exp": True}, "`exp` is not a time"),
    ({"exp": 0}, "the token has expired"),
    ({"exp": NOW - 60}, "the token has expired"),
    ({"nbf": NOW + 61}, "the token is not yet valid: `nbf`"),
    ({"iat": NOW + 61}, "the token is not yet valid: `iat`"),
    ({"nbf": []}, "`nbf` is not a time"),
]


@pytest.mark.parametrize(("changes", "expected"), BAD, ids=[str(changes) for changes, _ in BAD])
def test_one_thing_that_is_wrong_makes_it_invalid(changes: dict[str, object], expected: str) -> None:
    assert reason(made(**changes)) == expected  # type: ignore[arg-type]


STRANGER = SigningKey("EC", STRANGE.keys[0].key, {})
BY_A_STRANGER = sign_text(json.dumps(HEADER).encode(), json.dumps(CLAIMS).encode(), STRANGER, "ES256")
FORM = "not a token: expected three parts of base64url with a dot between them"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", FORM),
        ("a.b", FORM),
        (made() + ".", FORM),
        (made() + "\n", FORM),
        (made() + "=", FORM),
        (made().replace(".", "..", 1), FORM),
        ("a" * 16385, FORM),
        ("e30.e30.e", "a part of the token is not base64url of a JSON object"),
        ("W10.e30.e30", "a part of the token is not base64url of a JSON object"),
        (made()[:-8] + "AAAAAAAA", "the signature is not by a key of `mesh.test`"),
        (BY_A_STRANGER, "the signature is not by a key of `mesh.test`"),
    ],
    ids=range(11),
)  # fmt: skip
def test_what_is_no_token_is_refused(text: str, expected: str) -> None:
    assert reason(text) == expected


def test_a_public_key_is_never_a_secret() -> None:
    """The old trick: HMAC with the public key as secret, under an algorithm of the key's own list."""
    rsa = make_keys({"k": {"kty": "RSA", "kid": KEY.kid}}, KeyPool())["k"]
    forged = sign_text(json.dumps(HEADER).encode(), json.dumps(CLAIMS).encode(), rsa, "ES256", "hmac-with-public-key")
    assert reason(forged) == "the signature is not by a key of `mesh.test`"


@pytest.mark.parametrize(
    ("audience", "is_good"),
    [
        (("a",), True),
        ((), False),
        (("a", ""), False),
        (("a",) * 33, False),
        (("é" * 2048,), True),
        (("é" * 2049,), False),
    ],
)
def test_audiences_are_bounded(audience: tuple[str, ...], is_good: bool) -> None:
    assert (judge_audience(audience) is None) is is_good


def test_a_trust_domain_itself_gets_no_token() -> None:
    with pytest.raises(ValueError, match="has no path"):
        sign_jwt_svid(KEY, SpiffeId(MESH), ("a",), NOW, 60)


# Keys


def signing(keys: JwtKeys, now: float) -> str:
    key = keys.active(now)
    assert key is not None
    return key.kid


def test_a_week_of_keys_overlaps() -> None:
    """Whoever fetches at any moment has the key of every token that may be valid then."""
    keys, now, seen = JwtKeys(), NOW, []
    for hour in range(24 * 30):
        now = NOW + hour * 3600
        known = {key.kid for key in keys.keys}
        keys = keys.kept_current(now)
        assert keys.is_current(now)
        active = signing(keys, now)
        assert active in known or hour == 0  # published before it signs
        seen.append((now, active))
        valid = {kid for at, kid in seen if now - at < MAX_JWT_SVID_TTL_SECONDS + 60}
        assert valid <= {key.kid for key in keys.keys}
        assert len(keys.keys) <= 3
    assert len({kid for _, kid in seen}) == 5
    assert SIGNING_SECONDS > PUBLISHED_AHEAD_SECONDS


def test_an_authority_that_was_away_signs_at_once() -> None:
    keys = JwtKeys().kept_current(NOW)
    later = NOW + 30 * 24 * 3600
    assert keys.active(later) is None
    again = keys.kept_current(later)
    assert signing(again, later) == again.keys[-1].kid
    assert len(again.keys) == 1


def test_a_rotation_is_published_before_it_signs() -> None:
    keys = JwtKeys().kept_current(NOW)
    rotated = keys.rotated(NOW)
    assert signing(rotated, NOW) == signing(keys, NOW)
    assert signing(rotated, NOW + ROTATION_SECONDS) == rotated.keys[-1].kid
    assert len(rotated.public) == 2
    after = rotated.kept_current(NOW + ROTATION_SECONDS + MAX_JWT_SVID_TTL_SECONDS + 61)
    assert [key.kid for key in after.keys] == [rotated.keys[-1].kid]


def test_the_first_rotation_has_nothing_to_wait_for() -> None:
    assert JwtKeys().rotated(NOW).active(NOW) is not None


def test_a_revocation_leaves_one_key() -> None:
    keys = JwtKeys().kept_current(NOW).revoked(NOW)
    assert signing(keys, NOW) == keys.keys[0].kid
    assert len(keys.keys) == 1


def test_keys_are_kept_in_a_file_of_their_owner(tmp_path: Path) -> None:
    made = change_jwt_keys(tmp_path, lambda keys: keys.kept_current(NOW))
    file = tmp_path / JWT_KEYS_FILE
    assert file.stat().st_mode & 0o777 == 0o600
    again = read_jwt_keys(tmp_path)
    assert [(k.kid, k.signs_from, k.signs_until) for k in again.keys] == [
        (k.kid, k.signs_from, k.signs_until) for k in made.keys
    ]
    before = file.stat().st_mtime_ns
    change_jwt_keys(tmp_path, lambda keys: keys.kept_current(NOW))
    assert file.stat().st_mtime_ns == before
    assert "PRIVATE" not in repr(again)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "is not a list of keys for JWT-SVIDs"),
        ("{}", "is not a list of keys for JWT-SVIDs"),
        ('{"keys": [3]}', "is not a list of keys for JWT-SVIDs"),
        ('{"keys": [{"key": "secret", "signsFrom": 0, "signsUntil": 1}]}', "is not an unencrypted PEM key"),
    ],
)
def test_a_broken_file_of_keys_is_refused_without_being_quoted(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / JWT_KEYS_FILE).touch(0o600)
    (tmp_path / JWT_KEYS_FILE).write_text(text)
    with pytest.raises(ValueError, match=reason) as caught:
        read_jwt_keys(tmp_path)
    assert "secret" not in str(caught.value)


def test_keys_that_others_may_read_are_refused(tmp_path: Path) -> None:
    change_jwt_keys(tmp_path, lambda keys: keys.kept_current(NOW))
    (tmp_path / JWT_KEYS_FILE).chmod(0o640)
    with pytest.raises(ValueError, match="others may read"):
        read_jwt_keys(tmp_path)
