"""Entries and revocations in common: what is taken with keys and without, by a real server of NATS."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from authz.bundles.bundle_signatures import new_key_pair, read_bundle_key
from authz.bundles.signed_rules import sign_rules
from authz.cli import application
from authz.control.authority.authority_files import AuthorityFiles
from authz.control.authority.common_rules import ENTRIES_KEY, REVOCATIONS_KEY, CommonRules
from authz.control.authority.common_state import CommonState
from authz.core.errors import SettingsError
from authz.core.spiffe import TrustDomain
from authz.identity.ca import CertificateAuthority
from authz.identity.secret_files import SECRET_MODE, write_file
from authz.truth.truth_bucket import SECURITY, TruthBucket
from authz.truth.truth_client import TruthClient
from tests.nats_server import NatsServers, emptied, shared_servers

OWN = TrustDomain("mesh.test")
KEY, OTHER = Ed25519PrivateKey.from_private_bytes(bytes(32)), Ed25519PrivateKey.from_private_bytes(bytes([1] * 32))
ENTRIES = "entries:\n- { spiffeID: spiffe://mesh.test/ns/shop/sa/web, parentID: spiffe://mesh.test/node/a }\n"
REVOKED = b"serial:4f7f\n"
NOW = 1_800_000_000


servers = shared_servers()


@pytest.fixture(scope="module")
def connected(servers: NatsServers) -> Iterator[TruthClient]:
    with servers.client() as client:
        yield client


@pytest.fixture
def bucket(connected: TruthClient) -> TruthBucket:
    """Without entries and revocations."""
    return emptied(connected, SECURITY)


def rules(directory: Path, *keys: Ed25519PrivateKey) -> CommonRules:
    return CommonRules(AuthorityFiles(directory, is_common=True), "shop", tuple(key.public_key() for key in keys))


def signed(
    content: bytes = REVOKED,
    number: int = 5,
    *,
    key: Ed25519PrivateKey = KEY,
    fleet: str = "shop",
    kind: str = REVOCATIONS_KEY,
    expires: int | None = None,
) -> bytes:
    return sign_rules(content, key, fleet=fleet, kind=kind, number=number, created=NOW, expires=expires)


def revoked(directory: Path) -> bytes:
    return (directory / "common" / "revocations.txt").read_bytes()


@pytest.mark.parametrize(
    ("offered", "said"),
    [
        pytest.param(b"# none\n", "nobody signed them: `authz ca revocation push FILE --key KEY`", id="unsigned"),
        pytest.param(signed(number=6, key=OTHER), "none of the keys given here signed them", id="another key"),
        pytest.param(signed(number=6, fleet="other"), "they are for the fleet `other`, and this is `shop`", id="fleet"),
        pytest.param(signed(number=6, kind=ENTRIES_KEY), "they are signed as `entries`", id="another kind"),
        pytest.param(signed(b"# none\n", 4), "number 4 is older than 5, which was taken", id="older"),
        pytest.param(signed(b"# none\n", 5), "others were taken with the same number 5", id="same number"),
        pytest.param(signed(b"# none\n", 6, expires=NOW), "they expired at 2027-01-15T08:00:00Z", id="expired"),
        pytest.param(signed(b"nonsense", 6), "write `serial:` and hexadecimal digits", id="signed nonsense"),
        pytest.param(signed(number=6).replace(b"4f7f", b"4f7e"), "its text is another than was signed", id="changed"),
        pytest.param(None, "`revocations` are gone", id="deleted"),
    ],
)
def test_what_nobody_with_a_key_signed_leaves_the_last_good_ones(
    tmp_path: Path, bucket: TruthBucket, offered: bytes | None, said: str
) -> None:
    revision = bucket.put(REVOCATIONS_KEY, signed())
    assert list(rules(tmp_path, KEY).take(bucket, OWN, NOW)) == []
    assert revoked(tmp_path) == REVOKED
    if offered is None:
        bucket.delete(REVOCATIONS_KEY, revision)
    else:
        bucket.put(REVOCATIONS_KEY, offered)
    started_again = rules(tmp_path, KEY)
    for _ in range(2):  # it is said for as long as it is so
        (problem,) = started_again.take(bucket, OWN, NOW)
        assert said in problem
        assert revoked(tmp_path) == REVOKED
    bucket.put(REVOCATIONS_KEY, signed(b"serial:1\n", 7))
    assert list(started_again.take(bucket, OWN, NOW)) == []
    assert revoked(tmp_path) == b"serial:1\n"


def test_those_in_force_that_expire_stay_and_it_is_said(tmp_path: Path, bucket: TruthBucket) -> None:
    bucket.put(REVOCATIONS_KEY, signed(expires=NOW + 10))
    assert list(rules(tmp_path, KEY).take(bucket, OWN, NOW)) == []
    (problem,) = rules(tmp_path, KEY).take(bucket, OWN, NOW + 10)
    assert problem == "`revocations` in force are good until 2027-01-15T08:00:10Z only: push newer ones"
    assert revoked(tmp_path) == REVOKED


def test_whoever_has_keys_does_not_begin_without_a_signed_list(
    tmp_path: Path, servers: NatsServers, bucket: TruthBucket
) -> None:
    CertificateAuthority.create("mesh.test", time.time()).save(tmp_path)
    files = AuthorityFiles(tmp_path, is_common=True)
    for offered in (None, REVOKED, signed(key=OTHER)):
        if offered is not None:
            bucket.put(REVOCATIONS_KEY, offered)
        with pytest.raises(SettingsError, match="entries and revocations are not known yet"):
            CommonState(servers.client(), files, (KEY.public_key(),)).begin()
        assert not files.common[1].exists()


def test_without_keys_everybody_is_believed_which_is_said_once_and_never_after_signed_ones(
    tmp_path: Path, bucket: TruthBucket
) -> None:
    believing = rules(tmp_path)
    assert "taken without a signature" in believing.check()
    for offered, expected in ((REVOKED, REVOKED), (signed(b"serial:1\n", key=OTHER), b"serial:1\n")):
        bucket.put(REVOCATIONS_KEY, offered)
        assert list(believing.take(bucket, OWN, NOW)) == []
        assert revoked(tmp_path) == expected
    bucket.put(REVOCATIONS_KEY, signed())
    assert list(rules(tmp_path, KEY).take(bucket, OWN, NOW)) == []
    with pytest.raises(SettingsError, match="give --entries-public-keys"):
        believing.check()
    record = tmp_path / "common" / "taken.json"
    assert json.loads(record.read_bytes())[REVOCATIONS_KEY]["number"] == 5
    good = record.read_text()
    for damage in ("[", "[]", "", good.replace(": 5", ': "5"'), good.replace(": 5", ": true"), good + good, "[" * 9999):
        record.write_text(damage)
        with pytest.raises(SettingsError, match="is damaged"):
            list(rules(tmp_path, KEY).take(bucket, OWN, NOW))


def test_what_is_pushed_with_a_key_is_taken_and_each_push_is_newer(
    tmp_path: Path, servers: NatsServers, bucket: TruthBucket
) -> None:
    private, public = new_key_pair()
    write_file(tmp_path / "key", private, SECRET_MODE)
    (tmp_path / "pub").write_bytes(public)
    (tmp_path / "entries.yaml").write_text(ENTRIES)
    (tmp_path / "revoked.txt").write_text("")
    own = rules(tmp_path, read_bundle_key(private))

    def authz(*arguments: str) -> tuple[int, str]:
        done = CliRunner().invoke(application, ["ca", *arguments, "--truth", str(servers.address)])
        return done.exit_code, done.output

    signing = ("--key", str(tmp_path / "key"))
    push_entries = ("entry", "push", str(tmp_path / "entries.yaml"), "--trust-domain", "mesh.test")
    push_revocations = ("revocation", "push", str(tmp_path / "revoked.txt"))
    assert authz(*push_entries, *signing, "--expires", "30d")[0] == 0
    assert authz(*push_revocations, *signing)[0] == 0
    assert list(own.take(bucket, OWN, time.time())) == []
    assert (tmp_path / "common" / "entries.yaml").read_text() == ENTRIES
    (tmp_path / "revoked.txt").write_bytes(REVOKED)
    assert authz(*push_revocations, *signing)[0] == 0  # within the same second
    assert list(own.take(bucket, OWN, time.time())) == []
    assert revoked(tmp_path) == REVOKED

    code, told = authz(*push_revocations, *signing, "--if-revision", "0")
    assert (code, "were changed by somebody else, nothing was done" in told) == (3, True)
    code, told = authz(*push_revocations)
    assert (code, "without --key authorities would not take them" in told) == (1, True)
    assert authz(*push_revocations, "--number", "9")[0] == 2
    code, told = authz("revocation", "show", "--public-key", str(tmp_path / "pub"))
    assert (code, "signed by key" in told, REVOKED.decode() in told) == (0, True, True)
    bucket.put(ENTRIES_KEY, sign_rules(ENTRIES.encode(), OTHER, fleet="shop", kind="entries", number=9, created=NOW))
    assert "which --public-key checks" in authz("entry", "common")[1]
    code, told = authz("entry", "common", "--public-key", str(tmp_path / "pub"))
    assert (code, "none of the keys given here signed them" in told, "spiffeID" in told) == (3, True, False)
