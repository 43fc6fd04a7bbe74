"""A description that is read again is what it would be read for the first time."""

from random import Random

import pytest

from authz.envoy.options import RenderOptions
from authz.envoy.render import permissive
from authz.envoy.rendering import Rendering
from authz.mesh.description import DescriptionReader, read_mesh_description
from tests.mesh.test_description import BOOKINFO

OPTIONS = RenderOptions()
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
        anew = read_mesh_description(files)
        for _ in range(2):
            assert reader.read(files) == anew
        text = edited(random, text) if random.random() < 0.8 else TEXT


ROUTES = """apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: {name}, namespace: bookinfo}}
spec:
  hosts: [{host}]
  gateways: [{gateway}]
  http:
    - match: [{{uri: {{{first}}}}}]
      route: [{{destination: {{host: {target}, subset: {subset}}}}}]
    - match: [{{uri: {{exact: /b/c}}}}, {{uri: {{exact: /d}}}}]
      route: [{{destination: {{host: {target}{port}}}}}]
"""
SUBSETS = """apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: reviews, namespace: bookinfo}}
spec:
  host: reviews.bookinfo.svc.cluster.local
  trafficPolicy: {{loadBalancer: {{consistentHash: {{httpHeaderName: {header}}}}}}}
  subsets: [{{name: v1, labels: {{version: v1}}}}]
"""


def beside(random: Random) -> list[tuple[str, bytes]]:
    """Routes with and without what is wrong: behind others, of two for one host, to what is not there."""
    found = []
    for name in ("one", "two"):
        target = random.choice(("reviews", "details", "nobody"))
        written = ROUTES.format(
            name=name,
            host=random.choice(("new.example.com", "reviews", "other.example.com")),
            gateway=random.choice(("mesh", "istio-system/bookinfo-gateway", "istio-system/none")),
            first=random.choice(("prefix: /", "prefix: /b", "exact: /a")),
            target=f"{target}.bookinfo.svc.cluster.local",
            subset=random.choice(('""', "v1", "v9")),
            port=random.choice(("", ", port: {number: 9080}", ", port: {number: 1}")),
        )
        found.append((f"{name}.yaml", written.encode()))
    rule = SUBSETS.format(header=random.choice(("x-user", "x-other")))
    return found if random.random() < 0.3 else [*found, ("rule.yaml", rule.encode())]


@pytest.mark.parametrize("seed", range(10))
def test_problems_and_files_of_changed_routes_are_those_of_reading_anew(seed: int) -> None:
    random = Random(seed)  # not for secrets
    reader, rendering, text, told = DescriptionReader(), Rendering(), TEXT.replace("mesh.authz/login", "other/login"), 0
    for _ in range(6):
        files = [("mesh.yaml", text.encode()), *beside(random)]
        mesh, problems = reader.read(files)
        anew, wanted = read_mesh_description(files)
        assert (mesh, problems) == (anew, wanted)
        told += len(problems)
        if not any(problem.is_error for problem in problems):
            assert rendering.render(mesh, permissive, OPTIONS) == Rendering().render(anew, permissive, OPTIONS)
        if random.random() < 0.2:
            text = edited(random, text)
    assert told


def test_what_comes_of_an_unchanged_document_is_the_same_noun() -> None:
    reader = DescriptionReader()
    before, _ = reader.read([("mesh.yaml", TEXT.encode())])
    after, _ = reader.read([("mesh.yaml", TEXT.encode() + b"# more\n")])
    assert all(one.labels is other.labels for one, other in zip(before.workloads, after.workloads, strict=True))
