"""
Tamper evidence: each line names the digest of the line before it, and signed checkpoints seal the chain.

A chain belongs to one process and one file sink, and runs on through rotated files; its lines carry
``"chain":{"id":…,"seq":…,"prev":…}``, where ``prev`` is the SHA-256 of the previous line as it stands in the file.
Changing, removing, adding or reordering sealed lines breaks it. What is not sealed: the lines after the last checkpoint
of a process that was killed, and whole chains that are removed together with everything that names them.
This room imports cryptography because a seal must be signed where it is written.
"""

import base64
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from authz.audit.request_fields import rfc3339

_START = "0" * 64


def read_signing_key(pem: bytes) -> Ed25519PrivateKey:
    """Read a PKCS#8 PEM, as ``openssl genpkey -algorithm ed25519`` writes it. Raises ValueError."""
    key = serialization.load_pem_private_key(pem, None)
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError("the audit signing key is not an Ed25519 key")
    return key


def read_public_key(pem: bytes) -> Ed25519PublicKey:
    """Read a public key in PEM, or the public half of a private one. Raises ValueError."""
    if b"PRIVATE KEY" in pem:
        return read_signing_key(pem).public_key()
    key = serialization.load_pem_public_key(pem)
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError("the audit public key is not an Ed25519 key")
    return key


class Chain:
    """The chain a file sink writes. ``every`` lines, and when the sink closes, it is sealed with a checkpoint."""

    def __init__(self, key: Ed25519PrivateKey | None, chain_id: str, *, every: int = 1000) -> None:
        """``chain_id`` must be unique among processes, for example random; without ``key`` nothing is signed."""
        self._key = key
        self._id = chain_id
        self._every = every
        self._head = _START
        self._sequence = 0
        self._unsealed = 0

    def link(self, line: bytes) -> bytes:
        """Return the JSON line with its place in the chain."""
        link = f',"chain":{{"id":"{self._id}","seq":{self._sequence},"prev":"{self._head}"}}}}'
        linked = line[:-1] + link.encode()
        self._head = hashlib.sha256(linked).hexdigest()
        self._sequence += 1
        self._unsealed += 1
        return linked

    def mark(self) -> tuple[str, int, int]:
        """Remember the state, for ``reset`` when what was linked could not be written."""
        return self._head, self._sequence, self._unsealed

    def reset(self, mark: tuple[str, int, int]) -> None:
        """Go back to a remembered state."""
        self._head, self._sequence, self._unsealed = mark

    def wants_seal(self) -> bool:
        """Say whether a checkpoint is due."""
        return self._key is not None and self._unsealed >= self._every

    def seal(self, at: float, *, is_final: bool = False) -> bytes | None:
        """Return a checkpoint line, itself part of the chain; None without a key or without anything to seal."""
        if self._key is None or (not self._unsealed and not is_final) or not self._sequence:
            return None
        signature = self._key.sign(_sealed(self._id, self._sequence, self._head, is_final))
        checkpoint = {
            "checkpoint": {
                "time": rfc3339(at),
                "lines": self._sequence,
                "head": self._head,
                "final": is_final,
                "signature": base64.b64encode(signature).decode(),
            }
        }
        line = self.link(json.dumps(checkpoint, separators=(",", ":")).encode())
        self._unsealed = 0
        return line


def _sealed(chain_id: str, lines: int, head: str, is_final: bool) -> bytes:
    """The bytes that are signed: the head stands for every line before it."""
    return f"authz-audit-checkpoint\n{chain_id}\n{lines}\n{head}\n{int(is_final)}\n".encode()


@dataclass(slots=True)
class ChainReport:
    """The findings of verification in one chain."""

    chain_id: str
    first: str = ""
    """Where it begins, ``file:line``."""
    lines: int = 0
    checkpoints: int = 0
    unsealed: int = 0
    """Lines after the last valid checkpoint: complete, as far as the digests go, but not signed."""
    is_final: bool = False
    """It ends with the checkpoint of an orderly end."""
    problems: list[str] = field(default_factory=list)
    head: str = _START
    next_sequence: int = 0


@dataclass(slots=True)
class VerifyReport:
    """The findings of verification in all files."""

    chains: dict[str, ChainReport] = field(default_factory=dict)
    unchained: int = 0
    """Lines that belong to no chain."""
    problems: list[str] = field(default_factory=list)
    """Lines that belong to no chain."""

    @property
    def is_intact(self) -> bool:
        """True when nothing was changed, removed, added or reordered in what is chained."""
        return bool(self.chains) and not self.problems and not any(c.problems for c in self.chains.values())


def verify_chain(lines: Iterable[tuple[str, int, bytes]], key: Ed25519PublicKey | None) -> VerifyReport:
    """
    Verify lines given as (file, line number, bytes without newline), oldest first.

    Without ``key`` only digests are compared: that finds accidents, not an attacker who can compute digests.
    """
    report = VerifyReport()
    for file, number, line in lines:
        place = f"{file}:{number}"
        try:
            record = json.loads(line)
            link = record["chain"]
            chain_id, sequence, previous = str(link["id"]), int(link["seq"]), str(link["prev"])
        except (ValueError, KeyError, TypeError):
            report.unchained += 1
            if report.chains:
                report.problems.append(f"{place}: a line without a chain stands among chained ones")
            continue
        chain = report.chains.setdefault(chain_id, ChainReport(chain_id, place))
        _follow(chain, place, sequence, previous)
        chain.head = hashlib.sha256(line).hexdigest()
        chain.next_sequence = sequence + 1
        chain.lines += 1
        chain.unsealed += 1
        chain.is_final = False
        if isinstance(record.get("checkpoint"), dict):
            _check(chain, place, record["checkpoint"], sequence, previous, key)
    return report


def _follow(chain: ChainReport, place: str, sequence: int, previous: str) -> None:
    if sequence > chain.next_sequence:
        missing = sequence - chain.next_sequence
        chain.problems.append(f"{place}: {missing} line{'s are' if missing > 1 else ' is'} missing before this one")
    elif sequence < chain.next_sequence:
        chain.problems.append(f"{place}: a line was repeated or moved here")
    elif previous != chain.head:
        chain.problems.append(f"{place}: the line before this one was changed")


def _check(
    chain: ChainReport,
    place: str,
    checkpoint: dict[str, object],
    sequence: int,
    previous: str,
    key: Ed25519PublicKey | None,
) -> None:
    is_final = checkpoint.get("final") is True
    if checkpoint.get("lines") != sequence or checkpoint.get("head") != previous:
        chain.problems.append(f"{place}: the checkpoint does not belong here")
        return
    if key is not None:
        try:
            signature = base64.b64decode(str(checkpoint.get("signature")), validate=True)
            key.verify(signature, _sealed(chain.chain_id, sequence, previous, is_final))
        except (ValueError, InvalidSignature):
            chain.problems.append(f"{place}: the signature of the checkpoint does not verify")
            return
    chain.checkpoints += 1
    chain.unsealed = 0
    chain.is_final = is_final
