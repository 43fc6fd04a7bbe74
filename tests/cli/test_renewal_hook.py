"""The command of ``authz ca join --on-renewal``: run for every change until it succeeds, and what it is for."""

import asyncio
import os
import socket
import ssl
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from cryptography import x509

from authz.cli import renewal_hook
from authz.cli.enrol import Enrolling, keep_renewed
from authz.cli.renewal_hook import RenewalHook
from authz.control.authority.authority_files import AuthorityFiles
from authz.control.authority.authority_server import AuthorityServer, Doors
from authz.core.errors import SettingsError
from authz.core.spiffe import SpiffeId, TrustDomain
from authz.identity.ca import BUNDLE_FILE, CertificateAuthority
from authz.identity.keys import KeyType
from authz.identity.secret_files import write_secret_files
from authz.truth.server_configuration import SERVER_PATH
from authz.truth.truth_bucket import SECURITY, TruthBucket
from tests.nats_server import NAME, TRUST_DOMAIN, NatsServers, nats_server, truth_servers

pytestmark = pytest.mark.slow  # real servers of the truth

OWN = SpiffeId(TrustDomain(TRUST_DOMAIN), SERVER_PATH)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        pytest.param("true", "`true` was run after the renewal\n", id="it works"),
        pytest.param("false", "error: `false` failed with exit code 1; it is run", id="it fails"),
        pytest.param(
            "sh -c 'echo a; echo no pid >&2; exit 7'", "failed with exit code 7: no pid; it is", id="it says why"
        ),
        pytest.param("sh -c 'kill -9 $$'", "failed with signal 9; it is run again", id="it is killed"),
        pytest.param("no-such-program --x", "could not be run: No such file or directory; it is", id="it is not there"),
        pytest.param("echo $HOME; false", "`echo` was run after the renewal\n", id="there is no shell"),
        pytest.param("sleep 60", "error: `sleep 60` did not end within 1 seconds; it is run again", id="it hangs"),
        pytest.param(
            "sh -c 'sleep 60 & echo $! > pid'", "`sh` was run after the renewal\n", id="it leaves something behind"
        ),
    ],
)
def test_what_becomes_of_it_is_said(
    command: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    if command.startswith("sleep"):
        monkeypatch.setattr(renewal_hook, "HOOK_SECONDS", 1.0)
    hook = RenewalHook.of(command)
    hook.run(0)
    assert said in capsys.readouterr().err
    assert (hook.done == 0) == said.endswith("renewal\n")
    with suppress(FileNotFoundError, ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 9)


def test_it_is_run_until_it_succeeds_and_again_for_the_next_change(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hook = RenewalHook.of(f"cp {tmp_path / 'there'} {tmp_path / 'copied'}")
    for _ in range(3):
        hook.run(4)
    assert capsys.readouterr().err.count("exit code 1") == 1  # the same is told once
    (tmp_path / "there").write_text("1")
    for change, expected in ((4, "1"), (4, "1"), (5, "2")):
        hook.run(change)
        assert (tmp_path / "copied").read_text() == expected
        (tmp_path / "there").write_text("2")


@pytest.mark.parametrize(("command", "reason"), [(" ", "is empty"), ("echo 'a", "No closing quotation")])
def test_what_is_no_command_is_refused(command: str, reason: str) -> None:
    with pytest.raises(SettingsError, match=reason):
        RenewalHook.of(command)


async def test_a_server_of_the_truth_serves_its_renewed_certificate_and_nobody_is_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the names that a registration entry gives it, for a renewal has no others."""
    monkeypatch.setattr("authz.cli.enrol.LOOK_SECONDS", 0.2)
    ca = CertificateAuthority.create(TRUST_DOMAIN, time.time())
    ca.save(tmp_path / "ca")
    (tmp_path / "entries.yaml").write_text(
        f"entries:\n- {{ spiffeID: {OWN}, parentID: {OWN}, dns: [localhost, {NAME}] }}\n"
    )
    authority = AuthorityServer(
        AuthorityFiles(tmp_path / "ca", tmp_path / "entries.yaml"), Doors(listen="localhost:0", dns=("localhost",))
    )
    await authority.start()
    out = tmp_path / "truth" / "certificates" / "authz-truth"
    stopping = threading.Event()
    try:
        with truth_servers(tmp_path / "truth", tls=True, ca=ca) as servers, servers.client() as client:
            first = served(servers)
            old = ca.issue_svid(OWN, time.time() - 3600, ttl_seconds=5000)  # beyond half of its life
            write_secret_files(out, "tls", old.chain_pem, old.key_pem)
            joined = Enrolling(
                (f"localhost:{authority.ports['listen']}",), tmp_path / "ca" / BUNDLE_FILE, out, KeyType.ECDSA_P256
            )
            hook = RenewalHook.of(f"{nats_server()} --signal reload={servers.process_id(0)}")
            watching = asyncio.create_task(asyncio.to_thread(keep_renewed, joined, stopping, hook))
            until = time.monotonic() + 15
            while served(servers) in (first, old.serial):
                assert time.monotonic() < until
                await asyncio.sleep(0.1)
            assert served(servers) == x509.load_pem_x509_certificate((out / "tls.crt").read_bytes()).serial_number
            await asyncio.to_thread(TruthBucket(client, SECURITY).put, "there", b"1")
            assert client.connection().stats["reconnects"] == 0
            with servers.client() as another:  # it checks the name
                found = await asyncio.to_thread(TruthBucket(another, SECURITY).get, "there")
                assert found is not None
            stopping.set()
            await watching
    finally:
        stopping.set()
        await authority.stop(0)


def served(servers: NatsServers) -> int:
    """The serial number of the certificate that a new connection is shown."""
    context = ssl.create_default_context(cafile=str(servers.directory / "bundle.pem"))
    context.check_hostname = False
    host, _, port = servers.address.servers[0].rpartition(":")
    with socket.create_connection((host, int(port)), 5) as plain, context.wrap_socket(plain) as tls:
        shown = tls.getpeercert(binary_form=True)
    assert shown is not None
    return x509.load_der_x509_certificate(shown).serial_number
