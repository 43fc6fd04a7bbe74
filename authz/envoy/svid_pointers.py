"""
Files by which an Envoy follows an SVID that ``authz ca join`` keeps current: they lie beside it (XA-148 to XA-150).

This file imports no Envoy library.
"""

import json

from authz.envoy.options import ROOTS_SECRET

OWN_POINTER, ROOTS_POINTER = "svid.json", "roots.json"
OWN_SECRET = "own"  # noqa: S105  # a name
_SECRET = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"  # noqa: S105  # a type's name


def svid_pointers(directory: str) -> dict[str, bytes]:
    """Contents by file name; ``directory`` is where the SVID lies, as Envoy is to find it."""
    watched = {"path": directory}
    pair = {
        "certificate_chain": {"filename": f"{directory}/tls.crt"},
        "private_key": {"filename": f"{directory}/tls.key"},
        "watched_directory": watched,
    }
    roots = {"trusted_ca": {"filename": f"{directory}/ca.crt"}, "watched_directory": watched}
    return {
        OWN_POINTER: _file({"name": OWN_SECRET, "tls_certificate": pair}),
        ROOTS_POINTER: _file({"name": ROOTS_SECRET, "validation_context": roots}),
    }


def _file(secret: dict[str, object]) -> bytes:
    return json.dumps({"resources": [{"@type": _SECRET, **secret}]}).encode() + b"\n"
