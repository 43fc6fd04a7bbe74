"""``authz ca`` from init to retire, without a server."""

import json
import os
import re
import time
from pathlib import Path

import click
import pytest
from click.testing import Result

from authz.cli import application
from authz.core.spiffe import TrustDomain
from authz.identity.bundle import split_bundle
from authz.identity.keys import write_key
from authz.identity.ledger import LEDGER_FILE, Ledger
from authz.identity.revocation import read_revocations
from authz.identity.svid_validation import Examined, validate_svid
from tests.cli.conftest import Run
from tests.identity.certificates import INTERMEDIATE, KEYS, ROOT, changed, pem

FRONT = "spiffe://mesh.test/ns/shop/sa/front"


@pytest.fixture
def authority(run: Run, tmp_path: Path) -> Path:
    """An authority named ``ca`` in the directory that commands run in."""
    assert run("ca", "init", "--trust-domain", "mesh.test").exit_code == 0
    return tmp_path / "ca"


def states(run: Run) -> list[str]:
    shown = json.loads(run("ca", "show", "-o", "json").stdout)
    return [authority["state"] for authority in shown["authorities"]]


def failed(result: Result, code: int) -> str:
    assert result.exit_code == code, result.output
    return result.stdout + result.stderr


def test_an_authority_is_made_once(run: Run, authority: Path) -> None:
    assert states(run) == ["active"]
    assert "already holds an authority" in failed(run("ca", "init"), 1)


def test_a_bad_trust_domain_is_said(run: Run) -> None:
    assert "`UPPER` is not a trust domain" in failed(run("ca", "init", "--trust-domain", "UPPER"), 1)


def test_a_certificate_is_issued_to_files_verified_and_recorded(run: Run, authority: Path, tmp_path: Path) -> None:
    result = run("ca", "issue", FRONT, "--dns", "front.shop.svc", "--out", "certs/front")
    assert result.exit_code == 0, result.output
    assert "PRIVATE" not in result.output
    assert sorted(path.name for path in (tmp_path / "certs/front").iterdir()) == ["ca.crt", "tls.crt", "tls.key"]
    assert (tmp_path / "certs/front/tls.key").stat().st_mode & 0o777 == 0o600
    assert f"{FRONT} serial" in run("ca", "verify", "certs/front/tls.crt").stdout
    (record,) = Ledger(authority / LEDGER_FILE).read()
    assert (record.spiffe_id, record.evidence) == (FRONT, "file:certs/front/tls")


def test_a_web_servers_certificate_is_issued_and_is_no_svid(run: Run, authority: Path) -> None:
    assert run("ca", "issue", "--server", "--dns", "shop.example", "--ip", "127.0.0.1", "--out", "web").exit_code == 0
    assert failed(run("ca", "verify", "web/tls.crt"), 3) == "the certificate's extendedKeyUsage lacks clientAuth\n"


WRONG = [
    (("issue", "--out", "x"), 2, "give a SPIFFE ID, or --server with --dns"),
    (("issue", FRONT, "--server", "--out", "x"), 2, "give a SPIFFE ID, or --server with --dns"),
    (("issue", "--server", "--out", "x"), 1, "at least one DNS name or IP address"),
    (("issue", "nonsense", "--out", "x"), 1, "`nonsense` is not a SPIFFE ID"),
    (("issue", "spiffe://other.test/a", "--out", "x"), 1, "is not in the trust domain `mesh.test`"),
    (
        ("issue", FRONT, "--ca", "nowhere", "--out", "x"),
        1,
        "there is no authority in `nowhere`; make one with `authz ca init`",
    ),
    (("issue", FRONT, "--dns", "a b", "--out", "x"), 1, "`a b` is not a DNS name"),
    (("issue", FRONT, "--dns", "bücher.example", "--out", "x"), 1, "`bücher.example` is not a DNS name; write it as"),
    (("issue", FRONT, "--dns", "-a.example", "--out", "x"), 1, "`-a.example` is not a DNS name"),
    (("issue", FRONT, "--ip", "1.2.3.4", "--out", "x"), 2, "--ip needs --server"),
    (("issue", "--server", "--ip", "999.1.1.1", "--out", "x"), 1, "`999.1.1.1` is not an IP address"),
    (("root", "activate"), 2, "give --admin for every Envoy, or --unchecked"),
    (("root", "activate", "--unchecked"), 1, "no authority is prepared"),
    (("root", "taint"), 1, "no authority is old"),
    (("root", "retire", "--unchecked"), 1, "no authority is tainted"),
    (("token", "create", "spiffe://mesh.test"), 1, "has no path"),
    (("token", "create", "spiffe://other.test/a"), 1, "is not in the trust domain `mesh.test`"),
    (("serve", "--socket", "s", "--federate", "other.test"), 2, "--federate is DOMAIN=FILE"),
    (("serve", "--socket", "s", "--ca", "nowhere"), 1, "there is no authority in `nowhere`"),
    (("serve", "--socket", "s", "--admin", "0.0.0.0:80"), 1, "`0.0.0.0:80` can be reached from other machines; listen"),
    (("serve", "--socket", "/proc/nowhere/s"), 1, "cannot listen on `unix:/proc/nowhere/s`: "),
    (("serve", "--enrol", "nonsense"), 1, "cannot listen on `nonsense`: it is in use or not an address of this host"),
    (("serve", "--enrol", "localhost:0", "--dns", "a b"), 1, "`a b` is not a DNS name"),
    (("serve",), 2, "at least one of --socket, --listen, --enrol and --bundle-endpoint is needed"),
    (("serve", "--bundle-endpoint", "nonsense"), 1, "the bundle endpoint: `nonsense` is neither host:port nor unix"),
    (("serve", "--bundle-endpoint", "127.0.0.1:0", "--bundle-key", "ca/bundle.pem"), 2, "go together"),
    (("jwt", "mint", "nonsense", "--audience", "a"), 1, "`nonsense` is not a SPIFFE ID"),
    (("jwt", "mint", "spiffe://other.test/a", "--audience", "a"), 1, "is not in the trust domain `mesh.test`"),
    (("jwt", "mint", "spiffe://mesh.test", "--audience", "a"), 1, "`spiffe://mesh.test` has no path"),
    (("jwt", "mint", FRONT, "--audience", ""), 1, "an audience is needed"),
    (("jwt", "mint", FRONT), 2, "--audience"),
    (("jwt", "show", "--ca", "nowhere"), 1, "there is no authority in `nowhere`"),
    (("bundle", "show", "--ca", "nowhere"), 1, "there is no authority in `nowhere`"),
]


@pytest.mark.parametrize(("arguments", "code", "message"), WRONG)
@pytest.mark.usefixtures("authority")
def test_what_cannot_be_done_says_why(run: Run, arguments: tuple[str, ...], code: int, message: str) -> None:
    assert message in failed(run("ca", *arguments), code)


@pytest.mark.usefixtures("authority")
def test_the_root_is_rotated_in_four_steps(run: Run) -> None:
    assert run("ca", "root", "prepare").exit_code == 0
    assert states(run) == ["active", "prepared"]
    assert run("ca", "root", "activate", "--unchecked").exit_code == 0
    assert states(run) == ["old", "active"]
    assert "old but not tainted" in failed(run("ca", "root", "retire", "--unchecked", first_id(run)), 1)
    assert run("ca", "root", "taint").exit_code == 0
    assert run("ca", "root", "retire", "--unchecked").exit_code == 0
    assert states(run) == ["active"]


def first_id(run: Run) -> str:
    shown = json.loads(run("ca", "show", "-o", "json").stdout)
    identity = shown["authorities"][0]["id"]
    assert isinstance(identity, str)
    return identity


def signing_key(authority: Path) -> bytes:
    (key,) = authority.glob("*/signing*.key")
    assert key.stat().st_mode & 0o777 == 0o600
    return key.read_bytes()


def test_an_intermediate_is_renewed_and_the_former_ones_leaves_stay_good(run: Run, authority: Path) -> None:
    """Also for the authorization server, which is shown leaves only and needs the former intermediate for them."""
    keys, bundle = {signing_key(authority)}, (authority / "bundle.pem").read_bytes()
    for turn in range(3):
        assert run("ca", "issue", FRONT, "--out", f"certs/{turn}").exit_code == 0
        assert run("ca", "intermediate", "renew").exit_code == 0
        keys.add(signing_key(authority))
    assert len(keys) == 4
    assert (authority / "bundle.pem").read_bytes() == bundle
    assert (authority / "intermediates.pem").read_bytes().count(b"BEGIN") == 4
    trusted = split_bundle(TrustDomain("mesh.test"), bundle + (authority / "intermediates.pem").read_bytes())
    for turn in range(3):
        chain = (authority.parent / f"certs/{turn}/tls.crt").read_bytes()
        leaf = chain[: chain.index(b"-----END") + len(b"-----END CERTIFICATE-----\n")]
        assert isinstance(validate_svid(leaf, {trusted.trust_domain: trusted}, time.time()), Examined)
        assert run("ca", "verify", f"certs/{turn}/tls.crt").exit_code == 0
    assert states(run) == ["active"]
    assert run("ca", "root", "prepare").exit_code == 0
    assert run("ca", "root", "activate", "--unchecked").exit_code == 0
    assert run("ca", "root", "taint").exit_code == 0
    assert run("ca", "root", "retire", "--unchecked").exit_code == 0
    assert (authority / "intermediates.pem").read_bytes().count(b"BEGIN") == 1
    signing_key(authority)


def test_an_intermediate_of_ones_own_is_renewed_by_another_of_the_same_root(run: Run, tmp_path: Path) -> None:
    files = own_files(tmp_path)
    assert run("ca", "init", "--trust-domain", "mesh.test", *files).exit_code == 0
    renew = ("ca", "intermediate", "renew")
    assert "bring an intermediate that it signed" in failed(run(*renew), 1)
    assert "needs --chain and --key" in failed(run(*renew, "--key", "key.pem"), 2)
    assert "is in use already" in failed(run(*renew, *files[2:]), 1)
    second = changed(INTERMEDIATE, begin=1.0e9, end=3.9e9, key=KEYS["other"], name="second", serial=77)
    (tmp_path / "chain.pem").write_bytes(pem(second.certificate()))
    assert "the private key does not belong to `CN=second`" in failed(run(*renew, *files[2:]), 1)
    (tmp_path / "key.pem").write_bytes(write_key(KEYS["other"]))
    assert run(*renew, *files[2:]).exit_code == 0
    assert run("ca", "issue", FRONT, "--out", "certs").exit_code == 0
    assert run("ca", "verify", "certs/tls.crt").exit_code == 0
    foreign = changed(second, issuer="root", signer=KEYS["leaf"])
    (tmp_path / "chain.pem").write_bytes(pem(foreign.certificate()))
    assert "`CN=second` was not signed by `CN=root`" in failed(run(*renew, *files[2:]), 1)


@pytest.mark.usefixtures("authority")
def test_a_proxy_that_cannot_be_asked_stops_a_step(run: Run) -> None:
    run("ca", "root", "prepare")
    assert "cannot be asked" in failed(run("ca", "root", "activate", "--admin", "./nowhere.sock"), 1)
    assert states(run) == ["active", "prepared"]


def test_a_token_is_shown_once_and_kept_as_a_digest(run: Run, authority: Path) -> None:
    result = run("ca", "token", "create", FRONT)
    token = result.stdout.strip()
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", token)
    (kept,) = (authority / "join-tokens").iterdir()
    assert token not in kept.read_text()


def own_files(tmp_path: Path) -> list[str]:
    """Certificates of the tests' own chain, valid today."""
    lives = {"begin": 1.0e9, "end": 3.9e9}
    files = {
        "root.pem": pem(changed(ROOT, **lives).certificate()),
        "chain.pem": pem(changed(INTERMEDIATE, **lives).certificate()),
        "key.pem": write_key(KEYS["intermediate"]),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        os.chmod(tmp_path / name, 0o600)
    return ["--root", "root.pem", "--chain", "chain.pem", "--key", "key.pem"]


def test_one_may_bring_an_intermediate_of_ones_own(run: Run, tmp_path: Path) -> None:
    files = own_files(tmp_path)
    assert run("ca", "init", "--trust-domain", "mesh.test", *files).exit_code == 0
    assert run("ca", "issue", FRONT, "--out", "certs").exit_code == 0
    assert run("ca", "verify", "certs/tls.crt").exit_code == 0


def test_half_an_authority_of_ones_own_is_refused(run: Run, tmp_path: Path) -> None:
    files = own_files(tmp_path)
    assert "needs --root and --key" in failed(run("ca", "init", *files[:4]), 2)
    (tmp_path / "key.pem").chmod(0o644)
    assert "others may read" in failed(run("ca", "init", *files), 1)


def test_an_authority_for_other_names_is_refused_before_anybody_relies_on_it(run: Run, tmp_path: Path) -> None:
    """Everything it signs would be refused by every peer."""
    files = own_files(tmp_path)
    told = failed(run("ca", "init", "--trust-domain", "other.test", *files), 1)
    assert "nobody would accept what this authority signs: `spiffe://other.test/trial` is outside the name" in told
    assert not (tmp_path / "ca").exists()


@pytest.mark.usefixtures("authority")
def test_a_prepared_root_may_be_ones_own(run: Run, tmp_path: Path) -> None:
    assert run("ca", "root", "prepare", *own_files(tmp_path)).exit_code == 0
    assert states(run) == ["active", "prepared"]


ENTRIES = f"entries:\n- {{ spiffeID: {FRONT}, selectors: ['unix:uid:1'], dns: [front] }}\n"


def test_entries_are_checked_and_shown(run: Run, tmp_path: Path) -> None:
    (tmp_path / "entries.yaml").write_text(ENTRIES)
    assert run("ca", "entry", "validate", "entries.yaml", "--trust-domain", "mesh.test").stdout == "1 entry\n"
    shown = run("ca", "entry", "show", "entries.yaml", "--trust-domain", "mesh.test").stdout.splitlines()
    assert shown[1].split() == [FRONT, "unix:uid:1", "86400", "s", "front"]
    answer = failed(run("ca", "entry", "validate", "entries.yaml"), 3)
    assert "entries.yaml:2:15" in answer
    assert "is not in the trust domain `cluster.local`" in answer
    assert "is not in the trust domain" in failed(run("ca", "entry", "show", "entries.yaml"), 1)


# The documentation

GUIDE = (Path(__file__).parent.parent.parent / "docs/identity.md").read_text()
COMMAND_LINES = re.findall(r"^(?:`)?authz ((?:ca|rotation) [^#`\n]*)", GUIDE, re.MULTILINE)


@pytest.mark.parametrize("line", COMMAND_LINES)
def test_every_command_of_the_guide_exists_with_its_options(line: str) -> None:
    words = line.split()
    command: click.Command = application
    while isinstance(command, click.Group):
        found = command.get_command(click.Context(command), words.pop(0))
        assert found is not None, line
        command = found
    options = {name for parameter in command.params for name in parameter.opts}
    assert {word for word in words if word.startswith("-")} <= options


def test_the_guides_entries_are_good(run: Run, tmp_path: Path) -> None:
    assert len(COMMAND_LINES) > 10
    (tmp_path / "entries.yaml").write_text(GUIDE.split("```yaml\n")[1].split("```")[0])
    assert run("ca", "entry", "validate", "entries.yaml").stdout == "2 entries\n"


def test_the_guides_revocations_are_good() -> None:
    _, problems = read_revocations("revoked.txt", GUIDE.rsplit("```\n", 2)[1])
    assert problems == ()


def test_key_types_are_named_as_they_are_documented(run: Run, tmp_path: Path) -> None:
    result = run("ca", "init", "--ca", str(tmp_path / "ca"), "--trust-domain", "td", "--key-type", "rsa-2048")

    assert result.exit_code == 0, result.output


def test_another_authority_is_made_without_the_roots_key_and_each_believes_the_other(run: Run, tmp_path: Path) -> None:
    assert run("ca", "init", "--trust-domain", "mesh.test").exit_code == 0
    assert "authority `b` below" in run("ca", "intermediate", "issue", "--name", "b", "--out", "b").stdout
    assert list(tmp_path.glob("b/*/root.key")) == []
    assert (tmp_path / "b" / "bundle.pem").read_bytes() == (tmp_path / "ca" / "bundle.pem").read_bytes()
    assert run("ca", "issue", FRONT, "--ca", "b", "--out", "certs").exit_code == 0
    assert run("ca", "verify", "certs/tls.crt", "--ca", "ca").exit_code == 0
    (tmp_path / "token").write_text(run("ca", "jwt", "mint", FRONT, "--ca", "ca", "--audience", "cart").stdout)
    assert run("ca", "jwt", "validate", "token", "--ca", "b", "--audience", "cart").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--name", "b", "--out", "c"), "there is an authority `b` already"),
        (("--name", "first", "--out", "c"), "there is an authority `first` already"),
        (("--name", "B/c", "--out", "c"), "`B/c` is not a name of an authority"),
        (("--name", "c", "--out", "b"), "`b` already holds an authority"),
        (("--ca", "b", "--name", "c", "--out", "c"), "is not here, so nothing below it can be signed"),
    ],
)
def test_another_authority_that_cannot_be_made_is_refused(run: Run, arguments: tuple[str, ...], reason: str) -> None:
    assert run("ca", "init").exit_code == 0
    assert run("ca", "intermediate", "issue", "--name", "b", "--out", "b").exit_code == 0
    assert reason in failed(run("ca", "intermediate", "issue", *arguments), 1)
