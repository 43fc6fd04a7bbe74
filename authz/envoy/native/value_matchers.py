"""
Envoy's matchers of single values, in the forms that Istio's builder gives them.

Everything here is plain data, the JSON form of Envoy's messages with Envoy's field names: ten thousand policies as
typed messages would take minutes. ``tests/envoy/native`` holds every form against the typed messages and against
Istio's own answers.
"""

import ipaddress
import re

from authz.core.attributes import Json

Message = dict[str, Json]
"""A message of Envoy as plain data."""

TYPE = "type.googleapis.com/"
JWT_FILTER = "envoy.filters.http.jwt_authn"
PAYLOAD = "payload"
"""Where Istio has the jwt_authn filter put a token's claims."""
_META = re.compile(r"[\\.+*?()|\[\]{}^$]")
_TEMPLATE = {"{*}": "*", "{**}": "**"}
_OPERATOR = re.compile(r"\{\*\*?\}")


def quoted(text: str) -> str:
    """Quote as RE2's users in Go do: ``re.escape`` would also escape what needs no escaping."""
    return _META.sub(r"\\\g<0>", text)


def regex(pattern: str) -> Message:
    """A matcher of the whole value by a regular expression."""
    return {"safe_regex": {"regex": pattern}}


def plain(value: str) -> Message:
    """The plain form (AP-19, AP-20)."""
    if value == "*":
        return regex(".+")
    if value.startswith("*"):
        return {"suffix": value[1:]}
    if value.endswith("*"):
        return {"prefix": value[:-1]}
    return {"exact": value}


def header(name: str, value: str, *, fold: bool = False) -> Message:
    """The header form (AP-22), with ``fold`` the host form (AP-23)."""
    if value == "*":
        return {"name": name, "present_match": True}
    matched = plain(value)
    if fold:
        matched["ignore_case"] = True
    return {"name": name, "string_match": matched}


def network(value: str) -> Message:
    """An IP or CIDR with its host bits, which Envoy ignores (AP-40)."""
    address_text, slash, length = value.partition("/")
    address = ipaddress.ip_address(address_text)
    text = str(address)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        text = f"::ffff:{address.ipv4_mapped}"  # the newest Pythons write it like this, too
    return {"address_prefix": text, "prefix_len": int(length) if slash else address.max_prefixlen}


def path(value: str) -> Message:
    """The permission of one ``paths`` value: a template (AP-50) or the plain form."""
    if not _OPERATOR.search(value):
        return {"url_path": {"path": plain(value)}}
    template = _OPERATOR.sub(lambda found: _TEMPLATE[found[0]], value)
    match = {"@type": f"{TYPE}envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig"}
    return {"uri_template": {"name": "uri-template", "typed_config": {**match, "path_template": template}}}


def principal_name(value: str) -> Message:
    """``principals``, its trust domain rewritten before (AP-25)."""
    if value == "*":
        return regex(".+")
    if value.startswith("*"):
        return regex(f"spiffe://.*{quoted(value[1:])}")
    if value.endswith("*"):
        return {"prefix": f"spiffe://{value[:-1]}"}
    return {"exact": f"spiffe://{value}"}


def namespace_name(value: str) -> Message:
    """Match the identities of a namespace, for ``namespaces`` (AP-30)."""
    return regex(f".*/ns/{'.*'.join(quoted(piece) for piece in value.split('*'))}/.*")


def account_name(value: str, policy_namespace: str) -> Message:
    """Match the identities of an account, for ``serviceAccounts`` (AP-33)."""
    namespace, slash, account = value.partition("/")
    if not slash:
        namespace, account = policy_namespace, value
    return regex(f"spiffe://.+/ns/{quoted(namespace)}/(.+/|)sa/{quoted(account)}(/.+)?")


def trust_domain_name(value: str) -> Message:
    """``trustDomains``, aliases expanded before (AP-35)."""
    if value == "*":
        return {"prefix": "spiffe://"}
    if "*" not in value:
        return {"prefix": f"spiffe://{value}/"}
    before, _, after = value.partition("*")
    return regex(f"spiffe://{quoted(before)}[^/]*{quoted(after)}/.*")


def one_of(matchers: list[Json]) -> Json:
    """Alternatives of value matchers; a single one stands for itself."""
    return matchers[0] if len(matchers) == 1 else {"or_match": {"value_matchers": matchers}}


def metadata(filter_name: str, keys: tuple[str, ...], value: Json) -> Message:
    """A matcher of one value of a filter's dynamic metadata."""
    return {"filter": filter_name, "path": [{"key": key} for key in keys], "value": value}


def claim(names: tuple[str, ...], values: tuple[str, ...]) -> Message:
    """A claim that is a matching string, or a list that holds one (AP-60)."""
    found = one_of([{"string_match": plain(value)} for value in values])
    either: Json = {"or_match": {"value_matchers": [{"list_match": {"one_of": found}}, found]}}
    return metadata(JWT_FILTER, (PAYLOAD, *names), either)


def request_principal(value: str) -> list[Message]:
    """Matchers of ``iss`` and ``sub``, both of which must hold; the rows of AP-38 in their order."""
    issuer, slash, subject = value.rpartition("/")
    anything = regex(".+")
    if value == "*":
        pair = (anything, anything)
    elif value.startswith("*") and not slash:
        pair = (anything, {"suffix": value[1:]})
    elif value.startswith("*"):
        pair = (anything if issuer == "*" else {"suffix": issuer[1:]}, {"exact": subject})
    elif value.endswith("*") and not slash:
        pair = ({"prefix": value[:-1]}, anything)
    elif value.endswith("*"):
        pair = ({"exact": issuer}, anything if subject == "*" else {"prefix": subject[:-1]})
    else:
        pair = ({"exact": issuer}, {"exact": subject}) if slash else ({"exact": value}, {"exact": ""})
    return [
        metadata(JWT_FILTER, (PAYLOAD, name), {"string_match": matched})
        for name, matched in zip(("iss", "sub"), pair, strict=True)
    ]


def filter_metadata(key: str, values: tuple[str, ...]) -> Message:
    """``experimental.envoy.filters.F[K]``: ``[v]`` matches a list element, ``v`` a string (AP-66)."""
    name, _, rest = key.removeprefix("experimental.").removesuffix("]").partition("[")
    found: list[Json] = []
    for value in values:
        if value.startswith("[") and value.endswith("]"):
            found.append({"list_match": {"one_of": {"string_match": plain(value.strip("[]"))}}})
        else:
            found.append({"string_match": plain(value)})
    return metadata(name, (rest,), one_of(found))
