"""Texts and shares of a VirtualService as Envoy compares them."""

from envoy_data_plane.envoy.type.matcher.v3 import RegexMatcher, StringMatcher
from envoy_data_plane.envoy.type.v3 import FractionalPercent, FractionalPercentDenominatorType

from authz.mesh.virtual_service import MatchKind, StringMatch


def string_matcher(match: StringMatch) -> StringMatcher:
    """Istio's StringMatch as Envoy's."""
    if match.kind is MatchKind.REGEX:
        return StringMatcher(safe_regex=RegexMatcher(regex=match.value))
    return StringMatcher(exact=match.value) if match.kind is MatchKind.EXACT else StringMatcher(prefix=match.value)


def fractional(percent: float) -> FractionalPercent:
    """A share of requests, to a millionth."""
    if percent == 100:
        return FractionalPercent(numerator=100, denominator=FractionalPercentDenominatorType.HUNDRED)
    # The added half of a billionth undoes what binary fractions lose: 0.57 * 10000 is a little less than 5700.
    numerator = int(percent * 10_000 + 1e-6)
    return FractionalPercent(numerator=numerator, denominator=FractionalPercentDenominatorType.MILLION)
