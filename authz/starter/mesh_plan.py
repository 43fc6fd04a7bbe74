"""
What a new mesh consists of: services, who calls whom, who comes in from outside, and every port, checked as a whole.

The user's applications keep their ports. Every other port is counted up from ``first_port``: the operator's page, the
issuer for trying, then for each service the port on which its proxy receives and one for each service that it calls.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from urllib.parse import urlsplit

from authz.core.errors import AuthzError

PROTOCOLS = ("http", "http2", "grpc", "tcp")
"""What an application speaks; the first unless told otherwise."""
FIRST_PORT = 15000
INGRESS_OFFSET = 443
"""The gateway's port is the first port plus this: 15443."""
GATEWAY = "ingressgateway"
"""Name of the gateway's workload."""
RESERVED = (GATEWAY, "ingress", "strangers")
"""Names that policies and test cases give to others besides services."""
ROOT_NAMESPACE = "istio-system"
LOOPBACK = "127.0.0.1"
_NAME = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
_NAME_IS = "lower-case letters, digits and hyphens, at most 63, a letter first and no hyphen last"
_DOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")


class PlanError(AuthzError):
    """The mesh that was asked for cannot be made; the message has one line for everything that is wrong."""


@dataclass(frozen=True, slots=True)
class StarterService:
    """One application of the user's own."""

    name: str
    port: int
    """Where it listens, on loopback."""
    protocol: str = PROTOCOLS[0]

    @property
    def is_http(self) -> bool:
        """Whether its requests have methods and paths."""
        return self.protocol != "tcp"


@dataclass(frozen=True, slots=True)
class StarterIssuer:
    """Whose tokens the gateway takes."""

    url: str
    """The tokens' ``iss``."""
    audience: str
    jwks_uri: str = ""
    """Empty: found by OpenID Connect discovery."""
    is_for_trying: bool = False
    """``authz up`` runs it; it believes anyone who asks."""


@dataclass(frozen=True, slots=True)
class StarterPlan:
    """A mesh to write; everything in it fits together."""

    services: tuple[StarterService, ...]
    calls: tuple[tuple[str, str], ...] = ()
    """Caller and called, by name, in order."""
    ingress: str = ""
    """The service that the gateway leads to; empty: nobody comes in."""
    issuer: StarterIssuer | None = None
    """None without a gateway."""
    namespace: str = "default"
    trust_domain: str = "cluster.local"
    runs: Mapping[str, str] = field(default_factory=dict)
    """Commands by which ``authz up`` starts services."""
    page_port: int = 0
    ingress_port: int = 0
    receives: Mapping[str, int] = field(default_factory=dict)
    """Port of each service's proxy."""
    leads: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """For each call, the loopback port of the caller's proxy that leads to the called service."""

    def service(self, name: str) -> StarterService:
        """Find a service. Raises KeyError."""
        return next((service for service in self.services if service.name == name), None) or _no(name)

    def callers_of(self, name: str) -> tuple[str, ...]:
        """The services that call a service."""
        return tuple(caller for caller, called in self.calls if called == name)

    def called_by(self, name: str) -> tuple[str, ...]:
        """The services that a service calls."""
        return tuple(called for caller, called in self.calls if caller == name)

    def principal(self, name: str) -> str:
        """A service's identity as policies write it."""
        return f"{self.trust_domain}/ns/{self.namespace}/sa/{name}"

    @property
    def gateway_principal(self) -> str:
        """The gateway's identity as policies write it."""
        return f"{self.trust_domain}/ns/{ROOT_NAMESPACE}/sa/{GATEWAY}"


@dataclass(frozen=True, slots=True)
class WantedMesh:
    """What was asked for, by flags or a compose file; nothing is checked yet."""

    services: tuple[StarterService, ...]
    calls: tuple[tuple[str, str], ...] = ()
    ingress: str = ""
    jwt_issuer: str = ""
    jwks_uri: str = ""
    audience: str = ""
    """Empty: the namespace."""
    namespace: str = "default"
    trust_domain: str = "cluster.local"
    runs: tuple[tuple[str, str], ...] = ()
    first_port: int = FIRST_PORT


def read_service(text: str) -> StarterService:
    """Read ``NAME:PORT`` or ``NAME:PORT/PROTOCOL``. Raises ValueError saying what is wrong."""
    name, colon, rest = text.partition(":")
    number, _, protocol = rest.partition("/")
    if not colon or not number.isascii() or not number.isdigit() or not 0 < int(number[:6]) < 65536:
        raise ValueError(f"`{text}` is not NAME:PORT or NAME:PORT/PROTOCOL, for example api:9000 or db:5432/tcp")
    protocol = protocol or PROTOCOLS[0]
    if protocol not in PROTOCOLS:
        raise ValueError(f"`{text}`: `{protocol}` is not one of {', '.join(PROTOCOLS)}")
    return StarterService(name, int(number), protocol)


def read_pair(text: str, separator: str, form: str) -> tuple[str, str]:
    """Read two parts that are both there. Raises ValueError saying what is wrong."""
    left, _, right = text.partition(separator)
    if not left.strip() or not right.strip():
        raise ValueError(f"`{text}` is not {form}")
    return left.strip(), right.strip()


def make_plan(wanted: WantedMesh) -> StarterPlan:
    """Check what was asked for and give every proxy its ports. Raises PlanError with all that is wrong."""
    if problems := tuple(_problems(wanted)):
        raise PlanError("\n".join(problems))
    calls = tuple(dict.fromkeys(wanted.calls))
    taken = {service.port for service in wanted.services}
    free = (port for port in range(wanted.first_port, 65536) if port not in taken)
    page_port, issuer_port = next(free), next(free)
    ingress_port = wanted.first_port + INGRESS_OFFSET
    while ingress_port in taken:
        ingress_port += 1
    taken.add(ingress_port)
    next(port for port in free if port >= wanted.first_port + 9)  # the mesh's own begin at a number easy to spot
    receives: dict[str, int] = {}
    leads: dict[tuple[str, str], int] = {}
    try:
        for service in wanted.services:
            receives[service.name] = next(free)
            leads |= {call: next(free) for call in calls if call[0] == service.name}
    except StopIteration:
        raise PlanError(f"there are not enough ports from {wanted.first_port} on: choose a smaller one") from None
    return StarterPlan(
        services=wanted.services,
        calls=calls,
        ingress=wanted.ingress,
        issuer=_issuer(wanted, issuer_port) if wanted.ingress else None,
        namespace=wanted.namespace,
        trust_domain=wanted.trust_domain,
        runs=dict(wanted.runs),
        page_port=page_port,
        ingress_port=ingress_port,
        receives=receives,
        leads=leads,
    )


def _issuer(wanted: WantedMesh, port: int) -> StarterIssuer:
    audience = wanted.audience or wanted.namespace
    if wanted.jwt_issuer:
        return StarterIssuer(wanted.jwt_issuer, audience, wanted.jwks_uri)
    return StarterIssuer(f"http://{LOOPBACK}:{port}", audience, is_for_trying=True)


def _problems(wanted: WantedMesh) -> Iterator[str]:
    names = tuple(service.name for service in wanted.services)
    if not names:
        yield "a mesh needs a service: for example --service web:8080"
    yield from _service_problems(wanted)
    for caller, called in wanted.calls:
        yield from _unknown((caller, called), names, f"the call {caller}:{called}")
        if caller == called:
            yield f"the call {caller}:{called} is from a service to itself, which needs no proxy"
    yield from _unknown([wanted.ingress] if wanted.ingress else [], names, "--ingress")
    if any(service.name == wanted.ingress and not service.is_http for service in wanted.services):
        yield f"--ingress {wanted.ingress}: the gateway needs requests to ask tokens of, and this service speaks TCP"
    yield from _unknown([name for name, _ in wanted.runs], names, "--run")
    if not _NAME.fullmatch(wanted.namespace) or wanted.namespace == ROOT_NAMESPACE:
        yield f"the namespace `{wanted.namespace}` must be a DNS label, and not {ROOT_NAMESPACE}"
    if not _DOMAIN.fullmatch(wanted.trust_domain):
        yield f"the trust domain `{wanted.trust_domain}` must be a DNS name in lower case"
    if not 1024 <= wanted.first_port <= 64000:
        yield f"--first-port {wanted.first_port} must be between 1024 and 64000"
    for option, url in (("--jwt-issuer", wanted.jwt_issuer), ("--jwks-uri", wanted.jwks_uri)):
        if url and not _is_url(url):
            yield f"{option} `{url}` must be a URL with http or https and a host, without spaces, quotes or `*`"
    if not wanted.audience.isprintable():
        yield f"--jwt-audience {wanted.audience!r} must be one line of printable text"
    if wanted.jwks_uri and not wanted.jwt_issuer:
        yield "--jwks-uri says where the keys of --jwt-issuer are: name it, too"
    if (wanted.jwt_issuer or wanted.audience) and not wanted.ingress:
        yield "tokens are asked for at the gateway: say with --ingress which service it leads to"


def _service_problems(wanted: WantedMesh) -> Iterator[str]:
    seen: dict[str, StarterService] = {}
    by_port: dict[int, str] = {}
    for service in wanted.services:
        if not _NAME.fullmatch(service.name):
            yield f"`{service.name}` cannot be a service's name: {_NAME_IS}"
        elif service.name in RESERVED or "-from-" in service.name:
            yield f"`{service.name}` cannot be a service's name: policies need it; choose another"
        if service.name in seen:
            yield f"the service {service.name} is given twice"
        elif service.port in by_port:
            yield (
                f"{by_port[service.port]} and {service.name} cannot both listen on port {service.port} of one machine: "
                "give one of them another port"
            )
        seen[service.name] = service
        by_port.setdefault(service.port, service.name)


def _unknown(wanted: Iterable[str], names: tuple[str, ...], where: str) -> Iterator[str]:
    for name in wanted:
        if name not in names:
            close = get_close_matches(name, names, 1)
            hint = f"did you mean `{close[0]}`?" if close else f"add it: --service {name}:PORT"
            yield f"{where} names `{name}`, which is not a service; {hint}"


def _is_url(text: str) -> bool:
    try:
        found = urlsplit(text)
        return found.scheme in ("http", "https") and bool(found.hostname) and not re.search(r"[\s\"'`*\\]", text)
    except ValueError:
        return False


def _no(name: str) -> StarterService:
    raise KeyError(name)
