"""
What every contender is asked, in its own language: verify an RS256 token, then one rule of path, method and claim.

One token, one request and ``size`` policies that differ in their path; the request matches the one in the middle.
"""

import json
import time
from dataclasses import dataclass
from typing import Any

from authz.core.asked import asked_of
from authz.core.attributes import Workload
from authz.core.compiler import compile_engine
from authz.core.engine import Engine
from authz.core.resources import MeshConfig
from authz.envoy.native.filters import http_filters
from authz.envoy.native.filters_version import filters_version
from authz.envoy.native.indexed import Form
from authz.envoy.native.record_log import Subject as Logged
from authz.envoy.native.record_log import http_file_log
from authz.envoy.native.record_stream import http_stream_log
from authz.envoy.native.slots import fill_slots
from authz.policy.reader import read_policies
from authz.tokens.signing import jwks_text, make_keys, make_token
from benchmarks.check import message

ISSUER = "https://idp.example"
ROLE = "reader"
AUTHENTICATION = """
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {{name: jwt, namespace: bookinfo}}
spec:
  jwtRules:
  - issuer: {issuer}
    jwks: '{jwks}'
"""
POLICY = """---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: service-{number}, namespace: bookinfo}}
spec:
  selector: {{matchLabels: {{app: reviews}}}}
  rules:
  - to: [{{operation: {{methods: ["GET"], paths: ["/svc-{number}/*"]}}}}]
    when: [{{key: "request.auth.claims[roles]", values: ["reader"]}}]
"""
REGO = """
package authz

import rego.v1

default allow := false

http := input.attributes.request.http

claims := payload if {
	token := substring(http.headers.authorization, 7, -1)
	[valid, _, payload] := io.jwt.decode_verify(token, {"cert": data.jwks, "iss": data.issuer, "alg": "RS256"})
	valid
}

allow if {
	some rule in data.rules
	startswith(http.path, rule.prefix)
	http.method == rule.method
	rule.role in claims.roles
}
"""
Json = dict[str, Any]
WORKLOAD = Workload("bookinfo", frozenset({("app", "reviews")}), "reviews", "reviews")
_NETWORK = "type.googleapis.com/envoy.extensions.filters.network"


@dataclass(frozen=True)
class Subject:
    """The question and its policies."""

    size: int
    jwks: str
    token: str

    @property
    def path(self) -> str:
        return f"/svc-{self.size // 2}/items/7?lang=en"

    def check_request(self, *, merged: bool = False) -> bytes:
        return message(self.token, path=self.path, merged=merged)

    def istio(self) -> str:
        """Our policies."""
        policies = (POLICY.format(number=number) for number in range(self.size))
        return AUTHENTICATION.format(issuer=ISSUER, jwks=self.jwks) + "".join(policies)

    def rego_data(self) -> str:
        """OPA's rules are data that its policy walks, as its own documentation has it."""
        rules = [{"prefix": f"/svc-{number}/", "method": "GET", "role": ROLE} for number in range(self.size)]
        return json.dumps({"jwks": self.jwks, "issuer": ISSUER, "rules": rules})

    def engine(self) -> Engine:
        """Our policies, compiled."""
        return compile_engine(
            read_policies([("policies.yaml", self.istio().encode())], MeshConfig()).resources, MeshConfig()
        )

    def istio_filters(self, *, remembers_tokens: bool) -> list[Json]:
        """
        jwt_authn and RBAC as Istio's own builder emits them: every rule in turn.

        Args:
            remembers_tokens: with a cache of verified tokens, which Istio does not set.
        """
        found = http_filters(self.engine(), WORKLOAD, {}, form=Form.LINEAR).filters
        filters: list[Json] = [one.as_extension() for one in found]
        if not remembers_tokens:
            for provider in filters[0]["typed_config"]["providers"].values():
                del provider["jwt_cache_config"]
        return filters

    def slots(self) -> list[Json]:
        """What the same policies are compiled to for a proxy that decides by itself, as it comes by discovery."""
        engine = self.engine()
        filters = http_filters(engine, WORKLOAD, {}).filters
        asked = asked_of(engine.for_workload(WORKLOAD))
        slots = fill_slots(filters, engine.mesh, filters_version(engine, WORKLOAD), asked)
        return [{"name": slot["name"], "typed_config": slot["typed_config"]} for slot in slots]

    def access_log(self, path: str) -> Json:
        """The log from which the record of every decision is made."""
        return http_file_log(path, self._logged())

    def stream_log(self) -> Json:
        """The same to the server behind the cluster of ``check_cluster``."""
        return http_stream_log("authz", self._logged())

    def _logged(self) -> Logged:
        return Logged(WORKLOAD, "bench", "bench", asked=None)


def make_subject(size: int) -> Subject:
    """Keys and a token of this run."""
    keys = make_keys({"main": {"kty": "RSA", "kid": "main"}})
    now = time.time()
    filler = {"groups": [f"group-{number}" for number in range(18)], "roles": [ROLE]}
    claims = {"iss": ISSUER, "sub": "alice", "exp": int(now) + 36_000, **filler}
    return Subject(size, jwks_text(keys.values()), make_token({"key": "main", "claims": claims}, keys, now))


def checking_envoy(
    port: int, filters: list[Json], clusters: list[Json], listeners: list[Json], log: Json | None = None
) -> Json:
    """An Envoy on a port that answers 200 itself, after its ``filters`` allowed that."""
    router = {
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
    }
    answer = {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": "ok\n"}}}
    manager = {
        "@type": f"{_NETWORK}.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "bench",
        "normalize_path": True,
        "http_filters": [*filters, router],
        "access_log": [log] if log is not None else [],
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [answer]}]},
    }
    listener = {
        "name": "bench",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }
    labels = {"app": "reviews", "authz/namespace": "bookinfo", "authz/service-account": "reviews"}
    return {
        "node": {"id": "bench", "cluster": "bench", "metadata": {"labels": labels}},
        "static_resources": {"listeners": [listener, *listeners], "clusters": clusters},
    }


def check_filter(*, raw_headers: bool) -> Json:
    """The ext_authz filter, as rendered for sidecars but for what depends on TLS."""
    metadata = [
        {"key": "x-authz-remote-ip", "value": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"},
        {"key": "x-authz-direct-ip", "value": "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%"},
    ]
    config = {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz",
        "grpc_service": {
            "envoy_grpc": {"cluster_name": "authz"}, "timeout": "5s", "initial_metadata": metadata,
        },
        "transport_api_version": "V3",
        "failure_mode_allow": False,
        "status_on_error": {"code": 503},
        "encode_raw_headers": raw_headers,
        "validate_mutations": True,
        "bootstrap_metadata_labels_key": "labels",
    }  # fmt: skip
    return {"name": "envoy.filters.http.ext_authz", "typed_config": config}


def check_cluster(*addresses: Json) -> Json:
    """The server that is asked, each worker at an address as Envoy writes it."""
    http2 = {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {}},
    }
    limits = {"max_requests": 10_000, "max_pending_requests": 10_000}
    return {
        "name": "authz",
        "type": "STATIC",
        "connect_timeout": "0.25s",
        "circuit_breakers": {"thresholds": [limits]},
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http2},
        "load_assignment": {
            "cluster_name": "authz",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}} for address in addresses]}],
        },
    }
