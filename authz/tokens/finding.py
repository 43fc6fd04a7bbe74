"""Which tokens a request carries, at the places that the rules of a workload read (RA-11 to RA-19)."""

from collections.abc import Iterable, Sequence

from authz.core.attributes import HttpRequest
from authz.tokens.locations import cookie_values, parameters_of, token_in_header
from authz.tokens.plan import Plan, TokenPlace

FoundToken = tuple[TokenPlace, str]
"""A token and where it stands."""


def is_preflight(http: HttpRequest) -> bool:
    """RA-44: both headers must be there and not be empty."""
    return any(http.headers.get("origin", ())) and any(http.headers.get("access-control-request-method", ()))


def find_tokens(plan: Plan, http: HttpRequest) -> Sequence[FoundToken]:
    """Collect the tokens at every place that some rule reads (RA-11)."""
    found: list[FoundToken] = []
    headers = http.headers
    for place in plan.headers:
        values = headers.get(place.name)
        if values:
            for value in values:
                text = token_in_header(value, place.prefix)
                if text is not None:
                    found.append((place, text))
    if plan.parameters and "?" in http.path and _may_have(http.path, plan.parameters):
        seen = set()
        for name, value in parameters_of(http.path):
            if name in plan.parameters and name not in seen:
                seen.add(name)
                found.append((TokenPlace("parameter", name), value))
    if plan.cookies and "cookie" in headers:
        values_by_name = cookie_values(headers["cookie"], plan.cookies)
        found.extend((TokenPlace("cookie", name), value) for name, value in values_by_name.items())
    return found


def _may_have(path: str, names: Iterable[str]) -> bool:
    """Whether a parameter with one of these names can be in the query: unless encoded, a name stands there as it is."""
    if "%" in path:
        return True
    for name in names:  # noqa: SIM110  a generator costs as much as everything else here
        if name in path:
            return True
    return False
