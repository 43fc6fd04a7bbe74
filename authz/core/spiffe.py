"""SPIFFE trust domains and identifiers as validating values."""

import re
from dataclasses import dataclass

_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]{1,255}")
_SEGMENT = re.compile(r"[a-zA-Z0-9._-]+")
_ISTIO = re.compile(r"/ns/([^/]+)/sa/([^/]+)")
MAX_ID_BYTES = 2048
AUTHORITY_PATH = "/authz/ca"
"""Of the SPIFFE ID by which the authority and the control plane are known in their trust domain."""


@dataclass(frozen=True, slots=True, order=True)
class TrustDomain:
    """A SPIFFE trust domain name: lower-case letters, digits, dot, dash, underscore; at most 255 bytes."""

    name: str

    def __post_init__(self) -> None:
        if not _TRUST_DOMAIN.fullmatch(self.name):
            raise ValueError(f"`{self.name}` is not a trust domain: expected 1 to 255 of the characters a-z 0-9 . - _")

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True, order=True)
class SpiffeId:
    """
    A SPIFFE identifier, ``spiffe://<trust domain>/<path>``.

    ``path`` begins with a slash or is empty (the trust domain itself). No empty, ``.`` or ``..`` segments, no
    query, fragment, port or user part; at most 2,048 bytes (SPIFFE-ID section 2).
    """

    trust_domain: TrustDomain
    path: str = ""

    def __post_init__(self) -> None:
        if self.path:
            if not self.path.startswith("/"):
                raise ValueError(f"the path `{self.path}` of a SPIFFE ID begins with a slash")
            for segment in self.path[1:].split("/"):
                if not segment:
                    raise ValueError(f"the path `{self.path}` of a SPIFFE ID has an empty segment")
                if segment in (".", ".."):
                    raise ValueError(f"the path `{self.path}` of a SPIFFE ID has a dot segment")
                if not _SEGMENT.fullmatch(segment):
                    raise ValueError(
                        f"the path segment `{segment}` of a SPIFFE ID has a character outside a-z A-Z 0-9 . - _"
                    )
        if len(str(self)) > MAX_ID_BYTES:
            raise ValueError(f"a SPIFFE ID has at most {MAX_ID_BYTES} bytes, got {len(str(self))}")

    @classmethod
    def parse(cls, text: str) -> "SpiffeId":
        """Parse ``spiffe://…``. Raises ValueError with the reason."""
        scheme, separator, rest = text.partition("://")
        if not separator or scheme != "spiffe":
            raise ValueError(f"`{text}` is not a SPIFFE ID: expected it to begin with `spiffe://`")
        domain, slash, path = rest.partition("/")
        return cls(TrustDomain(domain), slash + path)

    @classmethod
    def for_workload(cls, trust_domain: str, namespace: str, service_account: str) -> "SpiffeId":
        """Build Istio's form, ``spiffe://td/ns/<namespace>/sa/<service account>`` (AP-24)."""
        return cls(TrustDomain(trust_domain), f"/ns/{namespace}/sa/{service_account}")

    @property
    def namespace(self) -> str | None:
        """The namespace when the path has Istio's form, else None."""
        match = _ISTIO.fullmatch(self.path)
        return match[1] if match else None

    @property
    def service_account(self) -> str | None:
        """The service account when the path has Istio's form, else None."""
        match = _ISTIO.fullmatch(self.path)
        return match[2] if match else None

    def __str__(self) -> str:
        return f"spiffe://{self.trust_domain}{self.path}"
