"""The settings that say which policies: at a path, or where they are published and how they are trusted."""

from pathlib import Path

from pydantic import BaseModel, Field, field_validator


class PolicyFields(BaseModel):
    """The first fields of ``Settings``."""

    policies: str = Field(
        default="policies",
        min_length=1,
        description="directory of policies, read with its subfolders, or a single file; or where they are published, "
        "https://…/bundle.tar.gz, file:///…/bundle.tar.gz, git+https://…#ref, git+file:///…#ref or "
        "nats://HOST/FLEET (docs/bundles.md, docs/truth.md)",
    )
    policies_cache: Path | None = Field(
        default=None, description="directory of the last good policies that were published; they need one"
    )
    policies_fleet: str = Field(default="", description="name of the fleet whose bundles are taken")
    policies_public_keys: tuple[Path, ...] = Field(
        default=(), description="Ed25519 public keys, PEM, one of which must have signed a bundle; several allowed"
    )
    policies_signers: Path | None = Field(
        default=None,
        description="only signed commits of a repository: the file of allowed signers of SSH, or a home of GnuPG",
    )
    policies_ca: Path | None = Field(default=None, description="PEM bundle that alone vouches for their server")
    policies_headers: Path | None = Field(
        default=None, description="file with headers that their server is sent, `name: value` lines"
    )
    policies_poll_seconds: float = Field(
        default=30, ge=1, le=86_400, description="how often their server is asked, a fifth more or less"
    )
    mesh: Path | None = Field(
        default=None,
        description="MeshConfig in Istio's form; without it that of a bundle, or Istio's defaults, hold",
    )

    @field_validator("policies", mode="before")
    @classmethod
    def _path_text(cls, value: object) -> object:
        """A path that a program gives is one, too."""
        return str(value) if isinstance(value, Path) else value

    @field_validator("policies_public_keys", mode="before")
    @classmethod
    def _several_files(cls, value: object) -> object:
        """A list, or one text with commas as the environment gives it."""
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value
