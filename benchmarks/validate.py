"""
Cost of showing filters to Envoy before they are written: ``python -m benchmarks.validate [RULES ...]``.

Prints for each number of policies the size of the filters, and seconds and CPU seconds of ``envoy --mode validate``.
"""

import json
import resource
import sys
import tempfile
import time
from pathlib import Path

from authz.analysis.suites.run import compile_texts
from authz.analysis.suites.suite import PolicyText
from authz.control.envoy_validation import Validator
from authz.core.attributes import Workload
from authz.core.engine import Engine
from authz.core.resources import MeshConfig
from authz.envoy.native.binary import find_envoy
from authz.envoy.native.filters import http_filters
from authz.envoy.native.slots import fill_slots

POLICY = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: p{number}, namespace: shop}}
spec: {{rules: [{{to: [{{operation: {{paths: [/p{number}/*], methods: [GET]}}}}]}}]}}
---
"""


def filters_of(policies: int) -> bytes:
    """A file of filters as a mesh has it."""
    text = "".join(POLICY.format(number=number) for number in range(policies))
    engine = compile_texts([PolicyText("p.yaml", text)], MeshConfig())
    assert isinstance(engine, Engine)
    found = http_filters(engine, Workload("shop"), {})
    return json.dumps({"version_info": "1", "resources": fill_slots(found.filters, engine.mesh)}).encode()


def main(arguments: list[str]) -> int:
    """Measure once for each number of policies."""
    validator = Validator(find_envoy())
    for policies in map(int, arguments or ("1", "100", "1000", "10000")):
        content = filters_of(policies)
        with tempfile.TemporaryDirectory() as directory:
            begun, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
            validator.validate(Path(directory), {"ecds/shop.authz-rules.json": content})
            seconds, after = time.monotonic() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        print(f"{policies:6} policies  {len(content) / 1e6:7.3f} MB  {seconds:6.2f} s  {cpu:6.2f} s CPU", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
