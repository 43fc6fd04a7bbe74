"""Traps in single values: what Istio takes and compares as it stands, so that it never matches."""

import re
from collections.abc import Callable, Iterator

from authz.analysis.traps.policy_set import PolicySet, Use, finding, rules_of, uses_of
from authz.core.catalog import CONDITION_KEYS, HOSTS, METHODS, SOURCE_FIELDS, claim_path
from authz.core.errors import Problem
from authz.core.hints import NO_EXPRESSIONS, difference, is_expression
from authz.core.identities import request_principals
from authz.core.resources import Action, AuthorizationPolicy, JwtRule, RequestAuthentication, Rule

_ALL = (Action.ALLOW, Action.DENY, Action.AUDIT, Action.CUSTOM)
_CLAIMS = "request.auth.claims["
_NUMBERS = frozenset({"exp", "iat", "nbf", "auth_time", "updated_at"})
_BOOLEANS = frozenset({"email_verified", "phone_number_verified"})
QUOTES = " '\""
_OBJECTS = frozenset({"realm_access", "resource_access", "address", "cnf", "act"})


def _each_use(whole: PolicySet, *actions: Action) -> Iterator[tuple[AuthorizationPolicy, int, Rule, Use]]:
    for policy, index, rule in rules_of(whole, *actions):
        for use in uses_of(rule):
            yield policy, index, rule, use


def _problem(
    code: str, policy: AuthorizationPolicy, index: int, rule: Rule, use: Use, message: str, advice: str
) -> Problem:
    return finding(code, policy, message, advice, location=rule.location, path=f"spec.rules[{index}].{use.path}")


def _no_such_issuer(whole: PolicySet) -> Iterator[Problem]:
    """AN-10: a request principal has an issuer that no RequestAuthentication knows."""
    for policy, index, rule, use in _each_use(whole, *_ALL):
        if use.attribute is not CONDITION_KEYS["request.auth.principal"]:
            continue
        met = whole.authentications_with(policy)
        issuers = list(dict.fromkeys(r.issuer for authentication in met for r in authentication.jwt_rules))
        if not issuers or "" in issuers:
            continue  # AN-6 says so, or any issuer will do
        for value in (*use.values, *use.not_values):
            is_issuer = request_principals((value,)).pairs[0][0]
            is_bare = value.endswith("/")  # an issuer with an empty subject
            if value not in ("*", "*/*") and (is_bare or not any(is_issuer(issuer) for issuer in issuers)):
                message, advice = _issuer_text(value, issuers)
                yield _problem("AN-10", policy, index, rule, use, message, advice)


def _issuer_text(value: str, issuers: list[str]) -> tuple[str, str]:
    written, _, subject = value.rpartition("/")
    subject = subject or "*"
    if value[:-1] in issuers and value.endswith("/"):
        message = f"`{value}` is the issuer `{written}` with an empty subject, which hardly any token has"
        return message, f"write `{written}/*`"
    message = f"no issuer that is configured for these workloads produces `{value}`"
    for issuer in issuers:
        if value in (issuer, issuer.rstrip("/")):
            how = f"it is split at its last slash, into the issuer `{written}` and the subject "
            return f"{message}: {how}`{value.rpartition('/')[2]}`", f"write `{issuer}/*`"
        if apart := difference(written, issuer):
            return f"{message}: `{issuer}` {apart}", f"write `{issuer}/{subject}`"
        if written and issuer.startswith(written) and subject == "*":
            return f"{message}: `{written}` is only the beginning of `{issuer}`", f"write `{issuer}/{subject}`"
        if "/" in value.removeprefix(f"{issuer}/") and value.startswith(f"{issuer}/"):
            how = f"a subject has no slash here: it is split at its last slash, into the issuer `{written}`"
            return f"{message}: {how}", f"write `{issuer}/*`, and the subject in `request.auth.claims[sub]`"
        if value.endswith("*") and issuer.startswith(value[:-1]):
            how = f"it is split at its last slash, into the issuer `{written}` and the subject `{subject}`"
            return f"{message}: {how}", f"write `{issuer}/*`"
    return message, f"the issuers are {', '.join(f'`{issuer}`' for issuer in issuers[:8])}"


def _dotted_claims(whole: PolicySet) -> Iterator[Problem]:
    """AN-11: dots of a claim's name are taken for steps into objects."""
    literal = {
        path[0]
        for _, _, _, use in _each_use(whole, *_ALL)
        if use.attribute.key.startswith(_CLAIMS) and len(path := claim_path(use.attribute.key)) == 1 and "." in path[0]
    }
    for authentication in whole.engine.resources.request_authentications:
        for number, jwt_rule in enumerate(authentication.jwt_rules):
            for position, output in enumerate(jwt_rule.output_claim_to_headers):
                if "." in output.claim and ("/" in output.claim or ":" in output.claim or output.claim in literal):
                    steps = " in ".join(f"`{piece}`" for piece in reversed(output.claim.split(".")))
                    yield finding(
                        "AN-11",
                        authentication,
                        f"the dots of `{output.claim}` are steps into objects, so this is the member {steps}",
                        "a claim with dots in its name cannot be written to a header; use `outputPayloadToHeader`",
                        location=jwt_rule.location,
                        path=f"spec.jwtRules[{number}].outputClaimToHeaders[{position}].claim",
                    )


def _claims_without_text(whole: PolicySet) -> Iterator[Problem]:
    """AN-12: a condition asks for a claim that is not text."""
    for policy, index, rule, use in _each_use(whole, *_ALL):
        if not use.attribute.key.startswith(_CLAIMS):
            continue
        path = claim_path(use.attribute.key)
        name = path[0]
        if any(piece != piece.strip(QUOTES) for piece in path):
            bare = "".join(f"[{piece.strip(QUOTES)}]" for piece in path)
            message = f"quotes and blanks are part of the claim's name in `{use.attribute.key}`"
            yield _problem("AN-12", policy, index, rule, use, message, f"write `request.auth.claims{bare}`")
            continue
        then = "so no value matches it" if use.values else "so it is never among the values"
        advice = "only strings and lists of strings match"
        if len(path) > 1:
            continue
        if name in _NUMBERS or name in _BOOLEANS:
            kind = "a number" if name in _NUMBERS else "a boolean"
            if name in ("exp", "nbf"):
                advice += f"; `{name}` is checked with every token anyway"
            yield _problem("AN-12", policy, index, rule, use, f"the claim `{name}` is {kind}, {then}", advice)
        elif name in _OBJECTS:
            advice += f"; a member is `request.auth.claims[{name}][<member>]`"
            yield _problem("AN-12", policy, index, rule, use, f"the claim `{name}` is an object, {then}", advice)
        elif name.partition(".")[0] in _OBJECTS:
            nested = "".join(f"[{piece}]" for piece in name.split("."))
            message = f"`{name}` is the claim of that very name, dots included, which the token probably does not have"
            yield _problem("AN-12", policy, index, rule, use, message, f"write `request.auth.claims{nested}`")


_ADDRESS = re.compile(r"(?:[a-z][a-z0-9+.-]*:)?//(?P<host>[^/]*).*|(?P<bare>[^/]*)/.*", re.IGNORECASE)


def _hosts_as_addresses(whole: PolicySet) -> Iterator[Problem]:
    """AN-13: a host has a scheme or a slash."""
    for policy, index, rule, use in _each_use(whole, *_ALL):
        if use.attribute is not HOSTS and use.attribute.key not in _HOST_HEADERS:
            continue
        for value in (*use.values, *use.not_values):
            found = _ADDRESS.fullmatch(value)
            if found is not None:
                host = found["host"] or found["bare"] or "<host>"
                message = f"`{value}` never matches: a host has neither scheme nor slash"
                yield _problem("AN-13", policy, index, rule, use, message, f"write `{host}`; a path goes into `paths`")


_HOST_HEADERS = ("request.headers[host]", "request.headers[:authority]")
_LISTED = (
    HOSTS,
    METHODS,
    *(SOURCE_FIELDS[name] for name in ("principals", "namespaces", "serviceAccounts", "trustDomains")),
)


def _several_in_one(whole: PolicySet) -> Iterator[Problem]:
    """AN-14: several values stand in one string."""
    for policy, index, rule, use in _each_use(whole, *_ALL):
        if use.attribute not in _LISTED:
            continue
        for value in (*use.values, *use.not_values):
            pieces = [piece for piece in re.split(r"[,;|\s]+", value.strip("[]")) if piece]
            if "=" not in value and (len(pieces) > 1 or value != value.strip()):
                listed = ", ".join(f'"{piece.strip(chr(34))}"' for piece in pieces)
                message = f"`{value}` is one value, which never matches"
                yield _problem("AN-14", policy, index, rule, use, message, f"write `[{listed}]`")


_STRANGE = re.compile(
    r"system:serviceaccount:.*|/.*|(?:ns|sa|user)/.*|[^/*]+|[^/.*]+/[^/*]+|[^/*]+/ns/[^/*]+(?:/[^/*]+)?|.*/"
)
_FORM = "<trust domain>/ns/<namespace>/sa/<service account>"


def _strange_principals(whole: PolicySet) -> Iterator[Problem]:
    """AN-15: a principal has the shape of another system."""
    for policy, index, rule, use in _each_use(whole, *_ALL):
        if use.attribute is not CONDITION_KEYS["source.principal"]:
            continue
        for value in (*use.values, *use.not_values):
            if _STRANGE.fullmatch(value):
                message = f"`{value}` is not an identity of a mesh"
                yield _problem("AN-15", policy, index, rule, use, message, f"write `{_FORM}`, or use `serviceAccounts`")


_GLOBS = frozenset({"paths", "source.namespace", "source.trustDomain", "source.serviceAccount", "destination.port"})


def _inner_stars(whole: PolicySet) -> Iterator[Problem]:
    """AN-16: a star stands where it is an ordinary character."""
    for policy, index, rule, use in _each_use(whole, *_ALL):
        if use.attribute.key in _GLOBS:
            continue
        for value in (*use.values, *use.not_values):
            inner = value[1:] if value.startswith("*") else value[:-1]
            if "*" in inner and value != "*/*":
                message = f"`{value}` has a star that is an ordinary character: it is a wildcard only at one end"
                advice = "begin or end with the star; where it stands on both sides, list the values"
                if use.attribute is CONDITION_KEYS["source.principal"]:
                    advice = "to admit a namespace use `namespaces`, for accounts `serviceAccounts`"
                yield _problem("AN-16", policy, index, rule, use, message, advice)
            elif is_expression(value):
                yield _problem(
                    "AN-16", policy, index, rule, use, f"`{value}` {NO_EXPRESSIONS}", "a star at one end is all"
                )


def _consumed_header(whole: PolicySet) -> Iterator[Problem]:
    """AN-17: a condition asks for the header that an accepted token is taken out of."""
    for policy, index, rule, use in _each_use(whole, Action.ALLOW, Action.DENY, Action.AUDIT):
        if use.attribute.key != "request.headers[authorization]" or not use.values:
            continue
        met = whole.authentications_with(policy)
        taken = next((a for a in met if any(_takes_authorization(r) for r in a.jwt_rules)), None)
        if taken is not None:
            message = f"the header is gone when rules see the request: {_named(taken)} takes accepted tokens out of it"
            advice = "use `requestPrincipals` or `request.auth.claims[…]`, or set `forwardOriginalToken`"
            yield _problem("AN-17", policy, index, rule, use, message, advice)


def _takes_authorization(rule: JwtRule) -> bool:
    names = [header.name.lower() for header in rule.from_headers]
    is_default = not (rule.from_headers or rule.from_params or rule.from_cookies)
    return not rule.forward_original_token and (is_default or "authorization" in names)


def _named(item: RequestAuthentication) -> str:
    return f"RequestAuthentication {item.metadata.namespace}/{item.metadata.name}"


VALUE_CHECKS: dict[str, Callable[[PolicySet], Iterator[Problem]]] = {
    "AN-10": _no_such_issuer,
    "AN-11": _dotted_claims,
    "AN-12": _claims_without_text,
    "AN-13": _hosts_as_addresses,
    "AN-14": _several_in_one,
    "AN-15": _strange_principals,
    "AN-16": _inner_stars,
    "AN-17": _consumed_header,
}
