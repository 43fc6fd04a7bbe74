"""The options of ``authz who-can`` that say which requests are meant, as what policies would ask of them."""

from collections.abc import Iterator, Mapping, Sequence

import click

from authz.analysis.invariants.invariant import AskedValues
from authz.cli.question import read_header
from authz.cli.token_stage import read_claims
from authz.core.attributes import Json
from authz.core.catalog import HOSTS, METHODS, PATHS, Attribute, CompileContext, condition_attribute

_HELD = {"method": METHODS, "path": PATHS, "host": HOSTS, "port": condition_attribute("destination.port")}


def asked_values(options: Mapping[str, str | None], headers: Sequence[str], claims: str | None) -> list[AskedValues]:
    """
    What options ask for: everything of it holds of a request that is meant.

    Args:
        options: ``method``, ``path``, ``host`` and ``port``, in the forms of policies.
        headers: each ``NAME: VALUE``.
        claims: as ``authz check --claims`` takes them; of several values of one claim a token has all.

    Raises:
        click.UsageError: no policy could ask for such a value.
    """
    found = [_one(_HELD[name], text, f"--{name}") for name, text in options.items() if text is not None]
    for header in headers:
        name, value = read_header(header)
        found.append(_one(_attribute(f"request.headers[{name}]", "--header"), value, "--header"))
    if claims is not None:
        for path, value in _claim_values((), read_claims(claims)):
            found.append(_one(_claim(path), value, "--claims"))
    return found


def _claim(path: tuple[str, ...]) -> Attribute:
    if path == ("sub",):
        raise click.BadParameter("say `iss` and `sub` together: a policy asks for both", param_hint="--claims")
    if path == ("iss", "sub"):
        return condition_attribute("request.auth.principal")
    if path == ("aud",):
        return condition_attribute("request.auth.audiences")
    return _attribute(f"request.auth.claims{''.join(f'[{name}]' for name in path)}", "--claims")


def _claim_values(within: tuple[str, ...], claims: Mapping[str, Json]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Each value with the names of the claims it lies in; issuer and subject are one (AP-38)."""
    left = dict(claims)
    if not within and isinstance(left.get("iss"), str) and isinstance(left.get("sub"), str):
        yield ("iss", "sub"), f"{left.pop('iss')}/{left.pop('sub')}"
    for name, value in left.items():
        path = (*within, name)
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, dict):
                yield from _claim_values(path, one)
            elif isinstance(one, str):
                yield path, one
            else:
                message = f"`{'.'.join(path)}`: policies ask for texts, and see neither numbers nor truth values"
                raise click.BadParameter(message, param_hint="--claims")


def _attribute(key: str, option: str) -> Attribute:
    try:
        return condition_attribute(key)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint=option) from error


def _one(attribute: Attribute, text: str, option: str) -> AskedValues:
    try:
        if not text:
            raise ValueError("an empty value matches nothing")
        attribute.compile((text,), CompileContext("default", ()))
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint=option) from error
    return AskedValues(attribute, (text,))
