"""
Envoy's format strings, in access logs and tags of spans: the commands in them, and none that would tell a token.

INVARIANT: no credential and no query, in which one may stand, comes through a format. Commands for the whole path are
rewritten to the path without its query, because Istio's own default format has them; the others are refused.
"""

import re
from typing import NamedTuple

from authz.core.asked import CREDENTIALS

_COMMANDS = """
    ACCESS_LOG_TYPE BYTES_RECEIVED BYTES_RETRANSMITTED BYTES_SENT COMMON_DURATION CONNECTION_ID
    CONNECTION_TERMINATION_DETAILS CUSTOM_FLAGS DOWNSTREAM_DETECTED_CLOSE_TYPE DOWNSTREAM_DIRECT_LOCAL_ADDRESS
    DOWNSTREAM_DIRECT_LOCAL_ADDRESS_WITHOUT_PORT DOWNSTREAM_DIRECT_LOCAL_PORT DOWNSTREAM_DIRECT_REMOTE_ADDRESS
    DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT DOWNSTREAM_DIRECT_REMOTE_PORT DOWNSTREAM_HANDSHAKE_DURATION
    DOWNSTREAM_HEADER_BYTES_RECEIVED DOWNSTREAM_HEADER_BYTES_SENT DOWNSTREAM_LOCAL_ADDRESS
    DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT DOWNSTREAM_LOCAL_CLOSE_REASON DOWNSTREAM_LOCAL_DNS_SAN
    DOWNSTREAM_LOCAL_PORT DOWNSTREAM_LOCAL_SUBJECT DOWNSTREAM_LOCAL_URI_SAN DOWNSTREAM_PEER_CERT_V_END
    DOWNSTREAM_PEER_CERT_V_START DOWNSTREAM_PEER_DNS_SAN DOWNSTREAM_PEER_FINGERPRINT_1
    DOWNSTREAM_PEER_FINGERPRINT_256 DOWNSTREAM_PEER_ISSUER DOWNSTREAM_PEER_SERIAL DOWNSTREAM_PEER_SUBJECT
    DOWNSTREAM_PEER_URI_SAN DOWNSTREAM_REMOTE_ADDRESS DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT
    DOWNSTREAM_REMOTE_PORT DOWNSTREAM_TLS_CIPHER DOWNSTREAM_TLS_VERSION DOWNSTREAM_TRANSPORT_FAILURE_REASON
    DOWNSTREAM_WIRE_BYTES_RECEIVED DOWNSTREAM_WIRE_BYTES_SENT DURATION DYNAMIC_METADATA EMIT_TIME ENVIRONMENT
    FILTER_CHAIN_NAME FILTER_STATE GRPC_STATUS GRPC_STATUS_NUMBER HOSTNAME METADATA PATH PROTOCOL QUERY_PARAM
    REQ REQUESTED_SERVER_NAME REQUEST_DURATION REQUEST_HEADERS_BYTES REQUEST_TX_DURATION REQ_WITHOUT_QUERY RESP
    RESPONSE_CODE RESPONSE_CODE_DETAILS RESPONSE_DURATION RESPONSE_FLAGS RESPONSE_FLAGS_LONG
    RESPONSE_HEADERS_BYTES RESPONSE_TRAILERS_BYTES RESPONSE_TX_DURATION ROUNDTRIP_DURATION ROUTE_NAME SPAN_ID
    START_TIME START_TIME_LOCAL STREAM_ID TLS_JA3_FINGERPRINT TLS_JA4_FINGERPRINT TRACE_ID TRAILER UNIQUE_ID
    UPSTREAM_CLUSTER UPSTREAM_CLUSTER_RAW UPSTREAM_CONNECTION_ID UPSTREAM_CONNECTION_POOL_READY_DURATION
    UPSTREAM_FILTER_STATE UPSTREAM_HEADER_BYTES_RECEIVED UPSTREAM_HEADER_BYTES_SENT UPSTREAM_HOST
    UPSTREAM_HOSTS_ATTEMPTED UPSTREAM_HOST_NAME UPSTREAM_HOST_NAME_WITHOUT_PORT UPSTREAM_LOCAL_ADDRESS
    UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT UPSTREAM_LOCAL_PORT UPSTREAM_METADATA UPSTREAM_PEER_DNS_SAN
    UPSTREAM_PEER_SUBJECT UPSTREAM_PEER_URI_SAN UPSTREAM_PROTOCOL UPSTREAM_REMOTE_ADDRESS
    UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT UPSTREAM_REMOTE_PORT UPSTREAM_REQUEST_ATTEMPT_COUNT UPSTREAM_TLS_CIPHER
    UPSTREAM_TLS_VERSION UPSTREAM_TRANSPORT_FAILURE_REASON UPSTREAM_WIRE_BYTES_RECEIVED UPSTREAM_WIRE_BYTES_SENT
    VIRTUAL_CLUSTER_NAME
"""
COMMANDS = frozenset(_COMMANDS.split())
"""What Envoy 1.40 has and what tells no secret."""
_ASK = """
    DYNAMIC_METADATA ENVIRONMENT FILTER_STATE METADATA QUERY_PARAM REQ REQ_WITHOUT_QUERY RESP TRAILER
    UPSTREAM_FILTER_STATE UPSTREAM_METADATA
"""
_WITH_ARGUMENTS = frozenset(_ASK.split())
"""Commands that mean nothing without an argument."""
_VARY = """
    COMMON_DURATION DOWNSTREAM_PEER_CERT_V_END DOWNSTREAM_PEER_CERT_V_START EMIT_TIME EMIT_TIME_LOCAL
    GRPC_STATUS PATH REQUESTED_SERVER_NAME START_TIME START_TIME_LOCAL UPSTREAM_METADATA
"""
_MAY_HAVE_ARGUMENTS = _WITH_ARGUMENTS | frozenset(_VARY.split())
_TOKENS = """
    x-forwarded-client-cert x-jwt-assertion x-goog-iap-jwt-assertion x-auth-token x-access-token x-id-token
    x-amz-security-token x-auth-request-access-token x-forwarded-access-token x-vault-token
"""
SECRET_HEADERS = CREDENTIALS | frozenset(_TOKENS.split())
"""Headers that no log and no span gets; the first kinds are credentials, the others are tokens or certificates."""
_PATHS = frozenset({":path", "x-envoy-original-path", "x-original-url", "x-forwarded-uri", "referer", "location"})
"""Headers with a URL, in whose query a token may stand."""
_PARAMETERS = """
    access_token api_key apikey assertion auth client_assertion client_secret code code_verifier id_token jwt key
    passwd password pwd refresh_token samlresponse secret session session_id sessionid sid sig signature token
    x-amz-credential x-amz-security-token x-amz-signature
"""
_SECRET_PARAMETERS = frozenset(_PARAMETERS.split())
"""Parameters by which a client proves who it is, or what could be used to be it."""
_COMMAND = re.compile(r"%(?:%|([A-Z0-9_]+)(?:\((.*?)\))?(?::([0-9]+))?%)")
"""As Envoy finds a command: an argument ends at the first bracket behind which the command ends, whatever is in it."""
_ARGUMENT = re.compile(r"(?:[^()\n]|\([^()\n]*\))*")
"""An argument whose brackets are pairs, so that nobody can be wrong about where it ends."""
_HEADER = re.compile(r":?[!#$&'*+.^_`|~0-9A-Za-z-]{1,256}")
_ORIGINAL = "x-envoy-original-path?:path"


class FormatFault(NamedTuple):
    """What is wrong with a format, the code of the problem, and what to do."""

    code: str
    message: str
    advice: str = ""


def checked_format(text: str) -> tuple[str, tuple[FormatFault, ...]]:
    """A format in which every path is without its query, and what is wrong with it."""
    faults: list[FormatFault] = []
    made = []
    at = 0
    for found in _COMMAND.finditer(text):
        made.append(_literal(text[at : found.start()], faults))
        made.append(found[0] if found[1] is None else _command(found, faults))
        at = found.end()
    made.append(_literal(text[at:], faults))
    return "".join(made), tuple(faults)


def _literal(text: str, faults: list[FormatFault]) -> str:
    if "%" in text:
        wrong = text[text.index("%") :][:24]
        faults.append(FormatFault("ME-1", f"`{wrong}` is not a command", "commands are %NAME% or %NAME(argument)%"))
    return text


def _command(found: re.Match[str], faults: list[FormatFault]) -> str:
    name, argument, length = found[1], found[2], found[3]
    if name == "CEL":
        advice = "write the command for the value, such as %REQ(name)%"
        faults.append(FormatFault("ME-6", "`%CEL(…)%` could tell any header, also a token", advice))
    elif name in ("DOWNSTREAM_PEER_CERT", "FILE_CONTENT", "SECRET", "QUERY_PARAMS", "LOCAL_REPLY_BODY"):
        faults.append(FormatFault("ME-6", f"`%{name}%` may tell a secret", "leave it out"))
    elif name not in COMMANDS:
        faults.append(
            FormatFault("ME-1", f"`%{name}%` is not a command that is known here", "see Envoy's list of commands")
        )
    elif not _ARGUMENT.fullmatch(argument or ""):
        faults.append(FormatFault("ME-1", f"the brackets in `{found[0][:40]}` are no pairs", f"write %{name}(…)%"))
    elif (name in _WITH_ARGUMENTS) and not argument:
        faults.append(FormatFault("ME-1", f"`%{name}%` needs an argument", f"write %{name}(…)%"))
    elif length and name not in _WITH_ARGUMENTS | {"PATH"}:
        faults.append(FormatFault("ME-1", f"`%{name}%` cannot be cut to a length", f"write %{name}%"))
    elif argument is not None and name not in _MAY_HAVE_ARGUMENTS and not name.endswith("_WITHOUT_PORT"):
        faults.append(FormatFault("ME-1", f"`%{name}%` has no argument", f"write %{name}%"))
    elif name == "PATH" or name == "REQ_WITHOUT_QUERY" or (name == "REQ" and _is_path(argument or "")):
        return _without_query(name, argument or "", length, faults)
    elif name in ("REQ", "RESP", "TRAILER"):
        for header in _headers(argument or ""):
            if not is_header(header):
                faults.append(FormatFault("ME-1", f"`{header}` is not the name of a header", f"write %{name}(name)%"))
            elif is_secret_header(header):
                faults.append(header_faults(header, name))
    elif name == "QUERY_PARAM" and (argument or "").lower() in _SECRET_PARAMETERS:
        faults.append(FormatFault("ME-6", f"the parameter `{argument}` may hold a token", "leave it out"))
    return found[0]


def is_header(name: str) -> bool:
    """Whether it can be the name of a header, or of a pseudo header."""
    return bool(_HEADER.fullmatch(name))


def is_secret_header(name: str) -> bool:
    """Whether a header must not be told: a credential, or a URL with its query."""
    return name.lower() in SECRET_HEADERS or name.lower() in _PATHS


def header_faults(name: str, command: str = "") -> FormatFault:
    """Say why a header is not told."""
    if name.lower() in SECRET_HEADERS:
        return FormatFault(
            "ME-6", f"the header `{name}` is a credential, which nothing may log or tell", "leave it out"
        )
    shown = f"`%{command}({name})%`" if command else f"the header `{name}`"
    return FormatFault("ME-6", f"{shown} tells a query, in which a token may stand", "write %PATH(NQ:PATH)%")


def _headers(argument: str) -> list[str]:
    """``X?Y`` is the header Y where X is absent."""
    return [one.strip() for one in argument.split("?")]


def _is_path(argument: str) -> bool:
    return argument.lower() in (":path", "x-envoy-original-path", _ORIGINAL)


def _without_query(name: str, argument: str, length: str | None, faults: list[FormatFault]) -> str:
    if name == "PATH":
        query, _, wanted = argument.partition(":")
        wanted = wanted or "ORIG_OR_PATH"
        if wanted not in ("PATH", "ORIG", "ORIG_OR_PATH") or query not in ("", "WQ", "NQ"):
            faults.append(FormatFault("ME-1", f"`%PATH({argument})%` is not a path", "write %PATH(NQ:PATH)%"))
    elif _is_path(argument):
        wanted = {":path": "PATH", "x-envoy-original-path": "ORIG"}.get(argument.lower(), "ORIG_OR_PATH")
    else:
        faults.append(FormatFault("ME-6", f"`%{name}({argument})%` is not done here", "write %PATH(NQ:PATH)%"))
        return ""
    return f"%PATH(NQ:{wanted})" + (f":{length}" if length else "") + "%"
