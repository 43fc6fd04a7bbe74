"""``authz bundle``: signed archives of policies: built, signed, verified, sent, fetched."""

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click

from authz.bundles.bundle_signatures import key_id, new_key_pair, read_verifying_key
from authz.bundles.manifest import BundleRefused, time_text
from authz.bundles.packing import MAX_PACKED_BYTES
from authz.bundles.whole_bundle import Bundle, build_bundle, read_bundle, refuse_bundle, sign_bundle
from authz.cli import policy_files, terminal
from authz.cli.bundle_contents import bundle_files, duration_seconds, provenance_of, signing_key, verifying_keys
from authz.cli.bundle_sources import allow, fetch, put
from authz.core.attributes import Json
from authz.identity.secret_files import PUBLIC_MODE, SECRET_MODE, write_file

EXISTING = click.Path(exists=True, path_type=Path)
PEM = click.Path(exists=True, dir_okay=False, path_type=Path)
BUNDLE = click.argument("file", type=PEM)


@click.group("bundle", short_help="Build, sign, verify and fetch signed bundles of policies.")
def command() -> None:
    """
    Signed bundles of policies, for many servers (docs/bundles.md).

    \b
    authz bundle keygen keys
    authz bundle build policies -o shop.tar.gz --fleet shop --revision 1
    authz bundle sign shop.tar.gz --key keys/bundle.key
    authz bundle verify shop.tar.gz --public-key keys/bundle.pub --fleet shop
    """


@command.command("keygen")
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path))
def keygen(directory: Path) -> None:
    """
    Make a key that signs: DIRECTORY/bundle.key, for one person alone, and DIRECTORY/bundle.pub, for everybody.

    \b
    authz bundle keygen keys
    """
    private_file, public_file = directory / "bundle.key", directory / "bundle.pub"
    for file in (private_file, public_file):
        if file.exists():
            raise BundleRefused(f"`{file}` exists, and a key is not replaced")
    directory.mkdir(0o700, parents=True, exist_ok=True)
    private, public = new_key_pair()
    write_file(private_file, private, SECRET_MODE)
    write_file(public_file, public, PUBLIC_MODE)
    click.echo(f"{private_file}, {public_file}: key {key_id(read_verifying_key(public))}")


@command.command("build")
@click.argument("policies", nargs=-1, required=True, type=EXISTING)
@click.option("--out", "-o", required=True, type=click.Path(dir_okay=False, path_type=Path), help="The bundle.")
@click.option("--fleet", required=True, help="Name of the fleet that it is for.")
@click.option("--revision", required=True, type=click.IntRange(1), help="A number that no bundle of the fleet had yet.")
@click.option("--expires", default="", metavar="TIME", help="How long it may be put in force: 30d, 12h, 90m.")
@click.option("--mesh", type=PEM, help="The mesh description of the servers.")
@click.option("--traffic", type=EXISTING, help="What stands apart of it, a file or directory.")
@click.option("--trust", multiple=True, type=PEM, help="Trust material, such as a PEM bundle; may be repeated.")
@click.option("--created", type=click.IntRange(0), help="Seconds since the epoch, instead of SOURCE_DATE_EPOCH or now.")
def build(
    policies: tuple[Path, ...], out: Path, fleet: str, revision: int, expires: str, mesh: Path | None,
    traffic: Path | None, trust: tuple[Path, ...], created: int | None,
) -> None:  # fmt: skip
    """
    Pack policies into a bundle, which nobody has signed yet. The same input with --created is the same bytes.

    Policies that the servers would refuse are refused here. Commit and author are noted when POLICIES are in git.

    \b
    authz bundle build policies -o shop.tar.gz --fleet shop --revision 1
    authz bundle build policies -o shop.tar.gz --fleet shop --revision 1 --expires 30d --mesh mesh.yaml
    """
    policy_files.load([str(path) for path in policies], str(mesh) if mesh is not None else None)
    files = bundle_files(policies, mesh, traffic, trust)
    made = created if created is not None else int(os.environ.get("SOURCE_DATE_EPOCH") or time.time())
    until = made + duration_seconds(expires) if expires else None
    packed = build_bundle(
        files, fleet=fleet, revision=revision, created=made, expires=until, provenance=provenance_of(policies[0])
    )
    write_file(out, packed)
    click.echo(f"{out}: fleet {fleet}, revision {revision}, {terminal.count(len(files), 'file')}; not signed yet")


@command.command("sign")
@BUNDLE
@click.option("--key", required=True, type=PEM, help="Ed25519 key, PKCS#8 PEM, that only you can read.")
def sign(file: Path, key: Path) -> None:
    """
    Sign a bundle in its place; several people may, one after another.

    \b
    authz bundle sign shop.tar.gz --key keys/bundle.key
    """
    private = signing_key(key)
    write_file(file, sign_bundle(_read(file), private))
    click.echo(f"{file}: signed by key {key_id(private.public_key())}")


@command.command("verify")
@BUNDLE
@click.option("--public-key", "keys", required=True, multiple=True, type=PEM, help="PEM; may be repeated.")
@click.option("--fleet", help="The fleet that it must be for; by default any.")
@terminal.answer_form("table", "json")
def verify(file: Path, keys: tuple[Path, ...], fleet: str | None, output: str) -> None:
    """
    Say whether a server with these keys would take a bundle now. Exit code: 0 it would, 3 it would not.

    \b
    authz bundle verify shop.tar.gz --public-key keys/bundle.pub --fleet shop
    """
    known = verifying_keys(keys)
    try:
        bundle = read_bundle(_read(file))
        signed_by = refuse_bundle(bundle, known, fleet=fleet or bundle.manifest.fleet, now=time.time())
    except BundleRefused as error:
        if output == "json":
            terminal.print_json({"ok": False, "error": str(error)})
        else:
            terminal.say(f"{file}: refused: {error}", "bold red")
        sys.exit(terminal.Exit.NO)
    if output == "json":
        terminal.print_json({"ok": True, "signed_by": list(signed_by), **_json(bundle)})
        return
    for line in _lines(file, bundle, signed_by):
        terminal.say(line)


@command.command("push")
@BUNDLE
@click.argument("url")
@click.option("--headers", type=PEM, help="File of headers for the server, `name: value` lines, such as a token.")
@click.option("--ca", type=PEM, help="PEM bundle that alone vouches for the server.")
def push(file: Path, url: str, headers: Path | None, ca: Path | None) -> None:
    """
    Send a bundle to where servers fetch it: by HTTP PUT, or to a path or file:// by rename.

    \b
    authz bundle push shop.tar.gz https://bundles.example/shop.tar.gz --headers token.txt
    authz bundle push shop.tar.gz /srv/bundles/shop.tar.gz
    """
    data = _read(file)
    bundle = read_bundle(data)
    if not bundle.signatures:
        raise BundleRefused("nobody signed it, so nobody would take it: `authz bundle sign` does")
    click.echo(f"{put(data, url, headers, ca)}: fleet {bundle.manifest.fleet}, revision {bundle.manifest.revision}")


command.add_command(fetch)
command.add_command(allow)


def _read(file: Path) -> bytes:
    with file.open("rb") as opened:
        return opened.read(MAX_PACKED_BYTES + 1)


def _lines(file: Path, bundle: Bundle, signed_by: tuple[str, ...]) -> Iterator[str]:
    manifest = bundle.manifest
    until = f", until {time_text(manifest.expires)}" if manifest.expires is not None else ""
    yield f"{file}: fleet {manifest.fleet}, revision {manifest.revision}"
    yield f"  made:   {time_text(manifest.created)}{until}"
    yield f"  signed: {', '.join(signed_by)}"
    if manifest.provenance.commit:
        yield f"  from:   commit {manifest.provenance.commit[:12]} by {manifest.provenance.author}"
    yield f"  holds:  {terminal.count(len(bundle.files), 'file')}, digest {bundle.digest[:12]}"


def _json(bundle: Bundle) -> dict[str, Json]:
    manifest = bundle.manifest
    return {
        "fleet": manifest.fleet,
        "revision": manifest.revision,
        "created": time_text(manifest.created),
        "expires": None if manifest.expires is None else time_text(manifest.expires),
        "commit": manifest.provenance.commit,
        "author": manifest.provenance.author,
        "digest": bundle.digest,
        "files": [file.name for file in manifest.files],
    }
