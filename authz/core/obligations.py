"""
The obligations of a decision, stage by stage: headers set and removed, the path rewritten.

A provider's changes are seen by the stages after it and by the upstream (EV-6); the JWT stage's come last and win.
"""

from dataclasses import replace

from authz.core.attributes import AttributeContext, Authentication
from authz.core.decision import NO_OBLIGATIONS, Obligations
from authz.core.providers import ProviderAnswer


def after_provider(
    attributes: AttributeContext, gained: Obligations, answer: ProviderAnswer
) -> tuple[AttributeContext, Obligations]:
    """Later stages and the upstream see the headers that the provider set."""
    http = attributes.http
    if http is None:
        return attributes, gained
    headers = dict(http.headers)
    changed: list[tuple[str, str]] = []
    for name, value in answer.headers_to_set:
        headers[name] = (value,)
        changed.append((name, value))
    for name, value in answer.headers_to_append:
        if headers.get(name):
            headers[name] = (f"{headers[name][0]},{value}", *headers[name][1:])
            changed.append((name, headers[name][0]))
    for name in answer.headers_to_remove:
        headers.pop(name, None)
    path = headers.get(":path", (http.path,))[0]
    return replace(attributes, http=replace(http, path=path, headers=headers)), gained._replace(
        headers_to_set=_last_of_each((*gained.headers_to_set, *changed), without=answer.headers_to_remove),
        headers_to_remove=(*gained.headers_to_remove, *answer.headers_to_remove),
        response_headers_to_add=(*gained.response_headers_to_add, *answer.response_headers_to_add),
    )


def with_authentication(gained: Obligations, authentication: Authentication) -> Obligations:
    """Add what the JWT stage asks of Envoy; its output headers win over a provider's (RA-49, RA-50)."""
    if gained is NO_OBLIGATIONS:
        if not (
            authentication.headers_to_set
            or authentication.headers_to_remove
            or authentication.query_parameters_to_remove
            or authentication.rewritten_path is not None
        ):
            return gained
        return Obligations(
            authentication.headers_to_set,
            authentication.headers_to_remove,
            authentication.query_parameters_to_remove,
            authentication.rewritten_path,
        )
    set_now = {name for name, _ in authentication.headers_to_set}
    kept_removals = (name for name in gained.headers_to_remove if name not in set_now)
    return Obligations(
        headers_to_set=_last_of_each(
            (*gained.headers_to_set, *authentication.headers_to_set), without=authentication.headers_to_remove
        ),
        headers_to_remove=tuple(dict.fromkeys((*kept_removals, *authentication.headers_to_remove))),
        query_parameters_to_remove=authentication.query_parameters_to_remove,
        rewritten_path=authentication.rewritten_path,
        response_headers_to_add=gained.response_headers_to_add,
    )


def _last_of_each(headers: tuple[tuple[str, str], ...], *, without: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """One value per name: Envoy takes the last (XA-82), and a name set and removed is removed (XA-84)."""
    return tuple((name, value) for name, value in dict(headers).items() if name not in without)
