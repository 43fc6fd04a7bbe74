"""
How the values of each attribute are read from what is known of a request.

Each function answers the values, the empty tuple when the attribute is absent, or UNKNOWN when the deployment does
not deliver it (CS-7, CS-8). ``catalog`` names them in its table.
"""

from collections.abc import Callable

from authz.core.attributes import UNKNOWN, AttributeContext, Json, Unknown
from authz.core.matchers import LISTED, SCALAR, ascii_lower

Values = tuple[str, ...] | Unknown
Read = Callable[[AttributeContext], Values]


def identities(attributes: AttributeContext) -> Values:
    """The identities of the client certificate."""
    source = attributes.source
    return UNKNOWN if source.is_unproven else source.identities


def source_ip(attributes: AttributeContext) -> Values:
    """The direct peer."""
    ip = attributes.source.ip
    return ip if isinstance(ip, Unknown) else (ip,)


def remote_ip(attributes: AttributeContext) -> Values:
    """The client, as the proxy determined it."""
    ip = attributes.source.remote_ip
    return ip if isinstance(ip, Unknown) else (ip,)


def destination_ip(attributes: AttributeContext) -> Values:
    """The address connected to."""
    ip = attributes.destination.ip
    return ip if isinstance(ip, Unknown) else (ip,)


def destination_port(attributes: AttributeContext) -> Values:
    """The port connected to."""
    port = attributes.destination.port
    return port if isinstance(port, Unknown) else (str(port),)


def sni(attributes: AttributeContext) -> Values:
    """The TLS server name."""
    sni = attributes.sni
    return sni if isinstance(sni, Unknown) else (sni,)


def host(attributes: AttributeContext) -> Values:
    """The host as received."""
    return (attributes.http.host,) if attributes.http is not None else ()


def folded_host(attributes: AttributeContext) -> Values:
    """The host in lower case, for the index."""
    return (ascii_lower(attributes.http.host),) if attributes.http is not None else ()


def method(attributes: AttributeContext) -> Values:
    """The HTTP method."""
    return (attributes.http.method,) if attributes.http is not None else ()


def path(attributes: AttributeContext) -> Values:
    """The normalised path without query."""
    http = attributes.http
    return (http.url_path,) if http is not None and http.path else ()


def namespaces(attributes: AttributeContext) -> Values:
    """Every N with ``/ns/N/`` in an identity (AP-31)."""
    if attributes.source.is_unproven:
        return UNKNOWN
    found: list[str] = []
    for identity in attributes.source.identities:
        segments = identity.split("/")
        found.extend(segments[at + 1] for at in range(1, len(segments) - 2) if segments[at] == "ns")
    return tuple(found)


def service_accounts(attributes: AttributeContext) -> Values:
    """Every ``N/A`` with ``/ns/N/`` and later ``/sa/A`` in an identity (AP-33)."""
    if attributes.source.is_unproven:
        return UNKNOWN
    found: list[str] = []
    for identity in attributes.source.identities:
        segments = identity.split("/")
        for position in range(1, len(segments) - 3):
            if segments[position] == "ns":
                namespace = segments[position + 1]
                found.extend(
                    f"{namespace}/{segments[later + 1]}"
                    for later in range(position + 2, len(segments) - 1)
                    if segments[later] == "sa"
                )
    return tuple(found)


def request_principal(attributes: AttributeContext) -> Values:
    """Issuer and subject of the accepted token, or nothing."""
    token = attributes.authentication.token
    if token is None:
        return ()
    issuer, subject = token.claims.get("iss"), token.claims.get("sub")
    return (issuer, subject) if isinstance(issuer, str) and isinstance(subject, str) else ()


def joined_request_principal(attributes: AttributeContext) -> Values:
    """``iss/sub``, for the index."""
    values = request_principal(attributes)
    return ("/".join(values),) if not isinstance(values, Unknown) and values else ()


def _claim_values(claim: Json) -> tuple[str, ...]:
    """A string, or the strings of a list; everything else matches nothing, not even ``*`` (AP-60)."""
    if isinstance(claim, str):
        return (claim,)
    if isinstance(claim, list):
        return tuple([element for element in claim if isinstance(element, str)])  # a generator costs twice as much
    return ()


def claim(path: tuple[str, ...]) -> Read:
    """Read a claim of the accepted token by its path."""
    first, rest = path[0], path[1:]

    def read(attributes: AttributeContext) -> Values:
        token = attributes.authentication.token
        if token is None:
            return ()
        value = token.claims.get(first)
        for name in rest:
            if not isinstance(value, dict):
                return ()
            value = value.get(name)
        return _claim_values(value)

    return read


def header(name: str) -> Read:
    """Read every occurrence of a request header."""
    name = ":authority" if name == "host" else name

    def read(attributes: AttributeContext) -> Values:
        http = attributes.http
        if http is None:
            return ()
        found = http.headers.get(name)
        if found is None:
            return UNKNOWN if http.is_partial or name in http.hidden else ()
        return found

    return read


def filter_metadata(namespace: str, member: str) -> Read:
    """Read a member of the dynamic metadata of a filter, marked as string or list element (AP-66)."""

    def read(attributes: AttributeContext) -> Values:
        metadata = attributes.metadata
        if isinstance(metadata, Unknown):
            return metadata
        try:
            value = metadata[namespace].get(member)
        except KeyError:
            return UNKNOWN  # Envoy was not told to send this namespace (CS-8, CS-12)
        if isinstance(value, str):
            return (SCALAR + value,)
        if isinstance(value, list):
            return tuple(LISTED + element for element in value if isinstance(element, str))
        return ()

    return read
