"""Whatever bytes arrive: nothing raises, nothing forged is accepted, nothing unsendable comes out."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authz.core.attributes import AttributeContext, Authentication, AuthenticationOutcome
from authz.core.resources import ClaimToHeader, JwtHeader, JwtRule, Presence
from authz.tokens import authenticate as stage
from authz.tokens.base64url import read_base64url
from authz.tokens.cache import TokenCache
from authz.tokens.key_sets import KeySets, KeySetState
from authz.tokens.locations import path_without
from authz.tokens.parsed import ParsedToken, read_token
from authz.tokens.plan import plan_for
from authz.tokens.signing import jwks_text, sign_text
from tests.tokens.material import ISSUER, KEYS, NOW, judge, keys_of, request, rule, token

ACCEPTED, REJECTED = AuthenticationOutcome.ACCEPTED, AuthenticationOutcome.REJECTED
RULE = rule(
    from_headers=(JwtHeader("x-raw"), JwtHeader("authorization", "Bearer ")),
    from_params=("t",),
    from_cookies=("c",),
    output_payload_to_header="x-payload",
    output_claim_to_headers=(ClaimToHeader("x-sub", "sub"),),
)
ALGORITHM_OF = {"rsa": "RS256", "ec": "ES256", "ed": "EdDSA", "oct": "HS256"}
TOKENS = {name: token(name, alg=alg) for name, alg in ALGORITHM_OF.items()}
STATES = {name: KeySetState(keys_of(name)) for name in ALGORITHM_OF}
ANY_TEXT = st.text(st.characters(codec=None)) | st.binary().map(lambda data: data.decode("utf-8", "surrogateescape"))


def same_token(text: str, name: str) -> bool:
    """
    Everything that is signed is the same, byte for byte, but for empty pieces and blanks around the header's value.

    The signature may be spelt otherwise (RA-21): padded, spaced, with other bits behind its last byte; and an ECDSA
    signature may have zeros before either half and one byte too many.
    """
    pieces = [piece for piece in text.strip(" \t").split(".") if piece]
    expected = TOKENS[name].split(".")
    if len(pieces) != 3 or pieces[:2] != expected[:2]:
        return False
    try:
        found, wanted = read_base64url(pieces[2]), read_base64url(expected[2])
    except ValueError:
        return False
    if not name.startswith("ec"):
        return found == wanted
    half = len(found) // 2
    numbers = (found[:half].lstrip(b"\0"), found[half : 2 * half].lstrip(b"\0"))
    return numbers == (wanted[: len(wanted) // 2].lstrip(b"\0"), wanted[len(wanted) // 2 :].lstrip(b"\0"))


@settings(max_examples=600, deadline=None)
@given(st.data())
def test_mutated_token_is_never_accepted_unless_what_is_signed_stays(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(TOKENS)))
    text = TOKENS[name]
    start = data.draw(st.integers(0, len(text)))
    length = data.draw(st.integers(0, 3))
    inserted = data.draw(st.text("ABCabc019-_.=+/ \n", max_size=3) | ANY_TEXT)
    mutated = text[:start] + inserted + text[start + length :]
    answer = judge(request({"x-raw": mutated}), RULE, key_sets={RULE.keys_from: STATES[name]})
    assert (answer.outcome is ACCEPTED) == same_token(mutated, name)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(TOKENS)), st.integers(0, 10_000), st.integers(0, 7))
def test_flipped_bit_is_never_accepted_from_a_warm_cache_unless_it_means_nothing(
    name: str, position: int, bit: int
) -> None:
    cache, text = TokenCache(), TOKENS[name]
    given_keys = {RULE.keys_from: STATES[name]}
    assert judge(request({"x-raw": text}), RULE, key_sets=given_keys, cache=cache).outcome is ACCEPTED
    position %= len(text)
    mutated = text[:position] + chr(ord(text[position]) ^ (1 << bit)) + text[position + 1 :]
    answer = judge(request({"x-raw": mutated}), RULE, key_sets=given_keys, cache=cache)
    assert (answer.outcome is ACCEPTED) == same_token(mutated, name)


@settings(max_examples=400, deadline=None)
@given(ANY_TEXT, ANY_TEXT, ANY_TEXT, ANY_TEXT, ANY_TEXT)
def test_arbitrary_text_never_raises_and_is_never_accepted(
    raw: str, authorization: str, query: str, cookie: str, host: str
) -> None:
    headers = {"x-raw": raw, "authorization": f"Bearer {authorization}", "cookie": f"c={cookie}"}
    answer = judge(request(headers, f"/?t={query}", host=host), RULE, cache=TokenCache())
    assert answer.outcome is REJECTED
    assert answer.challenge.isascii()
    assert answer.challenge.isprintable()


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.binary(max_size=200))
def test_arbitrary_signed_parts_never_raise(header: bytes, payload: bytes) -> None:
    """Even a holder of the key cannot make us fail."""
    for head in (header, b'{"alg":"HS256"}'):
        text = sign_text(head, payload, KEYS["oct"], "HS256")
        answer = judge(request({"x-raw": text}), RULE, key_sets={RULE.keys_from: STATES["oct"]})
        assert answer.outcome is REJECTED


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.text(max_size=6), JSON_VALUES, max_size=5), JSON_VALUES)
def test_any_claims_give_headers_that_can_be_sent(claims: dict[str, object], sub: object) -> None:
    outputs = tuple(ClaimToHeader(f"x-{index}", name) for index, name in enumerate([*claims, "sub"]))
    asked = dataclasses.replace(RULE, issuer="", output_claim_to_headers=outputs)
    text = token(
        claims={"iss": ..., "exp": ...} | {k: v for k, v in claims.items() if k not in ("iss", "exp")} | {"sub": sub}
    )
    parsed = read_token(text)
    answer = judge(request({"x-raw": text}), asked)
    assert (answer.outcome is ACCEPTED) == isinstance(parsed, ParsedToken)
    for _, value in answer.headers_to_set:
        assert value
        assert not any(character in value for character in "\r\n\0")


@settings(max_examples=300, deadline=None)
@given(ANY_TEXT)
def test_rewritten_query_can_stand_in_a_header(query: str) -> None:
    path = path_without(f"/p?{query}&t=secret", ("t",))
    if path is not None:
        assert path.startswith("/p")
        assert not any(character in path for character in "\r\n\0")


ONE_RULE = st.builds(
    rule,
    issuer=st.sampled_from([ISSUER, ISSUER, "https://other.example", ""]),
    audiences=st.sampled_from([(), (), ("https://a.example/",), ("b",)]),
    jwks=st.sampled_from(["", "", jwks_text([KEYS["rsa"]]), "no JSON"]),
    forward_original_token=st.booleans(),
    from_headers=st.sampled_from([(), (JwtHeader("authorization", "Bearer "), JwtHeader("x-raw"))]),
    from_params=st.sampled_from([(), ("t", "access_token")]),
    from_cookies=st.sampled_from([(), ("c",)]),
    output_payload_to_header=st.sampled_from(["", "", "", "x-payload"]),
    output_claim_to_headers=st.sampled_from([(), (), (ClaimToHeader("x-sub", "sub"),)]),
    space_delimited_claims=st.sampled_from([(), ("groups",)]),
    presence=st.sampled_from(list(Presence)),
)
CLAIMS = st.fixed_dictionaries(
    {},
    optional={
        "iss": st.sampled_from([ISSUER, "https://other.example", 1, None]),
        "sub": st.sampled_from(["bob", None, True, [], {"a": "b"}]),
        "aud": st.sampled_from(["a.example", ["b", "c"], ["b", 1], 7, None, []]),
        "exp": st.sampled_from(
            [0, int(NOW), int(NOW) - 60, int(NOW) - 61, NOW + 0.5, -1, 2**40, 2**64, "1", True, None]
        ),
        "nbf": st.sampled_from([0, int(NOW) + 60, int(NOW) + 61, -0.0, 1.5, 2**63, "1", False, None]),
        "iat": st.sampled_from([0, -1, 1.5, "1", True, None]),
        "jti": st.sampled_from(["x", "", 1, None, []]),
        "scope": st.sampled_from(["read write", "", " ", 3, ["read"]]),
        "groups": st.sampled_from(["a b", ["a b"]]),
    },
)
SIGNERS = st.sampled_from(["rsa", "rsa", "rsa", "rogue", "ec", "oct"])
KEY_SETS = st.sampled_from(
    [KeySetState(keys_of("rsa", "ec")), KeySetState(keys_of()), KeySetState(None, error="x"), None]
)


@settings(max_examples=1500, deadline=None)
@given(
    ONE_RULE, SIGNERS, CLAIMS, KEY_SETS, st.sampled_from(["authorization", "x-raw", "cookie", "t", "access_token"]),
    st.sampled_from(["", "", "", "x", "..", "é"]),
)  # fmt: skip
def test_the_way_of_the_only_token_leads_where_the_general_one_does(
    asked: JwtRule, signer: str, claims: dict[str, object], state: KeySetState | None, place: str, spoilt: str
) -> None:
    """The answer, what is remembered, and the hints to whoever fetches keys."""
    text = token(signer, alg={"ec": "ES256", "oct": "HS256"}.get(signer, "RS256"), claims=claims) + spoilt
    given_keys: KeySets = {} if state is None else {asked.keys_from: state}
    attributes = {
        "authorization": lambda: request({"authorization": f"Bearer {text}"}),
        "x-raw": lambda: request({"x-raw": text}),
        "cookie": lambda: request({"cookie": f"c={text}"}),
    }.get(place, lambda: request(path=f"/?a=b&{place}={text}"))()
    short = _judged(attributes, asked, given_keys)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(stage, "plan_for", lambda rules: dataclasses.replace(plan_for(rules), alone={}))
        assert _judged(attributes, asked, given_keys) == short
    assert judge(attributes, asked, key_sets=given_keys) == short[0]


def _judged(
    attributes: AttributeContext, asked: JwtRule, given_keys: KeySets
) -> tuple[Authentication, list[object], list[str]]:
    cache, hints = TokenCache(), list[str]()
    answer = judge(attributes, asked, key_sets=given_keys, cache=cache, on_unknown_key=hints.append)
    assert judge(attributes, asked, key_sets=given_keys, cache=cache) == answer
    return answer, list(cache._entries.items()), hints
