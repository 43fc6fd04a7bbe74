"""The answer of an external authorizer that is not asked: the one that was written down, or none of use."""

from collections.abc import Mapping

from authz.core.decision import FORBIDDEN_BODY
from authz.core.providers import ProviderAnswer, ProviderQuestion


def stub_answer(stubs: Mapping[str, str], question: ProviderQuestion) -> ProviderAnswer:
    """Answer for a provider: ``allow``, ``deny``, ``error``; without an answer it is unusable (AP-85)."""
    match stubs.get(question.provider.name):
        case "allow":
            return ProviderAnswer(allowed=True)
        case "deny":
            return ProviderAnswer(allowed=False)
        case "error":
            return ProviderAnswer(allowed=False, error="the stub cannot be asked")
        case _:
            reason = "no answer is given for it, and offline it is not asked (AP-85)"
            return ProviderAnswer(allowed=False, status=403, body=FORBIDDEN_BODY, error=reason, is_final=True)
