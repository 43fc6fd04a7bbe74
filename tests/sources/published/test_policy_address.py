"""Addresses of policies."""

import pytest

from authz.core.errors import SettingsError
from authz.sources.published.policy_address import AddressKind, read_address


@pytest.mark.parametrize(
    ("text", "kind", "place", "ref", "folder", "shown"),
    [
        ("policies", "path", "policies", "", "", "policies"),
        ("a:b/c", "path", "a:b/c", "", "", "a:b/c"),
        ("https://u:p@h:1/b.tar.gz?sig=x", "http", "https://u:p@h:1/b.tar.gz?sig=x", "", "", "https://h:1/b.tar.gz"),
        ("http://[::1]:80/b", "http", "http://[::1]:80/b", "", "", "http://[::1]:80/b"),
        ("file:///srv/b.tar.gz", "file", "file:///srv/b.tar.gz", "", "", "file:///srv/b.tar.gz"),
        ("git+https://t@h/r.git#v1.2", "git", "https://t@h/r.git", "v1.2", "", "git+https://h/r.git#v1.2"),
        ("git+file:///r#main:a/b", "git", "file:///r", "main", "a/b", "git+file:///r#main:a/b"),
        ("nats://a,b:1/shop", "truth", "nats://a:4222,b:1/shop", "", "", "nats://a:4222,b:1/shop"),
        ("git+file:///r", "git", "file:///r", "HEAD", "", "git+file:///r#HEAD"),
    ],
)
def test_an_address_is_taken_apart_and_shown_without_secrets(
    text: str, kind: str, place: str, ref: str, folder: str, shown: str
) -> None:
    found = read_address(text)
    assert (found.kind, found.place, found.ref, found.folder) == (AddressKind(kind), place, ref, folder)
    assert str(found) == shown


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("http://bundles.example/b", "by https:// only"),
        ("ftp://h/b", "is none of the addresses"),
        ("https:///b", "is none of the addresses"),
        ("https://h/b#main", "is none of the addresses"),
        ("https://h:x/b", "is not an address"),
        ("file://host/b", "is followed by a whole path"),
        ("git+file://host/r#main", "is followed by a whole path"),
        ("git+ssh://h/r#main", "is none of the addresses"),
        ("nats://h", "is not followed by what the truth"),
        ("nats://u:p@h/shop", "is not followed by what the truth"),
        ("nats://h/Shop", "the name of a fleet"),
        ("nats://h:0/shop", "is no server of the truth"),
        ("nats://h,/shop", "is no server of the truth"),
        ("git+https://h/r#--upload-pack=x", "names no branch or tag"),
        ("git+https://h/r#a..b", "names no branch or tag"),
        ("git+https://h/r#+a:b", "names no branch or tag"),
        ("git+https://h/r#main:../x", "is no folder"),
        ("git+https://h/r#main:/x", "is no folder"),
        ("git+https://h/r#main:%0Ax", "is no folder"),
    ],
)
def test_what_is_no_address_is_refused_without_its_secrets(text: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        read_address(text)
