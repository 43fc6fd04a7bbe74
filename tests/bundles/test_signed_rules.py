"""Signed entries and revocations: what was signed is read again, and whatever is changed in it is noticed."""

import json
from collections.abc import Callable

import pytest

from authz.bundles.bundle_signatures import key_id, sign, write_signatures
from authz.bundles.manifest import BundleRefused
from authz.bundles.signed_rules import looks_signed, read_signed_rules, sign_rules
from authz.bundles.whole_bundle import read_bundle
from tests.bundles.test_whole_bundle import KEY, NOW, OTHER
from tests.bundles.test_whole_bundle import signed as signed_bundle

CONTENT = 'entries:\n- { spiffeID: "spiffe://mesh.test/ü" }\n'.encode()


def signed(content: bytes = CONTENT, number: int = 7, kind: str = "entries", expires: int | None = None) -> bytes:
    return sign_rules(content, KEY, fleet="shop", kind=kind, number=number, created=NOW, expires=expires)


def again(change: Callable[[dict[str, object]], object]) -> bytes:
    told = json.loads(signed())
    change(told)
    return json.dumps(told).encode()


def test_what_was_signed_is_read_again() -> None:
    found = read_signed_rules(signed(expires=NOW + 60))
    assert (found.content, found.fleet, found.kind) == (CONTENT, "shop", "entries")
    assert (found.number, found.created, found.expires) == (7, NOW, NOW + 60)
    assert found.signed_by([KEY.public_key(), OTHER.public_key()]) == (key_id(KEY.public_key()),)
    assert found.signed_by([OTHER.public_key()]) == ()
    assert looks_signed(signed())
    assert not looks_signed(CONTENT)
    assert not looks_signed(b'{"entries": []}')


def test_no_byte_can_be_changed() -> None:
    data, statement = signed(), read_signed_rules(signed()).statement
    for place in range(len(data)):
        try:
            found = read_signed_rules(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        except BundleRefused:
            continue
        if found.signed_by([KEY.public_key()]):  # in the spaces between members
            assert (found.statement, found.content) == (statement, CONTENT)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        pytest.param(b"entries: []", "it is not JSON", id="a file"),
        pytest.param(b'{"format": "authz-rules/1"}', "does not have exactly the members", id="a member is missing"),
        pytest.param(again(lambda told: told.update(more=1)), "does not have exactly the members", id="one more"),
        pytest.param(again(lambda told: told.update(content="entries: []")), "another than was signed", id="a text"),
        pytest.param(again(lambda told: told.update(content="\ud800")), "cannot be written in UTF-8", id="no text"),
        pytest.param(again(lambda told: told.update(format="authz-rules/2")), "another format", id="the format"),
        pytest.param(
            again(lambda told: told.update(signatures="[]")), "list of signatures is damaged", id="signatures"
        ),
    ],
)
def test_what_is_damaged_is_refused(data: bytes, said: str) -> None:
    with pytest.raises(BundleRefused, match=said):
        read_signed_rules(data)


def test_a_signature_of_a_bundle_does_not_pass_for_one_of_rules() -> None:
    manifest = read_bundle(signed_bundle()).manifest_bytes
    signatures = write_signatures((sign(manifest, KEY),)).decode()
    with pytest.raises(BundleRefused, match="its statement does not have exactly"):
        read_signed_rules(again(lambda told: told.update(statement=manifest.decode(), signatures=signatures)))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"content": b"\xff"}, "no text in UTF-8"),
        ({"number": 0}, "`number` is none"),
        ({"number": 2**53}, "`number` is none"),
    ],
)
def test_what_could_not_be_read_is_not_signed(wrong: dict[str, bytes | int], said: str) -> None:
    with pytest.raises(BundleRefused, match=said):
        signed(**wrong)  # type: ignore[arg-type]  # one table of arguments
