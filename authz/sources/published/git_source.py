"""
A branch or tag of a git repository, read with the git binary: objects only, nothing of it is ever checked out or run.

Git runs with settings of ours alone: no hooks, prompts or credential helpers, one protocol, bounded in time and in the
size of files. A commit is taken when it descends from the last one, so that a history that was rewritten is noticed.
"""

import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from authz.bundles.manifest import MAX_FILES, BundleRefused, refuse_names
from authz.bundles.packing import MAX_UNPACKED_BYTES
from authz.core.errors import FetchError, SettingsError
from authz.sources.published.bundle_source import read_headers
from authz.sources.published.delivery import Delivery, NotTaken, TakenRevision
from authz.sources.published.policy_address import PolicyAddress

FETCH_SECONDS = 60.0
READ_SECONDS = 30.0
MAX_REPOSITORY_BYTES = 512 << 20
"""Of one file that git writes."""
SUFFIXES = (".yaml", ".yml", ".json")
_FETCHED, _TAKEN = "refs/authz/fetched", "refs/authz/taken"
_SETTINGS = {
    "core.hooksPath": os.devnull,
    "core.fsmonitor": "false",
    "credential.helper": "",
    "fetch.recurseSubmodules": "false",
    "fetch.fsckObjects": "true",
    "gc.auto": "0",
    "maintenance.auto": "false",
    "http.followRedirects": "false",
    "gpg.x509.program": "false",
    "gpg.minTrustLevel": "undefined",
}
_PASSED = ("PATH", "HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy")


class _Failed(Exception):
    """Git ended with an error; the message is one line of what it said."""


class GitSource:
    """``PolicySource`` of a repository."""

    away_seconds: float | None = None

    def __init__(
        self,
        address: PolicyAddress,
        repository: Path,
        *,
        signers: Path | None = None,
        ca: Path | None = None,
        headers_file: Path | None = None,
    ) -> None:
        """
        Args:
            address: of a repository.
            repository: a directory of ours in which its objects are kept.
            signers: only signed commits: the file of allowed signers of SSH, or a home of GnuPG with their keys.
            ca: PEM bundle that alone vouches for the server.
            headers_file: lines `name: value` that the server is sent.

        Raises:
            SettingsError: there is no git here, or a file cannot be used.
        """
        self._address = address
        self._repository = repository.absolute()
        self._headers_file = headers_file
        self._signers = signers
        self._process: subprocess.Popen[bytes] | None = None
        self._is_stopped = False
        if shutil.which("git") is None:
            raise SettingsError("policies of a git repository need the program `git`")
        for file in (signers, ca):
            if file is not None and not file.exists():
                raise SettingsError(f"`{file}`: there is no such file")
        self._settings = dict(_SETTINGS)
        self._environment = {name: os.environ[name] for name in _PASSED if name in os.environ}
        self._environment |= {
            "HOME": str(self._repository),
            "LC_ALL": "C",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ASKPASS": "false",
            "GIT_ALLOW_PROTOCOL": address.place.partition("://")[0],
            "GIT_NO_REPLACE_OBJECTS": "1",
            "GIT_LITERAL_PATHSPECS": "1",
        }
        if ca is not None:
            self._settings["http.sslCAInfo"] = str(ca.absolute())
        if signers is not None and signers.is_dir():
            self._environment["GNUPGHOME"] = str(signers.absolute())
            self._settings["gpg.ssh.program"] = "false"
        elif signers is not None:
            self._settings |= {"gpg.ssh.allowedSignersFile": str(signers.absolute()), "gpg.openpgp.program": "false"}

    def ask(self, last: TakenRevision | None, allowed: str, tag: str, now: float) -> Delivery | None:
        """As ``PolicySource``; the tag is a commit."""
        del now  # a commit does not expire
        try:
            self._make()
            refs = f"+{self._address.ref}:{_FETCHED}"
            self._git("fetch", "--no-tags", "--quiet", "--no-write-fetch-head", self._address.place, refs, asked=True)
            commit = self._text("rev-parse", "--verify", "--end-of-options", f"{_FETCHED}^{{commit}}")
        except _Failed as error:
            raise FetchError(f"{self._address}: {error}") from error
        if commit == tag:
            return None
        return self._judge(commit, last, allowed)

    def restore(self, kept: bytes | None, last: TakenRevision | None, now: float) -> Delivery | None:
        """As ``PolicySource``: the commit that was taken last, from our own repository."""
        del kept, now
        if last is None or last.owner != str(self._address) or not (self._repository / "HEAD").exists():
            return None
        return self._judge(last.digest, last, "")

    def watch(self, wake: Callable[[], None]) -> None:
        """A repository does not say when it changes."""

    def stop(self) -> None:
        """As ``PolicySource``."""
        self._is_stopped = True
        process = self._process
        if process is not None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

    def _make(self) -> None:
        if not (self._repository / "HEAD").exists():
            self._repository.mkdir(0o750, parents=True, exist_ok=True)
            self._git("init", "--quiet", "--bare", "--template=")

    def _judge(self, commit: str, last: TakenRevision | None, allowed: str) -> Delivery:
        try:
            if last is not None and last.owner == str(self._address) and commit not in (last.digest, allowed):
                self._refuse_older(commit, last.digest)
            if self._signers is not None:
                self._refuse_unsigned(commit)
            number = int(self._text("rev-list", "--count", commit))
            created = float(self._text("show", "--no-patch", "--format=%ct", commit))
            files = dict(self._files(commit))
            self._git("update-ref", _TAKEN, commit)  # what is kept on disk leads here
        except _Failed as error:
            raise NotTaken(f"commit {commit[:12]} cannot be read: {error}") from error
        if not files:
            raise NotTaken(f"commit {commit[:12]} has no policy file in `{self._address.folder or '.'}`")
        return Delivery(TakenRevision(str(self._address), number, commit, commit), files, created, tag=commit)

    def _refuse_older(self, commit: str, last: str) -> None:
        try:
            self._git("merge-base", "--is-ancestor", last, commit)
        except _Failed:
            raise NotTaken(
                f"commit {commit[:12]} does not descend from {last[:12]}, which was taken: its history was rewritten "
                "or goes back; let it in once with `authz bundle allow`"
            ) from None

    def _refuse_unsigned(self, commit: str) -> None:
        try:
            self._git("verify-commit", commit)
        except _Failed as error:
            raise NotTaken(f"commit {commit[:12]} is not signed by anybody in `{self._signers}`: {error}") from None

    def _files(self, commit: str) -> Iterator[tuple[str, bytes]]:
        """Every file that ``read_directory`` would read, as the tree has it: attributes of git hide none."""
        tree = f"{commit}:{self._address.folder}" if self._address.folder else f"{commit}^{{tree}}"
        found: dict[str, str] = {}
        total = 0
        for entry in self._git("ls-tree", "-r", "-z", "--long", tree).split(b"\0")[:-1]:
            head, _, path = entry.partition(b"\t")
            mode, _, blob, length = head.decode().split()
            name = path.decode("utf-8", "replace")
            if any(part.startswith(".") for part in name.split("/")) or not name.endswith(SUFFIXES):
                continue
            if mode not in ("100644", "100755"):
                raise NotTaken(f"commit {commit[:12]}: `{name}` is a link, and links are not followed")
            found[f"policies/{name}"] = blob
            total += int(length)
        if len(found) > MAX_FILES or total > MAX_UNPACKED_BYTES:
            raise NotTaken(f"commit {commit[:12]} has more than {MAX_FILES} files or {MAX_UNPACKED_BYTES >> 20} MiB")
        try:
            refuse_names(sorted(found))
        except BundleRefused as error:
            raise NotTaken(f"commit {commit[:12]}: {error}") from error
        texts = self._git("cat-file", "--batch", said="".join(f"{blob}\n" for blob in found.values()))
        at = 0
        for name in found:
            line, _, _ = texts[at : at + 200].partition(b"\n")
            size = int(line.split()[2])
            at += len(line) + 1
            yield name, texts[at : at + size]
            at += size + 1

    def _text(self, *arguments: str) -> str:
        return self._git(*arguments).decode("utf-8", "replace").strip()

    def _git(self, *arguments: str, said: str = "", asked: bool = False) -> bytes:
        """
        Run git; ``asked`` when it speaks to the server.

        Raises:
            _Failed: it ended with an error, or not in time.
        """
        settings = dict(self._settings)
        given = read_headers(self._headers_file) if asked and self._address.place.startswith("https:") else {}
        pairs = [*settings.items(), *(("http.extraHeader", f"{name}: {value}") for name, value in given.items())]
        environment = self._environment | {"GIT_CONFIG_COUNT": str(len(pairs))}  # not where `ps` shows it
        for number, (name, value) in enumerate(pairs):
            environment |= {f"GIT_CONFIG_KEY_{number}": name, f"GIT_CONFIG_VALUE_{number}": value}
        try:
            process = subprocess.Popen(  # noqa: S603  # the user's git, without a shell
                ["git", *arguments],  # noqa: S607  # of the user's path
                cwd=self._repository,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                process_group=0,
            )
        except OSError as error:
            raise _Failed(f"git: {error.strerror}") from error
        self._process = process
        if self._is_stopped:
            self.stop()
        with suppress(ProcessLookupError):  # it may have ended
            if hasattr(resource, "prlimit"):
                resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (MAX_REPOSITORY_BYTES, MAX_REPOSITORY_BYTES))
        try:
            output, errors = process.communicate(said.encode(), FETCH_SECONDS if asked else READ_SECONDS)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            raise _Failed("git took too long and was ended") from None
        finally:
            self._process = None
        if process.returncode:
            raise _Failed(_cause(errors.decode("utf-8", "replace")) or f"git ended with code {process.returncode}")
        return output


def _cause(said: str) -> str:
    """The first line that git calls an error, or else the last one: advice follows, and progress comes before."""
    lines = [line for line in said.splitlines() if line.strip()]
    errors = [line.partition(": ")[2] for line in lines if line.startswith(("fatal: ", "error: "))]
    return (errors or lines[-1:] or [""])[0]
