"""A signed bundle at a URL or in a file: fetched within bounds of time and size, and judged by ``authz.bundles``."""

import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from authz.bundles.bundle_signatures import read_verifying_key
from authz.bundles.manifest import MESH, BundleRefused
from authz.bundles.packing import MAX_PACKED_BYTES
from authz.bundles.whole_bundle import Taken, read_bundle, refuse_bundle
from authz.core.errors import FetchError, SettingsError
from authz.sources.published.delivery import Delivery, NotTaken, TakenRevision
from authz.sources.published.policy_address import AddressKind, PolicyAddress

MAX_REDIRECTS = 5
WHOLE_SECONDS = 60.0
"""For one bundle, redirects included; a server that sends a byte now and then is not waited for."""
STEP_SECONDS = 10.0
"""For a connection, and between two pieces."""
_Fetch = Callable[[str], tuple[bytes, str] | None]
"""From the tag of the last answer to bytes and their tag; None when nothing has changed."""


@dataclass(frozen=True, slots=True)
class BundleTrust:
    """Whose bundles are taken."""

    fleet: str
    keys: tuple[Ed25519PublicKey, ...]

    @classmethod
    def of(cls, fleet: str, key_files: Sequence[Path]) -> "BundleTrust":
        """
        Read the public keys.

        Raises:
            SettingsError: there is none, one cannot be used, or no fleet is named.
        """
        if not fleet or not key_files:
            raise SettingsError(
                "a bundle needs the name of its fleet and a public key: `policies_fleet` and `policies_public_keys`"
            )
        keys = []
        for file in key_files:
            try:
                keys.append(read_verifying_key(file.read_bytes()))
            except OSError as error:
                raise SettingsError(f"public key `{file}`: {error.strerror}") from error
            except BundleRefused as error:
                raise SettingsError(f"public key `{file}` {error}") from error
        return cls(fleet, tuple(keys))

    def judge(self, data: bytes, last: TakenRevision | None, allowed: str, tag: str, now: float) -> Delivery:
        """
        Take a bundle, or refuse it; arguments are those of ``PolicySource.ask``.

        Raises:
            NotTaken: it is refused.
        """
        taken = Taken(last.number, last.digest) if last is not None and last.owner == self.fleet else None
        try:
            bundle = read_bundle(data)
            older = int(allowed) if allowed.isdecimal() else None
            refuse_bundle(bundle, self.keys, fleet=self.fleet, now=now, last=taken, allowed_older=older)
        except BundleRefused as error:
            raise NotTaken(f"the bundle is refused: {error}") from error
        manifest = bundle.manifest
        revision = TakenRevision(manifest.fleet, manifest.revision, str(manifest.revision), bundle.digest)
        files = bundle.files if MESH in bundle.files else {**bundle.files, MESH: DEFAULT_MESH}
        return Delivery(revision, files, manifest.created, manifest.expires, data, tag)


class BundleSource:
    """``PolicySource`` of bundles."""

    away_seconds: float | None = None

    def __init__(
        self, address: PolicyAddress, trust: BundleTrust, *, ca: Path | None = None, headers_file: Path | None = None
    ) -> None:
        """
        Args:
            address: of a bundle.
            trust: whose bundles are taken.
            ca: PEM bundle that alone vouches for the server; None for the system's authorities.
            headers_file: lines `name: value` that the server is sent, reread at every asking.

        Raises:
            SettingsError: a file cannot be used.
        """
        self._trust = trust
        self._address = address
        self._headers_file = headers_file
        self._fetch: _Fetch = self._read if address.kind is AddressKind.FILE else self._get
        try:
            public = httpx.create_ssl_context(trust_env=False) if ca is None else None
            self._tls = public or ssl.create_default_context(cafile=str(ca))
        except OSError as error:
            raise SettingsError(f"setting `policies_ca`: `{ca}`: {error.strerror or 'is no PEM bundle'}") from error
        read_headers(headers_file)

    def ask(self, last: TakenRevision | None, allowed: str, tag: str, now: float) -> Delivery | None:
        """As ``PolicySource``."""
        found = self._fetch(tag)
        if found is None:
            return None
        data, new_tag = found
        return self._trust.judge(data, last, allowed, new_tag, now)

    def restore(self, kept: bytes | None, last: TakenRevision | None, now: float) -> Delivery | None:
        """As ``PolicySource``; what was taken last is as old as it is."""
        return None if kept is None else self._trust.judge(kept, last, "", "", now)

    def watch(self, wake: Callable[[], None]) -> None:
        """Nobody says when a file or an answer changes."""

    def stop(self) -> None:
        """Nothing is under way that does not end by itself."""

    def _read(self, tag: str) -> tuple[bytes, str] | None:
        path = Path(unquote(urlsplit(self._address.place).path))
        status = path.stat()
        seen = f"{status.st_dev}:{status.st_ino}:{status.st_size}:{status.st_mtime_ns}:{status.st_ctime_ns}"
        if seen == tag:
            return None
        if not path.is_file():
            raise FetchError(f"{path} is no file")
        with path.open("rb") as file:
            return file.read(MAX_PACKED_BYTES + 1), seen

    def _get(self, tag: str) -> tuple[bytes, str] | None:
        until = time.monotonic() + WHOLE_SECONDS
        url = httpx.URL(self._address.place)
        given = read_headers(self._headers_file)
        try:
            with httpx.Client(verify=self._tls, trust_env=True, timeout=STEP_SECONDS) as client:
                for _ in range(MAX_REDIRECTS + 1):
                    asked = {"accept-encoding": "identity", "user-agent": "authz"} | given
                    if tag:
                        asked["if-none-match"] = tag
                    with client.stream("GET", url, headers=asked) as response:
                        if not response.has_redirect_location:
                            return _answer(response, until, is_known=bool(tag))
                        target = url.join(response.headers["location"])
                    if target.scheme != url.scheme:
                        raise FetchError(f"{self._address}: it redirects to `{target.scheme}://`, which is refused")
                    if (target.host, target.port) != (url.host, url.port):
                        given = {}  # they are for the server that was named
                    url = target
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            raise FetchError(f"{self._address}: {_cause(error)}") from error
        raise FetchError(f"{self._address}: more than {MAX_REDIRECTS} redirects")


DEFAULT_MESH = b"rootNamespace: istio-system\n"
"""The mesh settings of a bundle that has none: one of Istio's defaults, which says nothing."""


def read_headers(file: Path | None) -> dict[str, str]:
    """
    Lines ``name: value`` of a file; none without it.

    Raises:
        SettingsError: it cannot be read, or has a line without a colon; the line is not shown.
    """
    if file is None:
        return {}
    try:
        lines = [line for line in file.read_text().splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise SettingsError(f"file of headers `{file}`: {getattr(error, 'strerror', None) or 'no text'}") from error
    if not all(":" in line for line in lines):
        raise SettingsError(f"file of headers `{file}` has a line without a colon")
    pairs = (line.partition(":") for line in lines)
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


def _answer(response: httpx.Response, until: float, *, is_known: bool) -> tuple[bytes, str] | None:
    if response.status_code == httpx.codes.NOT_MODIFIED and is_known:  # or else it says so of what nobody has
        return None
    if response.status_code != httpx.codes.OK:
        raise ValueError(f"status {response.status_code}, expected 200")
    headers: Mapping[str, str] = response.headers
    if int(headers.get("content-length") or 0) > MAX_PACKED_BYTES:
        raise ValueError(f"the bundle has more than {MAX_PACKED_BYTES >> 20} MiB")
    body = bytearray()
    for piece in response.iter_raw():  # some servers call the archive itself an encoding
        body += piece
        if len(body) > MAX_PACKED_BYTES:
            raise ValueError(f"the bundle has more than {MAX_PACKED_BYTES >> 20} MiB")
        if time.monotonic() > until:
            raise ValueError(f"the bundle did not come within {WHOLE_SECONDS:.0f} s")
    return bytes(body), headers.get("etag", "")


def _cause(error: BaseException) -> str:
    """The deepest system error says most."""
    text, current = str(error) or type(error).__name__, error.__cause__ or error.__context__
    while current is not None:
        if isinstance(current, OSError) and (current.strerror or str(current)):
            text = current.strerror or str(current)
        current = current.__cause__ or current.__context__
    return text
