"""
One question to an introspection endpoint (RFC 7662): a token and our credentials go there, an answer comes back.

Bounded in size here and in time by the caller; no redirect is followed, as the credentials are for one endpoint. Every
failure is a ``FetchError`` that holds neither token nor secret.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import quote_plus

import httpx

from authz.core.attributes import Json
from authz.core.errors import FetchError
from authz.core.introspection import Introspection, TokenAnswer

MAX_ANSWER_BYTES = 64 * 1024
"""Answers have the claims of one token."""
MAX_SECRET_BYTES = 4096

ReadObject = Callable[[bytes], Mapping[str, Json]]
"""Reads a JSON object; raises ValueError."""


async def introspect(
    client: httpx.AsyncClient, introspection: Introspection, token: str, read: ReadObject
) -> TokenAnswer:
    """
    Ask once. The caller bounds the time.

    Raises:
        FetchError: the secret cannot be read, or there was no answer, or none that RFC 7662 allows.
    """
    secret = read_secret(Path(introspection.client_secret_file))
    # RFC 6749, 2.3.1: both are form-encoded before they are joined
    credentials = httpx.BasicAuth(quote_plus(introspection.client_id), quote_plus(secret))
    form = {"token": token, "token_type_hint": "access_token"}
    headers = {"accept": "application/json", "accept-encoding": "identity"}
    try:
        request = client.build_request("POST", introspection.endpoint, data=form, headers=headers)
        try:
            response = await client.send(request, auth=credentials, stream=True)
        except httpx.RemoteProtocolError:  # it closed a connection that we kept: the question may be asked again
            request = client.build_request("POST", introspection.endpoint, data=form, headers=headers)
            response = await client.send(request, auth=credentials, stream=True)
        try:
            return read_answer(response, await _body(response), read)
        finally:
            await response.aclose()
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:  # the last: an address that is refused
        raise FetchError(str(error) or type(error).__name__) from error


def read_secret(file: Path) -> str:
    """Read a client secret, without the blanks around it. Raises FetchError."""
    try:
        with file.open("rb") as opened:
            secret = opened.read(MAX_SECRET_BYTES + 1).decode("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise FetchError(f"the client secret in `{file}` cannot be read: {why}") from error
    if not secret or len(secret) > MAX_SECRET_BYTES:
        raise FetchError(f"the client secret in `{file}` is {'too long' if secret else 'empty'}")
    return secret


async def _body(response: httpx.Response) -> bytes:
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            raise FetchError(f"the answer has more than {MAX_ANSWER_BYTES} bytes")
    return bytes(body)


def read_answer(response: httpx.Response, body: bytes, read: ReadObject) -> TokenAnswer:
    """
    Read an answer (RFC 7662, 2.2). Whatever is not plainly active or inactive is not an answer.

    Raises:
        FetchError: a status other than 200, a type other than JSON, or no boolean ``active``.
    """
    if response.status_code == 401:
        raise FetchError("status 401: the endpoint does not accept our client id and secret")
    if response.status_code != 200:
        raise FetchError(f"status {response.status_code}, expected 200")
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json"):
        raise FetchError(f"the answer is of type {kind[:64] or '(none)'!r}, expected application/json")
    try:
        told = read(body)
    except (ValueError, RecursionError) as error:
        raise FetchError("the answer is not a JSON object") from error
    active = told.get("active")
    if active is True:
        return TokenAnswer(told)
    if active is False:
        return TokenAnswer(None)
    raise FetchError("the answer does not say whether the token is `active`")
