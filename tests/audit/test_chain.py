import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from authz.audit.chain import Chain, VerifyReport, read_public_key, read_signing_key, verify_chain
from authz.audit.file_sink import FileSink, Rotation
from authz.audit.query import audit_files, read_lines
from authz.audit.trail import AuditTrail
from authz.core.decided import Offer

MakeOffer = Callable[..., Offer]
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(32))

HERE = "audit.jsonl:5: the checkpoint does not belong here"
STRANGER = "a line without a chain stands among chained ones"


def chained(count: int, *, every: int = 4, is_final: bool = True) -> list[bytes]:
    chain = Chain(KEY, "c1", every=every)
    lines = []
    for number in range(count):
        lines.append(chain.link(b'{"decision_id":"%d"}' % number))
        if chain.wants_seal():
            lines.append(chain.seal(0.0) or b"")
    if is_final:
        lines.append(chain.seal(1.0, is_final=True) or b"")
    return lines


def verified(lines: list[bytes], key: Ed25519PrivateKey | None = KEY) -> VerifyReport:
    numbered = [("audit.jsonl", number, line) for number, line in enumerate(lines, 1)]
    return verify_chain(numbered, key.public_key() if key else None)


def test_an_untouched_chain_is_intact_and_sealed() -> None:
    report = verified(chained(10))
    chain = report.chains["c1"]
    assert (report.is_intact, chain.lines, chain.checkpoints, chain.unsealed, chain.is_final) == (True, 13, 3, 0, True)


def test_what_a_killed_process_wrote_last_is_complete_but_not_sealed() -> None:
    report = verified(chained(10, is_final=False))
    assert (report.is_intact, report.chains["c1"].unsealed, report.chains["c1"].is_final) == (True, 2, False)


def changed(lines: list[bytes]) -> list[bytes]:
    return [lines[0], lines[1].replace(b'"1"', b'"9"'), *lines[2:]]


def forged(lines: list[bytes]) -> list[bytes]:
    """Everything computed anew by someone without the key."""
    chain = Chain(OTHER, "c1", every=4)
    rewritten = [chain.link(b'{"decision_id":"9"}') for _ in range(4)]
    return [*rewritten, chain.seal(0.0) or b""]


@pytest.mark.parametrize(
    ("tamper", "problem"),
    [
        (changed, "audit.jsonl:3: the line before this one was changed"),
        (lambda x: [*x[:2], *x[3:]], "audit.jsonl:3: 1 line is missing before this one"),
        (lambda x: x[3:], "audit.jsonl:1: 3 lines are missing before this one"),
        (lambda x: [x[1], x[0], *x[2:]], "audit.jsonl:1: 1 line is missing before this one"),
        (lambda x: [*x[:2], x[1], *x[2:]], "audit.jsonl:3: a line was repeated or moved here"),
        (forged, "audit.jsonl:5: the signature of the checkpoint does not verify"),
        (lambda x: [y.replace(b'"lines":4', b'"lines":5') for y in x], HERE),
        (lambda x: [x[0], b'{"decision_id":"new"}', *x[1:]], "audit.jsonl:2: " + STRANGER),
        (lambda x: [*x[:2], x[2][:40], *x[3:]], "audit.jsonl:3: " + STRANGER),
    ],
    ids=["changed", "removed", "beheaded", "swapped", "repeated", "forged", "checkpoint", "inserted", "cut"],
)  # fmt: skip
def test_tampering_is_found_at_its_place(tamper: Callable[[list[bytes]], list[bytes]], problem: str) -> None:
    report = verified(tamper(chained(10)))
    assert not report.is_intact
    assert (report.problems + report.chains["c1"].problems)[0] == problem


def test_without_a_key_only_accidents_are_found() -> None:
    assert not verified(changed(chained(10)), None).is_intact
    assert verified(forged(chained(10)), None).is_intact


def test_no_chain_at_all_is_not_intact() -> None:
    assert not verified([b'{"decision_id":"1"}']).is_intact


def test_chains_of_several_processes_in_rotated_files_verify(tmp_path: Path, make_offer: MakeOffer) -> None:
    path = tmp_path / "audit.jsonl"
    rotation = Rotation(max_bytes=5_000)
    trails = [
        AuditTrail([FileSink(path, rotation=rotation, chain=Chain(KEY, f"c{n}", every=5))], flush_seconds=0.001)
        for n in range(2)
    ]
    for trail in trails:
        trail.start()
    for number in range(60):
        trails[number % 2].record(make_offer(decision_id=str(number)))
        if number % 10 == 9:
            assert all(trail.flush() for trail in trails)
    assert all(trail.close() for trail in trails)
    files = audit_files(path)
    assert len(files) > 2
    lines = [(str(file), number, line) for file in files for number, line in read_lines(file)]
    report = verify_chain(lines, KEY.public_key())
    assert report.is_intact
    assert [(c.is_final, c.unsealed) for c in report.chains.values()] == [(True, 0), (True, 0)]


def test_a_failed_batch_leaves_no_hole_in_the_chain() -> None:
    chain = Chain(KEY, "c1")
    first = chain.link(b'{"decision_id":"1"}')
    mark = chain.mark()
    chain.link(b'{"decision_id":"lost"}')
    chain.reset(mark)
    assert verified([first, chain.link(b'{"decision_id":"2"}')]).is_intact


def test_keys_are_read_as_openssl_writes_them(tmp_path: Path) -> None:
    key_file = tmp_path / "key.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", key_file], check=True, capture_output=True)
    public = subprocess.run(["openssl", "pkey", "-in", key_file, "-pubout"], check=True, capture_output=True).stdout
    assert read_public_key(public) == read_public_key(key_file.read_bytes())


def test_a_key_of_another_kind_is_refused() -> None:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    pem = X25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with pytest.raises(ValueError, match="the audit signing key is not an Ed25519 key"):
        read_signing_key(pem)
