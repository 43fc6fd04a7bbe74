"""
Speed of ``authz replay`` beside the road of ``authz check`` with the same records: ``python -m benchmarks.replay``.

Both read the same file in one process and on one core, in turns: the machine may be anybody's, so the ratio counts. The
trail is Bookinfo's, with its policies: most requests are like others, a share have an id in their path of their own.
Each side says for how many records the answer stays; for some the record lacks a claim, which ``check`` is told here.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from authz.analysis.offline.request import OfflineRequest, OfflineWorkload, passed_through, to_attributes
from authz.analysis.replay.recorded_request import identity_of
from authz.analysis.replay.replay import Replay, ReplayOutcome
from authz.audit.query import RecordFilter, find
from authz.audit.writer import RecordWriter
from authz.cli.policy_files import Loaded, load, read_workloads
from authz.core.attributes import (
    NOT_AUTHENTICATED,
    AttributeContext,
    Authentication,
    AuthenticationOutcome,
    Token,
    Workload,
)
from authz.core.decided import Offer
from authz.core.explain import explain
from authz.core.pipeline import decide
from authz.core.providers import ProviderAnswer, ProviderQuestion

ROOT = Path(__file__).parents[1]
MESH = str(ROOT / "envoy-configs" / "mesh.yaml")
PATHS = ("/productpage", "/reviews/0", "/details/0", "/ratings/0", "/", "/static/site.css", "/admin", "/orders")
AGENTS = ("curl/8", "Mozilla/5.0", "Go-http-client/1.1")


def allowing(question: ProviderQuestion) -> ProviderAnswer:
    """Every provider lets every request go on."""
    return ProviderAnswer(allowed=True)


def requests(loaded: Loaded, number: int, unique: float) -> Iterator[AttributeContext]:
    """Requests between the workloads of the mesh; ``unique`` is the share that have an id of their own."""
    chance = random.Random(7)  # noqa: S311  # the same trail each time
    mesh = read_workloads(MESH)
    issuer = "http://127.0.0.1:19191"
    for at in range(number):
        to, caller = chance.choice(mesh.workloads), chance.choice(mesh.workloads)
        path = f"/ratings/{at}?page=2" if chance.random() < unique else chance.choice(PATHS)
        request = OfflineRequest(
            source_principal=str(caller.spiffe_id) if not to.is_gateway else "",
            source_ip=f"10.{chance.randrange(256)}.{chance.randrange(256)}.9",
            method=chance.choice(("GET", "GET", "GET", "POST", "DELETE")),
            host=f"{to.name}:9080",
            path=path,
            headers=(("user-agent", chance.choice(AGENTS)),),
        )
        attributes = to_attributes(request, OfflineWorkload(to.workload, 9080), loaded.mesh, gateway=to.is_gateway)
        if to.is_gateway and chance.random() < 0.7:
            subject = f"user-{chance.randrange(2000)}"
            claims: dict[str, Any] = {"iss": issuer, "sub": subject, "roles": ["reader"]}
            token = Token(claims, issuer, subject, "k1", "0" * 8, None, "istio-system/demo-issuer/0")
            attributes = replace(attributes, authentication=Authentication(AuthenticationOutcome.ACCEPTED, token))
        yield attributes


def write_trail(file: Path, loaded: Loaded, number: int, unique: float) -> None:
    """Decide every request and record it, as the service does."""
    writer = RecordWriter()
    with file.open("w") as opened:
        for at, attributes in enumerate(requests(loaded, number, unique)):
            policies = loaded.engine.for_workload(attributes.destination.workload)
            judged = attributes.authentication
            seen, decision = decide(policies, attributes, lambda attributes, rules: judged, allowing)  # noqa: B023  # called at once
            line = writer.write(Offer(seen, decision, f"d-{at}", 1.7e9 + at / 1000, 5e-5))
            opened.write(
                line.replace(loaded.engine.version, "000000000000") + "\n"
            )  # by other policies, for all we say


def replayed(file: Path, loaded: Loaded) -> tuple[int, int]:
    """Answer (records, of which the answer stays) by the product's replay."""
    replay = Replay(lambda version: loaded.engine)
    replay.take_all(found.record for found in find([file], RecordFilter()))
    report = replay.report()
    return report.records, report.count(ReplayOutcome.SAME, ReplayOutcome.OTHER_RULE)


def checked(file: Path, loaded: Loaded) -> tuple[int, int]:
    """The same by the steps of ``authz check``, one record after another, with the policies loaded once."""
    records = same = 0
    for found in find([file], RecordFilter()):
        record: Any = found.record
        source, destination, http, token = record["source"], record["destination"], record["request"], record["token"]
        request = OfflineRequest(
            source_principal=identity_of(source["principal"]),
            source_ip=source["ip"],
            destination_ip=destination["ip"],
            destination_port=destination["port"],
            method=http["method"],
            host=http["host"],
            path=http["path"],
            headers=(("user-agent", http["user_agent"]),),
        )
        labels = frozenset(destination["labels"].items())
        target = OfflineWorkload(
            Workload(destination["namespace"], labels, destination["service_account"], destination["workload"])
        )
        before = to_attributes(request, target, loaded.mesh, gateway=destination["gateway"])
        policies = loaded.engine.for_workload(target.workload)
        before = passed_through(request, before, policies)
        judged = NOT_AUTHENTICATED
        if token is not None:
            claims = {"iss": token["issuer"], "sub": token["subject"], "roles": ["reader"]}
            judged = Authentication(AuthenticationOutcome.ACCEPTED, Token(claims, token["issuer"], token["subject"]))
        told = explain(policies, before, lambda attributes, rules: judged, allowing, every_rule=False)  # noqa: B023  # called at once
        records += 1
        same += told.decision.effect.value == record["effect"]
    return records, same


def timed(run: Callable[[], tuple[int, int]]) -> tuple[float, tuple[int, int]]:
    """CPU seconds of one run, and its answer."""
    begun = time.process_time()
    answer = run()
    return time.process_time() - begun, answer


def main() -> int:
    """Measure in turns; prints one JSON object."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    loaded = load([str(ROOT / "policies")], MESH)
    shown: dict[str, Any] = {}
    for name, unique in (("mostly alike", 0.05), ("every second path its own", 0.5)):
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "audit.jsonl")
            write_trail(file, loaded, options.records, unique)
            rounds = [
                (timed(lambda: replayed(file, loaded)), timed(lambda: checked(file, loaded)))  # noqa: B023  # called at once
                for _ in range(options.rounds)
            ]
            fast, slow = min(one[0][0] for one in rounds), min(one[1][0] for one in rounds)
            shown[name] = {
                "replay_records_per_second": round(options.records / fast),
                "check_records_per_second": round(options.records / slow),
                "ratio": round(slow / fast, 1),
                "same": {"replay": rounds[0][0][1][1], "check": rounds[0][1][1][1]},
            }
    print(json.dumps(shown, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
