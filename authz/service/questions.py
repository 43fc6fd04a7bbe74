"""The questions of requests under way, each put to whom it is for: an external authorizer, or a token's issuer."""

from authz.core.introspection import TokenQuestion
from authz.core.providers import GivenAnswer
from authz.service.pending import Pending
from authz.service.provider_calls import Providers
from authz.sources.introspection.introspector import Introspector


class Questions:
    """Everybody who can be asked; ``close`` once."""

    def __init__(self, introspector: Introspector) -> None:
        self._providers = Providers()
        self._introspector = introspector

    async def ask(self, pending: Pending) -> GivenAnswer:
        """Ask. Failures are answers; raises nothing but cancellation."""
        question = pending.question
        if isinstance(question, TokenQuestion):
            return await self._introspector.ask(question)
        return await self._providers.ask(pending)

    async def close(self) -> None:
        """Close every connection."""
        await self._providers.close()
        await self._introspector.close()
