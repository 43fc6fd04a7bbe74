"""Metadata and status are typed as Go's structs are; the answers are those of istiod's webhook and CRDs, 2026-08."""

import pytest

from authz.policy.reader import read_policies


def errors(metadata: str, status: str = "null") -> list[str]:
    text = f"apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {metadata}\nstatus: {status}\n"
    return [p.message for p in read_policies([("f.yaml", text.encode())]).problems if p.is_error]


REFUSED = [
    "generateName: 5", "generateName: {}", "uid: 5", "resourceVersion: 5", "selfLink: 1", "clusterName: 1",
    "generation: '1'", "generation: 1.5", "generation: {}", "deletionGracePeriodSeconds: 1.5", "finalizers: a",
    "finalizers: [1]", "ownerReferences: {}", "ownerReferences: [a]", "ownerReferences: [{controller: 'true'}]",
    "ownerReferences: [{uid: 5}]", "managedFields: a", "managedFields: {}", "managedFields: [{manager: 1}]",
    "managedFields: [{time: x}]", "deletionTimestamp: 1", "deletionTimestamp: {}", "creationTimestamp: 1",
]  # fmt: skip


@pytest.mark.parametrize("member", REFUSED)
def test_metadata_that_go_cannot_hold_is_refused(member: str) -> None:
    assert len(errors(f"{{name: p, {member}}}")) == 1


TAKEN = [
    "generateName: a-", "generation: 1", "generation: 1.0", "generation: 0x1F", "generation: -1", "finalizers: []",
    "finalizers: [null]", "ownerReferences: [{}]", "ownerReferences: [{controller: true, other: 1}]",
    "managedFields: [{fieldsV1: {}, time: 2024-01-01T00:00:00Z}]", "uid: null", "managedFields: null",
]  # fmt: skip


@pytest.mark.parametrize("member", TAKEN)
def test_metadata_that_go_can_hold_is_taken(member: str) -> None:
    assert errors(f"{{name: p, {member}}}") == []


@pytest.mark.parametrize("member", ["labels: {a: null}", "labels: {a: }", "annotations: {x: null, b: c}"])
def test_a_null_among_labels_is_an_empty_text(member: str) -> None:
    assert errors(f"{{name: p, {member}}}") == []


def test_a_null_where_a_text_means_something_is_refused() -> None:
    assert errors("{name: p, annotations: {istio.io/dry-run: null}}")[0] == "expected a string, got null"


@pytest.mark.parametrize("namespace", ["''", '""', "null"])
def test_an_empty_namespace_is_none(namespace: str) -> None:
    text = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n"
    text += f"metadata: {{name: p, namespace: {namespace}}}\n"
    result = read_policies([("f.yaml", text.encode())])
    assert not result.has_errors
    assert [item.metadata.namespace for item in result.read.peer_authentications] == ["default"]


TIMES = {
    "2024-01-01T00:00:00Z": "2024-01-01T00:00:00Z",
    "2024-01-01T02:00:00+02:00": "2024-01-01T00:00:00Z",
    "2023-12-31T22:30:00-01:30": "2024-01-01T00:00:00Z",
    "2024-01-01T00:00:00.999Z": "2024-01-01T00:00:00Z",
    "2024-01-01T0:00:00Z": "2024-01-01T00:00:00Z",
    "2024-02-29T00:00:00Z": "2024-02-29T00:00:00Z",
}


@pytest.mark.parametrize(("written", "read"), TIMES.items())
def test_a_creation_time_is_read_as_utc(written: str, read: str) -> None:
    metadata = f"{{name: p, creationTimestamp: {written}}}"
    text = f"apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {metadata}\n"
    (peer,) = read_policies([("f.yaml", text.encode())]).resources.peer_authentications
    assert peer.metadata.creation_timestamp == read


NO_TIMES = [
    "yesterday", "''", "2024-01-01", "2024-01-01 00:00:00Z", "2024-01-01t00:00:00z", "2024-01-01T24:00:00Z",
    "2024-01-01T00:00:60Z", "2024-02-30T00:00:00Z", "2024-13-01T00:00:00Z", "2023-02-29T00:00:00Z",
    "2024-01-01T00:00:00+25:00", "2024-01-01T00:00:00", "10000-01-01T00:00:00Z", "<<",
]  # fmt: skip


@pytest.mark.parametrize("written", NO_TIMES)
def test_what_is_no_time_is_refused(written: str) -> None:
    assert len(errors(f"{{name: p, creationTimestamp: {written}}}")) == 1


STATUSES = [
    ("x", False), ("1", False), ("[]", False), ("true", False), ("{conditions: 1}", False),
    ("{conditions: [1]}", False), ("{validationMessages: x}", False),
    ("{validationMessages: [{level: LOW}]}", False), ("{observedGeneration: []}", False),
    ("{}", True), ("null", True), ("{other: [1]}", True), ("{conditions: [{type: a, status: 'True'}]}", True),
    ("{observedGeneration: '1'}", True), ("{observedGeneration: 1}", True),
]  # fmt: skip


@pytest.mark.parametrize(("status", "is_taken"), STATUSES)
def test_a_status_is_an_object_of_the_crds_types(status: str, is_taken: bool) -> None:
    assert (errors("{name: p}", status) == []) is is_taken
