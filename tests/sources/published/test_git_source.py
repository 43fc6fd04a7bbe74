"""Policies of a git repository: commits that descend from the last one, signed if that is asked for; nothing is run."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from authz.core.errors import SettingsError
from authz.sources.published import git_source
from authz.sources.published.opening import PublishedPolicies
from tests.sources.published.published import POISON, Replica, in_force, start_refused

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="there is no git here")
needs_ssh = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="there is no ssh-keygen here")
needs_gpg = pytest.mark.skipif(shutil.which("gpg") is None, reason="there is no gpg here")
Git = Callable[..., str]


@pytest.fixture
def git(tmp_path: Path) -> Git:
    """A repository at ``tmp_path/repository`` with one commit; arguments of git."""
    repository = tmp_path / "repository"
    environment = {
        "PATH": os.environ["PATH"], "HOME": str(tmp_path), "GIT_CONFIG_NOSYSTEM": "1", "LC_ALL": "C",
        "GIT_AUTHOR_NAME": "Ada", "GIT_AUTHOR_EMAIL": "ada@shop.example",
        "GIT_COMMITTER_NAME": "Ada", "GIT_COMMITTER_EMAIL": "ada@shop.example",
    }  # fmt: skip

    def run(*arguments: str) -> str:
        command = ["git", *arguments]
        done = subprocess.run(command, cwd=repository, env=environment, capture_output=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.decode().strip()

    repository.mkdir()
    run("init", "--quiet", "--initial-branch=main")
    commit(run, tmp_path, "one")
    return run


def commit(git: Git, tmp_path: Path, text: str, *options: str, name: str = "policies/a.yaml") -> str:
    file = tmp_path / "repository" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    git("add", "--all")
    git("commit", "--quiet", "--message", text, *options)
    return git("rev-parse", "HEAD")


def replica(tmp_path: Path, ref: str = "main:policies", signers: Path | None = None) -> Replica:
    return Replica(
        tmp_path / "replica", f"git+file://{tmp_path}/repository#{ref}", told=PublishedPolicies(signers=signers)
    )


def test_a_branch_is_followed_and_an_unchanged_one_is_not_read_again(git: Git, tmp_path: Path) -> None:
    commit(git, tmp_path, "other", name="README.md")
    commit(git, tmp_path, "hidden", name="policies/.drafts/b.yaml")
    with replica(tmp_path).running() as (follower, cache):
        assert in_force(cache) == b"one"
        assert [file.name for file in cache.policies.rglob("*") if file.is_file()] == ["a.yaml"]
        before = (cache.directory / "current").readlink()
        assert follower.ask()
        assert (cache.directory / "current").readlink() == before
        new = commit(git, tmp_path, "two")
        assert follower.ask()
        assert (in_force(cache), follower.status.revision, follower.status.number) == (b"two", new, 4)


def test_a_history_that_was_rewritten_is_refused_until_it_is_let_in(git: Git, tmp_path: Path) -> None:
    commit(git, tmp_path, "two")
    with replica(tmp_path).running() as (follower, cache):
        git("reset", "--quiet", "--hard", "HEAD~1")
        assert not follower.ask()
        assert "does not descend from" in follower.status.error
        other = commit(git, tmp_path, "three")
        assert not follower.ask()
        assert in_force(cache) == b"two"
        cache.allow(other)
        assert follower.ask()
        assert in_force(cache) == b"three"
    with replica(tmp_path, "HEAD:policies").running() as (_, cache):
        assert in_force(cache) == b"three", "another address is another history"


def test_a_start_without_the_repository_uses_the_commit_that_is_kept(git: Git, tmp_path: Path) -> None:
    with replica(tmp_path).running() as (follower, _):
        taken = follower.status.revision
        commit(git, tmp_path, POISON.decode())
        assert not follower.ask()
    (tmp_path / "repository").rename(tmp_path / "gone")
    with replica(tmp_path).running() as (follower, cache):
        assert (in_force(cache), follower.status.revision, follower.status.is_kept) == (b"one", taken, True)
        assert "does not appear to be a git repository" in follower.status.error


def test_what_the_repository_does_not_have_is_told(git: Git, tmp_path: Path) -> None:
    commit(git, tmp_path, "text", name="docs/README.md")
    missing = {
        "none": "couldn't find remote ref none",
        "main:none": "Not a valid object name",
        "main:docs": "has no policy file",
    }
    for ref, said in missing.items():
        with pytest.raises(SettingsError, match=said), replica(tmp_path, ref).running():
            pass


def test_a_link_among_the_policies_is_refused(git: Git, tmp_path: Path) -> None:
    (tmp_path / "repository/policies/b.yaml").symlink_to("/etc/passwd")
    commit(git, tmp_path, "two")
    with pytest.raises(SettingsError, match=r"`b.yaml` is a link"), replica(tmp_path).running():
        pass


def test_attributes_of_a_repository_hide_no_file_and_its_hooks_do_not_run(git: Git, tmp_path: Path) -> None:
    """`git archive` would leave the file out."""
    (tmp_path / "repository/policies/.gitattributes").write_text("a.yaml export-ignore\n*.yaml filter=evil ident\n")
    commit(git, tmp_path, "$Id$")
    git("config", "filter.evil.smudge", f"touch {tmp_path}/smudged")
    for hook in ("post-checkout", "pre-receive", "reference-transaction", "post-update"):
        file = tmp_path / "repository/.git/hooks" / hook
        file.write_text(f"#!/bin/sh\ntouch {tmp_path}/hooked\n")
        file.chmod(0o755)
    with replica(tmp_path).running() as (_, cache):
        assert in_force(cache) == b"$Id$"
    assert not (tmp_path / "smudged").exists()
    assert not (tmp_path / "hooked").exists()


def test_the_users_own_settings_and_variables_of_git_do_not_count(
    git: Git, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"GIT_DIR": "/none", "GIT_SSH_COMMAND": "false", "GIT_CONFIG_COUNT": "x"}.items():
        monkeypatch.setenv(name, value)
    with replica(tmp_path).running() as (_, cache):
        assert in_force(cache) == b"one"


def test_git_that_takes_too_long_is_ended(git: Git, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = tmp_path / "bin" / "git"
    slow.parent.mkdir()
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    monkeypatch.setattr(git_source, "FETCH_SECONDS", 0.1)
    monkeypatch.setattr(git_source, "READ_SECONDS", 0.1)
    monkeypatch.setenv("PATH", str(slow.parent), prepend=":")
    with pytest.raises(SettingsError, match="git took too long and was ended"), replica(tmp_path).running():
        pass


@needs_ssh
def test_only_commits_that_an_allowed_signer_of_ssh_signed_are_taken(git: Git, tmp_path: Path) -> None:
    for name in ("ada", "eve"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / name)], timeout=60, check=True
        )
    signers = tmp_path / "signers"
    signers.write_text(f"ada@shop.example {(tmp_path / 'ada.pub').read_text()}")
    git("config", "gpg.format", "ssh")
    start_refused(replica(tmp_path, signers=signers), "is not signed by anybody in")
    commit(git, tmp_path, "two", f"-S{tmp_path / 'ada.pub'}")
    with replica(tmp_path, signers=signers).running() as (follower, cache):
        assert in_force(cache) == b"two"
        for text, options in (("three", (f"-S{tmp_path / 'eve.pub'}",)), ("four", ())):
            commit(git, tmp_path, text, *options)
            assert not follower.ask()
            assert "is not signed by anybody in" in follower.status.error
            assert in_force(cache) == b"two"
        commit(git, tmp_path, "five", f"-S{tmp_path / 'ada.pub'}")
        assert follower.ask()
        assert in_force(cache) == b"five"


@needs_gpg
def test_only_commits_that_a_key_of_a_home_of_gnupg_signed_are_taken(git: Git, tmp_path: Path) -> None:
    home = Path(subprocess.run(["mktemp", "-d"], capture_output=True, text=True, check=True).stdout.strip())
    try:
        gpg = ["gpg", "--batch", "--quiet", "--homedir", str(home), "--passphrase", "", "--pinentry-mode", "loopback"]
        subprocess.run([*gpg, "--quick-gen-key", "ada@shop.example", "ed25519", "sign"], timeout=60, check=True)
        program = tmp_path / "gpg"
        program.write_text(f'#!/bin/sh\nexec gpg --homedir {home} "$@"\n')
        program.chmod(0o755)
        git("config", "gpg.program", str(program))
        start_refused(replica(tmp_path, signers=home), "is not signed by anybody in")
        commit(git, tmp_path, "two", "-Sada@shop.example")
        with replica(tmp_path, signers=home).running() as (_, cache):
            assert in_force(cache) == b"two"
        empty = tmp_path / "empty"
        empty.mkdir(0o700)
        commit(git, tmp_path, "three", "-Sada@shop.example")
        start_refused(replica(tmp_path, signers=empty), "is not signed by anybody in")
    finally:
        subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "gpg-agent"], timeout=60, check=False)
        shutil.rmtree(home)


def test_a_repository_is_bounded(git: Git, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(git_source, "MAX_UNPACKED_BYTES", 2)
    with pytest.raises(SettingsError, match="has more than 20000 files or"), replica(tmp_path).running():
        pass
