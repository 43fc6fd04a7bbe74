"""What supervision reports, as lines; a bar while starting when there is a terminal."""

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from authz.local.supervision import Event

_STYLES = {"died": "bold yellow", "gave-up": "bold red", "problem": "bold red", "rendered": "cyan", "policies": "cyan"}


class Screen:
    """Prints events, of which ``total`` are steps: a bar while starting on a terminal, else plain lines."""

    def __init__(self, console: Console, total: int) -> None:
        self._console = console
        self.is_quiet = False
        """Show only what nobody planned: the check edits, breaks and kills on purpose."""
        self._progress = Progress(
            SpinnerColumn(),
            BarColumn(bar_width=24),
            TextColumn("{task.completed}/{task.total}"),
            TimeElapsedColumn(),
            TextColumn("{task.description}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("starting", total=total)

    def __enter__(self) -> "Screen":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def report(self, event: Event) -> None:
        """Show one event of the supervisor."""
        if event.kind == "step":
            self._progress.advance(self._task)
            self._progress.update(self._task, description=escape(event.text))
        elif event.kind == "wave":
            self._console.print(
                f"[green]✓[/green] {escape(event.text)} [dim]{event.seconds:.1f} s[/dim]", soft_wrap=True
            )
        elif not self.is_quiet or event.kind == "gave-up":
            self._console.print(Text(event.text, style=_STYLES.get(event.kind, "")), soft_wrap=True)
