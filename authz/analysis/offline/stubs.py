"""The answer of an external authorizer that is not asked: the one written down, or an unusable one."""

from collections.abc import Mapping

from authz.core.decision import FORBIDDEN_BODY
from authz.core.providers import ProviderAnswer, ProviderQuestion


def stub_answer(stubs: Mapping[str, str], question: ProviderQuestion) -> ProviderAnswer:
    """Return a provider's answer: ``allow``, ``deny`` or ``error``; without one it is unusable (AP-85)."""
    match stubs.get(question.provider.name):
        case "allow":
            return ProviderAnswer(allowed=True)
        case "deny":
            return ProviderAnswer(allowed=False)
        case "error":
            return ProviderAnswer(allowed=False, error="the stub cannot be asked")
        case _:
            reason = "no answer is given for it, and it is not asked offline (AP-85)"
            return ProviderAnswer(allowed=False, status=403, body=FORBIDDEN_BODY, error=reason, is_final=True)
