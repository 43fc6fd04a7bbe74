"""
The readers of a mesh description, one for each kind: a document becomes nouns as written, not yet tied to others.

Fields that Istio knows and that are not rendered here are problems, never silently ignored.
"""

from collections.abc import Callable

from authz.documents.accessors import Part
from authz.mesh.mesh_documents import Written
from authz.mesh.read_destination_rule import read_destination_rule
from authz.mesh.read_envoy_filter import read_envoy_filter
from authz.mesh.read_gateway import read_gateway
from authz.mesh.read_rate_limits import read_traffic_policy
from authz.mesh.read_service_entry import read_service_entry
from authz.mesh.read_sidecar import read_sidecar
from authz.mesh.read_telemetry import read_telemetry
from authz.mesh.read_virtual_service import read_virtual_service
from authz.mesh.read_wasm_plugin import read_wasm_plugin
from authz.mesh.read_workload_entry import read_workload_entry
from authz.mesh.read_workload_group import read_workload_group

READERS: dict[str, Callable[[Part, Written], None]] = {
    "WorkloadEntry": read_workload_entry,
    "WorkloadGroup": read_workload_group,
    "ServiceEntry": read_service_entry,
    "Sidecar": read_sidecar,
    "Gateway": read_gateway,
    "VirtualService": read_virtual_service,
    "DestinationRule": read_destination_rule,
    "EnvoyFilter": read_envoy_filter,
    "WasmPlugin": read_wasm_plugin,
    "Telemetry": read_telemetry,
    "BackendTrafficPolicy": read_traffic_policy,
}
"""
Every kind that is understood, of ``networking.istio.io``, ``extensions.istio.io`` and ``telemetry.istio.io``, and of
``gateway.envoyproxy.io`` for rate limits.
"""
