"""The demo's output: progress while it starts, what to open and try, and decisions as they are made."""

from pathlib import Path

from authz.demo.commands import EMBEDDED_ADMIN_SOCKET
from authz.demo.keycloak import ADMIN, CLIENT, REALM
from authz.demo.layout import Layout
from authz.envoy.options import Authz


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
    lines = [
        f"[bold]Open[/bold]    {base}/   and sign in as Alice (reader) or Bob (moderator).",
        f"        The certificate is the demo's own; trust {state}/certs/web/ca.crt or accept it once.",
        "",
        "[bold]Try[/bold]     [dim]# in another terminal[/dim]",
        *_tokens(layout),
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
        *_console(layout, state),
        f"[bold]Edit[/bold]    a file in {policies}/ and try again: it is in force within a second.",
        *_rules(layout),
        f"[bold]Ask[/bold]     authz audit show --log {state}/logs/audit.jsonl ID",
        "        [dim]# ID: the x-authz-decision-id of a 403, in its headers and on the product page[/dim]",
        *_where_to_watch(layout, state, has_page=has_page),
        f"[bold]Look[/bold]    {state}/logs/ has every process's log; audit.jsonl there has every decision.",
        "[bold]Stop[/bold]    Ctrl-C",
    ]
    return "\n".join(lines)


def _tokens(layout: Layout) -> list[str]:
    """How to have a token of each person in the shell."""
    if layout.keycloak is None:
        token = f"{layout.issuer_url}/token"
        return [f"        ALICE=$(curl -s {token}/alice) BOB=$(curl -s {token}/bob)"]
    form = f"-d grant_type=password -d client_id={CLIENT} -d username=$1 -d password=$1"
    cut = r"""sed 's/.*"access_token":"\([^"]*\)".*/\1/'"""
    return [
        f"        token() {{ curl -s {layout.issuer_url}/protocol/openid-connect/token {form} | {cut}; }}",
        "        ALICE=$(token alice) BOB=$(token bob)",
    ]


def _rules(layout: Layout) -> list[str]:
    if layout.traffic is None:
        return []
    traffic = _near(layout.traffic)
    return [f"[bold]Lead[/bold]    {traffic}/ says which version answers; more to try is in {traffic}/examples/."]


def _console(layout: Layout, state: str) -> list[str]:
    if layout.keycloak is None:
        return []
    console = layout.issuer_url.partition("/realms/")[0] + f"/admin/master/console/#/{REALM}"
    return [
        f"[bold]Keys[/bold]    {console}   user {ADMIN}, password in {state}/keycloak/admin.password",
        "        People's passwords are their names: alice, bob. All of it is made anew at the next start.",
    ]


def _where_to_watch(layout: Layout, state: str, *, has_page: bool) -> list[str]:
    if layout.authz is Authz.EMBEDDED:
        socket = f"{state}/{EMBEDDED_ADMIN_SOCKET.format(name=layout.mesh.workloads[0].name)}"
        return [
            f"[bold]Watch[/bold]   curl --unix-socket {socket} http://localhost/metrics   [dim]# each has one[/dim]"
        ]
    page = f"http://127.0.0.1:{layout.admin_port}/"
    return [f"[bold]Watch[/bold]   {page}   the live graph and decisions"] if has_page else []


def _near(path: Path) -> str:
    """Relative to the user's working directory, if that is shorter."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
