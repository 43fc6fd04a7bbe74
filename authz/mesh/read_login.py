"""The annotation ``mesh.authz/login`` of a Gateway: YAML within YAML, every mistake with its place."""

import ipaddress
import re
from urllib.parse import urlsplit

from authz.documents.accessors import Part
from authz.documents.inner_yaml import embedded_origin
from authz.documents.reading import Kind, Mapping, Scalar, read_documents
from authz.documents.schema import Notes, given
from authz.mesh.kind_parts import CODES
from authz.mesh.login import Login, LoginToken
from authz.mesh.mesh_documents import Written

LOGIN = "mesh.authz/login"
_FIELDS = (
    *("issuer", "clientId", "credentialName", "scopes", "openPaths", "redirectPath", "logoutPath", "token"),
    *("caCertificates", "composeAddress"),
)
_PATH = re.compile(r"/[A-Za-z0-9/._~!$&'()+,;=:@-]*")
_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?")
_DEFAULTS = Login("", "", "")


def read_login(annotations: Part | None, written: Written) -> Login | None:
    """The login of a Gateway; None where there is none, or, with a problem noted, where it cannot be read."""
    node = given(annotations.node, LOGIN) if annotations else None
    if annotations is None or node is None:
        return None
    if not isinstance(node, Scalar) or node.kind is not Kind.TEXT:
        annotations.note("ME-1", "a login is a text with YAML in it", LOGIN, f"write `{LOGIN}: |` and indent the rest")
        return None
    outer = annotations.notes
    path = f"{annotations.path}.{LOGIN}"
    before = len(written.problems)
    origin = embedded_origin(node, written.data)
    for inner in read_documents(outer.document.file, node.value.encode(), written.problems, origin=origin):
        if not isinstance(inner.root, Mapping):
            break
        notes = Notes(outer.document, written.problems, outer.resource)
        return _fields(Part(inner.root, path, notes, CODES))
    if len(written.problems) == before:
        help_text = "write at least `issuer`, `clientId` and `credentialName`"
        annotations.note("ME-1", "a login is a mapping", LOGIN, help_text)
    return None


def _fields(part: Part) -> Login:
    part.only(*_FIELDS)
    scopes = part.texts("scopes") or _DEFAULTS.scopes
    if "openid" not in scopes:
        part.note("ME-1", "`openid` is not among the scopes", "scopes", "without it there is no OpenID Connect")
    found = Login(
        issuer=_issuer(part),
        client_id=part.text("clientId", required=True),
        credential=_credential(part),
        scopes=scopes,
        open_paths=tuple(_open_path(part, written) for written in part.texts("openPaths")),
        redirect_path=_path(part, "redirectPath", _DEFAULTS.redirect_path),
        logout_path=_path(part, "logoutPath", _DEFAULTS.logout_path),
        token=part.choice("token", LoginToken, _DEFAULTS.token),
        ca_certificates=part.text("caCertificates"),
        compose_address=_compose_address(part),
    )
    if found.redirect_path == found.logout_path:
        part.note("ME-5", f"`{found.logout_path}` is the redirect path as well", "logoutPath", "choose another one")
    return found


def _issuer(part: Part) -> str:
    written = part.text("issuer", required=True)
    if written and not is_usable_url(written):
        help_text = "write an https URL without query; http is for an issuer on this machine's loopback only"
        part.note("ME-1", f"`{written}` cannot be an issuer of a login", "issuer", help_text)
    return written


def is_usable_url(url: str) -> bool:
    """Whether secrets may be sent there: https, or http that does not leave the machine; no user, no fragment."""
    try:
        place = urlsplit(url)
        port = place.port
    except ValueError:
        return False
    if not place.hostname or port == 0 or place.username is not None or place.fragment or not url.isprintable():
        return False
    return " " not in url and (place.scheme == "https" or (place.scheme == "http" and is_loopback(place.hostname)))


def is_loopback(host: str) -> bool:
    """Whether it is a loopback address, or ``localhost``."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _credential(part: Part) -> str:
    written = part.text("credentialName", required=True)
    if written and not _NAME.fullmatch(written):
        help_text = "it names a directory below certs/: write a-z, 0-9, `-` and `.`"
        part.note("ME-1", f"`{written}` is not a name", "credentialName", help_text)
        return ""
    return written


def _path(part: Part, field: str, default: str) -> str:
    written = part.text(field, default)
    if len(written) > 1 and _PATH.fullmatch(written):
        return written
    part.note("ME-1", f"`{written}` is not a path of its own", field, f"write for instance {default}")
    return default


def _open_path(part: Part, written: str) -> str:
    if not _PATH.fullmatch(written.removesuffix("*")):
        help_text = "write a path as policies do, exact or with `*` at its end"
        part.note("ME-1", f"`{written}` is not a path", "openPaths", help_text)
    return written


def _compose_address(part: Part) -> str:
    written = part.text("composeAddress")
    try:
        return str(ipaddress.ip_address(written)) if written else ""
    except ValueError:
        help_text = "leave it out where the issuer has a name"
        part.note("ME-1", f"`{written}` is not an IP address", "composeAddress", help_text)
        return ""
