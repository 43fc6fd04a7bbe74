from authz.analysis.suites.placeholders import substitute_keys, substitute_tokens
from authz.tokens.jwks import read_key_set
from authz.tokens.signing import jwks_text, make_tokens
from tests.tokens.material import KEYS, NOW


def test_placeholders_in_requests_and_policies() -> None:
    tokens = make_tokens({"t": {"raw": "h.p.s"}}, KEYS, NOW)
    assert substitute_tokens("Bearer ${TOKEN:t} ${PAYLOAD:t}", tokens) == "Bearer h.p.s p"
    policies = substitute_keys("'${JWKS:rsa,ec}' ${JWKS_URI:ed} ${JWKS_URI:rsa,ec} ${JWKS_URI_DOWN}", KEYS)
    inline, one, two, down = policies.text.split(" ")
    assert [key.kid for key in read_key_set(inline.strip("'")).keys] == ["rsa", "ec"]
    assert policies.documents == {one: jwks_text([KEYS["ed"]]), two: jwks_text([KEYS["rsa"], KEYS["ec"]])}
    assert down not in policies.documents
    assert "\n" not in policies.text
