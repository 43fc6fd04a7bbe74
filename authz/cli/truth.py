"""``authz truth``: the NATS servers in which a fleet keeps what it shares: configured, made ready, looked at."""

import sys
from pathlib import Path

import click

from authz.cli import terminal
from authz.cli.truth_options import TRUTH_URL, truth_access
from authz.core.attributes import Json
from authz.core.errors import SettingsError
from authz.core.spiffe import TrustDomain
from authz.identity.leaf import dns_names
from authz.truth.truth_address import TruthAccess, read_truth_address


@click.group("truth", short_help="Configure, prepare and inspect the NATS servers that a fleet shares.")
def command() -> None:
    """
    The truth of a fleet in NATS JetStream (docs/truth.md).

    \b
    authz truth config --fleet shop --name one --store /var/lib/truth --local
    authz truth init --to nats://127.0.0.1:4222/shop --replicas 1
    authz truth status --to nats://127.0.0.1:4222/shop
    """


@command.command("config")
@click.option("--fleet", required=True, help="Name of the fleet.")
@click.option("--name", required=True, help="Name of this server, another one for each.")
@click.option(
    "--store", required=True, type=click.Path(file_okay=False, path_type=Path), help="Directory of what it keeps."
)
@click.option("--listen", default="", help="host:port for clients; 4222 everywhere by default, or with --local here.")
@click.option("--cluster", default="", help="host:port for the other servers, such as 0.0.0.0:6222.")
@click.option("--route", "routes", multiple=True, help="host:port of each server's --cluster; may be repeated.")
@click.option("--trust-domain", default="", help="Trust domain of the certificates.")
@click.option("--ca", type=click.Path(path_type=Path), help="PEM trust bundle by which it judges others.")
@click.option("--cert", type=click.Path(path_type=Path), help="PEM chain of spiffe://TRUST-DOMAIN/authz/truth.")
@click.option("--key", type=click.Path(path_type=Path), help="Its private key.")
@click.option("--monitor", default="", help="host:port on loopback where it says how it is, by HTTP.")
@click.option(
    "--member",
    "members",
    multiple=True,
    metavar="ROLE/NAME",
    help="Let in spiffe://TRUST-DOMAIN/authz/ROLE/NAME, and of that role none but such; may be repeated.",
)
@click.option("--local", is_flag=True, help="No TLS and no roles, on 127.0.0.1 alone, to try it.")
def config(
    fleet: str, name: str, store: Path, listen: str, cluster: str, routes: tuple[str, ...], trust_domain: str,
    ca: Path | None, cert: Path | None, key: Path | None, monitor: str, members: tuple[str, ...], local: bool,
) -> None:  # fmt: skip
    """
    Print nats-server.conf for one server: TLS with our own certificates, a user for each role, and its cluster.

    \b
    authz truth config --fleet shop --name one --store /var/lib/truth --local > nats-server.conf
    authz truth config --fleet shop --name one --store /var/lib/truth --trust-domain cluster.local \\
      --ca ca/bundle.pem --cert certs/truth/tls.crt --key certs/truth/tls.key \\
      --cluster 0.0.0.0:6222 --route one.example:6222 --route two.example:6222 --route three.example:6222
    """
    from authz.truth.server_configuration import (  # nats is slow to import
        ALL_CLIENTS,
        TruthServer,
        TruthServerTls,
        read_member,
        server_configuration,
    )

    read_truth_address(f"nats://localhost/{fleet}")  # the name
    named = tuple(read_member(one) for one in members)
    files = [file for file in (ca, cert, key) if file is not None]
    if local and (files or trust_domain or members):
        raise click.UsageError("--local is without --trust-domain, --ca, --cert, --key and --member")
    if bool(cluster) != bool(routes):
        raise click.UsageError("--cluster and --route go together")
    tls = None
    if local:
        listen = listen or "127.0.0.1:4222"
    elif ca is None or cert is None or key is None or not trust_domain:
        raise click.UsageError("--trust-domain, --ca, --cert and --key are needed, or --local")
    else:
        try:
            domain = TrustDomain(trust_domain)
        except ValueError as error:
            raise SettingsError(str(error)) from error
        tls = TruthServerTls(domain, ca.absolute(), cert.absolute(), key.absolute())
    own = _own_route(routes, cert) if cert is not None else ""
    server = TruthServer(
        name, fleet, store.absolute(), listen or ALL_CLIENTS, cluster, routes, own, monitor, tls, named
    )
    click.echo(server_configuration(server), nl=False)


def _own_route(routes: tuple[str, ...], certificate: Path) -> str:
    """The route whose host the server's own certificate names; empty, and said so, when that is not one."""
    try:
        names = dns_names(certificate.read_bytes())
    except (OSError, ValueError):
        names = ()
    found = [route for route in routes if route.rpartition(":")[0] in names]
    if len(found) == 1:
        return found[0]
    if routes:
        terminal.remark(
            f"`{certificate}` does not have the name of exactly one --route, so the other servers will know this one "
            "by its number, and try for ever to connect to it in vain after the network failed: issue it first, "
            "with --dns"
        )
    return ""


@command.command("init")
@TRUTH_URL
@click.option(
    "--replicas", type=click.IntRange(1, 5), default=1, show_default=True, help="Servers that keep each value."
)
@click.option("--audit-megabytes", type=click.IntRange(0), default=0, help="Bound of the stream of records; 0: none.")
@click.option("--audit-days", type=click.FloatRange(0), default=0.0, help="How long records are kept; 0: for ever.")
@truth_access
def init(url: str, replicas: int, audit_megabytes: int, audit_days: float, access: TruthAccess) -> None:
    """
    Make what a fleet needs in the truth, as far as it is not there; what is there stays as it is.

    \b
    authz truth init --to nats://127.0.0.1:4222/shop
    authz truth init --to nats://one.example,two.example,three.example/shop --replicas 3 --truth-ca ca/bundle.pem \\
      --truth-cert ca/server/tls.crt --truth-key ca/server/tls.key
    """
    if replicas % 2 == 0:
        raise click.BadParameter("1, 3 or 5: an even number survives no more", param_hint="--replicas")
    from authz.truth.bucket_making import make_buckets  # nats is slow to import
    from authz.truth.server_version import old_server
    from authz.truth.truth_client import TruthClient, TruthRefused
    from authz.truth.truth_stream import make_stream

    with TruthClient(read_truth_address(url), access) as client:
        if old := old_server(client.server_version):
            raise TruthRefused(f"{url}: {old}")
        made = make_buckets(client, replicas)
        is_made = make_stream(client, replicas, max_bytes=audit_megabytes << 20, max_age_seconds=audit_days * 86_400)
    names = [*made, *(["the stream of records"] if is_made else [])]
    click.echo(f"made {', '.join(names)}" if names else "everything is there")


@command.command("status")
@TRUTH_URL
@terminal.answer_form("table", "json")
@truth_access
def status(url: str, output: str, access: TruthAccess) -> None:
    """
    Say which buckets are there, and whether every server has all of them. Exit code: 0 all is well, 3 it is not,
    or the server that answered is too old.

    \b
    authz truth status --to nats://127.0.0.1:4222/shop
    """
    from authz.truth.bucket_standing import bucket_standings  # nats is slow to import
    from authz.truth.server_version import old_server
    from authz.truth.truth_client import TruthClient

    with TruthClient(read_truth_address(url), access) as client:
        found = bucket_standings(client)
        old = old_server(client.server_version)
    is_well = all(one.is_well for one in found) and not old
    if output == "json":
        rows: list[Json] = [
            {
                "bucket": one.what, "there": one.is_there, "replicas": one.replicas, "leader": one.leader,
                "behind": list(one.behind), "messages": one.messages, "bytes": one.bytes,
            }
            for one in found
        ]  # fmt: skip
        terminal.print_json({"ok": is_well, "server": old, "buckets": rows})
    else:
        terminal.print_table(
            ("BUCKET", "SERVERS", "LEADER", "BEHIND", "VALUES", "BYTES"),
            [
                (one.what, str(one.replicas), one.leader or "–", ", ".join(one.behind) or "–", str(one.messages),
                 str(one.bytes))
                if one.is_there
                else (one.what, "missing: `authz truth init`", "", "", "", "")
                for one in found
            ],
        )  # fmt: skip
        if old:
            click.echo(old)
    sys.exit(terminal.Exit.YES if is_well else terminal.Exit.NO)
