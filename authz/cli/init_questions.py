"""What ``authz init`` asks at a terminal when no service is named."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

import click

from authz.starter.mesh_plan import PlanError, StarterService, WantedMesh, make_plan, read_service

Answer = TypeVar("Answer")


def ask(wanted: WantedMesh) -> WantedMesh:
    """Ask for services, calls and tokens; what the flags say already is not asked. Asks again for what cannot be."""
    services = _services()
    names = [service.name for service in services]
    calls = wanted.calls
    if len(services) > 1:
        told = [(name, _prompt(f"Whom does {name} call? [none]", _chosen(name, names))) for name in names]
        calls += tuple((caller, called) for caller, others in told for called in others)
    wanted = replace(wanted, services=services, calls=calls)
    inviting = [service.name for service in services if service.is_http]
    if inviting and not wanted.ingress:
        wanted = _prompt("Which one does a gateway open to the outside? [none]", _ingress(wanted, inviting))
    if wanted.ingress and not wanted.jwt_issuer:
        question = "Whose tokens does it take? The issuer's URL [a trial one]"
        wanted = _prompt(question, lambda text: _fitting(replace(wanted, jwt_issuer=text)))
        if wanted.jwt_issuer and not wanted.audience:
            wanted = _prompt(f"For which audience? [{wanted.namespace}]", lambda text: replace(wanted, audience=text))
    return wanted


def _services() -> tuple[StarterService, ...]:
    click.echo(
        "Your services, one per line, as NAME:PORT or NAME:PORT/tcp (http, http2, grpc, tcp), then an empty line."
    )
    found: tuple[StarterService, ...] = ()

    def another(text: str) -> StarterService | None:
        if not text and found:
            return None
        service = read_service(text)
        _fitting(WantedMesh((*found, service)))
        return service

    while (service := _prompt("Service", another)) is not None:
        found = (*found, service)
    return found


def _chosen(caller: str, names: Sequence[str]) -> Callable[[str], list[str]]:
    def read(text: str) -> list[str]:
        chosen = text.replace(",", " ").split()
        for name in chosen:
            if name not in names or name == caller:
                others = ", ".join(other for other in names if other != caller)
                raise ValueError(f"`{name}` is not one of {others}")
        return chosen

    return read


def _ingress(wanted: WantedMesh, inviting: Sequence[str]) -> Callable[[str], WantedMesh]:
    def read(text: str) -> WantedMesh:
        if text and text not in inviting:
            raise ValueError(f"`{text}` is not one of {', '.join(inviting)}")
        return replace(wanted, ingress=text)

    return read


def _fitting(wanted: WantedMesh) -> WantedMesh:
    make_plan(wanted)
    return wanted


def _prompt(question: str, read: Callable[[str], Answer]) -> Answer:
    """Ask until the answer can be read."""

    def value(text: str) -> Answer:
        try:
            return read(text.strip())
        except (PlanError, ValueError) as error:
            raise click.UsageError(str(error)) from error

    answer: Answer = click.prompt(question, default="", show_default=False, value_proc=value)
    return answer
