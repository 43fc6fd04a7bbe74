"""Bundles by HTTP and by file: what is taken, what stays, and what a replica starts from when its source is down."""

import json
import ssl
from pathlib import Path

import pytest

from authz.core.errors import SettingsError
from authz.sources.published import bundle_source
from authz.sources.published.opening import PublishedPolicies
from authz.sources.published.policy_cache import read_source_status
from authz.sources.published.policy_follower import pause_seconds
from tests.service.ports.test_server_tls import Pair
from tests.sources.published.published import NOW, POISON, Replica, bundle, in_force, serving, start_refused


def test_a_newer_revision_replaces_the_whole_set_and_an_unchanged_one_is_not_sent_again(tmp_path: Path) -> None:
    with serving() as server:
        server.data = bundle(1, b"one")
        with Replica(tmp_path, server.url).running() as (follower, cache):
            assert in_force(cache) == b"one"
            first = (cache.directory / "current").readlink()
            assert follower.ask()
            assert server.told[-1]["if-none-match"] == server.tag
            assert (cache.directory / "current").readlink() == first
            server.data = bundle(2, b"two")
            assert follower.ask()
            assert in_force(cache) == b"two"
            assert follower.status.revision == "2"
            assert follower.status.successes == 3


REFUSED = {
    "older": (bundle(4, b"two"), "its revision 4 is older than 5"),
    "the same with other files": (bundle(5, b"two"), "its revision 5 was taken with other files"),
    "of another fleet": (bundle(6, b"two", fleet="other"), "it is for the fleet `other`"),
    "expired": (bundle(6, b"two", created=NOW - 10, expires=NOW), "it expired at"),
    "poisoned": (bundle(6, POISON), "its policies are refused, 1 error in the given documents: a.yaml: error: it is"),
    "damaged": (bundle(6, b"two")[:-20], "the archive ends too early"),
    "something else": (b"<html>", "the archive is not gzip"),
}


@pytest.mark.parametrize(("data", "said"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused_leaves_the_last_good_set_and_is_asked_for_again(
    tmp_path: Path, data: bytes, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    with serving() as server:
        server.data = bundle(5, b"one")
        replica = Replica(tmp_path, server.url)
        with replica.running() as (follower, cache):
            server.data = data
            assert [follower.ask(), follower.ask()] == [False, False]
            assert said in follower.status.error
            assert "if-none-match" not in server.told[-1]
            assert in_force(cache) == b"one"
            assert read_source_status(cache.directory) == follower.status
            told = [record.getMessage() for record in caplog.records if said in record.getMessage()]
            assert len(told) == 1, "said once, not at every asking"
            assert told[0].endswith("; revision 5 stays")
        with replica.running() as (follower, cache):  # and it is not what a restart begins with
            assert in_force(cache) == b"one"
            assert follower.status.is_kept
            server.data = bundle(7, b"three")
            assert follower.ask()
            assert (in_force(cache), follower.status.error, follower.status.is_kept) == (b"three", "", False)


def test_a_start_without_its_source_uses_what_is_kept_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with serving() as server:
        server.data = bundle(1, b"one")
        replica = Replica(tmp_path, server.url)
        with replica.running():
            pass
    with replica.running() as (follower, cache):
        assert in_force(cache) == b"one"
        assert (follower.status.is_kept, follower.status.asked_at) == (True, 0)
        assert "Connection refused" in follower.status.error
    assert "the policies in force are those kept on disk, revision 1" in caplog.text


def test_a_start_without_source_and_cache_fails(tmp_path: Path) -> None:
    start_refused(
        Replica(tmp_path, f"file://{tmp_path}/none.tar.gz"),
        r"No such file.*nothing is kept in",
    )


def test_what_is_kept_is_judged_again_before_it_is_used(tmp_path: Path) -> None:
    source = tmp_path / "shop.tar.gz"
    source.write_bytes(bundle(1, b"one"))
    replica = Replica(tmp_path, f"file://{source}")
    with replica.running() as (_, cache):
        kept = cache.directory / "last-good.tar.gz"
    source.unlink()
    good = kept.read_bytes()
    kept.write_bytes(bundle(1, b"one", fleet="other"))
    start_refused(replica, "what is kept cannot be used: the bundle is refused: it is for the fleet")
    kept.write_bytes(good)
    replica.now = NOW + 1000
    with pytest.raises(SettingsError, match="it expired at"), replica.running():
        pass


def test_a_cache_that_does_not_say_what_was_taken_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "shop.tar.gz"
    source.write_bytes(bundle(1, b"one"))
    replica = Replica(tmp_path, f"file://{source}")
    with replica.running() as (_, cache):
        (cache.directory / "taken.json").write_text("{}")
    with pytest.raises(SettingsError, match="is damaged; remove it"), replica.running():
        pass


def test_a_cache_is_that_of_one_process(tmp_path: Path) -> None:
    source = tmp_path / "shop.tar.gz"
    source.write_bytes(bundle(1))
    with Replica(tmp_path, f"file://{source}").running():
        start_refused(Replica(tmp_path, f"file://{source}"), "is used by another process")


def test_one_older_revision_is_let_in_once(tmp_path: Path) -> None:
    source = tmp_path / "shop.tar.gz"
    source.write_bytes(bundle(5, b"five"))
    with Replica(tmp_path, f"file://{source}").running() as (follower, cache):
        source.write_bytes(bundle(3, b"three"))
        cache.allow("4")
        assert not follower.ask()
        cache.allow("3")
        assert follower.ask()
        assert in_force(cache) == b"three"
        source.write_bytes(bundle(5, b"five"))
        assert follower.ask()
        source.write_bytes(bundle(3, b"three"))
        assert not follower.ask(), "the word was for once"
        assert in_force(cache) == b"five"


def test_a_bundle_in_force_that_expires_is_told_although_nothing_has_changed(tmp_path: Path) -> None:
    with serving() as server:
        server.data = bundle(1, b"one")
        replica = Replica(tmp_path, server.url)
        with replica.running() as (follower, cache):
            replica.now = NOW + 1000
            assert not follower.ask()
            assert "it expired at" in follower.status.error
            assert in_force(cache) == b"one"


def test_a_file_is_read_again_when_it_was_replaced(tmp_path: Path) -> None:
    source = tmp_path / "shop.tar.gz"
    source.write_bytes(bundle(1, b"one"))
    with Replica(tmp_path, f"file://{source}").running() as (follower, cache):
        before = (cache.directory / "current").readlink()
        assert follower.ask()
        assert (cache.directory / "current").readlink() == before
        other = tmp_path / "new.tar.gz"
        other.write_bytes(bundle(2, b"two"))
        other.rename(source)
        assert follower.ask()
        assert in_force(cache) == b"two"
        assert len(list((cache.directory / "kept").iterdir())) == 2
        source.write_bytes(bundle(3, b"three"))
        assert follower.ask()
        assert len(list((cache.directory / "kept").iterdir())) == 2, "older ones go"


@pytest.mark.parametrize(
    ("status", "location", "said"),
    [
        (404, "", "status 404, expected 200"),
        (304, "", "status 304, expected 200"),
        (302, "file:///etc/passwd", "it redirects to `file://`"),
        (302, "https://127.0.0.1:1/", "it redirects to `https://`"),
        (302, "/shop.tar.gz", "more than 5 redirects"),
    ],
)
def test_an_answer_that_is_no_bundle_is_told(tmp_path: Path, status: int, location: str, said: str) -> None:
    with serving() as server:
        server.data, server.status, server.location = bundle(1), status, location
        with Replica(tmp_path, server.url).running(begin=False) as (follower, _):
            assert not follower.ask()
            assert said in follower.status.error
            assert "?" not in follower.status.error


def test_headers_are_for_the_server_that_was_named(tmp_path: Path) -> None:
    headers = tmp_path / "headers.txt"
    headers.write_text("Authorization: Bearer s3cret\n")
    told = PublishedPolicies(headers=headers)
    with serving() as server, serving() as other:
        server.status, server.location, other.data = 302, other.url, bundle(1)
        with Replica(tmp_path, server.url, told=told).running():
            pass
        assert server.told[0]["authorization"] == "Bearer s3cret"
        assert "authorization" not in other.told[0]
    headers.write_text("s3cret\n")
    assert "s3cret" not in start_refused(Replica(tmp_path, server.url, told=told), "a line without a colon")


def test_a_body_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle_source, "MAX_PACKED_BYTES", 100)
    with serving() as server:
        server.data = bundle(1)
        with Replica(tmp_path, server.url).running(begin=False) as (follower, _):
            assert not follower.ask()
            assert "the bundle has more than" in follower.status.error


def test_a_server_is_known_by_its_certificate(tmp_path: Path) -> None:
    Pair("server").write(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "tls.crt", tmp_path / "tls.key")
    with serving(context) as server:
        server.data = bundle(1, b"one")
        with Replica(tmp_path, server.url).running(begin=False) as (follower, _):
            assert not follower.ask()
            assert "certificate verify failed" in follower.status.error
        told = PublishedPolicies(ca=tmp_path / "tls.crt")
        with Replica(tmp_path, server.url, told=told).running() as (follower, cache):
            assert in_force(cache) == b"one"


def test_a_full_disk_leaves_the_last_good_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "shop.tar.gz"
    source.write_bytes(bundle(1, b"one"))
    with Replica(tmp_path, f"file://{source}").running() as (follower, cache):
        source.write_bytes(bundle(2, b"two"))
        with monkeypatch.context() as full:
            full.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
            assert not follower.ask()
        assert "No space left on device" in follower.status.error
        assert in_force(cache) == b"one"
        assert follower.pause() == 30, "the source is not spared for that"
        assert follower.ask()
        assert in_force(cache) == b"two"


def test_a_mistake_of_ours_does_not_end_the_following(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "shop.tar.gz"
    source.write_bytes(bundle(1, b"one"))
    with Replica(tmp_path, f"file://{source}").running() as (follower, cache):
        monkeypatch.setattr(bundle_source, "read_bundle", lambda _: 1 / 0)
        source.write_bytes(bundle(2, b"two"))
        assert not follower.ask()
        assert follower.status.error == "internal error: ZeroDivisionError"
        assert in_force(cache) == b"one"


@pytest.mark.parametrize(
    ("poll", "failures", "share", "seconds"),
    [(30, 0, 0.5, 30), (30, 0, 0, 24), (30, 0, 1, 36), (30, 1, 0.5, 60), (30, 9, 0.5, 300), (900, 9, 0.5, 900)],
)
def test_askings_are_spread_and_rarer_after_failures(poll: float, failures: int, share: float, seconds: float) -> None:
    assert pause_seconds(poll, failures, share) == pytest.approx(seconds)


def test_a_status_that_is_damaged_is_none(tmp_path: Path) -> None:
    assert read_source_status(None) is None
    assert read_source_status(tmp_path) is None
    (tmp_path / "status.json").write_text(json.dumps({"more": 1}))
    assert read_source_status(tmp_path) is None
