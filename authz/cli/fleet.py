"""``authz fleet``: a fleet as a whole, whichever replicas it has."""

import click

from authz.cli.fleet_up import up


@click.group("fleet", short_help="Tell what every replica and proxy of a fleet runs.")
def command() -> None:
    """
    A fleet as a whole: its replicas and their proxies (docs/control-plane.md).

    \b
    authz fleet --help
    """


command.add_command(up)
