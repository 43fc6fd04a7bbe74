"""Scenarios about records: what was decided can be found again by its id, its request and its marks."""

import re
from collections.abc import Iterator

from authz.core.attributes import read_field
from authz.core.decided import Record
from authz.demo.checks.scenario import Scenario
from authz.demo.checks.world import World

JOINED = "details, ingressgateway, productpage, reviews"
"""Not the egress gateway: like every edge it gives requests an id of its own. Traces join there."""


def records() -> Iterator[Scenario]:
    """Yield the scenarios; they change nothing."""
    group = "Records"
    yield Scenario(group, "two denials have two ids, both in the audit log", "two ids, two records", _two_ids)
    yield Scenario(group, "one request id joins every hop of a page", JOINED, _one_request_id)
    yield Scenario(group, "AUDIT marks moderation and nothing else", "/admin audited, /productpage not", _audit)
    yield Scenario(
        group, "a dry-run DENY is reported, not enforced", "allowed, would deny by bookinfo/deny-scripts/0", _dry_run
    )
    yield Scenario(group, "no token is in any log", "none of them", _no_token_in_logs)


async def _two_ids(world: World) -> str:
    ids = [(await world.visit("/internal")).decision_id for _ in range(2)]
    records = [await world.find(lambda record, wanted=wanted: record.get("decision_id") == wanted) for wanted in ids]  # type: ignore[misc]  # mypy does not infer lambdas with defaults
    distinct, found = len(set(filter(None, ids))), sum(record is not None for record in records)
    return "two ids, two records" if (distinct, found) == (2, 2) else f"{distinct} ids, {found} records"


async def _one_request_id(world: World) -> str:
    """Ratings are left out: only two versions of reviews ask for them."""
    request_id = await _request_id(world)
    names: set[str] = set()

    def collect(record: Record) -> bool:
        if record.get("x_request_id") == request_id:
            names.add(str(read_field(record, "destination", "workload")).partition("-v")[0])
        return names >= set(JOINED.split(", "))

    await world.find(collect)
    return ", ".join(sorted(names - {"ratings"}))


async def _request_id(world: World, agent: str = "check/page") -> str:
    """Ask for the page and read the request id that the gateway gave it."""
    reply = await world.visit("/productpage", "alice", headers=[("user-agent", agent)])
    found = re.search(r"Request <code>([^<]+)</code>", reply.body)
    return found[1] if found else ""


async def _audit(world: World) -> str:
    marks = []
    for path, token in (("/admin", "bob"), ("/productpage", "bob")):
        agent = f"check/audit{path}"
        await world.visit(path, token, headers=[("user-agent", agent)])
        record = await world.find(
            lambda record, agent=agent: (  # type: ignore[misc]  # mypy does not infer lambdas with defaults
                read_field(record, "request", "user_agent") == agent
                and read_field(record, "destination", "workload") == "ingressgateway"
            )
        )
        marks.append(f"{path} {'audited' if record and record.get('audit') else 'not'}")
    return ", ".join(marks)


async def _dry_run(world: World) -> str:
    request_id = await _request_id(world, "curl/8.0 (check)")
    record = await world.find(
        lambda record: (
            record.get("x_request_id") == request_id and read_field(record, "destination", "workload") == "details-v1"
        )
    )
    if record is None:
        return "no record"
    effect = "allowed" if record.get("effect") == "allow" else "denied"
    return f"{effect}, would {'deny' if record.get('would_deny') else 'allow'} by {record.get('by')}"


async def _no_token_in_logs(world: World) -> str:
    places = [
        name async for name, content in world.logs() if any(secret.encode() in content for secret in world.secrets)
    ]
    return ", ".join(places) or "none of them"
