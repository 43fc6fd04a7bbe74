"""``authz fleet status``: which revision every replica and proxy runs."""

import re
from typing import TYPE_CHECKING

import click

from authz.cli import terminal
from authz.cli.fleet_source import fleet_options, looking_at
from authz.cli.fleet_views import print_fleet
from authz.truth.fleet_merge import view_json

if TYPE_CHECKING:
    from authz.truth.truth_client import TruthClient

_DURATION = re.compile(r"(\d{1,6})([smh]?)")
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}


def read_seconds(ctx: click.Context, param: click.Parameter, value: str) -> float:
    """``90``, ``90s``, ``10m``, ``2h`` of an option."""
    match = _DURATION.fullmatch(value)
    if match is None:
        raise click.BadParameter(f"`{value}` is not of the form 90s, 10m or 2h", ctx, param)
    return float(int(match[1]) * _UNITS[match[2]])


@click.command()
@fleet_options
@click.option("--older-than", callback=read_seconds, default="30s", help="How long a replica or proxy may be behind.")
@click.option("--lagging", is_flag=True, help="Show no proxies but those that are not as they should be.")
@terminal.answer_form("text", "json")
def status(
    truth: "TruthClient | None", admin: tuple[str, ...], older_than: float, lagging: bool, output: str,
) -> None:  # fmt: skip
    """
    Show which revision every replica and proxy of a fleet runs, since when, what it refused, and who has a candidate.

    Exit code: 0 all have the newest, or have been behind for less than --older-than; 3 somebody is behind for longer,
    refuses something or a candidate, is silent or missing, or no replica has reported; 1 no answer.

    \b
    authz fleet status --truth nats://127.0.0.1:4222/shop
    authz fleet status --admin 127.0.0.1:15014 --admin 127.0.0.1:15015 --older-than 2m
    authz fleet status --truth nats://127.0.0.1:4222/shop -o json | jq -r '.lagging[]'
    """
    with looking_at(truth, admin) as look:
        view = look()
    late = list(view.lagging(older_than))
    if output == "json":
        terminal.print_json({**view_json(view), "lagging": [one.name for one in late]})  # type: ignore[dict-item]  # JSON
    else:
        print_fleet(view, late, only_lagging=lagging)
    raise SystemExit(terminal.Exit.NO if late or not view.replicas else terminal.Exit.YES)
