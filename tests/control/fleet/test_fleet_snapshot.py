"""What becomes of a proxy's world when some of its files are other than before: what a world made anew would be."""

import json

import pytest

from authz.control.discovery.discovered import CLUSTER_TYPE, EXTENSION_TYPE, ProxyWorld
from authz.control.fleet.fleet_snapshot import FleetSnapshot
from authz.core.spiffe import SpiffeId
from authz.mesh.nouns import MeshWorkload

WEB = MeshWorkload("web", "shop", "web", SpiffeId.parse("spiffe://mesh.test/ns/shop/sa/web"), {}, "10.0.0.1", "")
ONE, TWO = "ecds/web/one.yaml", "ecds/web/two.yaml"


def file(*resources: dict[str, object]) -> bytes:
    return json.dumps({"resources": resources}).encode()


def cluster(name: str) -> dict[str, object]:
    sources = [{"path_config_source": {"path": path}} for path in (ONE, TWO)]
    filters = [{"name": "any", "config_discovery": {"config_source": source}} for source in sources]
    return {"@type": CLUSTER_TYPE, "name": name, "filters": filters}


def filter_of(name: str, text: str) -> dict[str, object]:
    config = {"@type": "type.googleapis.com/google.protobuf.StringValue", "value": text}
    return {"@type": EXTENSION_TYPE, "name": name, "typed_config": config}


BOTH = {text: file(filter_of("one", text), filter_of("more", text)) for text in "abcde"}
FILES = {
    "cds/web.yaml": file(cluster("out"), cluster("in")),
    ONE: BOTH["a"],
    TWO: file(filter_of("two", "a")),
}


def shown(world: ProxyWorld) -> dict[str, dict[str, bytes]]:
    return {url: {name: one.packed for name, one in types.items()} for url, types in world.items()}


@pytest.mark.parametrize(
    "changed",
    [
        {ONE: BOTH["b"]},
        {ONE: file(filter_of("one", "b"), filter_of("more", "a")), TWO: file(filter_of("two", "b"))},
        {ONE: file(filter_of("more", "b"), filter_of("one", "a"))},
        {ONE: file(filter_of("one", "b"))},
        {ONE: file(filter_of("one", "a"), filter_of("more", "a"), filter_of("third", "a"))},
        {ONE: file(filter_of("two", "b"), filter_of("more", "b"))},
        {ONE: file(filter_of("one", "a"), cluster("more"))},
        {TWO: FILES[ONE]},
        dict.fromkeys((ONE, TWO), BOTH["b"]),
    ],
    ids=[
        "both",
        "two files",
        "another order",
        "one less",
        "one more",
        "the name of another",
        "another type",
        "twice",
        "shared",
    ],
)
def test_a_world_of_which_files_changed_is_as_one_made_anew(changed: dict[str, bytes]) -> None:
    served = FleetSnapshot()
    before = served.make([WEB], FILES)["web"].world
    files = FILES
    for step in (changed, {TWO: BOTH["c"]}, {ONE: BOTH["d"]}, {ONE: BOTH["e"]}, FILES, {ONE: FILES[TWO]} | changed):
        new = {content: bytes(bytearray(content)) for content in step.values()}  # one object for equal files
        files = files | {name: new[content] for name, content in step.items()}
        made = served.make([WEB], files, [WEB])["web"].world
        assert shown(made) == shown(FleetSnapshot().make([WEB], files)["web"].world)
    assert EXTENSION_TYPE in before


def test_types_of_which_nothing_changed_are_the_very_objects_of_before() -> None:
    served = FleetSnapshot()
    before = served.make([WEB], FILES)["web"]
    made = served.make([WEB], FILES | {TWO: file(filter_of("two", "b"))}, [WEB])["web"]
    assert made is not before
    assert made.world[CLUSTER_TYPE] is before.world[CLUSTER_TYPE]
    assert made.world[EXTENSION_TYPE]["one"] is before.world[EXTENSION_TYPE]["one"]
    assert made.world[EXTENSION_TYPE]["two"] != before.world[EXTENSION_TYPE]["two"]
    again = served.make([WEB], FILES | {TWO: file(filter_of("two", "b"))}, [WEB])["web"]
    assert again.world[EXTENSION_TYPE] is made.world[EXTENSION_TYPE]
