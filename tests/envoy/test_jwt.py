"""Key sets and tokens through Envoy's own filter and through ours: the same answer, but for what the docs name."""

import base64
import datetime
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from authz.core.attributes import AuthenticationOutcome
from authz.core.resources import JwtHeader, JwtRule
from authz.tokens.authenticate import authenticate
from authz.tokens.base64url import read_base64url, write_base64url
from authz.tokens.jwks import read_key_set
from authz.tokens.key_sets import KeySetState
from authz.tokens.signing import sign_text, signing_key
from tests.envoy.jwt_rig import Native, running
from tests.tokens.material import ISSUER, KEYS, request, rule

pytestmark = [pytest.mark.envoy, pytest.mark.slow]

pytest.importorskip("envoy")

ALGS = {"rsa": "RS256", "ec": "ES256", "ec384": "ES384", "ec521": "ES512", "ed": "EdDSA", "oct": "HS256"}
VALUES: dict[str, Any] = {
    "missing": ...,
    "null": None,
    "number": 5,
    "list": [],
    "texts": ["x"],
    "object": {},
    "empty": "",
    "true": True,
    "other": "x",
}
PLAIN = rule()
NOW = time.time()
MISMATCH = "an `alg` that does not fit the key"
"""Names of what `docs/how-it-decides.md` says differs."""
WEAK = "an RSA key below 1024 bits"


def jwk(name: str, **changes: Any) -> dict[str, Any]:
    members = {**KEYS[name].jwk, **changes}
    return {member: value for member, value in members.items() if value is not ...}


def jwks(*entries: Any) -> str:
    return json.dumps({"keys": list(entries)})


def token(key: str = "rsa", header: dict[str, Any] | None = None, **claims: Any) -> str:
    """A good token; ``...`` takes a member away."""
    head = {"alg": ALGS.get(key, "RS256"), "kid": KEYS[key].kid} | (header or {})
    body = {"iss": ISSUER, "sub": "alice", "exp": int(NOW) + 3600} | claims
    texts = [json.dumps({n: v for n, v in members.items() if v is not ...}).encode() for members in (head, body)]
    alg = head["alg"] if isinstance(head["alg"], str) else ""
    return sign_text(texts[0], texts[1], KEYS[key], alg if alg[:2] in ("RS", "PS", "ES", "HS") else ALGS[key])


@dataclass(frozen=True)
class Shape:
    """One key set and the tokens that go with it."""

    jwks: str
    tokens: tuple[str, ...]
    named: str = ""
    """The difference that the docs name; empty: there is none."""


def _of_members() -> Iterator[tuple[str, Shape]]:
    """Every member of every kind of key, with every kind of value, alone and before a good key."""
    members = {
        "rsa": ("kty", "kid", "alg", "n", "e", "use", "key_ops", "x5c", "x5t"),
        "ec": ("kty", "kid", "alg", "crv", "x", "y", "use"),
        "ed": ("kty", "kid", "alg", "crv", "x"),
        "oct": ("kty", "kid", "alg", "k"),
    }
    for key, names in members.items():
        for member in names:
            for kind, value in VALUES.items():
                text = jwks(jwk(key, **{member: value}))
                yield f"{key}-{member}-{kind}", Shape(text, (token(key), token(key, {"kid": ...})))
    for kind, value in VALUES.items():
        yield f"entry-{kind}", Shape(jwks(*([] if value is ... else [value]), jwk("rsa")), (token(),))
        yield f"keys-{kind}", Shape(json.dumps({} if value is ... else {"keys": value}), (token(),))


def _number(key: str, member: str) -> bytes:
    return read_base64url(KEYS[key].jwk[member])


def _zero_key() -> tuple[dict[str, Any], str]:
    """An EC key whose ``x`` begins with a zero byte, which its issuer leaves out, and a token of it."""
    while True:
        private = ec.generate_private_key(ec.SECP256R1())
        if private.public_key().public_numbers().x >> 248 == 0:
            break
    signer = signing_key(private)
    short = write_base64url(_number_of(private.public_key().public_numbers().x))
    text = sign_text(b'{"alg":"ES256"}', json.dumps({"iss": ISSUER}).encode(), signer, "ES256")
    return {**signer.jwk, "x": short}, text


def _number_of(value: int) -> bytes:
    return value.to_bytes((value.bit_length() + 7) // 8, "big")


def _spelt() -> Iterator[tuple[str, Shape]]:
    """What is the same number or text in another spelling."""
    for name, key, member in (
        ("n", "rsa", "n"),
        ("e", "rsa", "e"),
        ("x", "ec", "x"),
        ("k", "oct", "k"),
        ("okp", "ed", "x"),
    ):
        data, text = _number(key, member), KEYS[key].jwk[member]
        for how, value in {
            "zeros": write_base64url(b"\0\0" + data),
            "padded": text + "=" * (-len(text) % 4),
            "overpadded": text + "===",
            "spaced": f" {text[:3]}\n{text[3:]} ",
            "standard": base64.b64encode(data).decode(),
            "cut": text[:-2],
            "bits": text[:-1] + chr(ord(text[-1]) + 1),
            "not base64": text + "!",
            "not ascii": text + "é",
        }.items():
            yield f"{name}-{how}", Shape(jwks(jwk(key, **{member: value})), (token(key),))
    short, of_short = _zero_key()
    yield "ec-short-x", Shape(jwks(short), (of_short,))
    for exponent in (1, 2, 3, 5, 17, 257, 65535, 65539, 2**64 + 1):
        yield f"e-{exponent}", Shape(jwks(jwk("rsa", e=write_base64url(_number_of(exponent)))), (token(),))
    modulus = int.from_bytes(_number("rsa", "n"), "big")
    for how, number in {"even": modulus * 2, "more": modulus << 16 | 1, "huge": modulus**9, "one": 1}.items():
        yield f"n-{how}", Shape(jwks(jwk("rsa", n=write_base64url(_number_of(number)))), (token(),))
    weak = signing_key(rsa.generate_private_key(65537, 1024))
    for bits, named in ((1024, ""), (1016, WEAK)):
        of_weak = weak if bits == 1024 else None
        cut = jwk("rsa", n=write_base64url(_number_of((int.from_bytes(read_base64url(weak.jwk["n"]), "big") >> 8) | 1)))
        entry = dict(of_weak.jwk) if of_weak else cut
        text = sign_text(b'{"alg":"RS256"}', json.dumps({"iss": ISSUER}).encode(), weak, "RS256")
        yield f"rsa-{bits}", Shape(jwks(entry), (text,), named)


def _algorithms() -> Iterator[tuple[str, Shape]]:
    """What a key says of its algorithm, and what a token says."""
    algs = ("RS256", "RS512", "PS256", "RSA-OAEP", "RS", "ES256", "ES384", "ES512", "ES256K", "ES", "EdDSA", "EdDSA2")
    for alg in (*algs, "HS256", "HS512", "HS1", "HS", "none", "rs256", "R"):
        for key in ("rsa", "ec", "ec384", "ed", "oct"):
            yield f"alg-{key}-{alg}", Shape(jwks(jwk(key, alg=alg)), (token(key),))
        for key in ("ec", "ec384", "ec521"):
            yield f"alg-{key}-{alg}-no-crv", Shape(jwks(jwk(key, alg=alg, crv=...)), (token(key),))
    for key, curve in (
        ("ec384", "P-256"),
        ("ec", "P-384"),
        ("ec", "P-521"),
        ("ec", "secp256k1"),
        ("ed", "Ed448"),
        ("ed", "X25519"),
    ):
        yield f"crv-{key}-{curve}", Shape(jwks(jwk(key, crv=curve)), (token(key),))
    for key in ("rsa", "ec", "ec384", "oct"):
        for alg in (
            "RS256",
            "RS384",
            "RS512",
            "PS256",
            "PS384",
            "PS512",
            "ES256",
            "ES384",
            "ES512",
            "HS256",
            "HS384",
            "HS512",
            "EdDSA",
        ):
            fits = ALGS[key][:1] == alg[:1] or (key == "rsa" and alg[:1] == "P")
            if key.startswith("ec"):
                fits = ALGS[key] == alg
            yield f"token-{key}-{alg}", Shape(jwks(jwk(key)), (token(key, {"alg": alg}),), "" if fits else MISMATCH)


def _certificate(private: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> str:
    name = x509.Name([])
    begin = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=30)
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(private.public_key())
    made = made.serial_number(7).not_valid_before(begin).not_valid_after(begin + datetime.timedelta(days=1))
    return made.sign(private, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def _documents() -> Iterator[tuple[str, Shape]]:
    """Whole documents: certificates, JSON that is none, several keys."""
    private, elliptic = KEYS["rsa"].private, KEYS["ec"].private
    assert isinstance(private, rsa.RSAPrivateKey)
    assert isinstance(elliptic, ec.EllipticCurvePrivateKey)
    pem, of_ec = _certificate(private), _certificate(elliptic)
    public = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    der = "".join(pem.split("\n")[1:-2])
    good = json.dumps(jwk("rsa"))
    documents = {
        "firebase": json.dumps({"rsa": pem}),
        "firebase-two": json.dumps({"a": pem, "rsa": pem}),
        "firebase-other-kid": json.dumps({"other": pem}),
        "firebase-ec": json.dumps({"rsa": pem, "ec": of_ec}),
        "firebase-number": json.dumps({"rsa": pem, "n": 5}),
        "firebase-no-kid": json.dumps({"": pem}),
        "firebase-no-newline": json.dumps({"rsa": pem.strip()}),
        "firebase-crlf": json.dumps({"rsa": pem.replace("\n", "\r\n")}),
        "firebase-broken": json.dumps({"rsa": pem.replace("M", "", 3)}),
        "firebase-public": json.dumps({"rsa": public.decode()}),
        "firebase-two-in-one": json.dumps({"rsa": pem + pem}),
        "firebase-text-before": json.dumps({"rsa": "x" + pem}),
        "pem": pem,
        "public-pem": public.decode(),
        "x5c-only": jwks({"kty": "RSA", "kid": "rsa", "x5c": [der]}),
        "single": good,
        "list": f"[{good}]",
        "blank": " \n",
        "null": "null",
        "text": '"x"',
        "object": "{}",
        "no-keys": jwks(),
        "keys-twice": f'{{"keys":[{good}],"keys":[{good}]}}',
        "trailing": jwks(jwk("rsa")) + " x",
        "comma": f'{{"keys":[{good},],}}',
        "bare": f"{{keys:[{good}]}}",
        "single-quotes": f"{{'keys':[{good}]}}",
        "space": f" \n{jwks(jwk('rsa'))}\n\t",
        "bom": "\ufeff" + jwks(jwk("rsa")),
        "comment": f'{{"keys":[{good}]/**/}}',
        "member-twice": '{"keys":[{"kty":"RSA",' + good[1:] + "]}",
        "more-members": json.dumps({"keys": [jwk("rsa")], "x": {"y": None}}),
        "huge-number": jwks(jwk("rsa", x=10**300)),
        "infinite": '{"keys":[' + good + '],"x":1e400}',
        "deep": '{"keys":[' + good + '],"x":' + "[" * 100 + "]" * 100 + "}",
        "newline-in-text": f'{{"keys":[{good}],"x":"\n"}}',
        "surrogate": f'{{"keys":[{good}],"x":"\\ud800"}}',
        "private": jwks(jwk("rsa", d="AQAB", p="AQAB", q=5)),
        "kid-twice": jwks(jwk("rogue"), jwk("rsa")),
        "kid-twice-ec": jwks(jwk("ec", kid="rsa"), jwk("rsa")),
        "unknown-first": jwks({"kty": "XYZ", "kid": "rsa"}, jwk("rsa")),
        "ed-first": jwks(jwk("ed", kid=...), jwk("rsa")),
        "ed-last": jwks(jwk("rsa"), jwk("ed", kid=...)),
        "nested": json.dumps({"jwks": {"keys": [jwk("rsa")]}}),
        "enc": jwks(jwk("rsa", use="enc", key_ops=["encrypt"])),
        "kid-of-other": jwks(jwk("rsa", kid="other")),
        "kid-case": jwks(jwk("rsa", kid="RSA")),
        "crv-of-rsa": jwks(jwk("rsa", crv="P-256", x="AAAA")),
    }
    for name, text in documents.items():
        yield (
            f"document-{name}",
            Shape(text, (token(), token(header={"kid": ...}), token(header={"kid": ""}), token("rogue"))),
        )


KEY_SETS = dict([*_of_members(), *_spelt(), *_algorithms(), *_documents()])


@dataclass
class Both:
    """Envoy and ourselves, asked the same."""

    native: Native
    shapes: Mapping[str, Sequence[tuple[JwtRule, str]]]

    def ask(self, name: str, path: str = "/", **headers: str | list[str]) -> tuple[tuple[int, str], tuple[int, str]]:
        """Status and body of Envoy, then ours; 200 and nothing for a request that passes."""
        lists = {key: [value] if isinstance(value, str) else value for key, value in headers.items()}
        sent = [(key.replace("_", "-"), value.encode()) for key, values in lists.items() for value in values]
        theirs = (401, "refused") if name in self.native.refused else self.native.ask(name, path, sent)
        return theirs, self.ours(name, path, **headers)

    def ours(self, name: str, path: str = "/", **headers: str | list[str]) -> tuple[int, str]:
        states, rules = {}, []
        for index, (one, text) in enumerate(self.shapes[name]):
            rules.append(replace(one, jwks_uri=f"https://idp.example/{index}"))
            try:
                states[rules[-1].keys_from] = KeySetState(read_key_set(text), NOW)
            except ValueError as error:
                states[rules[-1].keys_from] = KeySetState(None, None, str(error))
        attributes = request({key.replace("_", "-"): value for key, value in headers.items()}, path)
        answer = authenticate(attributes, tuple(rules), states, time.time())
        if name in self.native.refused and answer.outcome is AuthenticationOutcome.REJECTED:
            return 401, "refused"
        return (answer.status, answer.body) if answer.outcome is AuthenticationOutcome.REJECTED else (200, "")


def test_key_sets_are_read_as_envoy_reads_them(tmp_path: Path) -> None:
    """RA-34 to RA-37, RA-39. What Envoy refuses to load has no usable key here, and its tokens are refused."""
    assert len(KEY_SETS) > 120
    shapes = {name.replace(" ", "_"): ((PLAIN, shape.jwks),) for name, shape in KEY_SETS.items()}
    different, named = [], set()
    with running(tmp_path / "envoy", shapes) as native:
        both = Both(native, shapes)
        for name, shape in KEY_SETS.items():
            for text in shape.tokens:
                theirs, ours = both.ask(name.replace(" ", "_"), authorization=f"Bearer {text}")
                if theirs != ours and shape.named and ours[0] == 401:
                    named.add(shape.named)
                elif theirs != ours:
                    different.append((name, theirs, ours))
    assert not different, different
    assert named == {MISMATCH, WEAK}


def _raw(header: str | bytes, payload: str | bytes, key: str = "rsa", alg: str = "RS256") -> str:
    head, body = (part.encode() if isinstance(part, str) else part for part in (header, payload))
    return sign_text(head, body, KEYS[key], alg)


def _tokens() -> Iterator[tuple[str, str]]:
    """Tokens for a rule with audiences and a set with a key of every kind."""
    good: dict[str, Any] = {"aud": "api"}
    for member in ("alg", "kid", "typ", "cty", "crit", "b64", "jku", "x5c", "zip", "enc"):
        for kind, value in VALUES.items():
            yield f"header {member} {kind}", token(header={member: value}, **good)
    yield "header b64 false", token(header={"b64": False, "crit": ["b64"]}, **good)
    for member in ("iss", "sub", "aud", "exp", "nbf", "iat", "jti", "scope"):
        for kind, value in VALUES.items():
            yield f"claim {member} {kind}", token(**good | {member: value})
    now = int(NOW)
    for member in ("exp", "nbf", "iat"):
        for number in (
            0,
            -1,
            -0.0,
            0.5,
            -0.5,
            1,
            now - 3600,
            now - 55,
            now + 55,
            now + 3600,
            now + 3600.7,
            1e18,
            2**63,
            2**64 - 1025,
            2**64 - 1024,
            2**64,
            1e300,
            str(now + 3600),
            True,
            [now],
        ):
            yield f"claim {member} {number}", token(**good | {member: number})
    for audience in (
        "api",
        "API",
        "api/",
        "http://api",
        "https://api/",
        "api//",
        "http://https://api",
        "other",
        ["other", "api"],
        ["api", 5],
        [["api"]],
        ["api", None],
        [" api"],
        {"api": 1},
        "https://",
        "/",
    ):
        yield f"audience {audience}", token(aud=audience)
    for issuer in (ISSUER + "/", ISSUER.upper(), " " + ISSUER, "", "http" + ISSUER[5:]):
        yield f"issuer {issuer}", token(iss=issuer, **good)
    for alg in (
        "RS256",
        "RS384",
        "RS512",
        "PS256",
        "PS384",
        "PS512",
        "none",
        "None",
        "RS1",
        "ES256K",
        "rs256",
        "HS256 ",
        "Ed25519",
    ):
        yield f"alg {alg}", token(header={"alg": alg}, **good)
    for key in ("ec", "ec384", "ec521", "ed", "oct", "rogue", "rsa-nokid"):
        yield f"key {key}", token(key, **good)
        yield f"key {key} without kid", token(key, {"kid": ...}, **good)
        yield f"key {key} of other kid", token(key, {"kid": "rsa"}, **good)
    yield from _json_texts()
    yield from _pieces(token(**good))
    yield from _signatures()


def _json_texts() -> Iterator[tuple[str, str]]:
    head, body = '{"alg":"RS256"}', f'"iss":"{ISSUER}","aud":"api"'
    members = (
        "'a':'x'",
        "a:1",
        '"a":1,',
        '"a":[1,]',
        '"a":[1,,2]',
        '"a":01',
        '"a":1.',
        '"a":.5',
        '"a":+1',
        '"a":1e5',
        '"a":1e400',
        '"a":1e-400',
        '"a":NaN',
        '"a":Infinity',
        '"a":"\n"',
        '"a":"\x01"',
        '"a":"\\x41"',
        '"a":"\\\'"',
        '"a":"\\ud800"',
        '"a":"\\ud83d\\ude00"',
        '"a":"\\ud83d \\ude00"',
        '"a":1,"a":1',
        '"a":{"b":1,"b":2}',
        '"a":tru',
        '"a":True',
        "null:1",
        '"":1',
        '"a":/**/1',
        '"a":' + "[" * 99 + "]" * 99,
        '"a":' + "[" * 100 + "]" * 100,
        '"a":' + "9" * 400,
        '"a":00',
        '"a":-',
        '"a":0x1',
        "a.b:1",
        "$a:1",
        "_a1:1",
        '"iss":"x"',
        '"a":"\x7f"',
        '"a":undefined',
    )
    for text in members:
        yield f"payload {text[:30]}", _raw(head, "{" + body + "," + text + "}")
        yield f"header {text[:30]}", _raw(head[:-1] + "," + text + "}", "{" + body + "}")
    whole = (
        "null",
        "[]",
        "1",
        '"x"',
        "x",
        "{",
        "{}",
        "\ufeff{}",
        "{} x",
        " {} ",
        "{}\x00",
        b'{"a":"\xff"}',
        b'{"a":"\xed\xa0\x80"}',
    )
    for document in whole:
        yield f"payload whole {document!r}", _raw(head, document)
        yield f"header whole {document!r}", _raw(document, "{" + body + "}")


def _pieces(text: str) -> Iterator[tuple[str, str]]:
    """White space, padding, dots and foreign characters anywhere."""
    head, body, signature = text.split(".")
    for how in ("=", "==", "===", " ", "  ", "\t", "+", "/", "-", "_", "A", "é", "%", ",", " x", "\x0b"):
        yield f"header end {how!r}", f"{head}{how}.{body}.{signature}"
        yield f"header begin {how!r}", f"{how}{head}.{body}.{signature}"
        yield f"payload end {how!r}", f"{head}.{body}{how}.{signature}"
        yield f"signature end {how!r}", f"{head}.{body}.{signature}{how}"
        yield f"signature inside {how!r}", f"{head}.{body}.{signature[:7]}{how}{signature[7:]}"
        yield f"signed {how!r}", _resigned(f"{head}{how}", f"{body}{how}")
    for joined in (
        f".{text}",
        f"{text}.",
        f"{head}..{body}.{signature}",
        f"{head}.{body}.",
        f"{head}.{body}",
        head,
        ".",
        "",
        f"{text}.x",
    ):
        yield f"dots {joined[:5]} {len(joined)}", joined
    for last in "ABCDwxyz019":
        yield f"last of signature {last}", text[:-1] + last


def _resigned(head: str, body: str) -> str:
    """A signature over exactly this text."""
    data = f"{head}.{body}".encode()
    private = KEYS["rsa"].private
    assert isinstance(private, rsa.RSAPrivateKey)
    return f"{head}.{body}.{write_base64url(private.sign(data, padding.PKCS1v15(), hashes.SHA256()))}"


def _signatures() -> Iterator[tuple[str, str]]:
    """Signatures of unusual length or salt."""
    body = json.dumps({"iss": ISSUER, "aud": "api"})
    for key, size in (("ec", 32), ("ec384", 48), ("ec521", 66)):
        alg = ALGS[key]
        text, _, signature = _raw(json.dumps({"alg": alg, "kid": KEYS[key].kid}), body, key, alg).rpartition(".")
        raw = read_base64url(signature)
        r, s = (int.from_bytes(half, "big") for half in (raw[:size], raw[size:]))
        private = KEYS[key].private
        assert isinstance(private, ec.EllipticCurvePrivateKey)
        order = (1 << (8 * size)) - 1
        for how, data in {
            "longer": r.to_bytes(size + 3, "big") + s.to_bytes(size + 3, "big"),
            "odd": raw + b"x",
            "two more": raw + b"xx",
            "shorter": raw[:-1],
            "empty half": raw[:size],
            "der": private.sign(text.encode(), ec.ECDSA(hashes.SHA256())),
            "swapped": raw[size:] + raw[:size],
            "zero": bytes(2 * size),
            "beyond": order.to_bytes(size, "big") * 2,
            "one": b"x",
        }.items():
            yield f"{alg} {how}", f"{text}.{write_base64url(data)}"
        assert decode_dss_signature(private.sign(b"", ec.ECDSA(hashes.SHA256())))
    private = KEYS["rsa"].private
    assert isinstance(private, rsa.RSAPrivateKey)
    for salt in (0, 20, 32, 64, 222):
        text = (
            f"{write_base64url(json.dumps({'alg': 'PS256', 'kid': 'rsa'}).encode())}.{write_base64url(body.encode())}"
        )
        scheme = padding.PSS(padding.MGF1(hashes.SHA256()), salt)
        yield f"PS256 salt {salt}", f"{text}.{write_base64url(private.sign(text.encode(), scheme, hashes.SHA256()))}"
    for length in (0, 1, 63, 64, 65, 256, 257):
        for key in ("rsa", "ed", "oct"):
            text = _raw(json.dumps({"alg": ALGS[key], "kid": KEYS[key].kid}), body, key, ALGS[key]).rpartition(".")[0]
            yield f"{key} {length} bytes", f"{text}.{write_base64url(bytes(length))}"


ALL_KEYS = jwks(*(jwk(key) for key in ("rsa", "rsa-nokid", "ec", "ec384", "ec521", "oct", "ed")))


def test_tokens_are_judged_as_envoy_judges_them(tmp_path: Path) -> None:
    """RA-21 to RA-36, RA-40: every token in a header of its own and as a parameter."""
    whole = rule(from_params=("t",), audiences=("api", "https://other.example/"), forward_original_token=True)
    shapes = {"all": ((whole, ALL_KEYS),)}
    different = []
    with running(tmp_path / "envoy", shapes) as native:
        both = Both(native, shapes)
        tokens = list(_tokens())
        assert len(tokens) > 120
        for name, text in tokens:
            theirs, ours = both.ask("all", f"/?t={quote(text, safe='')}")
            if theirs != ours:
                different.append((name, theirs, ours))
    assert not different, different


RULES: dict[str, tuple[tuple[JwtRule, str], ...]] = {
    "the default places, then a header and a parameter": (
        (PLAIN, jwks(jwk("rsa"))),
        (rule(from_headers=(JwtHeader("x-a"),), from_params=("access_token",)), jwks(jwk("rsa"), jwk("rogue"))),
    ),
    "a header and a parameter, then the parameter": (
        (rule(from_headers=(JwtHeader("x-a"),), from_params=("access_token",)), jwks(jwk("rsa"))),
        (rule(from_params=("access_token",)), jwks(jwk("rsa"))),
    ),
    "as before, the original forwarded": (
        (
            rule(from_headers=(JwtHeader("x-a"),), from_params=("access_token",), forward_original_token=True),
            jwks(jwk("rsa")),
        ),
        (rule(from_params=("access_token",)), jwks(jwk("rsa"))),
    ),
    "three issuers": (
        (rule(from_headers=(JwtHeader("x-a"), JwtHeader("x-b"))), jwks(jwk("rsa"))),
        (rule(issuer="other", from_headers=(JwtHeader("x-b"), JwtHeader("x-c"))), jwks(jwk("ec"))),
        (rule(issuer="third", from_params=("access_token",)), jwks(jwk("ed"))),
    ),
    "one rule, two places": (
        (rule(from_headers=(JwtHeader("x-a"),), from_params=("access_token",)), jwks(jwk("rsa"))),
    ),
}
CONSUMED = "Envoy accepts, because the good token of a rule was consumed before its bad one was looked at again"


def test_several_rules_and_tokens_give_envoys_answer(tmp_path: Path) -> None:
    """RA-4 to RA-8, RA-11 to RA-13: what is tried, in which order, and whose refusal is told."""
    shapes = {name.replace(" ", "_").replace(",", ""): rules for name, rules in RULES.items()}
    good, forged, other = token(), token("rogue"), token("ec", iss="other")
    values = ("", good, forged, "w", other, token("ed", iss="third"), token(exp=1), token(iss="nobody"))
    several: tuple[str | list[str], ...] = (*values, ["w", good], [good, "w"], [good, good])
    different, seen = [], set()
    with running(tmp_path / "envoy", shapes) as native:
        both = Both(native, shapes)
        for name in shapes:
            for x_a in several:
                for x_b in values if "three" in name else ("",):
                    for parameter in values:
                        headers = {key: sent for key, sent in (("x_a", x_a), ("x_b", x_b)) if sent}
                        path = f"/?access_token={parameter}" if parameter else "/"
                        theirs, ours = both.ask(name, path, **headers)
                        if theirs == (200, "") and ours[0] == 401 and len(shapes[name]) > 1 and isinstance(x_a, list):
                            seen.add(CONSUMED)
                        elif theirs != ours:
                            indices = [several.index(value) for value in (x_a, x_b, parameter)]
                            different.append((name, indices, theirs, ours))
    assert not different, different
    assert seen == {CONSUMED}
