"""A description that is read again is what it would be read for the first time."""

from random import Random

import pytest

from authz.mesh.description import DescriptionReader, read_mesh_description
from tests.mesh.test_description import BOOKINFO

TEXT = BOOKINFO.read_text()
EDITS = (
    ("version: v1", "version: v4"),
    ("number: 9080", "number: 9081"),
    ("app: reviews", "app: nobody"),
    ("trustDomain: cluster.local", "trustDomain: other.example"),
    ("kind: Sidecar", "kind: Sidecars"),
    ("    defaultEndpoint", "    defaultEndpoints"),
    ('hosts: ["*"]', 'hosts: [&a "*"]'),
    ("---\n", "---\n# a comment\n"),
    ("---\n", "\n"),
    ("spec:", "spec: ["),
    ("data:\n", "data: {}\n---\n"),
)


def edited(random: Random, text: str) -> str:
    old, new = random.choice(EDITS)
    pieces = text.split(old)
    if len(pieces) == 1:
        return text
    at = random.randrange(1, len(pieces))
    return old.join(pieces[:at]) + new + old.join(pieces[at:])


@pytest.mark.parametrize("seed", range(25))
def test_reading_again_gives_what_reading_anew_gives(seed: int) -> None:
    random = Random(seed)  # not for secrets
    reader = DescriptionReader()
    text = TEXT
    for _ in range(4):
        half = text.find("\n---\n", len(text) // 2) + 1
        files = [("one.yaml", text[:half].encode()), ("two.yaml", text[half:].encode())]
        for _ in range(2):
            assert reader.read(files) == read_mesh_description(files)
        text = edited(random, text) if random.random() < 0.8 else TEXT


def test_what_comes_of_an_unchanged_document_is_the_same_noun() -> None:
    reader = DescriptionReader()
    before, _ = reader.read([("mesh.yaml", TEXT.encode())])
    after, _ = reader.read([("mesh.yaml", TEXT.encode() + b"# more\n")])
    assert all(one.labels is other.labels for one, other in zip(before.workloads, after.workloads, strict=True))
