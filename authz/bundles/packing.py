"""
The bytes of a bundle: a gzipped tar of regular files, written one way and read only as it is written.

    manifest.json, signatures.json, then the files of the manifest in the order of their names

What is read comes from anybody, for the signature stands inside: sizes are bounded before and while it is inflated,
only plain files are taken, and what was read is written again and compared, so that no byte means something else to
another reader of tar.
"""

import tarfile
import zlib
from collections.abc import Mapping

from authz.bundles.manifest import MAX_FILES, BundleRefused

MAX_PACKED_BYTES = 32 << 20
MAX_UNPACKED_BYTES = 64 << 20
"""Some hundred thousand policies; reading takes three times as much memory."""
MANIFEST, SIGNATURES = "manifest.json", "signatures.json"
_BLOCK = 512
_RECORD = 20 * _BLOCK
_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\xff"
"""Gzip without a name or time, from any system."""
_KINDS = {
    "1": "a hard link", "2": "a symbolic link", "3": "a device", "4": "a device", "5": "a folder", "6": "a pipe",
    "x": "an extended header", "g": "an extended header", "L": "a long name of GNU", "K": "a long link of GNU",
    "S": "a sparse file",
}  # fmt: skip


def pack(members: Mapping[str, bytes]) -> bytes:
    """
    Write members in their order; the same members are the same bytes with the same zlib.

    Raises:
        BundleRefused: it would be larger than what is read.
    """
    tar = _tar(members)
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    body = packer.compress(tar) + packer.flush()
    end = zlib.crc32(tar).to_bytes(4, "little") + (len(tar) & 0xFFFFFFFF).to_bytes(4, "little")
    packed = _HEADER + body + end
    if len(packed) > MAX_PACKED_BYTES or len(tar) > MAX_UNPACKED_BYTES:
        raise BundleRefused(
            f"a bundle has at most {MAX_PACKED_BYTES >> 20} MiB, and {MAX_UNPACKED_BYTES >> 20} MiB unpacked"
        )
    return packed


def unpack(data: bytes) -> dict[str, bytes]:
    """
    Read the members of an archive in their order. What they mean, and their names, are not looked at.

    Raises:
        BundleRefused: it is too large, damaged, or has anything but plain files as ``pack`` writes them.
    """
    if len(data) > MAX_PACKED_BYTES:
        raise BundleRefused(f"the archive has more than {MAX_PACKED_BYTES >> 20} MiB")
    tar = _inflate(data)
    members: dict[str, bytes] = {}
    at = 0
    while at < len(tar) and tar[at : at + _BLOCK].strip(b"\0"):
        name, size = _read_header(tar[at : at + _BLOCK])
        at += _BLOCK
        if at + size > len(tar):
            raise BundleRefused("the archive ends within a file")
        if name in members:
            raise BundleRefused("the archive has a name twice")
        if len(members) >= MAX_FILES + 2:
            raise BundleRefused(f"the archive has more than {MAX_FILES} files")
        members[name] = tar[at : at + size]
        at += -(-size // _BLOCK) * _BLOCK
    if _tar(members) != tar:
        raise BundleRefused("the archive is not written as `authz bundle build` writes it: build it again")
    return members


def _tar(members: Mapping[str, bytes]) -> bytes:
    written: list[bytes] = []
    for name, data in members.items():
        info = tarfile.TarInfo(name)
        info.size, info.mode = len(data), 0o644
        try:
            written.append(info.tobuf(tarfile.USTAR_FORMAT, "utf-8", "strict"))
        except (ValueError, UnicodeError):
            raise BundleRefused("a name of the archive is too long for tar") from None
        written += (data, bytes(-len(data) % _BLOCK))
    size = sum(map(len, written)) + 2 * _BLOCK
    written.append(bytes(2 * _BLOCK + -size % _RECORD))
    return b"".join(written)


def _inflate(data: bytes) -> bytes:
    inflater = zlib.decompressobj(zlib.MAX_WBITS | 16)
    try:
        tar = inflater.decompress(data, MAX_UNPACKED_BYTES + 1)
    except zlib.error:
        raise BundleRefused("the archive is not gzip, or damaged") from None
    if len(tar) > MAX_UNPACKED_BYTES:
        raise BundleRefused(f"the archive has more than {MAX_UNPACKED_BYTES >> 20} MiB unpacked")
    if not inflater.eof:
        raise BundleRefused("the archive ends too early")
    if inflater.unused_data:
        raise BundleRefused("something follows after the archive")
    return tar


def _read_header(block: bytes) -> tuple[str, int]:
    """Name and size. What else a header says is compared with what we would have written."""
    kind = chr(block[156]) if len(block) == _BLOCK else ""
    if kind != "0":
        raise BundleRefused(f"the archive has {_KINDS.get(kind, 'something')} in it, and only plain files are taken")
    try:
        prefix, name = (part.split(b"\0", 1)[0].decode() for part in (block[345:500], block[:100]))
        size = int(block[124:136].rstrip(b"\0 "), 8)
    except ValueError:
        raise BundleRefused("the archive is damaged") from None
    if size < 0:
        raise BundleRefused("the archive is damaged")
    return (f"{prefix}/{name}" if prefix else name), size
