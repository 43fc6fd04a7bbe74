"""What decides behind a sidecar: the check function with keys and providers, in the test or inside a hosting Envoy."""

import asyncio
from collections.abc import Mapping, Sequence
from time import time

from authz.analysis.suites.run import compile_texts
from authz.analysis.suites.suite import PolicyText
from authz.core.decided import Offer
from authz.core.engine import Engine
from authz.core.resources import MeshConfig
from authz.service.check_function import CheckFunction
from authz.service.ids import DecisionIds
from authz.service.loading.snapshot import Snapshot
from authz.service.provider_calls import Providers
from authz.sources.keys.source import KeySource
from authz.tokens.jwks import KeySet, read_key_set
from authz.tokens.key_sets import KeySetState
from tests.envoy.applications import Applications
from tests.service.recording import Recorder

LARGEST_MESSAGE_BYTES = 1 << 20


class Deciding:
    """Policies are prepared by name and then put in force one after the other, as after reloads."""

    def __init__(self, around: Applications, audit: Recorder) -> None:
        self.around = around
        self.audit = audit
        self.stubs: Mapping[str, str] = {}
        self.keys = KeySource[KeySet, KeySetState](read_key_set, KeySetState, clock=time, on_change=self._changed)
        self._fetched = asyncio.Event()
        self._prepared: dict[str, tuple[Snapshot, Mapping[str, str]]] = {}
        self.function = CheckFunction(
            self.audit, DecisionIds(time(), b"env"), lambda: self.keys.key_sets, on_unknown_key=self.keys.hint
        )
        self.providers = Providers(lambda provider: around.address_of(provider, self.stubs[provider.name]))

    def _changed(self, states: Mapping[str, KeySetState]) -> None:
        if all(state.key_set is not None or state.error for state in states.values()):
            self._fetched.set()
        else:
            self._fetched.clear()

    def prepare(
        self, name: str, texts: Sequence[PolicyText], mesh: MeshConfig, stubs: Mapping[str, str], now: float
    ) -> Snapshot:
        """Compile policies; ``stubs`` says for each provider what it answers."""
        engine = compile_texts(list(texts), mesh)
        assert isinstance(engine, Engine)
        snapshot = Snapshot(engine, mesh, engine.version, now)
        self._prepared[name] = (snapshot, stubs)
        return snapshot

    async def fetch_keys(self) -> None:
        """Fetch the keys of everything that was prepared."""
        self.keys.update(
            rule
            for snapshot, _ in self._prepared.values()
            for item in snapshot.resources.request_authentications
            for rule in item.jwt_rules
        )
        async with asyncio.timeout(20):
            await self._fetched.wait()

    def enforce(self, name: str) -> None:
        snapshot, self.stubs = self._prepared[name]
        self.function.replace(snapshot)
        self.audit.clear()

    def take(self) -> list[Offer]:
        """What was recorded since the last ``enforce``."""
        return list(self.audit.entries)

    async def close(self) -> None:
        await self.keys.close()
        await self.providers.close()
