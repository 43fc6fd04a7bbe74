"""
Run one Bookinfo service: ``python -m authz.demo.apps reviews --version v2 --port 19140 --to ratings=http://…``.

The listener is on loopback: what reaches a service from elsewhere has passed its sidecar. Only a service that has none,
and runs in a container of its own, is given another ``--host``.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence

import uvicorn
from starlette.applications import Starlette

from authz.demo.apps.custom import custom
from authz.demo.apps.details import details
from authz.demo.apps.outside import outside
from authz.demo.apps.productpage import productpage
from authz.demo.apps.ratings import ratings
from authz.demo.apps.reviews import reviews

NAMES = ("productpage", "details", "reviews", "ratings", "outside", "custom")


def build(name: str, version: str, to: Mapping[str, str]) -> Starlette:
    """
    Make the application of that name.

    Args:
        to: name of a called service to its URL; the sidecar's loopback ports.
    """
    if name == "productpage":
        return productpage(to.get("details", ""), to.get("reviews", ""))
    if name == "details":
        return details(to.get("books", ""))
    if name == "reviews":
        return reviews(version, to.get("ratings", ""))
    if name == "ratings":
        return ratings(version, to.get("database", ""))
    return custom() if name == "custom" else outside()


def main(arguments: Sequence[str]) -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m authz.demo.apps", description="Run one service of Bookinfo.")
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--version", default="v1")
    parser.add_argument("--to", action="append", default=[], metavar="NAME=URL", help="where a called service is")
    parser.add_argument("--certificate", help="PEM chain; with it HTTPS is spoken")
    parser.add_argument("--key", help="PEM key of the certificate")
    given = parser.parse_args(arguments)
    to = dict(pair.partition("=")[::2] for pair in given.to)
    uvicorn.run(
        build(given.name, given.version, to),
        host=given.host,
        port=given.port,
        log_level="warning",
        access_log=False,
        server_header=False,
        ssl_certfile=given.certificate,
        ssl_keyfile=given.key,
    )


if __name__ == "__main__":
    main(sys.argv[1:])
