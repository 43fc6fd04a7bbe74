"""``authz status``: whether a running server is ready, and given policies in force; its ``admin`` is asked."""

import json
import re
import ssl
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import click
import httpx

from authz.cli import policy_files
from authz.cli import terminal as out
from authz.core.attributes import Json
from authz.core.errors import FetchError
from authz.identity.pem import refuse_encrypted_key

PAUSE_SECONDS = 0.2
TIMEOUT_SECONDS = 5.0
_VERSION = re.compile(r'^authz_policy_info\{[^}]*version="([^"]*)"[^}]*\} 1', re.MULTILINE)
"""One line for each worker."""
_PUBLISHED = re.compile(r"^authz_policy_source_info\{(.*)\} 1", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_VERIFIED = re.compile(r'^authz_native_verified_total\{[^}]*result="([^"]*)"[^}]*\} (\S+)', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Status:
    """A server's report about itself."""

    is_ready: bool
    causes: tuple[dict[str, Json], ...]
    """The reasons why it is not ready, or not healthy: ``part``, ``message``, ``blocks``."""
    versions: tuple[str, ...]
    """Policy version of every worker."""
    published: tuple[tuple[str, str], ...] = ()
    """Source and revision, where the policies are published elsewhere; more than one while workers differ."""
    verified: Mapping[str, int] = field(default_factory=dict)
    """Requests that proxies decided by themselves, by what came of deciding them again; ``skipped`` were not."""

    def holds(self, version: str) -> bool:
        """Whether it is ready with this version in force on every worker; an empty version asks for none."""
        if not version or not self.is_ready:
            return self.is_ready
        is_unknown = any(cause.get("part") == "workers" for cause in self.causes)  # one of them does not say
        return not is_unknown and set(self.versions) == {version}


@click.command("status", short_help="Ask a running server whether it is ready.")
@click.option("--admin", metavar="ADDRESS", default="127.0.0.1:15014", help="Its `admin`: host:port or unix:/path.")
@click.option(
    "--policies",
    "-p",
    metavar="PATH",
    multiple=True,
    type=click.Path(exists=True),
    help="Also ask whether every worker has these policies in force; may be repeated.",
)
@click.option(
    "--mesh",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False),
    help="The MeshConfig of these policies, the same as the server's.",
)
@click.option("--wait", metavar="SECONDS", type=click.FloatRange(0), default=0.0, help="How long to wait for a yes.")
@click.option(
    "--token-file",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The token of `admin_token_file`.",
)
@click.option(
    "--ca",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="PEM bundle that vouches for `admin_tls_certificate`; switches to HTTPS.",
)
@click.option(
    "--certificate",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="PEM chain to show where `admin_tls_client_ca` asks for one; needs --ca and --key.",
)
@click.option(
    "--key",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="PEM key of --certificate.",
)
@click.option(
    "--proxies",
    metavar="ADDRESS",
    multiple=True,
    help="Ask proxies instead whether they run the filters rendered for them: host:port, a socket, or a quoted pattern "
    "of sockets; may be repeated.",
)
@click.option(
    "--state",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="With --proxies: the directory of `authz mesh render`.",
)
@out.answer_form("table", "json")
def command(
    admin: str, policies: tuple[str, ...], mesh: str | None, wait: float, token_file: Path | None, ca: Path | None,
    certificate: Path | None, key: Path | None, proxies: tuple[str, ...], state: Path | None, output: str,
) -> None:  # fmt: skip
    """
    Ask a running server whether it is ready (exit 0: yes, 3: no, 1: it does not answer).

    With --policies, also ask whether exactly these are in force on every worker, which is the end of a roll-out. What
    needs a person but refuses nobody is listed, and does not change the answer.

    \b
    authz status --admin unix:/run/authz/admin.sock
    authz status --policies policies/ --mesh mesh.yaml --wait 10
    authz status -o json | jq -r '.causes[].message'
    authz status --proxies 'state/run/*.admin.sock' --state state/
    """
    if bool(proxies) is not (state is not None):
        raise click.UsageError("--proxies and --state go together")
    if state is not None:
        from authz.cli import proxy_status

        raise SystemExit(proxy_status.answer(proxies, state, wait, output))
    version = policy_files.load(policies, mesh).engine.version if policies else ""
    if (certificate is None) is not (key is None) or (certificate is not None and ca is None):
        raise click.UsageError("--ca, --certificate and --key go together")
    with admin_client(admin, token_file, _tls(ca, certificate, key)) as client:
        try:
            status = _await(client, _socket(admin), version, time.monotonic() + wait)
        except FetchError as error:
            raise FetchError(f"`{admin}` does not answer: {error}") from error
    is_yes = status.holds(version)
    if output == "json":
        out.print_json(_as_json(status, version, is_yes))
    else:
        _print(status, version, is_yes)
    raise SystemExit(out.Exit.YES if is_yes else out.Exit.NO)


def _tls(ca: Path | None, certificate: Path | None, key: Path | None) -> ssl.SSLContext | None:
    """None speaks plain HTTP. Raises OSError for files that cannot be used."""
    if ca is None:
        return None
    context = ssl.create_default_context(cafile=str(ca))
    if certificate is not None:
        refuse_encrypted_key(key or certificate)
        context.load_cert_chain(certificate, key)
    return context


def admin_client(admin: str, token_file: Path | None, tls: ssl.SSLContext | None) -> httpx.Client:
    """Make a client of the address. Raises OSError for a file, click.BadParameter for the address."""
    headers = {"authorization": f"Bearer {token_file.read_text().strip()}"} if token_file is not None else {}
    path = _socket(admin)
    transport = httpx.HTTPTransport(uds=str(path) if path is not None else None, verify=tls or False)
    base = f"{'https' if tls is not None else 'http'}://{'localhost' if path is not None else admin}"
    try:
        return httpx.Client(transport=transport, base_url=base, headers=headers, timeout=TIMEOUT_SECONDS)
    except httpx.InvalidURL as error:
        raise click.BadParameter(f"`{admin}` is neither host:port nor unix:/path", param_hint="--admin") from error


def _socket(admin: str) -> Path | None:
    return Path(admin.removeprefix("unix:")) if admin.startswith("unix:") else None


def _await(client: httpx.Client, path: Path | None, version: str, until: float) -> Status:
    """Ask until the answer is yes or the time is over. Raises FetchError when the last question had no answer."""
    while True:
        try:
            status, failure = _ask(client, path), None
            if status.holds(version):
                return status
        except FetchError as error:
            status, failure = None, error
        if time.monotonic() >= until:
            if status is None:
                raise failure or FetchError("no answer")
            return status
        time.sleep(PAUSE_SECONDS)


def _ask(client: httpx.Client, path: Path | None) -> Status:
    """Ask the server once. Raises FetchError."""
    if path is not None and not path.exists():  # httpcore would leave its own socket open
        raise FetchError("there is no such socket")
    try:
        ready, healthy, metrics = (client.get(page) for page in ("/readyz", "/healthz", "/metrics"))
        if 401 in (ready.status_code, metrics.status_code):
            raise FetchError("it asks for a token: give it with --token-file")
        causes = healthy.json()["causes"] or ready.json()["causes"]
        verified: Counter[str] = Counter()
        for result, number in _VERIFIED.findall(metrics.text):
            verified[result] += int(float(number))
        versions = tuple(_VERSION.findall(metrics.text))
        labels = [dict(_LABEL.findall(found)) for found in _PUBLISHED.findall(metrics.text)]
        published = tuple(sorted({(one["source"], one["revision"]) for one in labels}))
        return Status(ready.status_code == httpx.codes.OK, tuple(causes), versions, published, verified)
    except (httpx.HTTPError, httpx.InvalidURL, json.JSONDecodeError, KeyError, TypeError) as error:
        raise FetchError(str(error) or type(error).__name__) from error


def _print(status: Status, version: str, is_yes: bool) -> None:
    workers = out.count(len(status.versions), "worker")
    out.say(f"{'ready' if status.is_ready else 'not ready'}: {workers}", "bold green" if is_yes else "bold red")
    out.say(f"  policies: {_versions(status.versions)}")
    for source, revision in status.published:
        out.say(f"  source:   {source}, revision {revision}")
    if version:
        out.say(f"  asked:    {version}, {'in force' if status.holds(version) else 'not in force on every worker'}")
    if any(status.verified.values()):
        told = ", ".join(f"{number:,} {name.replace('_', ' ')}" for name, number in status.verified.items() if number)
        out.say(f"  native:   {told}, by the engine beside Envoy")
    for cause in status.causes:
        out.say(f"  {'blocks' if cause.get('blocks') else 'note'}: {cause.get('part')}: {cause.get('message')}")


def _versions(versions: Sequence[str]) -> str:
    counted = [f"version {name or 'none'}" for name in sorted(set(versions))]
    return ", ".join(counted) or "none are loaded"


def _as_json(status: Status, version: str, is_yes: bool) -> Json:
    return {
        "ok": is_yes,
        "ready": status.is_ready,
        "causes": list(status.causes),
        "policy_versions": list(status.versions),
        "asked_version": version or None,
        **(
            {"published": [dict(zip(("source", "revision"), one, strict=True)) for one in status.published]}
            if status.published
            else {}
        ),
        **({"verified": dict(status.verified)} if status.verified else {}),
    }
