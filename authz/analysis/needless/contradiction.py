"""Which fields of a rule exclude each other, where no request matches it."""

import itertools
from collections.abc import Sequence

from authz.analysis.sets.request_variables import IDENTITY, Variables, name_of
from authz.analysis.sets.situations import Situation
from authz.analysis.sets.views import product_of
from authz.core.rules import CompiledRule, Predicate

MAX_PRODUCTS = 16
"""Pairs of a source and an operation that are looked at."""


def excluding(rule: CompiledRule, situations: Sequence[Situation], variables: Variables) -> tuple[Predicate, ...]:
    """
    The fewest fields that no request fulfils together, of each source with each operation of a rule.

    Args:
        rule: one that no request matches.
        situations: every kind of request.
    """
    read = [situation for situation in situations if situation.new.is_http and situation.has_path]

    def holds_somewhere(asked: Sequence[Predicate]) -> bool:
        parts = tuple(asked)
        return any(product_of(parts, one.new, one.base, variables) is not None for one in read)

    found: dict[str, Predicate] = {}
    products = itertools.product(rule.sources or ((),), rule.operations or ((),))
    for source, operation in itertools.islice(products, MAX_PRODUCTS):
        left: list[Predicate] = [*rule.conditions, *operation, *source]
        for predicate in tuple(left):
            fewer = [one for one in left if one is not predicate]
            if not holds_somewhere(fewer):
                left = fewer
        found |= {predicate.path: predicate for predicate in left}
    return tuple(found.values())


def asks_for_identity(predicate: Predicate) -> bool:
    """Whether a field holds only of callers with an identity."""
    return predicate.any_of is not None and name_of(predicate.attribute) == IDENTITY
