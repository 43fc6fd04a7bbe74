"""A door that is open: everything real but the policies, which are a text."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from authz.service.check_function import CheckFunction
from authz.service.doors.door_app import DoorApp
from authz.service.doors.open_doors import OpenDoors
from authz.service.ids import DecisionIds
from authz.service.loading.snapshot import load_snapshot
from authz.service.streams import JudgeCaller
from authz.settings.http_doors import HttpDoor
from authz.settings.precedence import read_settings
from authz.settings.sections import Sections
from tests.service.recording import Recorder
from tests.service.running import refuse

WORKLOAD: dict[str, Any] = {"namespace": "shop", "labels": {"app": "api"}}
WHOLE: dict[str, Any] = {**WORKLOAD, "gateway": True, "all_headers": True}
"""As a proxy at the edge is configured that passes on every header."""


@dataclass(frozen=True)
class Open:
    """``address`` is that of the door; ``client`` asks there."""

    address: str
    client: httpx.AsyncClient
    records: Recorder

    @property
    def why(self) -> str:
        """The reason of the last decision."""
        return self.records.entries[-1].decision.reason


def checking(policies: str, folder: Path, mesh: str = "") -> tuple[CheckFunction, Recorder]:
    """The check function with policies in force."""
    (folder / "door-policies.yaml").write_text(policies)
    (folder / "door-mesh.yaml").write_text(mesh or "trustDomain: cluster.local\n")
    records = Recorder()
    function = CheckFunction(records, DecisionIds(time.time(), b"abc"))
    function.replace(load_snapshot(folder / "door-policies.yaml", folder / "door-mesh.yaml", 0.0))
    return function, records


@asynccontextmanager
async def asked(policies: str, folder: Path, kind: str, *, mesh: str = "", **door: Any) -> AsyncIterator[Open]:
    """A door without a port: for what does not depend on how bytes come in, in a tenth of the time."""
    function, records = checking(policies, folder, mesh)
    app = DoorApp(HttpDoor(listen="unix:door", kind=kind, **door), function, refuse, time.time, None, 1 << 20)  # type: ignore[arg-type]  # the model checks the kind
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://door") as client:
        yield Open("", client, records)


@asynccontextmanager
async def opened(
    policies: str,
    folder: Path,
    kind: str,
    *,
    listen: str = "",
    mesh: str = "",
    judge_caller: JudgeCaller | None = None,
    settings: dict[str, Any] | None = None,
    verify: Any = True,
    **door: Any,
) -> AsyncIterator[Open]:
    """Open a door of a kind; a Unix socket in the folder unless ``listen`` says otherwise."""
    function, records = checking(policies, folder, mesh)
    listen = listen or f"unix:{folder}/door.sock"
    told = read_settings({"http_doors": [{"listen": listen, "kind": kind, **door}], **(settings or {})}, environment={})
    doors = OpenDoors(Sections.of(told), function, refuse, judge_caller, time.time)
    lines: list[str] = []
    try:
        await doors.start(lines.append)
        address = lines[0].rpartition(" ")[2]
        socket = address.removeprefix("unix:") if address.startswith("unix:") else None
        scheme = "https" if told.tls_certificate else "http"
        transport = httpx.AsyncHTTPTransport(uds=socket, verify=verify)
        base = "http://door" if socket else f"{scheme}://{address}"
        async with httpx.AsyncClient(transport=transport, base_url=base) as client:
            yield Open(address, client, records)
    finally:
        await doors.stop()
