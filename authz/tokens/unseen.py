"""
A token may be where nobody can see it: a request whose headers are not all delivered.

Whether such a request carries a token, and whether it is a good one, cannot be known. Taking it for a request without
a token would let a bad token pass, which is refused (RA-4), so the request is refused.
"""

from authz.core.attributes import Authentication, AuthenticationOutcome, HttpRequest
from authz.core.decision import FORBIDDEN_BODY
from authz.core.resources import JwtRule
from authz.tokens.plan import plan_for


def refuse_unseen(http: HttpRequest, jwt_rules: tuple[JwtRule, ...]) -> Authentication | None:
    """The refusal of a request if a header that a rule reads is not delivered; None if all are."""
    plan = plan_for(jwt_rules)
    read = [place.name for place in plan.headers] + (["cookie"] if plan.cookies else [])
    unseen = next((name for name in read if http.is_unseen(name)), None)
    if unseen is None:
        return None
    reason = f"whether there is a token cannot be known: the header `{unseen}` is not delivered"
    return Authentication(AuthenticationOutcome.REJECTED, status=403, body=FORBIDDEN_BODY, reason=reason)
