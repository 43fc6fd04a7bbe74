"""
What it costs to render a large mesh, and to render it again after a change: ``python -m benchmarks.rendering``.

    python -m benchmarks.rendering [--services 1000] [--routes 3] [--other FOLDER] [-o table|json]

Every service has a workload with a sidecar that calls ``--routes`` others, and so many routes at the gateway. Told are
CPU seconds of reading and rendering, the peak of memory, and the part of the whole that a changed route takes: the
median of five changes, and the first of them, in which Python's collector may walk over all that the whole has made.
``--other`` is a checkout of another build: what both can render is rendered by both, in turns.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median

ROUNDS = 3
WORKER = """
import resource, sys, time
sys.path.insert(0, sys.argv[1])
from authz.mesh.description import read_mesh_description
from authz.envoy.render import permissive, render_all
data = open(sys.argv[2], "rb").read()
began = time.process_time()
mesh, problems = read_mesh_description([("mesh.yaml", data)])
assert not problems, problems[0]
read = time.process_time()
try:
    from authz.envoy.rendering import uncollected
except ImportError:
    from contextlib import nullcontext as uncollected
with uncollected():
    files = render_all(mesh, permissive)
done = time.process_time()
print(read - began, done - read, len(files), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000)
"""
AGAIN = """
import sys, time
sys.path.insert(0, sys.argv[1])
from authz.mesh.description import DescriptionReader
from authz.envoy.render import permissive
from authz.envoy.options import RenderOptions
from authz.envoy.rendering import Rendering
data = open(sys.argv[2], "rb").read()
reader, rendering = DescriptionReader(), Rendering()
began = time.process_time()
before = rendering.render(reader.read([("mesh.yaml", data)])[0], permissive, RenderOptions())
first = time.process_time()
took = []
for number in range(5):
    start = time.process_time()
    changed = data.replace(b"exact: /a0", b"exact: /x%d" % number, 1)
    after = rendering.render(reader.read([("mesh.yaml", changed)])[0], permissive, RenderOptions())
    took.append(time.process_time() - start)
    assert sum(after[name] != before[name] for name in after) == 1
    before = after
print(first - began, sorted(took)[2], took[0])
"""


def documents(services: int, routes: int) -> Iterator[str]:
    """A mesh as both builds can read it: routes at the gateway match paths, sidecars lead to services."""
    settings = "data:\n  mesh: |\n    trustDomain: a.example\n"
    yield f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: istio, namespace: istio-system}}\n{settings}"
    yield _document("WorkloadEntry", "gateway", "istio-system", "{address: 10.0.0.1, labels: {istio: ingressgateway}}")
    server = '{port: {number: 60000, name: http, protocol: HTTP}, hosts: ["*"]}'
    yield _document(
        "Gateway", "gateway", "istio-system", f"{{selector: {{istio: ingressgateway}}, servers: [{server}]}}"
    )
    port = 10_000
    for number in range(services):
        name, inbound, port = f"s{number}", port, port + 1
        host = f"{name}.shop.svc.cluster.local"
        ports = "[{number: 9080, name: http, protocol: HTTP}]"
        select = f"workloadSelector: {{labels: {{app: {name}}}}}"
        inside = f"{{hosts: [{host}], location: MESH_INTERNAL, ports: {ports}, {select}}}"
        yield _document("ServiceEntry", name, "shop", inside)
        yield _document(
            "WorkloadEntry", name, "shop",
            f"{{address: 10.0.0.2, serviceAccount: {name}, labels: {{app: {name}}}, ports: {{http: {inbound}}}}}",
        )  # fmt: skip
        called = []
        for other in range(1, routes + 1):
            target = f"./s{(number + other) % services}.shop.svc.cluster.local"
            called.append(f"{{port: {{number: {port}, name: a, protocol: HTTP}}, hosts: [{target}]}}")
            port += 1
        own = f"{{port: {{number: {inbound}, name: http, protocol: HTTP}}, defaultEndpoint: 127.0.0.1:{port}}}"
        port += 1
        yield _document("Sidecar", name, "shop", f"{{{select}, ingress: [{own}], egress: [{', '.join(called)}]}}")
        target = f"route: [{{destination: {{host: {host}, port: {{number: 9080}}}}}}]"
        http = [f"{{match: [{{uri: {{exact: /a{one}}}}}], {target}}}" for one in range(routes - 1)]
        http.append(f"{{match: [{{uri: {{prefix: /}}}}], {target}}}")
        hosts = f"hosts: [{name}.example.com], gateways: [istio-system/gateway]"
        yield _document("VirtualService", name, "shop", f"{{{hosts}, http: [{', '.join(http)}]}}")


def _document(kind: str, name: str, namespace: str, spec: str) -> str:
    version = "networking.istio.io/v1"
    return f"apiVersion: {version}\nkind: {kind}\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n"


def run(worker: str, build: Path, mesh: Path) -> list[float]:
    """The figures that a worker prints, in a process of its own."""
    done = subprocess.run(  # noqa: S603  # our own command
        [sys.executable, "-c", worker, str(build), str(mesh)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{build}: {done.stderr.strip().splitlines()[-1]}")
    return [float(one) for one in done.stdout.split()]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--services", type=int, default=1000)
    parser.add_argument("--routes", type=int, default=3)
    parser.add_argument("--other", type=Path)
    parser.add_argument("-o", choices=("table", "json"), default="table")
    options = parser.parse_args()
    here = Path(__file__).parents[1]
    mesh = Path.cwd() / ".rendering.yaml"
    mesh.write_text("---\n".join(documents(options.services, options.routes)))
    builds = {"this build": here} | ({"the other": options.other} if options.other else {})
    try:
        rounds = [{name: run(WORKER, build, mesh) for name, build in builds.items()} for _ in range(ROUNDS)]
        again = [run(AGAIN, here, mesh) for _ in range(ROUNDS)]
    finally:
        mesh.unlink()
    found: dict[str, dict[str, float]] = {}
    for name in builds:
        read, rendered, files, megabytes = (median(one[name][i] for one in rounds) for i in range(4))
        found[name] = {"read_s": read, "render_s": rendered, "files": files, "megabytes": megabytes}
    found["this build"]["changed_route_s"] = median(one[1] for one in again)
    found["this build"]["first_changed_route_s"] = median(one[2] for one in again)
    found["this build"]["changed_route_part"] = median(one[1] / one[0] for one in again)
    if options.o == "json":
        print(json.dumps(found, indent=1))
        return
    for name, figures in found.items():
        print(f"{name}: " + ", ".join(f"{key} {value:.3g}" for key, value in figures.items()))


if __name__ == "__main__":
    main()
