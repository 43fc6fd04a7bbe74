"""Proxies asked by their administration, whose address is a pattern with ``{proxy}`` for the name."""

import httpx

TIMEOUT_SECONDS = 5.0


async def ask_admin(where: str, proxy: str, path: str) -> str:
    """Ask one page; ``where`` as the setting ``access_log_admin``. Raises OSError, httpx's errors."""
    where = where.replace("{proxy}", proxy)
    transport = None
    if where.startswith("unix:"):
        transport = httpx.AsyncHTTPTransport(uds=where.removeprefix("unix:"))
        where = "http://envoy"
    async with httpx.AsyncClient(transport=transport, timeout=TIMEOUT_SECONDS, trust_env=False) as client:
        answer = await client.get(f"{where}{path}")
        answer.raise_for_status()
    return answer.text
