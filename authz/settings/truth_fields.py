"""The settings by which a server is known to the servers of its fleet's truth (`nats://…`), wherever it uses them."""

from pathlib import Path

from pydantic import BaseModel, Field


class TruthFields(BaseModel):
    """Fields of ``Settings``."""

    truth_ca: Path | None = Field(
        default=None,
        description="PEM bundle that alone vouches for the servers of nats://…; without it there is no TLS, which is "
        "for this machine alone",
    )
    truth_certificate: Path | None = Field(
        default=None, description="PEM chain by which those servers know us; reread at every connection"
    )
    truth_key: Path | None = Field(default=None, description="PEM key of that certificate")
    truth_name: str = Field(
        default="", description="the DNS name that all of their certificates have; by default each has its own host"
    )
