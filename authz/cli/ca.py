"""``authz ca``: the certificate authority from the command line. Private keys go to files (0600) and nowhere else."""

import sys
import time
from pathlib import Path

import click

from authz.cli import terminal
from authz.cli.ca_authority import authority as authorities
from authz.cli.ca_bundle import bundle, federation
from authz.cli.ca_entries import entry, revocation, token
from authz.cli.ca_files import DIRECTORY, KEY_TYPE, PEM_FILE, adopted_authority, load, time_of, trust_domain_of
from authz.cli.ca_intermediate import intermediate
from authz.cli.ca_join import join
from authz.cli.ca_jwt import jwt
from authz.cli.ca_root import root
from authz.cli.ca_serve import serve
from authz.core.attributes import Json
from authz.core.errors import SettingsError
from authz.core.spiffe import SpiffeId
from authz.identity.authority import Authority
from authz.identity.ca import CertificateAuthority, Issued
from authz.identity.certificate_template import (
    SERVER_TTL_SECONDS,
    SVID_TTL_SECONDS,
)
from authz.identity.keys import KeyType
from authz.identity.ledger import LEDGER_FILE, Ledger
from authz.identity.registrar import Issuance
from authz.identity.secret_files import FILE_NAME, write_file, write_secret_files
from authz.identity.svid_validation import Rejection, validate_svid


@click.group()
def ca() -> None:
    """
    Run and inspect the certificate authority.

    \b
    authz ca init --ca ca --trust-domain cluster.local
    authz ca issue spiffe://cluster.local/ns/shop/sa/web --ca ca --out certs/web
    authz ca serve --ca ca --entries entries.yaml --socket run/sds.sock
    authz ca jwt mint spiffe://cluster.local/ns/shop/sa/web --audience reports
    authz ca bundle show --format spiffe
    """


@ca.command()
@DIRECTORY
@click.option("--trust-domain", default="cluster.local", help="The trust domain of its identities.")
@KEY_TYPE
@click.option("--root", type=PEM_FILE, help="Bring your own: the root's certificate (PEM).")
@click.option("--chain", type=PEM_FILE, help="Your own intermediate first, further ones after it, without the root.")
@click.option("--key", type=PEM_FILE, help="The key of the intermediate, or of the root when there is none.")
def init(
    directory: Path,
    trust_domain: str,
    key_type: str,
    root: Path | None,
    chain: Path | None,
    key: Path | None,
) -> None:
    """
    Make an authority: a root (ten years) and an intermediate (one year), or your own from files.

    \b
    authz ca init --ca ca --trust-domain cluster.local
    authz ca init --ca ca --root root.pem --chain intermediate.pem --key intermediate.key
    """
    if (directory / "authorities.json").exists():
        raise SettingsError(f"`{directory}` already holds an authority; rotate it with `authz ca root prepare`")
    now = time.time()
    domain = trust_domain_of(trust_domain)
    adopted = adopted_authority(root, chain, key, now, domain)
    if adopted is not None:
        made = CertificateAuthority(domain, (adopted,))
    else:
        made = CertificateAuthority.create(domain, now, key_type=KeyType(key_type))
    made.save(directory)
    terminal.say(f"authority {made.active.id} of {domain} in {directory}; trust {directory / 'bundle.pem'}")


@ca.command()
@click.argument("spiffe_id", required=False)
@DIRECTORY
@click.option("--dns", multiple=True, help="A DNS name in the certificate; may be repeated.")
@click.option("--ip", "addresses", multiple=True, help="An IP address in a server certificate; may be repeated.")
@click.option("--server", is_flag=True, help="A web server's certificate for --dns, without a SPIFFE ID.")
@click.option(
    "--ttl", type=click.FloatRange(1), help="Lifetime in seconds: by default a day, for a web server 90 days."
)
@KEY_TYPE
@click.option(
    "--out",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Directory to write `tls.crt` and `tls.key` to.",
)
def issue(
    spiffe_id: str | None,
    directory: Path,
    dns: tuple[str, ...],
    addresses: tuple[str, ...],
    server: bool,
    ttl: float | None,
    key_type: str,
    out: Path,
) -> None:
    """
    Issue a certificate to files: for SPIFFE_ID, or with --server for a web server.

    \b
    authz ca issue spiffe://cluster.local/ns/shop/sa/web --out certs/web
    authz ca issue --server --dns shop.example --out certs/shop
    """
    if bool(spiffe_id) == server:
        raise click.UsageError("give a SPIFFE ID, or --server with --dns")
    if spiffe_id and addresses:
        raise click.UsageError("--ip needs --server")
    authority, now = load(directory), time.time()
    try:
        if spiffe_id:
            issued = authority.issue_svid(
                SpiffeId.parse(spiffe_id), now, dns=dns, ttl_seconds=ttl or SVID_TTL_SECONDS, key_type=KeyType(key_type)
            )
        else:
            issued = authority.issue_server_certificate(
                dns, now, addresses=addresses, ttl_seconds=ttl or SERVER_TTL_SECONDS, key_type=KeyType(key_type)
            )
    except ValueError as error:
        raise SettingsError(str(error)) from error
    Ledger(directory / LEDGER_FILE).record(_issuance(issued, f"file:{out / FILE_NAME}", now))
    certificate, key = write_secret_files(out, FILE_NAME, issued.chain_pem, issued.key_pem)
    write_file(out / "ca.crt", authority.bundle_pem)
    terminal.say(f"{certificate} and {key}, valid until {time_of(issued.not_after)}")


@ca.command()
@DIRECTORY
@terminal.answer_form("table", "json", name="form")
def show(directory: Path, form: str) -> None:
    """
    Show the authorities; `authz ca bundle show` prints what they are trusted by.

    \b
    authz ca show --ca ca
    """
    authority = load(directory)
    rows = [_row(a) for a in authority.authorities]
    if form == "json":
        keys = ("id", "state", "root_expires", "signing_expires", "root_serial")
        found: list[Json] = [dict(zip(keys, row, strict=True)) for row in rows]
        terminal.print_json({"trust_domain": authority.trust_domain.name, "authorities": found})
        return
    terminal.say(f"trust domain {authority.trust_domain}")
    terminal.print_table(("authority", "state", "root expires", "signing expires", "root serial"), rows)


@ca.command()
@click.argument("certificate", type=PEM_FILE)
@DIRECTORY
def verify(certificate: Path, directory: Path) -> None:
    """
    Validate an X.509-SVID chain. Exit code: 0 valid, 3 not, and why.

    \b
    authz ca verify certs/web/tls.crt --ca ca
    """
    trusted = load(directory).trust_bundle
    answer = validate_svid(certificate.read_bytes(), {trusted.trust_domain: trusted}, time.time())
    if isinstance(answer, Rejection):
        terminal.say(answer.reason)
        sys.exit(terminal.Exit.NO)
    terminal.say(
        f"{answer.spiffe_id} serial {answer.serial:x}, valid until {time_of(min(w.end for w in answer.windows))}"
    )


ca.add_command(serve)
ca.add_command(join)
ca.add_command(root)
ca.add_command(intermediate)
ca.add_command(authorities)
ca.add_command(token)
ca.add_command(entry)
ca.add_command(revocation)
ca.add_command(jwt)
ca.add_command(bundle)
ca.add_command(federation)


def _row(authority: Authority) -> tuple[str, str, str, str, str]:
    root_end = authority.root.not_valid_after_utc.timestamp()
    end = authority.signing.not_valid_after_utc.timestamp()
    return (authority.id, authority.state.value, time_of(root_end), time_of(end), f"{authority.root.serial_number:x}")


def _issuance(issued: Issued, evidence: str, now: float) -> Issuance:
    return Issuance(
        now,
        evidence,
        str(issued.spiffe_id or ""),
        True,
        serial=issued.serial,
        not_before=issued.not_before,
        not_after=issued.not_after,
        authority_id=issued.authority_id,
    )
