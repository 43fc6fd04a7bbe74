"""Every field of Istio's kinds is done or refused with a reason, and the documentation says which."""

import json
from pathlib import Path

import pytest

from authz.mesh.kinds import READERS
from authz.mesh.telemetry_fields import TELEMETRY_FIELDS
from authz.mesh.value_parts import ISTIO_API
from tests.mesh.istio_fields import KINDS, SOURCE, fields_of, table

LISTS = ("istio_fields.json", "istio_traffic_entries.json", "istio_virtual_service_fields.json")
PAGE = Path(__file__).parents[2] / "docs" / "mesh-fields.md"
BEGIN, END = "<!-- fields: written by `python tests/test_docs.py` -->\n", "<!-- end of fields -->\n"


@pytest.mark.parametrize("kind", KINDS)
def test_no_field_of_istios_is_taken_for_a_misspelt_one(kind: str) -> None:
    assert [one.path for one in fields_of(kind) if one.is_unknown] == []


def test_the_documentation_says_what_the_readers_say() -> None:
    text = PAGE.read_text()
    assert text[text.index(BEGIN) + len(BEGIN) : text.index(END)] == table(), "run `python tests/test_docs.py`"
    assert SOURCE in text


@pytest.mark.parametrize("name", [*LISTS, "istio_api_fields.json"])
def test_every_list_of_fields_is_of_the_version_that_is_said(name: str) -> None:
    head, _, _ = (Path(__file__).parent / name).read_text().partition('"messages"')
    assert ISTIO_API in (head if name != "istio_api_fields.json" else SOURCE)


def test_every_kind_that_is_read_is_listed() -> None:
    assert set(READERS) - {"BackendTrafficPolicy"} <= set(KINDS), "that one is Envoy Gateway's"


def test_a_name_that_istio_does_not_have_is_taken_for_a_misspelt_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the test above would prove nothing."""
    made = [{"path": "tracing[]", "type": "a.Message"}, {"path": "tracing[].nonsense", "type": "string"}]
    monkeypatch.setitem(KINDS, "Telemetry", made)
    assert [one.is_unknown for one in fields_of("Telemetry")] == [False, True]


def test_the_table_of_telemetry_is_istios() -> None:
    """Message by message: the names below every field that has any."""
    listed = json.loads((Path(__file__).parent / "istio_api_fields.json").read_text())["kinds"]["Telemetry"]
    types = {"": "Telemetry", **{one["path"]: one["type"].rpartition(".")[2] for one in listed}}
    messages: dict[str, set[str]] = {}
    for one in listed:
        parent, _, name = one["path"].rpartition(".")
        messages.setdefault(types[parent], set()).add(name.rstrip("[]{}"))
    assert messages == {message: set(fields) for message, fields in TELEMETRY_FIELDS.items()}
