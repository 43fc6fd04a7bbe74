"""The questions that a decision asks of the network: an external authorizer (CUSTOM), the issuer of an opaque token."""

from collections.abc import Generator
from dataclasses import dataclass

from authz.core.attributes import (
    AttributeContext,
)
from authz.core.decision import (
    Decision,
    RuleReference,
)
from authz.core.introspection import TokenAnswer, TokenQuestion
from authz.core.resources import ExtensionProvider


@dataclass(frozen=True, slots=True)
class ProviderQuestion:
    """A CUSTOM rule fired: ask this provider about this request (AP-77)."""

    provider: ExtensionProvider
    rule: RuleReference
    attributes: AttributeContext


@dataclass(frozen=True, slots=True)
class ProviderAnswer:
    """
    The answer of a provider. ``error`` is set when it could not be asked; ``failOpen`` and ``statusOnError`` are then
    applied here (AP-83), except that ``is_final`` errors (a body beyond its limit) refuse whatever ``failOpen`` says.
    """

    allowed: bool
    status: int = 403
    body: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    """Response headers of a refusal."""
    headers_to_set: tuple[tuple[str, str], ...] = ()
    headers_to_append: tuple[tuple[str, str], ...] = ()
    """Joined with ``,`` to the first occurrence; without effect on an absent header, as in Envoy (XA-82)."""
    headers_to_remove: tuple[str, ...] = ()
    response_headers_to_add: tuple[tuple[str, str], ...] = ()
    error: str = ""
    is_final: bool = False


Question = ProviderQuestion | TokenQuestion
"""What a decision under way asks of the network."""
GivenAnswer = ProviderAnswer | TokenAnswer
"""The answer to the question of the same kind."""
Evaluation = Generator[Question, GivenAnswer, tuple[AttributeContext, Decision]]
"""A decision under way: it yields questions, is sent answers, and returns the request as last seen and the decision."""
