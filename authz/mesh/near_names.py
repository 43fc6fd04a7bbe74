"""What to do about a name that leads nowhere: the one that was probably meant."""

from collections.abc import Iterable

from authz.documents.schema import nearest
from authz.mesh.nouns import Mesh


def host_help(mesh: Mesh, host: str) -> str:
    """What to write in place of a host that no ServiceEntry has."""
    hosts = [service.host for service in mesh.services]
    label, _, rest = host.partition(".")
    gateway = next((one for one in mesh.workloads if one.is_gateway and label.removeprefix("istio-") == one.name), None)
    if gateway is not None and rest.startswith(f"{gateway.namespace}."):
        return (
            "a gateway is not called by a route: proxies send by themselves to the egress gateway what leaves the mesh"
        )
    elsewhere = [one for one in hosts if one.partition(".")[0] == label]
    if elsewhere:
        names = " or ".join(f"`{one}`" for one in elsewhere)
        return f"write {names}; a short name is one of `metadata.namespace`, which is `default` where it is not written"
    # Names end alike, so what differs is compared alone.
    begins = {one.partition(".")[0]: one for one in hosts}
    close = begins.get(nearest(label, begins), "")
    if close:
        return f"did you mean `{close}`?"
    return "a service needs a ServiceEntry with this host; a short name is one of `metadata.namespace`"


def name_help(name: str, known: Iterable[str]) -> str:
    """What to write in place of a ``namespace/name`` that nothing has; empty where nothing is near."""
    names = sorted(known)
    own = name.rpartition("/")[2]
    elsewhere = [one for one in names if one.rpartition("/")[2] == own]
    if elsewhere:
        return f"write its namespace, too: {' or '.join(f'`{one}`' for one in elsewhere)}"
    by_own = {one.rpartition("/")[2]: one for one in names}
    close = by_own.get(nearest(own, by_own), "")
    return f"did you mean `{close}`?" if close else ""
