"""
What the issuers of browser logins say about themselves: asked while rendering, and kept in case one does not answer.

OpenID Connect Discovery 1.0, section 4. The kept document is the rendered file ``login/<credential>.json``: a machine
that starts while the issuer is away renders what it rendered before.
"""

import asyncio
import json
import ssl
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from authz.core.errors import FetchError, LoadError, Location, Problem, Severity
from authz.envoy.browser_login import kept_file
from authz.mesh.login import NO_ISSUER, Login, LoginEndpoints
from authz.mesh.nouns import Mesh
from authz.mesh.read_login import is_usable_url
from authz.sources.keys.fetch import fetch_json, public_roots

ANSWER_SECONDS = 5.0
"""The time for one attempt to get a document."""
AGAIN_SECONDS = 0.2
POST, BASIC = "client_secret_post", "client_secret_basic"


async def discover_logins(
    mesh: Mesh, out: Path, *, beside: Path | None = None, patience_seconds: float = 0.0
) -> tuple[Mapping[str, LoginEndpoints], tuple[str, ...]]:
    """
    Ask the issuer of every login in a mesh.

    Args:
        out: the state directory, with documents that were kept and the bundles of ``caCertificates``.
        beside: the directory of the mesh description, where a kept document may have come with it.
        patience_seconds: how long to ask again an issuer that does not answer; it may be starting.

    Returns:
        Endpoints by issuer, and one line for each issuer whose kept document was taken.

    Raises:
        LoadError: an issuer gave no usable document and none is kept; names all such issuers.
    """
    ends = time.monotonic() + patience_seconds
    found: dict[str, LoginEndpoints] = {}
    remarks, problems = [], []
    for login in mesh.logins:
        try:
            found[login.issuer] = await _discovered(login, out, ends)
        except FetchError as error:
            kept = await asyncio.to_thread(_kept, login, [out, *([beside] if beside is not None else [])])
            if kept is not None:
                found[login.issuer] = kept
                remarks.append(f"what was kept of the issuer {login.issuer} is used: {error}")
                continue
            help_text = "start it, or see that its host can be reached and its certificate be verified from here"
            message = f"the issuer of a login cannot be used: {error}"
            problems.append(Problem(Severity.ERROR, NO_ISSUER, message, Location(login.issuer), help=help_text))
    if problems:
        raise LoadError(problems)
    return found, tuple(remarks)


async def _discovered(login: Login, out: Path, ends: float) -> LoginEndpoints:
    """Ask until there is an answer or time is up. Raises FetchError."""
    url = f"{login.issuer.removesuffix('/')}/.well-known/openid-configuration"
    context = await asyncio.to_thread(_ssl_context, login, out)
    while True:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                document = (await fetch_json(url, context)).content
            break
        except TimeoutError as error:
            failure = FetchError(f"{url}: no answer within {ANSWER_SECONDS:g} s")
            failure.__cause__ = error
        except FetchError as error:
            failure = error
        if time.monotonic() >= ends:
            raise failure
        await asyncio.sleep(AGAIN_SECONDS)
    return read_endpoints(document, login.issuer)


def _ssl_context(login: Login, out: Path) -> ssl.SSLContext:
    """Trust what Envoy will trust. Raises FetchError."""
    if not login.ca_certificates:
        return public_roots()
    path = out / login.ca_certificates
    try:
        return ssl.create_default_context(cafile=path)
    except (OSError, ssl.SSLError) as error:
        raise FetchError(f"the bundle `{path}` cannot be used: {error}") from error


def read_endpoints(document: Mapping[str, object], issuer: str) -> LoginEndpoints:
    """
    Read a discovery document as far as a login needs it. Raises FetchError if it is another issuer's or incomplete.

    An issuer that is reached by https must not lead elsewhere without it.
    """
    if document.get("issuer") != issuer:
        raise FetchError(f"the discovery document of {issuer} is of the issuer `{document.get('issuer')}`")
    secure = issuer.startswith("https:")

    def endpoint(name: str, *, required: bool) -> str:
        found = document.get(name, "")
        if found == "" and not required:
            return ""
        if not isinstance(found, str) or not is_usable_url(found) or (secure and not found.startswith("https:")):
            raise FetchError(f"the discovery document of {issuer} has no usable `{name}`")
        return found

    listed = document.get("token_endpoint_auth_methods_supported", [BASIC])
    methods = listed if isinstance(listed, list) else [BASIC]
    if POST not in methods and BASIC not in methods:
        raise FetchError(f"the issuer {issuer} takes a client's secret neither by {POST} nor by {BASIC}")
    return LoginEndpoints(
        endpoint("authorization_endpoint", required=True),
        endpoint("token_endpoint", required=True),
        endpoint("end_session_endpoint", required=False),
        basic=POST not in methods,
    )


def _kept(login: Login, folders: Iterable[Path]) -> LoginEndpoints | None:
    for folder in folders:
        with suppress(OSError, ValueError, FetchError):
            document = json.loads((folder / kept_file(login)).read_bytes())
            if isinstance(document, dict):
                return read_endpoints(document, login.issuer)
    return None
