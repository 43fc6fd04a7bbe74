"""The demo's output: progress while it starts, what to open and try, and decisions as they are made."""

import asyncio
import json
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from authz.audit.record_line import EFFECT_STYLES, render_parts, short_principal, text
from authz.core.attributes import read_field
from authz.core.decided import Record
from authz.demo.bookinfo import Event
from authz.demo.commands import EMBEDDED_ADMIN_SOCKET, all_commands
from authz.demo.layout import Layout
from authz.envoy.options import Authz

POLL_SECONDS = 0.1
_STYLES = {"died": "bold yellow", "gave-up": "bold red", "problem": "bold red", "rendered": "cyan", "policies": "cyan"}


class Screen:
    """Prints events; a bar while starting when there is a terminal, plain lines when there is none."""

    def __init__(self, console: Console, layout: Layout) -> None:
        self._console = console
        self.is_quiet = False
        """Tell only what nobody planned: the check edits, breaks and kills on purpose."""
        self._total = sum(len(wave) for wave in all_commands(layout)) + 2  # certificates and configuration
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
        self._task = self._progress.add_task("starting", total=self._total)

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


def invitation(layout: Layout, *, has_page: bool = False) -> str:
    """
    Tell what to open and try, as rich markup.

    Args:
        has_page: the authorization server serves the operator's page.
    """
    base = f"https://localhost:{layout.ingress_port}"
    state, policies = _near(layout.state), _near(layout.policies)
    ratings = next((w.listening[0] for w in layout.mesh.sidecars if w.labels.get("app") == "ratings"), 0)
    details = next((w.outbound_port("") for w in layout.mesh.sidecars if w.labels.get("app") == "details"), None)
    token = f"{layout.issuer_url}/token"
    lines = [
        f"[bold]Open[/bold]    {base}/   and sign in as Alice (reader) or Bob (moderator).",
        f"        The certificate is the demo's own; trust {state}/certs/web/ca.crt or accept it once.",
        "",
        "[bold]Try[/bold]     [dim]# in another terminal[/dim]",
        f"        ALICE=$(curl -s {token}/alice) BOB=$(curl -s {token}/bob)",
        f"        book() {{ curl -s --path-as-is --cacert {state}/certs/web/ca.crt -w '%{{http_code}}\\n' \"$@\"; }}",
        f"        book {base}/productpage   [dim]# 403: no token[/dim]",
        f'        book {base}/whoami -H "Authorization: Bearer $ALICE"   [dim]# 200[/dim]',
        f'        book {base}/admin -H "Authorization: Bearer $ALICE"   [dim]# 403; with $BOB 200, and audited[/dim]',
        f"        book {base}/static/..%2finternal/headers   [dim]# 403: a DENY, however it is written[/dim]",
        f"        curl http://127.0.0.1:{ratings}/ratings/0   [dim]# plaintext to STRICT: no answer[/dim]",
    ]
    if details:
        lines.append(
            f"        curl -x http://127.0.0.1:{details} http://news.example.com/   [dim]# not on the egress list[/dim]"
        )
    lines += [
        "",
        f"[bold]Edit[/bold]    a file in {policies}/ and try again: it is in force within a second.",
        f"[bold]Ask[/bold]     authz audit show --log {state}/logs/audit.jsonl ID",
        "        [dim]# ID: the x-authz-decision-id of a 403, in its headers and on the product page[/dim]",
        *_where_to_watch(layout, state, has_page=has_page),
        f"[bold]Look[/bold]    {state}/logs/ has every process's log; audit.jsonl there has every decision.",
        "[bold]Stop[/bold]    Ctrl-C",
    ]
    return "\n".join(lines)


def _where_to_watch(layout: Layout, state: str, *, has_page: bool) -> list[str]:
    if layout.authz is Authz.EMBEDDED:
        socket = f"{state}/{EMBEDDED_ADMIN_SOCKET.format(name=layout.mesh.workloads[0].name)}"
        return [
            f"[bold]Watch[/bold]   curl --unix-socket {socket} http://localhost/metrics   [dim]# each has one[/dim]"
        ]
    page = f"http://127.0.0.1:{layout.admin_port}/"
    return [f"[bold]Watch[/bold]   {page}   the live graph and decisions"] if has_page else []


def callers(layout: Layout) -> dict[str, str]:
    """Principal to a name for people: versions of one service share an account, so the application's name."""
    named = {}
    for workload in layout.mesh.workloads:
        principal = str(workload.spiffe_id).removeprefix("spiffe://")
        named[principal] = workload.name if workload.is_gateway else workload.labels.get("app", workload.name)
    return named


def decision_line(record: Record, layout: Layout) -> Text:
    """One decision in columns: time, effect, source → destination, request, why."""
    time, effect, _, asked, why, _ = render_parts(record)
    principal = text(read_field(record, "source", "principal"))
    source = callers(layout).get(principal) or short_principal(principal)
    visitor = text(read_field(record, "token", "subject"))
    to = text(read_field(record, "destination", "workload"))
    why = why.replace(f"({layout.policies}/", f"({layout.policies.name}/")
    line = Text(f"{time:12}  ", style="dim", no_wrap=True)
    line.append(f"{effect:5}  ", style=EFFECT_STYLES.get(effect.strip().lower(), ""))
    line.append(f"{source or visitor or 'anonymous'} → {to}".ljust(34) + "  ")
    line.append(f"{asked:30}  ", style="bold")
    line.append(why, style="dim")
    return line


class Tail:
    """New records of a file of JSON lines, which need not exist yet and may be rotated."""

    def __init__(self, path: Path, *, from_start: bool = False) -> None:
        self._path = path
        self._rest = b""
        try:
            facts = path.stat()
            self._file, self._position = facts.st_ino, 0 if from_start else facts.st_size
        except OSError:
            self._file, self._position = 0, 0

    def read(self) -> list[Record]:
        """Return what was appended since the last time, oldest first."""
        try:
            facts = self._path.stat()
            if facts.st_ino != self._file or facts.st_size < self._position:
                self._file, self._position, self._rest = facts.st_ino, 0, b""
            if facts.st_size == self._position:
                return []
            with self._path.open("rb") as file:
                file.seek(self._position)
                data = file.read()
        except FileNotFoundError:
            return []
        self._position += len(data)
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [record for line in lines if (record := read_record(line)) is not None]


async def show_decisions(console: Console, layout: Layout) -> None:
    """Print decisions as they are made, until cancelled."""
    tail = Tail(layout.audit_log)
    while True:
        for record in tail.read():
            console.print(decision_line(record, layout), soft_wrap=True)
        await asyncio.sleep(POLL_SECONDS)


def read_record(line: bytes) -> Record | None:
    """Read one line of the audit log; None for what is no record."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and "decision_id" in record else None


def _near(path: Path) -> str:
    """Relative to where the user stands, when that is shorter."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
