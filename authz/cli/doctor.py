"""``authz doctor``: the checklist of docs/hardening.md, gone through on a running installation."""

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import click

from authz.analysis.hardening import certificate_lives, proxy_configuration, surroundings
from authz.analysis.hardening.checklist import CHECKS, Finding
from authz.analysis.hardening.envoy_versions import judge_version, read_version
from authz.analysis.hardening.file_modes import NamedPlace, PlaceKind, judge_places, places_of
from authz.analysis.hardening.open_policies import judge_policies
from authz.analysis.hardening.open_settings import judge_settings
from authz.cli import policy_files
from authz.cli import terminal as out
from authz.cli.doctor_asking import ask_dates, ask_server
from authz.cli.doctor_extensions import NUMBER, judge_extensions
from authz.cli.envoy_admin import dated, get, proxy_name, read_proxy
from authz.cli.traffic_option import TRAFFIC, check_traffic
from authz.core.attributes import Workload
from authz.core.errors import FetchError, LoadError, Severity
from authz.envoy.native.binary import EnvoyError

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_STYLES = {Severity.ERROR: "bold red", Severity.WARNING: "yellow", Severity.INFO: "cyan"}


@dataclass(slots=True)
class Visit:
    """What was looked at so far."""

    now: float
    findings: list[Finding] = field(default_factory=list)
    checked: set[int] = field(default_factory=set)
    failures: list[str] = field(default_factory=list)
    """What was named but could not be asked."""

    def add(self, numbers: Iterable[int], found: Iterable[Finding]) -> None:
        """These checks were asked, with this outcome."""
        self.checked.update(numbers)
        self.findings += [one for one in found if one not in self.findings]


@click.command("doctor", short_help="Go through the hardening checklist on a running installation.")
@click.option("--config", metavar="FILE", type=FILE, help="Settings of `authz serve`, beside its AUTHZ_ variables.")
@click.option("--admin", metavar="ADDRESS", default="", help="`admin` of the running server: host:port or unix:/path.")
@click.option(
    "--envoy-admin",
    metavar="ADDRESS",
    multiple=True,
    help="An Envoy's admin interface: the path of its socket, or host:port; may be repeated.",
)
@click.option(
    "--policies", "-p", metavar="PATH", multiple=True, type=click.Path(exists=True), help="Policies; may be repeated."
)
@click.option("--mesh", metavar="FILE", type=FILE, help="Istio's MeshConfig, or a mesh description.")
@TRAFFIC
@click.option(
    "--state", metavar="DIR", type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The directory of `authz mesh render`.",
)  # fmt: skip
@click.option(
    "--ca",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="An authority's directory.",
)
@click.option("--entries", metavar="FILE", type=FILE, help="Registration entries of `authz ca serve`.")
@click.option("--ask-issuers", is_flag=True, help="Ask the issuers of tokens for the time, over the network.")
@out.answer_form("text", "json")
def command(
    config: Path | None, admin: str, envoy_admin: tuple[str, ...], policies: tuple[str, ...], mesh: Path | None,
    traffic: str | None, state: Path | None, ca: Path | None, entries: Path | None, ask_issuers: bool, output: str,
) -> None:  # fmt: skip
    """
    Say what is not as docs/hardening.md wants it; checks of what is not given are listed as not made.

    Run it as the user who owns what it looks at: what cannot be read cannot be judged. Nothing is changed.
    Exit code: 0 nothing to do, 3 findings, 1 something that was named does not answer.

    \b
    authz doctor --config authz.yaml --policies policies/ --mesh mesh.yaml
    authz doctor --envoy-admin run/web.admin.sock --envoy-admin run/cart.admin.sock --ca ca --entries entries.yaml
    """
    given = (config, admin, envoy_admin, policies, mesh, state, ca, entries)
    if not any(given):
        raise click.UsageError("nothing to look at: give --config, --policies, --envoy-admin, --ca or --entries")
    if ask_issuers and not policies:
        raise click.UsageError("--ask-issuers needs --policies, which name them")
    check_traffic(mesh, traffic)
    visit = Visit(time.time())
    if config is not None:
        _settings(visit, config)
    if admin:
        visit.add((2, 10), _asked(visit, admin, partial(ask_server, admin, visit.now)))
    _policies(visit, policies, mesh, traffic, ask_issuers=ask_issuers)
    if mesh is not None:
        visit.add((NUMBER,), _asked(visit, str(mesh), partial(judge_extensions, mesh, traffic, state)))
    if state is not None:
        place = NamedPlace(PlaceKind.RENDERED, state, "--state")
        visit.add((3,), judge_places([place], visit.now))
    if ca is not None:
        _authority(visit, ca)
    if entries is not None:
        _entries(visit, entries, ca)
    _envoys(visit, envoy_admin)
    visit.findings.sort(key=lambda one: (one.number, one.where, one.what))
    (_print_json if output == "json" else _print)(visit)
    if any(one.is_bad for one in visit.findings):
        raise SystemExit(out.Exit.NO)
    raise SystemExit(out.Exit.FAILED if visit.failures else out.Exit.YES)


def _asked(visit: Visit, name: str, ask: Callable[[], Iterable[Finding]]) -> list[Finding]:
    """What came of a question; what does not answer is noted."""
    try:
        return list(ask())
    except (FetchError, ValueError, OSError, EnvoyError) as error:
        visit.failures.append(f"{name}: {error}")
        return []


def _settings(visit: Visit, config: Path) -> None:
    """Raises SettingsError."""
    from authz.cli.serve import environment  # takes every flag of `authz serve`
    from authz.settings.precedence import read_settings

    settings = read_settings({}, file=config, environment=environment())
    visit.add((1, 2, 8), judge_settings(settings))
    places = [NamedPlace(PlaceKind.TRUSTED, config, "--config"), *places_of(settings)]
    visit.add((3, 4), judge_places(places, visit.now))
    visit.add((5,), certificate_lives.judge_lives(certificate_lives.lives_of(settings), visit.now))


def _policies(visit: Visit, paths: Sequence[str], mesh: Path | None, traffic: str | None, *, ask_issuers: bool) -> None:
    """Raises LoadError, OSError."""
    named = [NamedPlace(PlaceKind.TRUSTED, Path(path), "--policies") for path in paths if path != policy_files.STDIN]
    named += [NamedPlace(PlaceKind.TRUSTED, mesh, "--mesh")] if mesh is not None else []
    named += [NamedPlace(PlaceKind.TRUSTED, Path(traffic), "--traffic")] if traffic is not None else []
    if named:
        visit.add((3,), judge_places(named, visit.now))
    if not paths:
        return
    loaded = policy_files.load(paths, str(mesh) if mesh is not None else None, traffic)
    secrets = [
        NamedPlace(PlaceKind.SECRET, Path(one.client_secret_file), "`tokenIntrospection`")
        for one in loaded.mesh.introspections
    ]
    if secrets:  # else nobody has looked at the age of anything
        visit.add((3, 4), judge_places(secrets, visit.now))
    visit.add((6, 7, 8), judge_policies(loaded.engine, loaded.mesh, _sidecars(mesh, traffic)))
    if ask_issuers:
        for name, ask in ask_dates(list(loaded.engine.token_rules()), visit.now):
            visit.add((10,), _asked(visit, name, ask))


def _sidecars(mesh: Path | None, traffic: str | None) -> list[Workload]:
    """The described workloads whose ports PeerAuthentication is about: those of a gateway belong to its Gateway."""
    if mesh is None or not policy_files.has_workloads(policy_files.description_files(str(mesh), traffic)):
        return []
    described = policy_files.read_workloads(str(mesh), traffic).workloads
    return [one.workload for one in described if not one.is_gateway]


def _authority(visit: Visit, directory: Path) -> None:
    from authz.identity.ca import CertificateAuthority

    visit.checked |= {3, 4, 5}
    keys = [NamedPlace(PlaceKind.SECRET, path, "--ca") for path in sorted(directory.glob("**/*.key"))]
    found = list(judge_places([*keys, NamedPlace(PlaceKind.TRUSTED, directory, "--ca")], visit.now))
    visit.add((3, 4), (one for one in found if one.number != 4))  # an authority's keys live as long as its certificates

    def judge() -> Iterator[Finding]:
        yield from certificate_lives.judge_authority(directory, CertificateAuthority.load(directory), visit.now)

    visit.add((4, 5), _asked(visit, str(directory), judge))


def _entries(visit: Visit, file: Path, ca: Path | None) -> None:
    """Raises LoadError, SettingsError, OSError."""
    from authz.cli.ca_files import load
    from authz.core.spiffe import TrustDomain
    from authz.identity.registration import read_entries

    data = file.read_bytes()
    named = re.search(rb"spiffe://([a-z0-9._-]+)/", data)  # all of one trust domain: another one is a problem
    domain = load(ca).trust_domain if ca is not None else TrustDomain(named[1].decode() if named else "cluster.local")
    entries, problems = read_entries(str(file), data, domain)
    if problems:
        raise LoadError(problems)
    visit.add((3,), judge_places([NamedPlace(PlaceKind.TRUSTED, file, "--entries")], visit.now))
    visit.add((12,), surroundings.judge_entries(str(file), entries))


def _envoys(visit: Visit, addresses: Sequence[str]) -> None:
    sockets = {}
    for written in addresses:
        address = written.removeprefix("unix:")
        name = proxy_name(address)
        if Path(address).exists():
            sockets[name] = Path(address)
        visit.add((5, 8, 9, 10, 11), _asked(visit, f"proxy {name}", partial(_envoy, name, address, visit.now)))
    if addresses:
        visit.add((9, 12), surroundings.judge_admin_sockets(sockets))


def _envoy(name: str, address: str, now: float) -> Iterator[Finding]:
    """Everything that one Envoy says. Raises FetchError, ValueError."""
    information, date = dated(address, "/server_info")
    yield from surroundings.judge_clock(f"proxy {name}", date, now)
    yield from judge_version(name, read_version(str(json.loads(information)["version"])), now)
    yield from proxy_configuration.judge_configuration(name, get(address, "/config_dump"))
    yield from certificate_lives.judge_lives(certificate_lives.lives_served(name, read_proxy(address)), now)


def _print(visit: Visit) -> None:
    for one in visit.findings:
        out.say(f"{one.number}. {one.where}: {one.what}", _STYLES[one.severity])
        out.say(f"   {one.severity}: {one.why}")
        out.say(f"   do: {one.do}")
    if visit.findings:
        out.say()
    for failure in visit.failures:
        out.say(f"not asked: {failure}", "bold red")
    for number, check in CHECKS.items():
        if number not in visit.checked:
            out.say(f"not checked: {number}. {check.title} (give {check.needs})")
    bad = sum(one.is_bad for one in visit.findings)
    said = out.count(bad, "finding") if bad else "nothing to do"
    out.say(f"{len(visit.checked)} of {len(CHECKS)} checks: {said}", "bold red" if bad else "bold green")


def _print_json(visit: Visit) -> None:
    out.print_json(
        {
            "ok": not visit.failures and not any(one.is_bad for one in visit.findings),
            "findings": [
                {"check": one.number, "severity": one.severity.value, "where": one.where, "what": one.what,
                 "why": one.why, "do": one.do}
                for one in visit.findings
            ],
            "checked": [*sorted(visit.checked)],
            "not_checked": [number for number in CHECKS if number not in visit.checked],
            "not_asked": list(visit.failures),
        }
    )  # fmt: skip
