"""
What the readers of a mesh description say of every field of Istio's kinds.

``istio_api_fields.json`` lists the fields, with the version of Istio's API and how the list was made. Each is put into
a document of its own and read: what the reader says that it does not say of the field around it, it says of this one.
``docs/mesh-fields.md`` is written from that, so it cannot say more than the readers do.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from authz.core.errors import Problem
from authz.mesh.description import read_mesh_description

_LISTED = json.loads((Path(__file__).parent / "istio_api_fields.json").read_text())
SOURCE: str = _LISTED["source"]
KINDS: dict[str, list[dict[str, Any]]] = dict(sorted(_LISTED["kinds"].items()))
GROUPS = {"Telemetry": "telemetry.istio.io/v1", "WasmPlugin": "extensions.istio.io/v1alpha1"}
"""Of all others it is ``networking.istio.io/v1``."""
PLAUSIBLE = {
    "protocol": "HTTP",
    "bind": "127.0.0.1",
    "address": "127.0.0.1",
    "defaultEndpoint": "127.0.0.1:8080",
    "url": "file:///plugin.wasm",
    "cidr": "10.0.0.0/8",
}
"""Texts that a field takes, by its name; of others ``x`` is as good as any."""
BESIDE: dict[tuple[str, str], dict[str, Any]] = {
    ("Telemetry", "targetRef.kind"): {"kind": "Gateway", "group": "gateway.networking.k8s.io"},
    ("Telemetry", "targetRefs[].kind"): {"kind": "Gateway", "group": "gateway.networking.k8s.io"},
}
"""What a field needs beside it, by its kind and path, to be what it is."""
AROUND = {("ServiceEntry", "workloadSelector"): {"location": "MESH_INTERNAL"}}
"""What `spec` needs for a field, and those below it, by kind and path."""
OF_TYPES: dict[str, list[Any]] = {
    "string": ["x"],
    "bool": [True, False],
    "google.protobuf.BoolValue": [True, False],
    "google.protobuf.Duration": ["1s"],
    "google.protobuf.StringValue": ["x"],
    "google.protobuf.Timestamp": ["2030-01-01T00:00:00Z"],
    "bytes": ["eA=="],
}
"""Values of each type; numbers are 1, messages are empty."""


@dataclass(frozen=True)
class Field:
    """A field by its path below ``spec``, and what the reader says of it."""

    kind: str
    path: str
    is_unknown: bool = False
    """Refused as a misspelt name would be (ME-2)."""
    refused: str = ""
    """Why it is not done (ME-6); empty: it is done."""
    values: tuple[str, ...] = ()
    """The values of which that is so; empty: whatever it says."""


def _values(field: dict[str, Any]) -> list[Any]:
    if "values" in field:
        return list(field["values"])
    kind, name = field["type"], re.sub(r"\W", "", field["path"].rpartition(".")[2])
    if kind == "string":
        return [PLAUSIBLE.get(name, "x")]
    if kind in OF_TYPES:
        return OF_TYPES[kind]
    return [{}] if "." in kind and not kind.endswith("Value") else [1]


def _document(kind: str, path: str, value: Any) -> dict[str, Any]:
    inner = value
    for index, step in enumerate(reversed(path.split("."))):
        name = step.rstrip("[]{}")
        inner = {name: [inner] if step.endswith("[]") else {"x": inner} if step.endswith("{}") else inner}
        if index == 0:
            inner |= BESIDE.get((kind, path), {})
    for (other, begin), beside in AROUND.items():
        if kind == other and path.startswith(begin):
            inner |= beside
    metadata = {"name": "probe", "namespace": "default"}
    return {"apiVersion": GROUPS.get(kind, "networking.istio.io/v1"), "kind": kind, "metadata": metadata, "spec": inner}


def _read(kind: str, path: str = "", value: Any = None) -> tuple[Problem, ...]:
    document = _document(kind, path, value) if path else {**_document(kind, "x", 1), "spec": {}}
    return read_mesh_description([("probe.yaml", json.dumps(document).encode())])[1]


def _refusal(path: str, problems: tuple[Problem, ...], around: set[str]) -> Problem | None:
    """
    What says that a field is not done; None where nothing does.

    That is what is said at its place, or at one that holds it, and is not said without it.
    """
    place = "spec." + path.replace("[]", "[0]").replace("{}", ".x")
    refusals = (one for one in problems if one.code == "ME-6" and one.message not in around)
    return next((one for one in refusals if place.startswith(one.path)), None)


def _reason(refusal: Problem) -> str:
    return f"{refusal.message}; {refusal.help}" if refusal.help else refusal.message


def fields_of(kind: str) -> Iterator[Field]:
    """Every field; of one that the reader does not know, or refuses whatever is in it, not those below it."""
    whole = next((one.message for one in _read(kind) if one.code == "ME-6" and one.path == "kind"), "")
    if whole:
        yield Field(kind, "", refused=whole)
        return
    said: dict[str, set[str]] = {"": {one.message for one in _read(kind)}}
    unknown: tuple[str, ...] = ()
    closed: dict[str, str] = {}
    for field in KINDS[kind]:
        path: str = field["path"]
        parent, _, name = path.rpartition(".")
        if unknown and path.startswith(unknown):
            continue
        probes = {_written(value): _read(kind, path, value) for value in _values(field)}
        said[path] = {one.message for one in _all(probes)}
        told = {value: _refusal(path, problems, said[parent]) for value, problems in probes.items()}
        refusals = {value: one for value, one in told.items() if one is not None}
        misspelt = f"unknown field `{name.rstrip('[]{}')}`"
        is_unknown = any(one.code == "ME-2" and misspelt in one.message for one in _all(probes))
        if is_unknown:
            unknown = (*unknown, f"{path}.")
        partly = tuple(refusals) if len(refusals) < len(probes) else ()
        around = any(path.startswith(f"{one}.") and message in said[path] for one, message in closed.items())
        first = next(iter(refusals.values()), None)
        if first is not None and not partly:
            closed[path] = first.message
        if not around:  # else the field that holds it is refused with or without it
            yield Field(kind, path, is_unknown, _reason(first) if first else "", partly)


def _all(probes: dict[str, tuple[Problem, ...]]) -> Iterator[Problem]:
    return (one for problems in probes.values() for one in problems)


def _written(value: Any) -> str:
    return json.dumps(value).strip('"')


def table() -> str:
    """What is not done, kind by kind, in Markdown; a kind without a row is done in every field."""
    rows = ["| kind | field | why it is not done |", "|---|---|---|"]
    for kind in KINDS:
        found = list(fields_of(kind))
        unknown = sum(one.is_unknown for one in found)
        if unknown:
            rows.append(
                f"| {kind} | {unknown} of its fields | not known to the reader, which refuses them with `ME-2` |"
            )
        refused = [one for one in found if one.refused and not one.is_unknown]
        rows += [f"| {kind} | {_shown(same)} | {_cell(same[0].refused)} |" for same in _alike(refused)]
        if not unknown and not refused:
            rows.append(f"| {kind} | – | every field is done |")
    return "\n".join(rows) + "\n"


def _alike(fields: list[Field]) -> list[list[Field]]:
    """Fields of one name, refused for one reason: those of a message that stands in several places, shortest first."""
    found: dict[tuple[str, ...], list[Field]] = {}
    for one in fields:
        found.setdefault((one.path.rpartition(".")[2], one.refused, *one.values), []).append(one)
    return [sorted(same, key=lambda one: len(one.path)) for same in found.values()]


def _shown(same: list[Field]) -> str:
    field = same[0]
    if not field.path:
        return "the whole kind"
    values = ", ".join(f"`{value}`" for value in field.values)
    others = (
        ("", " and in one other place")[len(same) - 1] if len(same) < 3 else f" and in {len(same) - 1} other places"
    )
    return f"`{field.path}`{others}" + (f" as {values}" if values else "")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
