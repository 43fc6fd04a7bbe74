"""Bundles: the same input is the same bytes, and whatever is changed in one is noticed."""

import gzip
import io
import json
import tarfile
import zlib
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from authz.bundles import packing
from authz.bundles.bundle_signatures import key_id, new_key_pair, read_bundle_key, read_verifying_key
from authz.bundles.manifest import BundleRefused, Provenance, read_manifest, write_manifest
from authz.bundles.packing import MANIFEST, SIGNATURES, pack, unpack
from authz.bundles.whole_bundle import (
    Bundle,
    Taken,
    build_bundle,
    read_bundle,
    refuse_bundle,
    sign_bundle,
)
from authz.canary.canary_selection import CanarySelection
from authz.canary.candidate_terms import CandidateTerms

KEY, OTHER = Ed25519PrivateKey.from_private_bytes(bytes(32)), Ed25519PrivateKey.from_private_bytes(bytes([1] * 32))
FILES = {
    "policies/reviews.yaml": b"kind: AuthorizationPolicy\n",
    "policies/shop/ratings.yaml": b"kind: PeerAuthentication\n",
    "mesh.yaml": b"trustDomain: shop.example\n",
    "traffic/routes.yaml": b"kind: VirtualService\n",
    "trust/roots.pem": b"-----BEGIN CERTIFICATE-----\n",
}
NOW = 1_800_000_000
TERMS = CandidateTerms(7, 6, CanarySelection(names=frozenset({"web-v1"})))


def built(**changes: object) -> bytes:
    told: dict[str, object] = {"fleet": "shop", "revision": 7, "created": NOW, "expires": NOW + 100}
    return build_bundle(FILES, **(told | changes))  # type: ignore[arg-type]  # one table of changes


def signed(**changes: object) -> bytes:
    return sign_bundle(built(**changes), KEY)


def taken(data: bytes, **changes: object) -> tuple[str, ...]:
    told: dict[str, object] = {"fleet": "shop", "now": float(NOW)}
    return refuse_bundle(read_bundle(data), [KEY.public_key()], **(told | changes))  # type: ignore[arg-type]  # as above


def again(data: bytes, change: Callable[[dict[str, bytes]], object]) -> bytes:
    """The same archive with other members, written as we write them."""
    members = unpack(data)
    change(members)
    return pack(members)


def test_the_same_input_is_the_same_bytes_whatever_its_order() -> None:
    other = build_bundle(dict(reversed(FILES.items())), fleet="shop", revision=7, created=NOW, expires=NOW + 100)
    assert other == built()
    assert sign_bundle(sign_bundle(other, KEY), OTHER) == sign_bundle(sign_bundle(sign_bundle(other, OTHER), KEY), KEY)


def test_what_was_built_is_read_again_and_other_programs_read_it_too() -> None:
    bundle = read_bundle(signed(provenance=Provenance("0123abcd", "Ada", "authz 0")))
    assert bundle.files == FILES
    assert bundle.manifest.provenance == Provenance("0123abcd", "Ada", "authz 0")
    assert (bundle.manifest.created, bundle.manifest.expires) == (NOW, NOW + 100)
    with tarfile.open(fileobj=io.BytesIO(signed())) as archive:
        assert archive.getnames() == [MANIFEST, SIGNATURES, *sorted(FILES)]


def test_any_of_several_signatures_is_enough() -> None:
    both = sign_bundle(signed(), OTHER)
    assert taken(both) == (key_id(KEY.public_key()),)
    assert taken(signed()) == (key_id(KEY.public_key()),)


@pytest.mark.parametrize(
    ("data", "changes", "said"),
    [
        (built(), {}, "nobody signed it"),
        (sign_bundle(built(), OTHER), {}, "none of the keys given here signed it; it names `"),
        (signed(), {"fleet": "other"}, "it is for the fleet `shop`, and this is `other`"),
        (signed(), {"now": NOW + 100.0}, "it expired at 2027-01-15T08:01:40Z"),
        (signed(), {"last": Taken(8, "")}, "its revision 7 is older than 8, which was taken"),
        (signed(), {"last": Taken(8, ""), "allowed_older": 6}, "its revision 7 is older than 8, which was taken"),
        (signed(), {"last": Taken(7, "")}, "its revision 7 was taken with other files"),
        (signed(), {"fleet": "other", "now": NOW + 100.0}, "`other`; it expired"),
        (sign_bundle(built(fleet="x"), OTHER), {}, "none of the keys given here"),
        (signed(candidate=TERMS), {}, "it is a candidate, which is not in force for all"),
    ],
)
def test_a_bundle_is_refused_with_every_reason(data: bytes, changes: dict[str, object], said: str) -> None:
    with pytest.raises(BundleRefused) as refused:
        taken(data, **changes)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"now": NOW + 99.9},
        {"last": Taken(6, "")},
        {"last": Taken(8, ""), "allowed_older": 7},
        {"last": Taken(7, read_bundle(signed()).digest)},
    ],
)
def test_a_bundle_is_taken(changes: dict[str, object]) -> None:
    assert taken(signed(), **changes) == (key_id(KEY.public_key()),)


def test_a_bundle_that_never_expires_is_taken_whenever_it_comes() -> None:
    assert taken(signed(expires=None), now=NOW + 1e9)


def first(members: dict[str, bytes], name: str, data: bytes) -> None:
    rest = dict(members)
    members.clear()
    members |= {name: data} | rest


def swapped(members: dict[str, bytes]) -> None:
    rest = {name: members.pop(name) for name in list(FILES)}
    members |= dict(sorted(rest.items(), reverse=True))


def without(members: dict[str, bytes], name: str) -> None:
    del members[name]


def manifest_with(name: str, value: object) -> Callable[[dict[str, bytes]], object]:
    def change(members: dict[str, bytes]) -> None:
        members[MANIFEST] = (json.dumps(json.loads(members[MANIFEST]) | {name: value}, indent=1) + "\n").encode()

    return change


TAMPERED: dict[str, tuple[Callable[[dict[str, bytes]], object], str]] = {
    "a file": (lambda m: m.update({"mesh.yaml": b"trustDomain: evil.example\n"}), "`mesh.yaml` has another digest"),
    "a size": (lambda m: m.update({"mesh.yaml": b"x"}), "`mesh.yaml` has 1 bytes and not 26"),
    "a name": (lambda m: m.update({"policies/a.yaml": m.pop("policies/reviews.yaml")}), "is missing; 1 file is not in"),
    "a file more": (lambda m: m.update({"zzz": b""}), "1 file is not in the manifest"),
    "a file less": (lambda m: without(m, "policies/reviews.yaml"), "`policies/reviews.yaml` is missing"),
    "the order": (swapped, "not in the order"),
    "no manifest": (lambda m: without(m, MANIFEST), "is no bundle"),
    "no signatures": (lambda m: without(m, SIGNATURES), "is no bundle"),
    "something before": (lambda m: first(m, "policies/0.yaml", b""), "is no bundle"),
    "no JSON": (lambda m: m.update({MANIFEST: b"{"}), "is not JSON"),
    "a member twice": (lambda m: m.update({MANIFEST: b'{"format":1,"format":2}'}), "twice"),
    "another format": (manifest_with("format", "authz-bundle/2"), "another format"),
    "a member more": (manifest_with("more", 1), "exactly the members"),
    "the fleet": (manifest_with("fleet", "evil"), "none of the keys"),
    "the revision": (manifest_with("revision", 99), "none of the keys"),
    "the expiry": (manifest_with("expires", None), "none of the keys"),
    "the time": (manifest_with("created", "2030-01-01T00:00:00Z"), "none of the keys"),
    "a revision that is none": (manifest_with("revision", True), "`revision` is not a number"),
    "a time that is none": (manifest_with("created", "yesterday"), "`created` is no time"),
    "a fleet that is none": (manifest_with("fleet", "../shop"), "a fleet's name"),
    "files that are none": (manifest_with("files", {}), "`files` is not a list"),
    "signatures that are none": (lambda m: m.update({SIGNATURES: b"[]"}), "list of signatures is damaged"),
    "a signature": (
        lambda m: m.update({SIGNATURES: m[SIGNATURES].replace(b'"signature": "', b'"signature": "AAAA')}),
        "none of the keys",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("change", "said"), TAMPERED.values(), ids=TAMPERED)
def test_a_change_of_any_part_is_noticed(change: Callable[[dict[str, bytes]], object], said: str) -> None:
    with pytest.raises(BundleRefused) as refused:
        taken(again(signed(), change))
    assert said in str(refused.value)


def test_no_byte_of_a_bundle_can_be_changed() -> None:
    """Every byte of the archive, packed and unpacked: it is refused, or what is signed and the files are the same."""
    whole, bundle = signed(), read_bundle(signed())
    tar = gzip.decompress(whole)
    forms = [whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :] for at in range(0, len(whole), 2)]
    forms += [zipped(tar[:at] + bytes([tar[at] ^ 1]) + tar[at + 1 :]) for at in range(0, len(tar), 11)]
    assert len(forms) > 1000
    for form in forms:
        try:
            found = read_bundle(form)
            refuse_bundle(found, [KEY.public_key()], fleet="shop", now=NOW)
        except BundleRefused:
            continue
        assert (found.manifest_bytes, found.files) == (bundle.manifest_bytes, bundle.files)


def zipped(tar: bytes) -> bytes:
    return gzip.compress(tar, 1, mtime=0)


def tarred(*members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.USTAR_FORMAT) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=form) as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return zipped(stream.getvalue())


def member(name: str, kind: bytes = tarfile.REGTYPE, size: int = 0, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname, info.mode = kind, size, target, 0o644
    return info


def header(size: bytes) -> bytes:
    return tarfile.TarInfo("a").tobuf()[:124] + size + b" " * 20 + b"0" + bytes(355)


HOSTILE = {
    "a symbolic link": (tarred((member("a", tarfile.SYMTYPE, target="/etc/passwd"), b"")), "a symbolic link"),
    "a hard link": (tarred((member("a", tarfile.LNKTYPE, target="b"), b"")), "a hard link"),
    "a device": (tarred((member("a", tarfile.CHRTYPE), b"")), "a device"),
    "a pipe": (tarred((member("a", tarfile.FIFOTYPE), b"")), "a pipe"),
    "a folder": (tarred((member("a", tarfile.DIRTYPE), b"")), "a folder"),
    "a long name": (tarred((member("a" * 300), b""), form=tarfile.GNU_FORMAT), "a long name of GNU"),
    "a PAX header": (tarred((member("ä" * 300), b""), form=tarfile.PAX_FORMAT), "an extended header"),
    "a name twice": (tarred((member("a"), b""), (member("a"), b"")), "a name twice"),
    "a program": (tarred((member("a"), b"")), "it is no bundle"),
    "nothing": (b"", "ends too early"),
    "no gzip": (b"PK\x03\x04", "not gzip"),
    "a half": (signed()[:400], "ends too early"),
    "something after it": (signed() + b"x", "something follows"),
    "two of them": (signed() + signed(), "something follows"),
    "a size beyond the end": (zipped(header(b"77777777777\0")), "ends within"),
    "a size that is none": (zipped(header(b"-0000000001\0")), "damaged"),
    "half a block": (zipped(b"a" * 100), "something in it"),
    "another writer": (tarred((member("a"), b""), form=tarfile.GNU_FORMAT), "is not written as"),
}  # fmt: skip


@pytest.mark.parametrize(("data", "said"), HOSTILE.values(), ids=HOSTILE)
def test_only_plain_files_as_we_write_them_are_read(data: bytes, said: str) -> None:
    with pytest.raises(BundleRefused) as refused:
        read_bundle(data)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("/etc/passwd", "stands in none of"),
        ("../policies/a.yaml", "stands in none of"),
        ("policies/../../a.yaml", "begins with a dot"),
        ("policies//a.yaml", "has an empty part"),
        ("policies/", "has an empty part"),
        ("policies/.hidden.yaml", "begins with a dot"),
        ("policies", "stands in none of"),
        ("secrets/a.yaml", "stands in none of"),
        ("policies/a\\b.yaml", "other file systems"),
        ("policies/a\nb.yaml", "other file systems"),
        ("policies/a\0b.yaml", "other file systems"),
        ("policies/e\u0301.yaml", "other file systems"),
        ("policies/REVIEWS.yaml", "by case only"),
        ("policies/reviews.yaml/a.yaml", "is a file and a folder"),
        ("policies/" + "a" * 200, "more than 200 bytes"),
        ("policies/" + "a" * 150, "too long for tar"),
    ],
)
def test_a_name_that_leads_elsewhere_is_refused_by_whoever_writes_and_by_whoever_reads(name: str, said: str) -> None:
    with pytest.raises(BundleRefused) as refused:
        build_bundle(FILES | {name: b""}, fleet="shop", revision=1, created=NOW)
    assert said in str(refused.value)
    manifest = json.loads(read_bundle(built()).manifest_bytes)
    manifest["files"].append({"name": name, "size": 0, "sha256": "0" * 64})
    manifest["files"].sort(key=lambda file: file["name"])
    if said != "too long for tar":
        with pytest.raises(BundleRefused) as refused:
            read_manifest(json.dumps(manifest).encode())
        assert said in str(refused.value)


def test_an_archive_is_bounded_before_and_while_it_is_inflated(monkeypatch: pytest.MonkeyPatch) -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS | 16)
    bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(65)) + packer.flush()
    assert len(bomb) < 1 << 17
    with pytest.raises(BundleRefused, match="more than 64 MiB unpacked"):
        read_bundle(bomb)
    whole = signed()
    monkeypatch.setattr(packing, "MAX_PACKED_BYTES", 100)
    with pytest.raises(BundleRefused, match="the archive has more than"):
        read_bundle(whole)
    with pytest.raises(BundleRefused, match="a bundle has at most"):
        built()


@pytest.mark.parametrize(
    ("files", "changes", "said"),
    [
        ({}, {}, "there is no policy file"),
        (FILES, {"expires": NOW}, "expire before"),
        (FILES, {"fleet": "Shop"}, "a fleet's name"),
        (FILES, {"revision": 0}, "`revision` is not a number from 1"),
    ],
)
def test_what_nobody_could_take_is_not_built(files: dict[str, bytes], changes: dict[str, object], said: str) -> None:
    told: dict[str, object] = {"fleet": "shop", "revision": 7, "created": NOW} | changes
    with pytest.raises(BundleRefused, match=said):
        build_bundle(files, **told)  # type: ignore[arg-type]  # one table of changes


def test_keys_are_those_of_openssl_and_no_private_key_verifies() -> None:
    private, public = new_key_pair()
    assert key_id(read_bundle_key(private).public_key()) == key_id(read_verifying_key(public))
    for wrong, read in ((private, read_verifying_key), (public, read_bundle_key), (b"", read_bundle_key)):
        with pytest.raises(BundleRefused, match=r"is no (public|private) key in PEM"):
            read(wrong)


def test_a_manifest_is_written_the_one_way_in_which_it_is_read() -> None:
    bundle: Bundle = read_bundle(signed())
    assert write_manifest(read_manifest(bundle.manifest_bytes)) == bundle.manifest_bytes
