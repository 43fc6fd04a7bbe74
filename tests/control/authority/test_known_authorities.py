"""Authorities that died: who they are, how a change of the root goes on without them, by a real server of NATS."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from authz.cli import application, ca_authority, common_roots
from authz.control.authority.authority_files import AuthorityFiles
from authz.control.authority.common_state import CommonState
from authz.identity.announcement import OTHERS_DIRECTORY
from authz.identity.announcing import another_authority, keep_announced
from authz.identity.ca import CertificateAuthority
from authz.identity.jwt_keys import JwtKeys
from authz.truth.truth_bucket import SECURITY, TruthBucket
from tests.nats_server import NatsServers, emptied, shared_servers

truth = shared_servers()


@pytest.fixture
def bucket(truth: NatsServers) -> Iterator[TruthBucket]:
    """Empty."""
    with truth.client() as client:
        yield emptied(client, SECURITY)


def test_a_change_of_the_root_names_whoever_died_and_goes_on_when_that_one_is_forgotten(
    tmp_path: Path, truth: NatsServers, bucket: TruthBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = CertificateAuthority.create("mesh.test", time.time())
    dead = another_authority(first, "c", time.time())
    for name, one in (("first", first), ("c", dead)):
        one.save(tmp_path / name)
    place = ("--ca", str(tmp_path / "first"), "--truth", str(truth.address))

    def authz(*arguments: str) -> tuple[int, str]:
        done = CliRunner().invoke(application, ["ca", *arguments, *place])
        return done.exit_code, done.output

    bucket.put("authorities.c", keep_announced(tmp_path / "c", dead, JwtKeys(), time.time()))
    bucket.put("holders.c", b'{"seen": 0, "roots": {}, "at": 0}')
    bucket.put("intermediates.c.0123", b"{}")
    bucket.put("authorities.d", b"nonsense")
    monkeypatch.setattr(common_roots, "STALE_SECONDS", 0.0)
    code, told = authz("root", "prepare", "--wait", "0")
    assert code == 3
    assert "authority `c` cannot sign below" in told
    assert "`authz ca authority forget c` with the same --ca and --truth" in told

    listed = json.loads(authz("authority", "list", "-o", "json")[1])["authorities"]
    assert [(one["authority"], one["is_believed"]) for one in listed] == [
        ("c", True),
        ("d", False),
        ("first", True),
    ]
    assert "not believed" in authz("authority", "list")[1]
    code, told = authz("authority", "forget", "c")
    assert (code, "use --force" in told) == (1, True)
    assert "is the authority in" in authz("authority", "forget", "first", "--force")[1]
    assert authz("authority", "forget", "d", "--force")[0] == 0
    monkeypatch.setattr(ca_authority, "LATELY_SECONDS", 0.0)
    assert authz("authority", "forget", "c")[0] == 0
    assert not [key for key in bucket.entries() if key.split(".")[1:2] == ["c"]]
    assert authz("authority", "forget", "c")[0] == 3
    code, told = authz("root", "prepare", "--wait", "0")
    assert (code, told.startswith("prepared")) == (0, True)


def test_what_the_forgotten_one_said_is_kept_until_its_root_is_retired(
    tmp_path: Path, truth: NatsServers, bucket: TruthBucket
) -> None:
    first = CertificateAuthority.create("mesh.test", time.time())
    first.save(tmp_path / "first")
    for folder in ("x", "y", f"first/{OTHERS_DIRECTORY}"):
        (tmp_path / folder).mkdir()
    told = keep_announced(tmp_path / "x", another_authority(first, "b", time.time()), JwtKeys(), time.time())
    retired = CertificateAuthority.create("mesh.test", time.time())
    below = keep_announced(tmp_path / "y", another_authority(retired, "c", time.time()), JwtKeys(), time.time())
    others = tmp_path / "first" / OTHERS_DIRECTORY
    (others / "b.json").write_bytes(told)
    (others / "c.json").write_bytes(below)
    assert bucket.get("authorities.c") is None
    with truth.client() as client:
        CommonState(client, AuthorityFiles(tmp_path / "first")).look()
    assert [file.name for file in others.iterdir()] == ["b.json"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("b*",), 1, "`b*` is not a name of an authority"),  # the servers would take it for many
        (("B",), 1, "`B` is not a name of an authority"),
        (("first",), 1, "`first` is the authority in"),
        (("b", "--truth", ""), 2, "--truth is needed"),
    ],
)
def test_what_may_not_be_forgotten_is_refused(
    tmp_path: Path, truth: NatsServers, bucket: TruthBucket, arguments: tuple[str, ...], code: int, said: str
) -> None:
    CertificateAuthority.create("mesh.test", time.time()).save(tmp_path / "ca")
    for name in ("b", "b2", "first"):
        bucket.put(f"authorities.{name}", b"announced")
    place = ("--ca", str(tmp_path / "ca"), "--truth", str(truth.address))
    done = CliRunner().invoke(application, ["ca", "authority", "forget", *place, "--force", *arguments])
    assert (done.exit_code, said in done.output) == (code, True)
    assert bucket.entries().keys() == {"authorities.b", "authorities.b2", "authorities.first"}
