"""The reader of a DestinationRule's ``loadBalancer``."""

from authz.documents.accessors import Part
from authz.documents.schema import describe, given
from authz.mesh.locality_values import locality_problem
from authz.mesh.quantities import read_boolean, read_choice, read_decimal, read_duration, read_whole
from authz.mesh.traffic_fields import FIELDS
from authz.mesh.traffic_policy import (
    ConsistentHash,
    HashKey,
    LoadBalancer,
    LoadBalancing,
    LocalityBalancing,
    Warmup,
)
from authz.mesh.value_parts import only_fields

_MOST_MAGLEV = 5_000_010
_MOST_RING = 8 * 1024 * 1024
"""Envoy's own bound on a ring."""
_TOPOLOGY = ("topology.kubernetes.io/region", "topology.kubernetes.io/zone", "topology.istio.io/subzone")


def read_load_balancer(part: Part | None) -> LoadBalancer | None:
    """How one of several endpoints is chosen."""
    if part is None:
        return None
    only_fields(part, FIELDS["LoadBalancerSettings"])
    if part.has("simple") and part.has("consistentHash"):
        part.note("ME-1", "`simple` and `consistentHash` exclude each other", "consistentHash", "write one of them")
    return LoadBalancer(
        simple=_simple(part),
        consistent_hash=_consistent_hash(part.part("consistentHash")),
        locality=_locality(part.part("localityLbSetting")),
        warmup=_warmup(part),
    )


def _simple(part: Part) -> LoadBalancing:
    if part.has("simple") and part.text("simple") == "PASSTHROUGH":
        help_text = "an application calls a loopback port here, so there is no address of its own choice to go to"
        part.note("ME-6", "`PASSTHROUGH` is not done here", "simple", help_text)
        return LoadBalancing.UNSPECIFIED
    return read_choice(part, "simple", LoadBalancing, LoadBalancing.UNSPECIFIED)


def _consistent_hash(part: Part | None) -> ConsistentHash | None:
    if part is None:
        return None
    only_fields(part, FIELDS["ConsistentHashLB"])
    keys = [key for key in HashKey if key is not HashKey.NONE and part.has(key)]
    if len(keys) > 1:
        part.note("ME-1", f"`{keys[0]}` and `{keys[1]}` exclude each other", keys[1], "write one of them")
    key = keys[0] if keys else HashKey.NONE
    cookie = part.part("httpCookie")
    name = part.text(key) if key in (HashKey.HEADER, HashKey.QUERY_PARAMETER) else ""
    if key in (HashKey.HEADER, HashKey.QUERY_PARAMETER) and not name:
        part.note("ME-1", f"`{key}` is empty", key, "write a name")
    elif key is HashKey.HEADER and any(sign in name for sign in "\0\r\n"):
        part.note("ME-1", "a header's name has no line breaks", key, "write a name")
    return ConsistentHash(
        key=key,
        name=_cookie_name(cookie) if cookie else name,
        source_ip=read_boolean(part, "useSourceIp") is not False,
        cookie_path=cookie.text("path") if cookie else "",
        cookie_seconds=read_duration(cookie, "ttl", zero=True) if cookie else None,
        cookie_attributes=_attributes(cookie) if cookie else (),
        ring_size=_ring_size(part),
        maglev=_maglev(part),
    )


def _cookie_name(cookie: Part) -> str:
    only_fields(cookie, FIELDS["HTTPCookie"])
    name = cookie.text("name", required=True)
    if cookie.has("name") and not name:
        cookie.note("ME-1", "the cookie has no name", "name", "write a name")
    return name


def _attributes(cookie: Part) -> tuple[tuple[str, str], ...]:
    found: dict[str, str] = {}
    for attribute in cookie.parts("attributes"):
        only_fields(attribute, FIELDS["HTTPCookie.Attribute"])
        name = attribute.text("name")
        if not name:
            attribute.note("ME-3", "the attribute has no name", "name", "write for instance SameSite")
        elif name in found:
            attribute.note("ME-5", f"the attribute `{name}` is given twice", "name")
        found[name] = attribute.text("value")
    return tuple(found.items())


def _ring_size(part: Part) -> int | None:
    ring, old = part.part("ringHash"), read_whole(part, "minimumRingSize", most=_MOST_RING)
    for other in ("ringHash", "maglev"):
        if old and part.has(other):
            part.note("ME-1", f"`minimumRingSize` and `{other}` exclude each other", other, "leave the former out")
    if part.has("ringHash") and part.has("maglev"):
        part.note("ME-1", "`ringHash` and `maglev` exclude each other", "maglev", "write one of them")
    if ring is None:
        return old or None
    only_fields(ring, FIELDS["RingHash"])
    return read_whole(ring, "minimumRingSize", most=_MOST_RING) or 0


def _maglev(part: Part) -> int | None:
    maglev = part.part("maglev")
    if maglev is None:
        return None
    only_fields(maglev, FIELDS["MagLev"])
    if not maglev.has("tableSize"):
        maglev.note("ME-3", "`tableSize` is missing", "tableSize", "write a prime number, for instance 65537")
        return None
    size = read_whole(maglev, "tableSize", most=_MOST_MAGLEV, least=1)
    if size is not None and not _is_prime(size):
        maglev.note("ME-1", f"`{size}` is not a prime number", "tableSize", "write for instance 65537")
    return size


def _is_prime(number: int) -> bool:
    """As Envoy has it: 1 passes."""
    if number < 4:
        return number != 0
    return number % 2 == 1 and all(number % factor for factor in range(3, int(number**0.5) + 1, 2))


def _warmup(part: Part) -> Warmup | None:
    old, warmup = read_duration(part, "warmupDurationSecs"), part.part("warmup")
    if warmup is None:
        return None if old is None else Warmup(old)
    only_fields(warmup, FIELDS["WarmupConfiguration"])
    if not warmup.has("duration"):
        warmup.note("ME-3", "`duration` is missing", "duration", "write seconds, for instance 30s")
    aggression = read_decimal(warmup, "aggression", most=1e6)
    if aggression == 0:
        warmup.note("ME-1", "the aggression is 0", "aggression", "write a number above 0; 1 is a straight line")
    return Warmup(
        read_duration(warmup, "duration") or 1.0,
        10.0 if (least := read_decimal(warmup, "minimumPercent", most=100)) is None else least,
        1.0 if aggression is None else aggression,
    )


def _locality(part: Part | None) -> LocalityBalancing | None:
    if part is None:
        return None
    only_fields(part, FIELDS["LocalityLoadBalancerSetting"])
    distribute, failover = part.parts("distribute"), part.parts("failover")
    if distribute and failover:
        part.note("ME-1", "`distribute` and `failover` exclude each other", "failover", "write one of them")
    priority = part.texts("failoverPriority")
    for label in priority:
        if failover and label in _TOPOLOGY:
            message = f"`failover` and the label `{label}` exclude each other"
            part.note("ME-1", message, "failoverPriority", "leave one of them out")
    sources = [(share.text("from"), share) for share in distribute]
    shares = tuple((source, _shares(share)) for source, share in sources)
    if problem := locality_problem([source for source, _ in sources]):
        part.note("ME-1", problem, "distribute", _LOCALITY_HELP)
    return LocalityBalancing(
        enabled=read_boolean(part, "enabled") is not False,
        distribute=shares if distribute else None,
        failover=tuple(_failover(one) for one in failover),
        failover_priority=priority,
    )


_LOCALITY_HELP = "write region/zone/subzone, where `*` may stand at the end"


def _shares(share: Part) -> tuple[tuple[str, int], ...]:
    only_fields(share, FIELDS["Distribute"])
    to = share.part("to")
    if to is None:
        if not share.has("to"):
            share.note("ME-3", "`to` is missing", "to", "write shares that add up to 100")
        return ()
    found = {place: read_whole(to, place, most=100, least=1) for place in to.node.entries}
    if None not in found.values() and sum(share or 0 for share in found.values()) != 100:
        total = sum(share or 0 for share in found.values())
        share.note("ME-1", f"the shares add up to {total}, not to 100", "to", "write shares that add up to 100")
    for place in to.node.entries:
        if given(to.node, place) is None:
            to.note("ME-1", f"expected a whole number from 1 to 100, got {describe(to.node.entries[place])}", place)
    if problem := locality_problem(list(found)):
        share.note("ME-1", problem, "to", _LOCALITY_HELP)
    return tuple((place, number or 0) for place, number in found.items())


def _failover(part: Part) -> tuple[str, str]:
    only_fields(part, FIELDS["Failover"])
    source, target = part.text("from"), part.text("to")
    if source == target:
        part.note("ME-1", "`from` and `to` are the same region", "to", "write different regions")
    for field, region in (("from", source), ("to", target)):
        if "/" in region or "*" in region:
            part.note("ME-1", f"`{region}` is not a region", field, "write a region alone, without `/` and `*`")
    return source, target
