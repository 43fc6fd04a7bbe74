"""``authz ca join``: a workload's certificate as files, once or kept current."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import click

from authz.cli import terminal
from authz.cli.ca_files import KEY_TYPE, PEM_FILE, time_of
from authz.cli.renewal_hook import RenewalHook
from authz.identity.keys import KeyType
from authz.identity.secret_files import FILE_NAME
from authz.service.ports.signals import STOPPING, ignore_ending


@click.command()
@click.option(
    "--server",
    "servers",
    required=True,
    multiple=True,
    help="host:port of `authz ca serve --enrol`, or --listen for a renewal; repeated, the next one is asked when one "
    "does not answer.",
)
@click.option("--bundle", required=True, type=PEM_FILE, help="The roots that the server's certificate is checked by.")
@click.option(
    "--token-file",
    type=click.Path(dir_okay=False, path_type=Path),  # with --watch it may be gone once it was used
    help="A join token. Without one, the SVID in --out is renewed.",
)
@click.option(
    "--out",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Directory to write `tls.crt` and `tls.key` to.",
)
@KEY_TYPE
@click.option("--server-name", default="", help="Name in the server's certificate, if it differs from --server.")
@click.option(
    "--watch", is_flag=True, help="Keep renewing at half of the certificate's life, and follow changes of the root."
)
@click.option(
    "--renew",
    multiple=True,
    metavar="HOST:PORT",
    help="With --watch: the address of `authz ca serve --listen`, where the SVID is renewed; may be repeated.",
)
@click.option(
    "--on-renewal",
    default="",
    metavar="COMMAND",
    help="With --watch: run without a shell, at the start and after every renewal of certificate or roots, "
    "again until it succeeds.",
)
def join(
    servers: tuple[str, ...],
    bundle: Path,
    token_file: Path | None,
    out: Path,
    key_type: str,
    server_name: str,
    watch: bool,
    renew: tuple[str, ...],
    on_renewal: str,
) -> None:
    """
    Get this workload's certificate, or renew it. The private key is made here and never leaves.

    With --watch it goes on until SIGTERM. Started again, it uses the SVID in --out while that is valid, even if the
    authority is down, and does not look at the token: one command line serves the first start and all others.

    Exit code: 0 done, 3 refused (with --watch: refused until the SVID had expired), 1 no answer.

    \b
    authz ca join --server ca.example:7444 --bundle bundle.pem --token-file token --out certs/web
    authz ca join --server ca.example:7444 --renew ca.example:7443 --bundle bundle.pem --token-file token \\
        --out certs/web --watch
    authz ca join --server a.example:7444 --server b.example:7444 --renew a.example:7443 --renew b.example:7443 \\
        --bundle bundle.pem --token-file token --out certs/web --watch
    authz ca join --server ca.example:7443 --bundle bundle.pem --out certs/truth --watch \\
        --on-renewal "nats-server --signal reload=nats-server.pid"
    """
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # read when grpc begins; what went wrong is said in our words
    from authz.cli.enrol import Declined, Enrolling, keep_renewed  # grpc is slow to import

    if watch and token_file is not None and not renew:
        raise click.UsageError("--watch with --token-file needs --renew: the door for tokens renews nothing")
    if (renew or on_renewal) and not watch:
        raise click.UsageError(f"{'--renew' if renew else '--on-renewal'} needs --watch")
    hook = RenewalHook.of(on_renewal) if on_renewal else None
    enrolling = Enrolling(servers, bundle, out, KeyType(key_type), server_name)
    try:
        until = enrolling.valid_until(time.time()) if watch else None
        if until is None:
            until = enrolling.enrol(time.time(), token_file.read_text().strip() if token_file else "")
        terminal.say(f"{out / FILE_NAME}.crt, valid until {time_of(until)}")
        if watch:
            enrolling.servers = renew or servers
            keep_renewed(enrolling, _stop_on_signals(), hook)
    except Declined as error:
        terminal.remark(f"error: {error}")
        sys.exit(terminal.Exit.NO)
    finally:
        enrolling.hang_up()


def _stop_on_signals() -> threading.Event:
    stopping = threading.Event()
    ignore_ending()
    for number in STOPPING:
        signal.signal(number, lambda *_: stopping.set())
    return stopping
