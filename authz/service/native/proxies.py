"""Proxies asked by their admin interface, whose address is a pattern with ``{proxy}`` for the name."""

import re

import httpx

TIMEOUT_SECONDS = 5.0
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")
"""A host or file name and nothing more: it comes from access logs, whose writer must not choose a path by it."""


async def ask_admin(where: str, proxy: str, path: str) -> str:
    """
    Ask one page; ``where`` as the setting ``access_log_admin``.

    Raises OSError, ValueError for a name that would lead elsewhere, httpx's errors.
    """
    if _NAME.fullmatch(proxy) is None:
        raise ValueError("not a proxy's name")
    where = where.replace("{proxy}", proxy)
    transport = None
    if where.startswith("unix:"):
        transport = httpx.AsyncHTTPTransport(uds=where.removeprefix("unix:"))
        where = "http://envoy"
    async with httpx.AsyncClient(transport=transport, timeout=TIMEOUT_SECONDS, trust_env=False) as client:
        answer = await client.get(f"{where}{path}")
        answer.raise_for_status()
    return answer.text
