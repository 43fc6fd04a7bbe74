"""Values that meet what a policy wrote, and values just beside: each of them decides something at a boundary."""

import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator, Mapping

from authz.core.networks import parse_network

_PIECE = re.compile(r"\{\*\*\}|\{\*\}")
_UNSENDABLE = re.compile(r"[\x00-\x1f\x7f]")
_IN_PATH = re.compile(r"[\s#]")


def strings(written: str) -> Iterator[str]:
    """``*``, ``*x``, ``x*`` and ``x``: exactly it, longer, shorter, and in other letters (AP-19, AP-22)."""
    if written == "*":
        yield from ("x", "")
    elif written.startswith("*"):
        rest = written[1:]
        yield from (f"x{rest}", rest, f"{rest}x", rest[1:], rest.swapcase())
    elif written.endswith("*"):
        rest = written[:-1]
        yield from (f"{rest}x", rest, rest[:-1], f"x{rest}", rest.swapcase())
    else:
        yield from (written, f"{written}x", written[:-1], f"x{written}", written.swapcase())


def headers(written: str) -> Iterator[tuple[str, ...]]:
    """Occurrences of a header: none, each of ``strings``, and two beside each other."""
    for value in strings(written):
        if _is_header(value):
            yield (value,)
    yield ()
    first = next(strings(written))
    if _is_header(first):
        yield from (("other", first), (f"{first},other",))


def _is_header(value: str) -> bool:
    return not _UNSENDABLE.search(value) and value == value.strip()


def hosts(written: str) -> Iterator[str]:
    """Hosts with a port, a trailing dot and capital letters, too (AP-42)."""
    found = [one for one in strings(written) if one and not re.search(r"[\s/?#@]", one)]
    yield from found
    for one in found[:1]:
        if ":" not in one:
            yield from (f"{one}:8080", f"{one}.")
        yield from (one.upper(), f"www.{one}")


def methods(written: str) -> Iterator[str]:
    """Methods are compared with their case; CONNECT has no path and is not sent."""
    for one in ("GET" if written == "*" else "", *strings(written)):
        if re.fullmatch(r"[A-Za-z]+", one) and one != "CONNECT":
            yield one


def paths(written: str) -> Iterator[str]:
    """Paths exact, by prefix, suffix and template, with a query, and just beside (AP-46 to AP-55)."""
    found = _templates(written) if _PIECE.search(written) else _plain_paths(written)
    first = ""
    for one in dict.fromkeys(found):
        if one.startswith("/") and not _IN_PATH.search(one) and not _UNSENDABLE.search(one):
            first = first or one
            yield one
    if first and "?" not in first:
        yield from (f"{first}?q=1", f"{first}/", f"{first}%2Fx")


def _plain_paths(written: str) -> Iterator[str]:
    for one in strings(written):
        yield one
        if not one.startswith("/"):
            yield f"/{one}"
    if len(written) > 1 and written.endswith("*"):
        yield f"{written[:-1]}/x"


def _templates(written: str) -> Iterator[str]:
    for single, several in (("x", "x/y"), ("x", "x"), ("x", ""), ("", "x"), ("x/y", "x"), ("a.b", "a.b"), ('"', '"')):
        yield _PIECE.sub(lambda piece, one=single, many=several: many if "**" in piece[0] else one, written)  # type: ignore[misc]  # mypy knows no types for defaults of a lambda
    whole = _PIECE.sub("x", written)
    yield from (f"{whole}x", whole[:-1], f"{whole}/x", whole.swapcase())


def addresses(written: str) -> Iterator[str]:
    """The first and the last address of a block, and those just outside (AP-40). Raises ValueError."""
    network = parse_network(written)
    bits = (32 if network.version == 4 else 128) - network.prefix_length
    first = network.value << bits
    last = first + (1 << bits) - 1
    made: Callable[[int], object] = ipaddress.IPv4Address if network.version == 4 else ipaddress.IPv6Address
    for value in (first + (1 if bits > 1 else 0), last - (1 if bits > 1 else 0), first, last, first - 1, last + 1):
        if 0 <= value < 1 << (32 if network.version == 4 else 128):
            yield str(made(value))


def loopback(written: str) -> Iterator[str]:
    """The ``addresses`` that a client of this machine can have, and one of the block if there is one."""
    network = parse_network(written)
    if network.version != 4:
        return
    found = list(addresses(written))
    if "127.0.0.0" in found or written.startswith("127.") or network.prefix_length < 8:
        found.append("127.0.0.1")
    for one in found:
        if one.startswith("127.") and one not in ("127.0.0.0", "127.255.255.255"):
            yield one


def ports(written: str) -> Iterator[int]:
    """The port and its neighbours (AP-45)."""
    for number in (int(written), int(written) + 1, int(written) - 1):
        if 0 < number < 65536:
            yield number


def claims(written: str) -> Iterator[object]:
    """A claim as text, in a list, among words, as a number, and none (AP-60)."""
    found = [one for one in strings(written) if not _UNSENDABLE.search(one)]
    yield from found
    yield from (["other", found[0]], f"other {found[0]}", 7, None)


def request_principals(written: str, issuers: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Issuer and subject: of what is written, and of issuers whose tokens are accepted (AP-38)."""
    issuer, slash, subject = written.rpartition("/")
    subjects = [subject] if subject and "*" not in subject else []
    if subject.endswith("*"):
        subjects.append(f"{subject[:-1]}x")
    if written.startswith("*"):
        subjects.append(f"x{written[1:].rpartition('/')[2]}" if not slash else subject.replace("*", "x"))
    for name in dict.fromkeys([*([issuer] if slash and "*" not in issuer else []), *issuers]):
        for one in dict.fromkeys([*subjects, "someone", *(f"{one}x" for one in subjects)]):
            yield name, one


def identities(written: Mapping[str, tuple[str, ...]], trust_domains: tuple[str, ...], namespace: str) -> Iterator[str]:
    """
    Identities of certificates for what principals, namespaces, service accounts and trust domains say together.

    ``written``: values by key; ``namespace``: that of the policy. The empty one is a caller without certificate.
    """
    whole = [one.replace("*", "") if one == "*" else one for one in written.get("source.principal", ())]
    given = [f"spiffe://{one}" for value in whole for one in strings(value) if one.count("/") > 1]
    parts = [re.fullmatch(r"([^/]*)/ns/([^/]*)/sa/(.*)", one) for one in whole]
    accounts = [one if "/" in one else f"{namespace}/{one}" for one in written.get("source.serviceAccount", ())]
    domains = _words([*written.get("source.trustDomain", ()), *(one[1] for one in parts if one), *trust_domains])
    spaces = _words([
        *written.get("source.namespace", ()), *(one.partition("/")[0] for one in accounts),
        *(one[2] for one in parts if one), "other",
    ])  # fmt: skip
    names = _words([
        *(one.partition("/")[2] for one in accounts), *(one[3] for one in parts if one), *_tails(whole),
        "someone",
    ])  # fmt: skip
    yield from given[:1]
    yield ""
    yield from given
    product = (f"spiffe://{domain}/ns/{space}/sa/{name}" for space in spaces for name in names for domain in domains)
    for number, one in enumerate(product):
        if number == MAX_IDENTITIES:
            return
        yield one


MAX_IDENTITIES = 400
"""Combinations of one rule: each is a certificate of its own."""


def _tails(principals: Iterable[str]) -> Iterator[str]:
    for one in principals:
        if one.startswith("*/sa/"):
            yield one[5:]


def _words(values: Iterable[str]) -> list[str]:
    """Values without stars, and longer by a letter, so that a glob and its neighbour are both met."""
    found = [one for one in dict.fromkeys(values) if one]
    plain = [
        piece
        for one in found
        for piece in ((one,) if "*" not in one else (one.replace("*", ""), one.replace("*", "x")))
    ]
    return [
        one for one in dict.fromkeys([*plain, *(f"{one}x" for one in plain)]) if one and not re.search(r"[\s/]", one)
    ]
