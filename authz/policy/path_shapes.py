"""
Shapes of `paths` that people bring from elsewhere: regular expressions, globs, addresses, routes with parameters.

Istio takes all of them and compares them as they stand (AP-19, AP-20, AP-46), so most never match. One function, for
validation; ``authz analyze`` repeats its warnings. Path templates (``{*}``) have checks of their own.
"""

import re
from functools import lru_cache

from authz.core.errors import Severity
from authz.documents.schema import Fault

_ADDRESS = re.compile(r"(?:(?P<scheme>[a-z][a-z0-9+.-]*):)?//(?P<host>[^/?#]+)(?P<path>[^?#]*).*", re.IGNORECASE)
_HOST_AND_PATH = re.compile(r"(?P<host>(?:[\w*-]+\.)+[a-z]{2,}(?::\d+)?|[\w-]+:\d+)(?P<path>/[^?#]*).*")
"""``a.example/x``, but not ``pkg.Service/Method``: the names of gRPC services end in a capitalised word."""
_CALL = re.compile(r"(?P<method>[A-Z]{3,7})\s+(?P<path>/\S*)")
_EXPRESSION = re.compile(
    r"^\^|\$$|(?:^|/)\.[*+]|\.[*+].|\(\?|\([^()]*\|[^()]*\)|\[[^\]]*-[^\]]*\]|\[\^|\\[dwsDWS.]|[)\]](?:[+?]|\*.)"
)
"""Not a dot and a star at the end of a name: `/favicon.*` is a prefix, and means what it says."""
_NGINX = re.compile(r"^~\*?\s+(?=[\^/.(])")
"""How nginx begins an expression."""
_GROUP = re.compile(r"\([^()]*\)[*+?]?|\[[^\]]*\][*+?]?|\\[dwsDWS][*+?]?|\.[*+]\??")
_ALTERNATIVES = re.compile(
    r"(?P<start>/[^()\[\]*+?\\|]*)\((?P<choice>[^()\[\]*+?\\|]*(?:\|[^()\[\]*+?\\|]*)+)\)(?P<end>[^()\[\]*+?\\|]*?(?:\.\*)?)"
)
_PARAMETER = re.compile(r":[A-Za-z_]\w*|<[\w:]+>")
_ESCAPED_PLAIN = re.compile(r"%(?:[46][1-9A-Fa-f]|[57][0-9Aa]|3[0-9]|2[DdEe]|5[Ff]|7[Ee])")
"""An escape of a letter, a digit or one of ``-._~``: Envoy decodes it before policies see the path (PN-5)."""
_ALWAYS_ESCAPED = '"<>^`|'
_EITHER_END = "a star is a wildcard only at one end of the value"
_Found = tuple[str, str] | None
"""Message and advice."""
_NO_EXPRESSIONS = "there are no regular expressions"


@lru_cache(maxsize=4096)
def path_shape(value: str) -> Fault | None:
    """
    Say what is wrong with a path that is not a template, has no query, and matches little or nothing as it stands.

    Returns:
        A warning (VA-47) with help that works, or None.
    """
    for shape in (_call, _list, _address, _expression, _stars, _parameter, _written_otherwise):
        found = shape(value)
        if found is not None:
            message, advice = found
            return Fault("VA-47", message, advice, Severity.WARNING)
    return None


def _call(value: str) -> _Found:
    found = _CALL.fullmatch(value)
    if found is None:
        return None
    advice = f'write `methods: ["{found["method"]}"]` and `paths: ["{found["path"]}"]`'
    return f"`{value}` never matches: a path does not begin with the method", advice


def _list(value: str) -> _Found:
    for sign, name in ((",", "comma"), ("|", "bar")):
        pieces = [piece.strip() for piece in value.split(sign)]
        if len(pieces) > 1 and all(piece.startswith("/") for piece in pieces):
            listed = ", ".join(f'"{piece}"' for piece in pieces)
            return f"`{value}` is one path with a {name} in it, not {len(pieces)} paths", f"write `[{listed}]`"
    return None


def _address(value: str) -> _Found:
    found = _ADDRESS.fullmatch(value) if "://" in value else _HOST_AND_PATH.fullmatch(value)
    if found is None:
        return None
    advice = f'write `hosts: ["{found["host"]}"]` and `paths: ["{found["path"] or "/"}"]`'
    return f"`{value}` never matches: a path has neither scheme nor host", advice


def _expression(value: str) -> _Found:
    bare = _NGINX.sub("", value)
    if bare == value and not _EXPRESSION.search(value):
        return None
    plain = bare.removeprefix("^").removesuffix("$")
    before = _GROUP.split(plain, maxsplit=1)[0].replace("\\.", ".")
    if before == plain and before.startswith("/"):
        return f"`{value}` is compared as it stands: {_NO_EXPRESSIONS}", f"write `{plain}`"
    advice = _listed(plain) or _segments(plain)
    if not advice and before.startswith("/"):
        advice = f"write `{before}*`" + (", and in `notPaths` what it must not match" if "(?!" in plain else "")
    if plain.startswith(".*"):
        rest = plain[2:].replace("\\.", ".")
        if not re.search(r"[()\[\]*+?\\]", rest):
            advice = f"write `*{rest}`"
    advice = advice or "write a path that begins with a slash or a star"
    return f"`{value}` is compared as it stands: {_NO_EXPRESSIONS}", advice


def _listed(plain: str) -> str:
    """Alternatives written out: a star in their place would match more."""
    found = _ALTERNATIVES.fullmatch(plain.replace("(?:", "(").replace("\\.", "."))
    if found is None:
        return ""
    end = "*" if found["end"] in (".*", "/.*") else ""
    after = found["end"].removesuffix(".*")
    return "write " + ", ".join(f'"{found["start"]}{one}{after}{end}"' for one in found["choice"].split("|"))


def _segments(plain: str) -> str:
    """A template, where what varies is whole segments."""
    template = _GROUP.sub(lambda group: "{.}" if group[0].startswith(".") else "{*}", plain).replace("\\.", ".")
    varying = [segment for segment in template.split("/") if "{" in segment]
    if not template.startswith("/") or any(segment not in ("{*}", "{.}") for segment in varying) or "(?" in plain:
        return ""
    open_end = template.endswith("/{.}")
    if varying == ["{.}"]:
        return "" if open_end else f"write `{template.replace('{.}', '{*}')}`, where `{{*}}` is one segment"
    written = (template[:-3] + "{**}" if open_end else template).replace("{.}", "{*}")
    return f"write `{written}`, where `{{*}}` is one segment"


def _stars(value: str) -> _Found:
    inner = value[1:] if value.startswith("*") else value[:-1]
    if "*" not in inner:
        return None
    message = f"a star in `{value}` is an ordinary character, not a wildcard"
    simple = re.sub(r"\*{2,}", "*", value)
    if "*" not in (simple[1:] if simple.startswith("*") else simple[:-1]):
        return message, f"write `{simple}`, whose star crosses slashes"
    template = _template(value)
    if template:
        return message, f"write `{template}`: `{{*}}` is one whole segment, `{{**}}` any number"
    start = value.partition("*")[0]
    advice = f"write `{start}*`" if start.startswith("/") else f"write `*{value.rpartition('*')[2]}`"
    return message, f"{_EITHER_END}, and `{{*}}` is one whole segment: {advice}, or list what may stand there"


def _template(value: str) -> str:
    """The stars as a path template writes them, or nothing where they are parts of segments (AP-49 to AP-54)."""
    segments = value.split("/")
    if segments[0] in ("*", "**"):
        segments.insert(0, "")
    starred = [at for at, segment in enumerate(segments) if "*" in segment]
    if segments[0] or not all(segments[at] in ("*", "**") for at in starred):
        return ""
    for at in starred:
        is_last = at == starred[-1]
        ends_open = is_last and (segments[at] == "**" or at == len(segments) - 1)
        segments[at] = "{**}" if ends_open else "{*}"
    return "/".join(segments)


def _parameter(value: str) -> _Found:
    segments = value.split("/")
    if not any(_PARAMETER.fullmatch(segment) for segment in segments):
        return None
    template = "/".join("{*}" if _PARAMETER.fullmatch(segment) else segment for segment in segments)
    return f"`{value}` is compared as it stands: a path has no named parameters", f"write `{template}`"


def _written_otherwise(value: str) -> _Found:
    """Text that a path no longer has when policies see it (PN-5, PN-10)."""
    if value != value.strip():
        return f"`{value}` never matches: a path has no blank at either end", f"write `{value.strip()}`"
    odd = next((c for c in value if c <= " " or c > "~" or c in _ALWAYS_ESCAPED), "")
    if odd:
        written = "".join(c if " " < c <= "~" and c not in _ALWAYS_ESCAPED else _escaped(c) for c in value)
        return f"`{value}` never matches: `{odd}` is percent-encoded in a path", f"write `{written}`"
    if "\\" in value:
        advice = f"write `{value.replace(chr(92), '/')}`"
        return f"`{value}` never matches: normalisation turns a backslash into a slash first", advice
    found = _ESCAPED_PLAIN.search(value)
    if found is not None:
        plain = _ESCAPED_PLAIN.sub(lambda match: chr(int(match[0][1:], 16)), value)
        return f"`{value}` never matches: normalisation decodes `{found[0]}` first", f"write `{plain}`"
    segments = value.split("/")[1:]
    if {".", ".."} & set(segments[:-1] if value.endswith("*") else segments):
        return f"`{value}` never matches: normalisation resolves `.` and `..` first", "write where it leads"
    return None


def _escaped(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "surrogatepass"))
