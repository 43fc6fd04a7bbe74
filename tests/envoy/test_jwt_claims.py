"""``outputClaimToHeaders``: what reaches the application, byte for byte as from Envoy (RA-48)."""

import base64
import itertools
import json
import random
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from authz._proto import ext_authz_pb2 as pb
from authz.core.decision import Decision, Effect, Obligations, Stage
from authz.core.resources import ClaimToHeader, JwtRule
from authz.tokens.json_text import read_object
from authz.tokens.output import output_headers
from authz.tokens.signing import jwks_text, sign_text
from authz.wire.answer import write_response
from tests.envoy.jwt_rig import Native, running
from tests.envoy.live import running as live_running
from tests.tokens.material import ISSUER, KEYS, token

pytestmark = [pytest.mark.envoy, pytest.mark.slow]

pytest.importorskip("envoy")

AT_ONCE = 40
"""Claims, and headers, of one token."""
RULE = JwtRule(
    jwks_uri="https://idp.example/keys",
    output_claim_to_headers=tuple(ClaimToHeader(f"x-claim-{index}", f"c{index}") for index in range(AT_ONCE)),
)
VALUES = 2_400
LETTERS = (
    "abcXYZ019 ,;:=&%+/\\\"'<>-_.~ÄéßžЖ中文😀\u00a0\u00ad\u0085\u0600\u200b\u2028\u2029\ufeff\U000e0001\U0001d173\t"
)
CONTROLS = "\x00\x01\n\r\x1b\x7f"
NUMBERS = (
    "0", "-0", "-0.0", "5.0", "-5", "0.1", "1e16", "1E+2", "5e-324", "1.7976931348623157e308", "9007199254740993",
    "123456789012345678", "9223372036854775808", "18446744073709551615", "18446744073709551616", "-9007199254740993",
    "1e22", "1e-7", "0.30000000000000004", "123456.7890123456789", "999999999999999.9", "1e15", "1e-400",
)  # fmt: skip


def _values(choose: random.Random) -> Iterator[str]:
    """Claims as they are written in tokens: JSON, the same ones in every run."""
    yield from NUMBERS
    while True:
        yield _value(choose, 3)


def _value(choose: random.Random, depth: int) -> str:
    kind = choose.randrange(9 if depth else 6)
    if kind == 0:
        return choose.choice(("true", "false", "null", '""', "[]", "{}"))
    if kind <= 2:
        return _text(choose)
    if kind == 3:
        return choose.choice(NUMBERS)
    if kind == 4:
        number = struct.unpack(">d", choose.randbytes(8))[0]
        return json.dumps(number) if abs(number) < 1e308 else "0.5"
    if kind == 5:
        return str(choose.randrange(-(10 ** choose.randrange(1, 22)), 10 ** choose.randrange(1, 22)))
    size = choose.randrange(4)
    if kind == 6:  # members come in any order from Envoy, so there is one
        return f"{{{_text(choose)}:{_value(choose, depth - 1)}}}"
    return f"[{','.join(_value(choose, depth - 1) for _ in range(size))}]"


def _text(choose: random.Random) -> str:
    letters = LETTERS + CONTROLS if choose.random() < 0.08 else LETTERS
    text = "".join(choose.choices(letters, k=choose.randrange(12)))
    return json.dumps(text, ensure_ascii=choose.random() < 0.5)


def _payload(values: list[str]) -> str:
    return "{" + ",".join(f'"c{index}":{value}' for index, value in enumerate(values)) + "}"


def _theirs(native: Native, payload: str) -> tuple[int, dict[str, bytes]]:
    text = sign_text(b'{"alg":"HS256"}', payload.encode(), KEYS["oct"], "HS256")
    status, _ = native.ask("claims", headers=[("authorization", f"Bearer {text}".encode())])
    found = native.application.headers() if status == 200 else []
    return status, {name.decode(): value for name, value in found if name.startswith(b"x-claim-")}


def _ours(payload: str) -> dict[str, bytes]:
    """What the answer to Envoy says, after all that the wire leaves out."""
    headers = output_headers(RULE, read_object(payload), "")
    decision = Decision(Effect.ALLOW, Stage.DEFAULT, "", obligations=Obligations(headers_to_set=headers))
    answer = pb.CheckResponse.FromString(write_response(decision, "0" * 24))
    assert not answer.ok_response.headers_to_remove, "offline would say otherwise"
    return {pair.header.key: pair.header.value.encode() for pair in answer.ok_response.headers}


def test_claims_are_written_as_envoy_writes_them(tmp_path: Path) -> None:
    values = list(itertools.islice(_values(random.Random(48)), VALUES))
    plain: list[str] = []
    unsendable = 0
    with running(tmp_path / "envoy", {"claims": ((RULE, jwks_text([KEYS["oct"]])),)}) as native:
        for value in values:
            is_text = value.startswith('"') and any(control in json.loads(value, strict=False) for control in CONTROLS)
            if not is_text:
                plain.append(value)
                continue
            # Envoy answers 503 to a request that would get such a header; we leave the header out.
            unsendable += 1
            assert _theirs(native, _payload([value]))[0] == 503, value
            assert _ours(_payload([value])) == {}
        for start in range(0, len(plain), AT_ONCE):
            payload = _payload(plain[start : start + AT_ONCE])
            status, theirs = _theirs(native, payload)
            assert status == 200, payload
            ours = {name: value.strip(b" \t") for name, value in _ours(payload).items()}
            theirs = {name: value.strip(b" \t") for name, value in theirs.items()}
            assert ours == theirs, [(plain[start + int(n[8:])], ours.get(n), theirs.get(n)) for n in ours | theirs]
    assert len(values) >= 2_000
    assert unsendable > 20


async def test_the_application_behind_a_sidecar_gets_the_same(tmp_path: Path) -> None:
    """Through our service and a real sidecar's ``ext_authz``: UTF-8 passes, what cannot be sent is not there."""
    outputs = "\n".join(f"    - {{header: x-claim-{index}, claim: c{index}}}" for index in range(5))
    policies = f"""
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: jwt, namespace: shop}}
spec:
  jwtRules:
  - issuer: {ISSUER}
    jwks: '{jwks_text([KEYS["rsa"]])}'
    outputClaimToHeaders:
{outputs}
"""
    claims = {"c0": "Zürich 😀", "c1": 9007199254740993, "c2": ["b>\u2028"], "c3": "a\x7fb", "c4": "tab\there"}
    async with live_running(tmp_path, policies) as live:
        text = token(now=time.time(), claims=claims)
        forged = [(f"x-claim-{index}", "forged") for index in range(5)]
        answer = await live.ask("/", ("authorization", f"Bearer {text}"), *forged)
    assert answer.forwarded is not None
    found = {name: values for name, values in answer.forwarded.items() if name.startswith("x-claim-")}
    assert found == {
        "x-claim-0": ("Zürich 😀",),
        "x-claim-1": ("9007199254740992",),
        "x-claim-2": (base64.b64encode(b'["b\\u003e\\u2028"]').decode(),),
        "x-claim-4": ("tab\there",),
    }


def test_members_keep_the_order_of_the_token() -> None:
    """Envoy's own order changes from request to request."""
    header = _ours('{"c0":{"b":1,"a":{"z":[],"y":"ž"}}}')["x-claim-0"]
    assert base64.b64decode(header).decode() == '{"b":1,"a":{"z":[],"y":"ž"}}'
