"""The common ground of the commands of ``authz ca``: options, and authorities read from files."""

import time
from dataclasses import replace
from pathlib import Path

import click

from authz.core.errors import SettingsError
from authz.core.spiffe import TrustDomain
from authz.identity.authority import Authority, read_authority
from authz.identity.bundle import Bundles, TrustBundle
from authz.identity.bundle_document import read_any_bundle
from authz.identity.ca import STATE_FILE, CertificateAuthority, judge_by_trial
from authz.identity.jwt_keys import read_jwt_keys
from authz.identity.keys import KeyType
from authz.identity.secret_files import read_secret

DIRECTORY = click.option(
    "--ca",
    "directory",
    default="ca",
    type=click.Path(file_okay=False, path_type=Path),
    help="The authority's directory.",
)
KEY_TYPE = click.option(
    "--key-type",
    type=click.Choice([kind.value for kind in KeyType]),
    default=KeyType.ECDSA_P256.value,
    help="Type of the new key.",
)
PEM_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def load(directory: Path) -> CertificateAuthority:
    """Read an authority. Raises SettingsError, OSError."""
    try:
        return CertificateAuthority.load(directory)
    except FileNotFoundError as error:
        if Path(str(error.filename)) != directory / STATE_FILE:
            raise
        raise SettingsError(f"there is no authority in `{directory}`; make one with `authz ca init`") from error
    except ValueError as error:
        raise SettingsError(str(error)) from error


def own_bundle(directory: Path) -> TrustBundle:
    """What our own trust domain is trusted by. Raises SettingsError, OSError."""
    try:
        bundle = load(directory).trust_bundle
        return replace(bundle, jwt_keys=(*read_jwt_keys(directory).public, *bundle.jwt_keys))
    except ValueError as error:
        raise SettingsError(str(error)) from error


def trusted_bundles(directory: Path) -> Bundles:
    """Our own bundle, and those that the authority fetched. Raises SettingsError, OSError."""
    own = own_bundle(directory)
    try:
        files = sorted((directory / "federated").glob("*.json"))
        fetched = [read_any_bundle(TrustDomain(file.stem), file.read_bytes()) for file in files]
    except ValueError as error:
        raise SettingsError(str(error)) from error
    return {bundle.trust_domain: bundle for bundle in (*fetched, own)}


def trust_domain_of(text: str) -> TrustDomain:
    """Read a trust domain as somebody typed it. Raises SettingsError."""
    try:
        return TrustDomain(text)
    except ValueError as error:
        raise SettingsError(str(error)) from error


def adopted_authority(
    root_file: Path | None, chain: Path | None, key: Path | None, now: float, trust_domain: TrustDomain
) -> Authority | None:
    """Read the user's own authority, if files were given. Raises SettingsError, click.UsageError, OSError."""
    if root_file is None and chain is None and key is None:
        return None
    if root_file is None or key is None:
        raise click.UsageError("your own authority needs --root and --key, and --chain if --key is an intermediate's")
    try:
        intermediates = chain.read_bytes() if chain else b""
        authority = read_authority(root_file.read_bytes(), intermediates, read_secret(key), now)
        if reason := judge_by_trial(authority, trust_domain, now):
            raise ValueError(f"nobody would accept what this authority signs: {reason}")
        return authority
    except ValueError as error:
        raise SettingsError(str(error)) from error


def time_of(seconds: float) -> str:
    """Show a time to people, in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
