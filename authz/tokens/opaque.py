"""
Tokens that their issuer is asked about (RFC 7662): which ones, and what its answer means.

A JWT is judged as one, by the rules of its issuer alone: no other issuer gets to see it. What is not a JWT goes to the
issuers that are asked, in the order of the rules. Nothing here waits: what is not known yet is a question.
"""

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import replace

from authz.core.attributes import Json
from authz.core.introspection import Introspection, TokenAnswer, TokenQuestion
from authz.core.resources import JwtRule
from authz.tokens.parsed import DIGEST_DIGITS, ParsedToken, introspected_token
from authz.tokens.token_refusals import (
    BAD_FORMAT,
    BAD_HEADER_BASE64,
    BAD_HEADER_JSON,
    NOT_ACTIVE,
    NOT_ASKED_BODY,
    Refusal,
)

KnownAnswer = Callable[[Introspection, str], TokenAnswer | None]
"""What an issuer answered about a token, as far as it is remembered; None: it has to be asked."""

_NO_JWT = frozenset({BAD_FORMAT, BAD_HEADER_BASE64, BAD_HEADER_JSON})
"""A token too long to be read is refused with a reason of its own, and is not one of these."""
_BEARER = re.compile(r"[A-Za-z0-9\-._~+/]+=*")
"""What a bearer token is made of (RFC 6750, 2.1); nobody is asked about anything else."""
_OFFLINE = TokenAnswer(error="its issuer knows whether it is active, and is not asked offline")


class MustAsk(Exception):  # not an error: a way out of the rules, caught one level up
    """The issuer has to be asked before the request can be judged."""

    def __init__(self, question: TokenQuestion) -> None:
        super().__init__("an issuer must be asked")
        self.question = question


def not_asked(introspection: Introspection, token: str) -> TokenAnswer:
    """Knows no answers: offline no issuer is asked, so its tokens are refused."""
    return _OFFLINE


def told_token(read: ParsedToken | Refusal, text: str, rule: JwtRule, known: KnownAnswer) -> ParsedToken | Refusal:
    """
    The token as the rule's issuer describes it, if that is asked, else as it was read as a JWT.

    Raises:
        MustAsk: what the issuer says is not known yet.
    """
    if rule.introspection is None or not _is_for_issuer(read, text, rule):
        return read
    return _ask_issuer(rule.introspection, text, known)


def _is_for_issuer(read: ParsedToken | Refusal, text: str, rule: JwtRule) -> bool:
    if isinstance(read, ParsedToken):
        return rule.is_asked_only and read.issuer == rule.issuer
    return read in _NO_JWT and _BEARER.fullmatch(text) is not None


def _ask_issuer(introspection: Introspection, text: str, known: KnownAnswer) -> ParsedToken | Refusal:
    answer = known(introspection, text)
    if answer is None:
        raise MustAsk(TokenQuestion(introspection, text))
    digest = hashlib.sha256(text.encode()).hexdigest()[:DIGEST_DIGITS]
    if answer.error:
        return Refusal(503, NOT_ASKED_BODY, f"{NOT_ASKED_BODY}: token {digest}: {answer.error}")
    if answer.claims is None:
        return replace(NOT_ACTIVE, reason=f"{NOT_ACTIVE.body}: {introspection.issuer} says so of token {digest}")
    return introspected_token(_claims(answer.claims, introspection), digest)


def _claims(told: Mapping[str, Json], introspection: Introspection) -> dict[str, Json]:
    """An answer need not repeat the issuer, and names the presenter by a word of its own (RFC 7662, 2.2)."""
    claims = {name: value for name, value in told.items() if name != "active"}
    claims.setdefault("iss", introspection.issuer)
    if "client_id" in claims:
        claims.setdefault("azp", claims["client_id"])
    return claims
