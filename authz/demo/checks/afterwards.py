"""Scenarios of finding out afterwards: one trace through everything, and a refusal explained by one command."""

import asyncio
import json
import re
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path

from authz.core.attributes import Json, read_field
from authz.demo.checks.scenario import Scenario
from authz.demo.checks.world import World
from authz.mesh.nouns import Enforce

DECIDED, CHECKED = "authz.decide", "Authorization.Check"
TRACED = "details, egressgateway, ingressgateway, productpage, reviews"
"""Not ratings: one version of reviews does without them."""
_Facts = dict[str, Json]


def findings(*, enforce: Enforce = Enforce.CHECK) -> Iterator[Scenario]:
    """Yield the scenarios of records, traces and explanations, in the order of the table."""
    name = "one trace joins spans, access logs and records of every hop"
    yield Scenario("Traces", name, TRACED, _one_trace if enforce is Enforce.CHECK else _one_native_trace)
    yield Scenario("Traces", "a client that does not sample is not traced, but recorded", "a record", _unsampled)
    group = "A 403 explained by `authz audit show ID`"
    yield Scenario(
        group, "no token", "istio-system/allow-readers/0: from[0].source.requestPrincipals: got no value", _no_token
    )
    yield Scenario(group, "Alice at /admin", "istio-system/allow-moderators/0: when[0]: got `reader`", _reader_at_admin)
    yield Scenario(group, "/internal", "istio-system/deny-internal/0", _denied)


async def _one_trace(world: World) -> str:
    """Names the workloads whose whole part in the request is found under its trace id."""
    trace_id = secrets.token_hex(16)
    await world.visit("/productpage", "alice", headers=[("traceparent", f"00-{trace_id}-{secrets.token_hex(8)}-01")])
    complete: set[str] = set()

    async def look() -> bool | None:
        complete.update(
            await asyncio.to_thread(joined, world.layout.state / "logs", trace_id, world.audit_logs(), world.spans)
        )
        return complete >= set(TRACED.split(", ")) or None

    await world.until(look)
    return ", ".join(sorted(complete - {"ratings"}))


def joined(logs: Path, trace_id: str, audit: list[Path], spans_file: Path) -> set[str]:
    """
    Return the workloads whose spans, access log and record agree about a trace, without their versions.

    A proxy's span of the request; its span of the check, which is a child of it; below that the span of the decision,
    whose id the record has; and a line of the access log with the decision's id.
    """
    spans = _lines(spans_file, trace_id)
    by_id = {str(span["span_id"]): span for span in spans}
    records = {str(record["span_id"]): record for path in audit for record in _lines(path, trace_id)}
    found = set()
    for span in spans:
        check = by_id.get(str(span["parent_id"]), {})
        request = by_id.get(str(check.get("parent_id")), {})
        record = records.get(str(span["span_id"]), {})
        workload = str(read_field(record, "destination", "workload"))
        services = {str(part.get("service")).partition(".")[0] for part in (check, request)}
        if span["name"] != DECIDED or CHECKED not in str(check.get("name")) or services != {workload}:
            continue
        if any(line["decision_id"] == record["decision_id"] for line in _lines(logs / f"{workload}.json", trace_id)):
            found.add(re.sub(r"-v\d+$", "", workload))
    return found


async def _one_native_trace(world: World) -> str:
    """Names the workloads whose proxies' spans and records agree; where Envoy decides there is no span of a check."""
    trace_id = secrets.token_hex(16)
    await world.visit("/productpage", "alice", headers=[("traceparent", f"00-{trace_id}-{secrets.token_hex(8)}-01")])
    complete: set[str] = set()

    async def look() -> bool | None:
        spans = await asyncio.to_thread(_lines, world.spans, trace_id)
        records = [line for path in world.audit_logs() for line in await asyncio.to_thread(_lines, path, trace_id)]
        spanned = {str(span.get("service")).partition(".")[0] for span in spans}
        recorded = {str(read_field(record, "destination", "workload")) for record in records}
        complete.update(re.sub(r"-v\d+$", "", name) for name in spanned & recorded)
        return complete >= set(TRACED.split(", ")) or None

    await world.until(look)
    return ", ".join(sorted(complete - {"ratings"}))


def _lines(path: Path, trace_id: str) -> list[_Facts]:
    """Objects of a file of JSON lines that belong to a trace; a line being written is left for later."""
    if not path.exists():
        return []
    *lines, _ = path.read_bytes().split(b"\n")
    return [
        found for line in lines if trace_id.encode() in line and (found := json.loads(line))["trace_id"] == trace_id
    ]


async def _unsampled(world: World) -> str:
    """XA-173: the client's flag is respected, and the record is still kept."""
    trace_id = secrets.token_hex(16)
    await world.visit("/", headers=[("traceparent", f"00-{trace_id}-{secrets.token_hex(8)}-00")])
    record = await world.find(lambda found: found.get("trace_id") == trace_id)
    spans = await asyncio.to_thread(_lines, world.spans, trace_id)
    return f"{'a record' if record else 'no record'}{f' and {len(spans)} spans' if spans else ''}"


async def _explained(world: World, path: str, token: str = "") -> str:
    """Run the one command that a newcomer reads, given nothing but the id of the refusal."""
    reply = await world.visit(path, token)
    await world.outcome(reply)  # waits for the record
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "authz", "audit", "show", reply.decision_id, "--log", str(world.audit_log)),
        stdout=asyncio.subprocess.PIPE,
    )
    told = (await process.communicate())[0].decode()
    return told if process.returncode == 0 else f"exit code {process.returncode}"


async def _nearest(world: World, path: str, token: str = "") -> str:
    told = await _explained(world, path, token)
    rule = re.search(r"nearest miss: (\S+)", told)
    field = re.search(r"\n    (\S+) \(.*, (got [^:\n]*)", told)
    return f"{rule[1]}: {field[1]}: {field[2]}" if rule and field else told


async def _no_token(world: World) -> str:
    return await _nearest(world, "/productpage")


async def _reader_at_admin(world: World) -> str:
    return await _nearest(world, "/admin", "alice")


async def _denied(world: World) -> str:
    told = await _explained(world, "/internal", "bob")
    return re.sub(r".*DENY rule (\S+) matched.*", r"\1", told.splitlines()[0])
