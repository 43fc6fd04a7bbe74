"""The values of a request's Host that mean a service, as Istio gives them to the proxies of a namespace."""

import ipaddress
from collections.abc import Iterable

from authz.mesh.nouns import MeshService

_LOCAL = ".svc.cluster.local"


def domains(services: Iterable[MeshService], namespace: str) -> dict[str, list[str]]:
    """
    The names of each service, by its host: whole, with a dot behind it, short ones, and its addresses.

    Ports are left out, as the route tables ignore them. No two services have the same name: a whole name wins over a
    short one of another, and else the first. Facts from Istio's ``httproute.go``.
    """
    every = list(services)
    taken = {service.host.lower() for service in every}
    found: dict[str, list[str]] = {}
    for service in every:
        host = service.host.lower()
        further = (f"{host}.", *_short(host, namespace), *(_bracketed(one) for one in service.addresses))
        names = [host]
        for name in dict.fromkeys(further):
            if name not in taken:
                taken.add(name)
                names.append(name)
        found[service.host] = names
    return found


def _short(host: str, namespace: str) -> tuple[str, ...]:
    name, _, rest = host.removesuffix(_LOCAL).partition(".")
    if not host.endswith(_LOCAL) or not name or not rest or "." in rest or "*" in host:
        return ()
    with_namespace = (f"{name}.{rest}", f"{name}.{rest}.svc")
    return (name, *with_namespace) if rest == namespace else with_namespace


def _bracketed(address: str) -> str:
    return f"[{address}]" if ipaddress.ip_address(address).version == 6 else address  # the version
