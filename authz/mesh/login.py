"""
A browser login at a gateway, as described, and as its issuer is found; nothing here knows Envoy.

Istio has no kind for it, so the annotation ``mesh.authz/login`` of a Gateway describes it, as YAML within YAML, like
the MeshConfig of a ConfigMap. What an issuer publishes about itself is not described:
OpenID Connect's discovery gives it.
"""

from dataclasses import dataclass
from enum import StrEnum

NO_ISSUER = "ME-7"
"""Code of the problem that an issuer says nothing usable about itself."""


class LoginToken(StrEnum):
    """Which of the issuer's tokens is shown to the policies: that for APIs, or that about the person who signed in."""

    ACCESS = "access"
    ID = "id"


@dataclass(frozen=True, slots=True)
class Login:
    """
    How people sign in at a gateway: OpenID Connect's authorization code flow with PKCE.

    A browser that opens a page without a session is led to the issuer, whatever the policies would say.
    Everything else goes to the policies as it is.
    """

    issuer: str
    """Identifier of the issuer, letter by letter as it names itself: an https URL, or an http one of loopback."""
    client_id: str
    credential: str
    """Directory below ``certs/`` with ``client-secret``, which the user puts there, and ``hmac``, which is made."""
    scopes: tuple[str, ...] = ("openid",)
    open_paths: tuple[str, ...] = ()
    """Paths on which nobody is led to the issuer; one may end with ``*``. A session counts there, too."""
    redirect_path: str = "/login/callback"
    """Where the issuer sends the browser back to. The gateway answers it itself."""
    logout_path: str = "/logout"
    """Where a session ends. The gateway answers it itself."""
    token: LoginToken = LoginToken.ACCESS
    ca_certificates: str = ""
    """Path of a PEM bundle that alone vouches for the issuer, relative to the state directory; empty: the system's."""
    compose_address: str = ""
    """IP address of the issuer among containers; empty: that of its URL."""


@dataclass(frozen=True, slots=True)
class LoginEndpoints:
    """What an issuer's discovery document says that a login needs (OpenID Connect Discovery 1.0, section 3): URLs."""

    authorization: str
    token: str
    end_session: str = ""
    """Where a session at the issuer itself ends; empty: the issuer has no such place."""
    basic: bool = False
    """Whether the client's secret is sent as HTTP Basic credentials, because the issuer takes no form field."""
