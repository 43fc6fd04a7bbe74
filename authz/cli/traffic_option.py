"""What stands apart from the file of ``--mesh``: the option ``--traffic`` of every command that reads a description."""

import click

TRAFFIC_HELP = "More of the mesh description, as for `authz mesh render`: a file or directory."
TRAFFIC = click.option("--traffic", metavar="PATH", type=click.Path(exists=True), help=TRAFFIC_HELP)
"""The option; ``authz.cli.policy_files`` reads what it names together with the file of ``--mesh``."""


def check_traffic(mesh: object, traffic: object) -> None:
    """Refuse more of a description where there is none: nobody would notice that it was not looked at."""
    if traffic and not mesh:
        raise click.UsageError("--traffic is read together with --mesh, a mesh description")
