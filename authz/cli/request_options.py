"""The options that describe one offline request: the same for ``authz check`` and ``authz explain``."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from authz.analysis.offline.request import MAX_PORT
from authz.cli.traffic_option import TRAFFIC

_Command = TypeVar("_Command", bound=Callable[..., object])


class _Lines(click.ParamType[str]):
    """Text that may hold spaces: several in one environment variable stand on a line each."""

    name = "text"
    envvar_list_splitter = "\n"


LINES = _Lines()


class _Pair(click.ParamType[tuple[str, str]]):
    """``name=value``."""

    name = "name=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        name, separator, rest = str(value).partition("=")
        if not separator or not name:
            self.fail(f"`{value}` is not of the form `name=value`", param, ctx)
        return name, rest


_OPTIONS = (
    click.option(
        "--policies", "-p", metavar="PATH", multiple=True, required=True,
        type=click.Path(exists=True, allow_dash=True), help="File or directory of policies; may be repeated.",
    ),
    click.option("--mesh", metavar="FILE", type=click.Path(exists=True, dir_okay=False), help="Istio's MeshConfig."),
    TRAFFIC,
    click.option(
        "--file", "-f", metavar="FILE", type=click.Path(exists=True, dir_okay=False, allow_dash=True),
        help="Request as YAML or JSON, in the form of test cases: `workload`, `request`, `customStub`.",
    ),
    click.option(
        "--to", metavar="NAME",
        help="The workload that is called, by its name in the mesh description; in explain with --from also a service.",
    ),
    click.option("--from", metavar="WORKLOAD", help="The calling workload, by its name in the mesh description."),
    click.option("--namespace", "-n", metavar="NAME", help="Namespace of the workload that is called."),
    click.option("--labels", "-l", metavar="K=V,...", multiple=True, help="Its labels; may be repeated."),
    click.option("--service-account", metavar="NAME", help="Its service account."),
    click.option("--port", metavar="PORT", type=click.IntRange(0, MAX_PORT), help="The port connected to."),
    click.option("--tcp", is_flag=True, help="A TCP connection instead of an HTTP request."),
    click.option("--method", metavar="NAME", help="HTTP method (GET)."),
    click.option("--host", metavar="HOST", help="Host header, port included (api.example.com)."),
    click.option("--path", metavar="PATH", help="Path and query as the client sends them (/)."),
    click.option("--header", "-H", metavar="'NAME: VALUE'", multiple=True, type=LINES, help="May be repeated."),
    click.option(
        "--source-principal", metavar="ID",
        help="Identity of the client certificate; `spiffe://` may be left out of Istio's form.",
    ),
    click.option("--source-ip", metavar="IP", help="Direct peer (10.9.9.9)."),
    click.option("--destination-ip", metavar="IP", help="Address connected to (10.1.0.5)."),
    click.option("--tls", type=click.Choice(["mtls", "simple", "plaintext"]), help="By default mtls with an identity."),
    click.option("--sni", metavar="NAME", help="TLS server name."),
    click.option("--token", metavar="JWT", help="Bearer token; shows in the process list, so prefer --token-file."),
    click.option(
        "--token-file", metavar="FILE", type=click.Path(exists=True, dir_okay=False, allow_dash=True),
        help="File with the bearer token.",
    ),
    click.option(
        "--claims", metavar="JSON|@FILE",
        help="Claims of a bearer token. Its signature is taken for good; everything else is judged.",
    ),
    click.option(
        "--jwks", metavar="[SOURCE=]FILE", multiple=True,
        help="Key set of a jwksUri or issuer, which is not fetched offline; without SOURCE it is for all.",
    ),
    click.option(
        "--provider", metavar="NAME=ANSWER", multiple=True, type=_Pair(),
        help="What a CUSTOM provider answers, which is not asked offline: allow, deny or error.",
    ),
    click.option("--gateway", is_flag=True, help="The proxy is a gateway, not a sidecar."),
)  # fmt: skip


def request_options(command: _Command) -> _Command:
    """Add the options that describe a request."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
