"""
What it costs the service to count a request for a rate limit: ``python -m benchmarks.rate_limits``.

CPU time of an answer, bytes to bytes, in memory and with a real Redis beside it (its own CPU time not included), for
one rule and for ten; then the whole server behind gRPC. Ratios are to one rule in memory.
"""

import asyncio
import os
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import perf_counter, process_time

import grpc

from authz._proto import rate_limit_pb2 as pb
from authz.core.attributes import Workload
from authz.core.decided import Offer
from authz.core.decision import RuleReference
from authz.mesh.rate_limits import AppliedLimit, AttributeSelector, LimitScope, LimitUnit, RateLimitRule, ValueMatch
from authz.service.rate_limits.limiting import RateLimiter
from authz.service.rate_limits.quota_store import MemoryStore, QuotaStore, open_store
from authz.wire.limit_messages import METHOD, SERVICE
from tests.envoy.limits_rig import redis_server, serve
from tests.mesh.meshes import Ports, description
from tests.mesh.test_rate_limits import policy

NOW = 1_800_000_000.0
ANSWERS = 5_000
AT_ONCE = 32
CALLER = AttributeSelector("source.principal", ValueMatch.DISTINCT)
FACTS = {"x-authz-principal": "spiffe://cluster.local/ns/app/sa/client", "x-authz-request-id": "r", "x-authz-path": "/"}
Ask = Callable[[bytes], Awaitable[bytes]]


class Nowhere:
    """No record is made of what is allowed."""

    def record(self, offer: Offer) -> bool:
        """Nothing is kept."""
        return True


def rules(count: int) -> list[RateLimitRule]:
    unused = LimitUnit.DAY
    return [
        RateLimitRule(RuleReference("app", "quota", number, ""), LimitScope.GLOBAL, 2**31, unused, (CALLER,))
        for number in range(count)
    ]


def message(count: int) -> bytes:
    request = pb.RateLimitRequest(domain="authz")
    for rule in rules(count):
        request.descriptors.add().entries.add(key="rule", value=rule.id)
    return request.SerializeToString()


async def load(ask: Ask, data: bytes, answers: int = ANSWERS) -> None:
    async def some() -> None:
        for _ in range(answers // AT_ONCE):
            await ask(data)

    await asyncio.gather(*(some() for _ in range(AT_ONCE)))


async def microseconds(store: QuotaStore, count: int) -> float:
    """CPU time of one answer in this process."""
    limiter = RateLimiter(store, Nowhere())
    limiter.replace({Workload("app"): tuple(map(AppliedLimit, rules(count)))}, "v1")
    await load(lambda data: limiter.answer(data, FACTS, NOW), message(count), 10 * AT_ONCE)
    before = process_time()
    await load(lambda data: limiter.answer(data, FACTS, NOW), message(count))
    return (process_time() - before) / ANSWERS * 1e6


async def over_grpc(address: str, pid: int) -> tuple[float, float]:
    """Answers a second, and the server's CPU time of one, in microseconds."""
    async with grpc.aio.insecure_channel(address) as channel:
        call = channel.unary_unary(f"/{SERVICE}/{METHOD}", request_serializer=bytes, response_deserializer=bytes)
        told = tuple(FACTS.items())

        async def ask(data: bytes) -> bytes:
            answer: bytes = await call(data, metadata=told)
            return answer

        await load(ask, message(1), 10 * AT_ONCE)
        before, began = _cpu(pid), perf_counter()
        await load(ask, message(1))
        return ANSWERS / (perf_counter() - began), (_cpu(pid) - before) / ANSWERS * 1e6


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, redis_server(Path(folder)) as url:
        base = asyncio.run(microseconds(MemoryStore(), 1))
        print(f"one rule, in memory: {base:.0f} µs of CPU time an answer")
        for name, count in (("memory", 10), ("Redis", 1), ("Redis", 10)):
            found = asyncio.run(_of(url if name == "Redis" else "memory", count))
            print(f"{count} rule{'s' if count > 1 else ''}, in {name}: {found / base:.1f} times that")
        state = Path(folder)
        caller = "{attributes: [{name: source.principal, type: Distinct}]}"
        rate = f"{{global: {{rules: [{{clientSelectors: [{caller}], limit: {{requests: 999999999, unit: Day}}}}]}}}}"
        (state / "mesh.yaml").write_bytes(description(Ports()) + policy(rate).encode())
        (state / "policies").mkdir()
        flags = ("--allow-empty", "--listen", "none", "--rate-limits", "unix:limits.sock", "--rate-limit-store", url)
        with serve(state, *flags) as served:
            rate_, cost = asyncio.run(over_grpc(f"unix:{state}/limits.sock", served.process.pid))
        print(f"the server, one rule in Redis: {rate_:.0f} answers/s; {cost / base:.1f} times that CPU time for each")


async def _of(url: str, count: int) -> float:
    store = open_store(url)
    try:
        return await microseconds(store, count)
    finally:
        await store.close()


if __name__ == "__main__":
    main()
