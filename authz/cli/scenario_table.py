"""What came of the demo's scenarios, as a table for people or as JSON."""

import json
import sys

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from authz.demo.checks.runner import Result


def print_results(results: list[Result], form: str) -> None:
    """Print them; ``form`` is ``table`` or ``json``."""
    failed = sum(not result.is_ok for result in results)
    if form == "json":
        answer = {
            "ok": failed == 0,
            "passed": len(results) - failed,
            "failed": failed,
            "scenarios": [
                {
                    "group": result.scenario.group,
                    "name": result.scenario.name,
                    "expected": result.scenario.expected,
                    "actual": result.actual,
                    "ok": result.is_ok,
                    "seconds": round(result.seconds, 3),
                    "remark": result.remark,
                }
                for result in results
            ],
        }
        click.echo(json.dumps(answer, indent=2, ensure_ascii=False))
        return
    console = Console(highlight=False, emoji=False)
    if not console.is_terminal:
        console.width = 200
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for title in ("", "Scenario", "Expected", "Actual"):
        table.add_column(title, overflow="fold")
    group = ""
    for result in results:
        if result.scenario.group != group:
            group = result.scenario.group
            table.add_row("", Text(group, style="bold cyan"))
        mark = Text("✓", style="green") if result.is_ok else Text("✗", style="bold red")
        actual = Text(result.actual, style="" if result.is_ok else "bold red")
        if result.remark:
            actual.append(f" ({result.remark})", style="dim")
        table.add_row(mark, Text(result.scenario.name), Text(result.scenario.expected), actual)
    console.print(table)
    seconds = sum(result.seconds for result in results)
    style = "bold red" if failed else "bold green"
    console.print(Text(f"{len(results) - failed} of {len(results)} as expected, {seconds:.1f} s", style=style))
    sys.stdout.flush()
