"""
A real Keycloak as the demo's issuer: found, laid out in the state directory, and started there.

An installed Keycloak is never written to: the state directory gets links to its parts and a ``data/`` of its own, which
every start makes anew from the realm below. So keys, sessions and changes in its console last as long as the demo runs.
"""

import os
import re
import secrets
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from authz.demo.inputs import CHECKOUT, PACKAGED
from authz.demo.layout import LOOPBACK, DemoError, Layout, ports_of, shift_ports
from authz.identity.secret_files import SECRET_MODE, write_file
from authz.local.children import Command

REALM = "bookinfo"
CLIENT = "bookinfo"
"""The client that people sign in at; tokens for it name it as their audience."""
ADMIN = "admin"
VERSION = "26.7.3"
"""What ``make keycloak`` downloads; others of 26 do as well."""
DOWNLOADED = Path(".keycloak") / f"keycloak-{VERSION}"
"""Where ``make keycloak`` unpacks it."""
REALM_FILE = "docs/compose/keycloak/realm.json"
"""In a checkout, and below the package's files."""
OLDEST_JAVA = 17
PATIENCE_SECONDS = 240.0
"""Half a minute on two cores, of which a third is the database's schema; a busy machine takes longer."""
_RUNNER = "lib/quarkus-run.jar"
_LINKED = ("bin", "conf", "lib", "providers", "themes", "version.txt")
_JAVA_VERSION = re.compile(r'version "(?:1\.)?(\d+)')
_OPENED = ("java.util", "java.util.concurrent", "java.security", "java.lang")


def find_keycloak(named: Path | None, here: Path, checkout: Path = CHECKOUT) -> Path:
    """
    Find an unpacked Keycloak: the one that was named, else what ``make keycloak`` left here or in the checkout.

    Raises:
        DemoError: there is none, with both ways to have one.
    """
    for folder in [named] if named is not None else [here / DOWNLOADED, checkout / DOWNLOADED]:
        if (folder / _RUNNER).is_file():
            return folder.absolute()
    if named is not None:
        raise DemoError(f"`{named}` is no unpacked Keycloak: it has no {_RUNNER}; name the folder that holds bin/kc.sh")
    raise DemoError("there is no Keycloak: run `make keycloak` in a checkout, or name an unpacked one with --keycloak")


def find_java(environment: Mapping[str, str] | None = None) -> str:
    """
    Find a Java that runs Keycloak: that of ``JAVA_HOME``, else ``java`` on the PATH.

    Raises:
        DemoError: there is none, or it is too old.
    """
    told = os.environ if environment is None else environment
    home = told.get("JAVA_HOME", "")
    java = f"{home}/bin/java" if home else shutil.which("java", path=told.get("PATH"))
    if not java or not os.access(java, os.X_OK):
        where = f"JAVA_HOME is `{home}`, which has no bin/java" if home else "there is no `java` on the PATH"
        raise DemoError(f"Keycloak runs on Java {OLDEST_JAVA} or newer: {where}; install one, or set JAVA_HOME")
    said = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr  # noqa: S603  # found above
    found = _JAVA_VERSION.search(said)
    if found is None or int(found[1]) < OLDEST_JAVA:
        version = found[1] if found else "of an unknown version"
        raise DemoError(
            f"Keycloak runs on Java {OLDEST_JAVA} or newer, `{java}` is {version}; set JAVA_HOME to another"
        )
    return java


def for_keycloak(text: str, issuer: str, keycloak_issuer: str) -> str:
    """
    Turn a document for tokens of the demo's issuer into one for Keycloak's, line by line, so that comments stay.

    Two things differ: the issuer, whose address has a path, and where roles are: in ``realm_access``.
    """
    address = re.compile(rf"{re.escape(issuer)}(?![\w.])(?!/(?:token|realms))")
    lines = [line if line.lstrip().startswith("#") else address.sub(keycloak_issuer, line) for line in text.split("\n")]
    return "\n".join(lines).replace("request.auth.claims[roles]", "request.auth.claims[realm_access][roles]")


def lay_keycloak(layout: Layout) -> None:
    """
    Lay out the state directory's Keycloak, with the realm to import and a password for its administrator.

    Raises:
        DemoError: it cannot be written.
    """
    assert layout.keycloak is not None, "laid out only where it is the issuer"
    home = layout.keycloak_home
    try:
        shutil.rmtree(home / "data", ignore_errors=True)
        (home / "data/import").mkdir(parents=True)
        for name in _LINKED:
            (home / name).unlink(missing_ok=True)
            (home / name).symlink_to(layout.keycloak / name)
        ports = ports_of(layout.mesh, layout.offset)
        before = tuple(port - layout.offset for port in ports)
        realm = shift_ports(_realm_text(), before, layout.offset)
        write_file(home / "data/import" / "realm.json", realm.encode())
        write_file(layout.keycloak_password, secrets.token_urlsafe(18).encode(), SECRET_MODE)
    except OSError as error:
        raise DemoError(f"cannot lay out Keycloak in `{home}`: {error.strerror}") from error


def keycloak_command(layout: Layout) -> Command:
    """Keycloak as a process: java itself, not its script, whose child would outlive a killed demo."""
    home = layout.keycloak_home
    base = f"http://{LOOPBACK}:{layout.issuer_port}"
    arguments = (
        *(find_java(), "-Xms64m", "-Xmx512m", "-XX:MaxMetaspaceSize=256m"),
        *("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Djava.security.egd=file:/dev/urandom"),
        *(part for package in _OPENED for part in ("--add-opens", f"java.base/{package}=ALL-UNNAMED")),
        f"-Dkc.home.dir={home}",
        f"-Djboss.server.config.dir={home}/conf",
        "-Dkc.config.built=true",  # as it was shipped: else it would build itself anew, into the installation
        "-Djava.util.logging.manager=org.jboss.logmanager.LogManager",
        "-Djava.util.concurrent.ForkJoinPool.common.threadFactory="
        "io.quarkus.bootstrap.forkjoin.QuarkusForkJoinWorkerThreadFactory",
        *("-cp", f"{home}/{_RUNNER}", "io.quarkus.bootstrap.runner.QuarkusEntryPoint"),
        *("start", "--import-realm", "--cache=local", f"--hostname={base}"),
        *("--http-enabled=true", f"--http-host={LOOPBACK}", f"--http-port={layout.issuer_port}"),
    )
    password = layout.keycloak_password.read_text(encoding="utf-8") if layout.keycloak_password.exists() else ""
    admin = {"KC_BOOTSTRAP_ADMIN_USERNAME": ADMIN, "KC_BOOTSTRAP_ADMIN_PASSWORD": password}
    ready = f"http:{layout.issuer_port}/realms/{REALM}"
    return Command("issuer", "Keycloak", arguments, ready, admin, patience_seconds=PATIENCE_SECONDS)


def _realm_text() -> str:
    for root in (CHECKOUT, PACKAGED):
        if (root / REALM_FILE).is_file():
            return (root / REALM_FILE).read_text(encoding="utf-8")
    raise DemoError(f"this package has no {REALM_FILE} in it: install the wheel again")
