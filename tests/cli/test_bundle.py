"""``authz bundle``, by the page about it and by what goes wrong."""

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import authz
from authz.bundles.whole_bundle import read_bundle
from authz.cli import application
from tests.sources.published.published import BundleServer, serving

ROOT = Path(authz.__file__).parent.parent
POLICY = """apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: read, namespace: shop}
spec: {rules: [{}]}
"""


def run(*arguments: object, code: int = 0) -> Result:
    done = CliRunner().invoke(application, ["bundle", *map(str, arguments)])
    assert done.exit_code == code, done.output
    assert "Traceback" not in done.output
    return done


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle that nobody signed, in a folder of its own with a key."""
    monkeypatch.chdir(tmp_path)
    Path("policies").mkdir()
    Path("policies/read.yaml").write_text(POLICY)
    run("keygen", "keys")
    run("build", "policies", "-o", "shop.tar.gz", "--fleet", "shop", "--revision", 1, "--created", 1_800_000_000)
    return tmp_path / "shop.tar.gz"


@pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl here")
def test_the_commands_of_the_page_do_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every block in which nothing stands but commands that need no server."""
    blocks = re.findall(r"^```sh\n(.*?)^```", (ROOT / "docs/bundles.md").read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2
    (tmp_path / "policies").symlink_to(ROOT / "policies")
    (tmp_path / "mesh.yaml").symlink_to(ROOT / "envoy-configs/mesh.yaml")
    monkeypatch.chdir(tmp_path)
    said = ""
    for command in "".join(blocks).splitlines():
        if command.startswith("authz bundle "):
            run(*shlex.split(command)[2:])
        else:
            done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60, check=True)
            said += done.stdout
    assert "Signature Verified Successfully" in said
    assert (tmp_path / "keys/bundle.key").stat().st_mode & 0o777 == 0o600
    assert "mesh.yaml" in read_bundle((tmp_path / "published.tar.gz").read_bytes()).files


def test_the_same_input_is_the_same_bytes(built: Path) -> None:
    run("build", "policies", "-o", "again.tar.gz", "--fleet", "shop", "--revision", 1, "--created", 1_800_000_000)
    assert Path("again.tar.gz").read_bytes() == built.read_bytes()
    for _ in range(2):
        run("sign", built, "--key", "keys/bundle.key")
        run("sign", "again.tar.gz", "--key", "keys/bundle.key")
    assert Path("again.tar.gz").read_bytes() == built.read_bytes()


def test_what_verify_says_is_for_people_and_for_programs(built: Path) -> None:
    told = run("verify", built, "--public-key", "keys/bundle.pub", "-o", "json", code=3)
    assert json.loads(told.stdout) == {"ok": False, "error": "nobody signed it: `authz bundle sign` does"}
    signed = run("sign", built, "--key", "keys/bundle.key").stdout.split()[-1]
    told = run("verify", built, "--public-key", "keys/bundle.pub", "--fleet", "shop", "-o", "json")
    assert json.loads(told.stdout)["signed_by"] == [signed]
    assert json.loads(told.stdout)["files"] == ["policies/read.yaml"]
    told = run("verify", built, "--public-key", "keys/bundle.pub", "--fleet", "other", code=3)
    assert "it is for the fleet `shop`, and this is `other`" in told.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("keygen", "keys"), 1, "`keys/bundle.key` exists, and a key is not replaced"),
        (("build", "policies", "-o", "x", "--fleet", "Shop", "--revision", 1), 1, "a fleet's name has at most"),
        (("build", "policies", "-o", "x", "--fleet", "s", "--revision", 1, "--expires", "soon"), 2, "30d, 12h, 90m"),
        (("build", "policies", "policies/read.yaml", "-o", "x", "--fleet", "s", "--revision", 1), 1, "in it twice"),
        (("build", "broken.yaml", "-o", "x", "--fleet", "s", "--revision", 1), 1, "broken.yaml:4:"),
        (("sign", "shop.tar.gz", "--key", "keys/bundle.pub"), 1, "a private key that others may read"),
        (("sign", "policies/read.yaml", "--key", "keys/bundle.key"), 1, "the archive is not gzip"),
        (("verify", "shop.tar.gz", "--public-key", "keys/bundle.key"), 1, "`keys/bundle.key` is no public key in PEM"),
        (("push", "shop.tar.gz", "out.tar.gz"), 1, "nobody signed it, so nobody would take it"),
        (("fetch", "policies", "--cache", "c"), 1, "`policies` is a path, which commands take as it is"),
        (("fetch", "https://h/b", "--cache", "c"), 1, "a bundle needs the name of its fleet and a public key"),
        (("fetch", "ftp://h/b", "--cache", "c"), 1, "`ftp://…` is none of the addresses of policies"),
        (("allow", "--cache", "nowhere", "--revision", "1"), 1, "`nowhere`: there is no such directory"),
    ],
)
def test_what_is_wrong_is_said(built: Path, arguments: tuple[object, ...], code: int, said: str) -> None:
    Path("broken.yaml").write_text(POLICY.replace("rules", "rulez"))
    assert said in run(*arguments, code=code).output
    assert not Path("x").exists()


def test_a_bundle_is_sent_with_the_token_of_a_file_and_fetched_again(built: Path) -> None:
    Path("token.txt").write_text("Authorization: Bearer s3cret\n")
    run("sign", built, "--key", "keys/bundle.key")
    fetched = ("--cache", "cache", "--public-key", "keys/bundle.pub", "--fleet", "shop")
    server: BundleServer
    with serving() as server:
        run("push", built, server.url, "--headers", "token.txt")
        assert server.put == built.read_bytes()
        assert server.told[-1]["authorization"] == "Bearer s3cret"
        server.data = server.put
        path = Path(run("fetch", server.url, *fetched).stdout.strip())
        assert (path / "read.yaml").read_text() == POLICY
        server.status = 403
        run("fetch", server.url, *fetched, code=3)
        assert "status 403" in run("push", built, server.url, code=1).output
    assert (path / "read.yaml").read_text() == POLICY
    run("allow", "--cache", "cache", "--revision", 7)
    assert json.loads(Path("cache/allowed.json").read_text()) == {"revision": "7"}


def test_where_it_comes_from_is_noted(built: Path) -> None:
    if shutil.which("git") is None:
        pytest.skip("there is no git here")
    who = ("-c", "user.name=Ada", "-c", "user.email=ada@shop.example")
    for arguments in (("init", "-q"), ("add", "policies"), (*who, "commit", "-q", "-m", "one")):
        subprocess.run(["git", *arguments], cwd=built.parent, timeout=60, check=True)
    build = ("build", "policies", "-o", built, "--fleet", "shop", "--revision", 1)
    run(*build)
    noted = read_bundle(built.read_bytes()).manifest.provenance
    assert (noted.author, len(noted.commit)) == ("Ada", 40)
    Path("policies/read.yaml").write_text(f"{POLICY}# changed\n")
    run(*build)
    assert read_bundle(built.read_bytes()).manifest.provenance.commit == f"{noted.commit}-dirty"
