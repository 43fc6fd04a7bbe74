"""``authz fleet``: a fleet as a whole, whichever replicas it has."""

import click

from authz.cli.fleet_forget import forget
from authz.cli.fleet_status import status
from authz.cli.fleet_up import up
from authz.cli.fleet_wait import wait


@click.group("fleet", short_help="Tell what every replica and proxy of a fleet runs.")
def command() -> None:
    """
    A fleet as a whole: its replicas and their proxies (docs/control-plane.md).

    \b
    authz fleet status --truth nats://127.0.0.1:4222/shop
    authz fleet wait --truth nats://127.0.0.1:4222/shop --revision 7
    """


command.add_command(forget)
command.add_command(status)
command.add_command(wait)
command.add_command(up)
