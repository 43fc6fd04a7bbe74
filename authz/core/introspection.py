"""
An issuer that is asked about its tokens (RFC 7662), and a question to it: Istio has no opaque tokens.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from authz.core.attributes import Json
from authz.core.errors import NOWHERE, Location


@dataclass(frozen=True, slots=True)
class Introspection:
    """
    One entry of ``tokenIntrospection``, which is ours: an issuer that is asked about its tokens (RFC 7662).

    Every jwtRule with that issuer takes opaque tokens too; one without a key set of its own takes nothing unasked.
    """

    issuer: str = ""
    endpoint: str = ""
    client_id: str = ""
    client_secret_file: str = ""
    """Absolute path; the secret itself is nowhere but in the request to the endpoint."""
    timeout_seconds: float = 2.0
    max_age_seconds: float = 60.0
    """How long an active token is believed to be active, at most until its ``exp``."""
    refused_max_age_seconds: float = 10.0
    """How long a token that is not active is refused unasked."""
    location: Location = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class TokenQuestion:
    """A token was found where a rule of such an issuer looks: is it active, and whose is it?"""

    introspection: Introspection
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class TokenAnswer:
    """The issuer's answer: ``claims`` of an active token, None for any other; ``error`` when it could not be asked."""

    claims: Mapping[str, Json] | None = None
    error: str = ""
