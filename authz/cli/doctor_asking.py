"""Whom ``authz doctor`` asks besides Envoys: the running server, and issuers of tokens for the time."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial

import httpx

from authz.analysis.hardening.checklist import Finding
from authz.analysis.hardening.open_settings import is_local
from authz.analysis.hardening.surroundings import judge_clock
from authz.core.errors import FetchError, Severity
from authz.core.resources import JwtRule

TIMEOUT_SECONDS = 5.0
DECISIONS = "/api/overview"
"""A page that tells of decisions: who reads it without showing anything reads everything."""


def ask_server(admin: str, now: float) -> Iterator[Finding]:
    """
    Ask the running server as a stranger would: its time, and whether it shows what it should not.

    Args:
        admin: host:port or unix:/path.
        now: seconds since the epoch.

    Raises:
        FetchError: it does not answer.
    """
    path = admin.removeprefix("unix:") if admin.startswith("unix:") else None
    transport = httpx.HTTPTransport(uds=path, verify=False)  # a stranger looks, and shows nothing
    base = "localhost" if path else admin
    with httpx.Client(transport=transport, timeout=TIMEOUT_SECONDS, trust_env=False) as client:
        answer, scheme = _first(client, base, admin)
        yield from judge_clock(f"admin {admin}", answer.headers.get("date", ""), now)
        if is_local(admin):
            return
        if scheme == "http":
            yield Finding(
                2, f"admin {admin}", "answers in plaintext", "set `admin_tls_certificate` and `admin_tls_key`",
                Severity.ERROR,
            )  # fmt: skip
        if client.get(f"{scheme}://{base}{DECISIONS}").status_code == httpx.codes.OK:
            yield Finding(
                2, f"admin {admin}", "shows decisions to whoever reaches it",
                "set `admin_token_file` or `admin_tls_client_ca`", Severity.ERROR,
            )  # fmt: skip


def _first(client: httpx.Client, base: str, admin: str) -> tuple[httpx.Response, str]:
    """The first answer, and how it was got. Raises FetchError."""
    failure = "no answer"
    for scheme in ("http", "https"):
        try:
            return client.get(f"{scheme}://{base}/livez"), scheme
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            failure = str(error) or type(error).__name__
    raise FetchError(f"`{admin}` does not answer: {failure}")


def ask_dates(rules: Iterable[JwtRule], now: float) -> Iterator[tuple[str, Callable[[], Iterable[Finding]]]]:
    """One question for each server of key sets: its name, and what asks it and judges its time."""
    urls = {rule.jwks_uri or f"{rule.issuer.removesuffix('/')}/.well-known/openid-configuration": rule for rule in rules
            if not rule.jwks}  # fmt: skip
    for url in sorted(urls):
        yield f"issuer {url}", partial(_ask_date, url, now)


def _ask_date(url: str, now: float) -> list[Finding]:
    """Raises FetchError."""
    try:
        answer = httpx.get(url, timeout=TIMEOUT_SECONDS)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise FetchError(str(error) or type(error).__name__) from error
    return list(judge_clock(f"issuer {url}", answer.headers.get("date", ""), now))
