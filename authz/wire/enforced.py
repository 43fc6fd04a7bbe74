"""What Envoy's own filters did to a request, in Envoy's words: read from what it says of its answer."""

from collections.abc import Mapping
from typing import NamedTuple

JWT_DENIED, RBAC_DENIED, CUSTOM_DENIED = (
    "jwt_authn_access_denied{",
    "rbac_access_denied_matched_policy[",
    "ext_authz_",
)
LIMITED = {"request_rate_limited": "service", "local_rate_limited": "proxy", "rate_limiter_error": "error"}


class Enforced(NamedTuple):
    """What Envoy did, in Envoy's words."""

    status: int = 0
    """Status of the response, an upstream's included; 0 for TCP."""
    details: str = ""
    """Response code details, or connection termination details."""
    results: Mapping[str, str] = {}
    """Dynamic metadata of the RBAC filters: effective policies and results, enforced and dry run."""
    audit: bool | None = None
    """``access_log_hint``."""
    version: str = ""
    """Version of the policies that the filters were made of; empty when they do not say."""
    limit: str = ""
    """Id of the rate limit's rule that the service named for a refusal; empty where it named none."""

    @property
    def is_denied(self) -> bool:
        """Whether one of Envoy's filters refused the request."""
        return self.details.startswith((JWT_DENIED, RBAC_DENIED, CUSTOM_DENIED))

    @property
    def denied_by(self) -> str:
        """``jwt``, ``rbac`` or ``custom``; empty when it was not denied."""
        for name, prefix in (("rbac", RBAC_DENIED), ("jwt", JWT_DENIED), ("custom", CUSTOM_DENIED)):
            if self.details.startswith(prefix):
                return name
        return ""

    @property
    def limited_by(self) -> str:
        """``service``, ``proxy`` or ``error`` where a rate limit refused what the policies allowed; else empty."""
        return LIMITED.get(self.details, "")

    @property
    def matched(self) -> str:
        """Istio's name of the rule that refused; empty when none did."""
        if not self.details.startswith(RBAC_DENIED):
            return ""
        name = self.details[len(RBAC_DENIED) : -1]
        return "" if name == "none" else name
