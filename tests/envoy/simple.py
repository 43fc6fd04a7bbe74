"""The simplest parts of a trial: a policy that opens one path, routes without an application, and the first answer."""

import asyncio

import httpx

OPEN = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: open-door, namespace: shop}
spec:
  rules:
  - to: [{operation: {paths: ["/open*"]}}]
"""
ANSWERING: dict[str, object] = {
    "virtual_hosts": [
        {
            "name": "all",
            "domains": ["*"],
            "routes": [{"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": "hi"}}}],
        }
    ]
}
"""A ``route_config`` that needs no application."""


async def until_it_listens(client: httpx.AsyncClient, port: int) -> None:
    """Ask again and again until an Envoy that was just started takes connections."""
    async with asyncio.timeout(20):
        while True:
            try:
                await client.get(f"http://127.0.0.1:{port}/")
            except httpx.ConnectError:
                await asyncio.sleep(0.05)
            else:
                return
