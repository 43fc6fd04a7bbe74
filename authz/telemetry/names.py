"""
Every metric and span name of the house.

Labels are few and bounded: workloads, policies and rules yes, paths and principals never.
Where Istio counts the same thing, its name and labels are used, so that existing dashboards read them.
"""

from typing import NamedTuple

SPAN_NAME = "authz.decide"
LOG_EVENT = "authz.decision"
SPAN_EVENTS = {
    "token": "authz.token.verify",
    "provider": "authz.provider.ask",
    "introspection": "authz.introspection.ask",
    "stage": "authz.stage",
}
"""First part of a timing's name to the name of its span event."""
SPAN_ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "http.request.method": ("request", "method"),
    "url.path": ("request", "path"),
    "url.scheme": ("request", "scheme"),
    "server.address": ("request", "host"),
    "server.port": ("destination", "port"),
    "network.protocol.version": ("request", "protocol"),
    "user_agent.original": ("request", "user_agent"),
    "client.address": ("source", "remote_ip"),
    "network.peer.address": ("source", "ip"),
    "network.peer.port": ("source", "port"),
    "tls.client.server_name": ("sni",),
    "enduser.id": ("token", "subject"),
    "authz.decision_id": ("decision_id",),
    "authz.effect": ("effect",),
    "authz.stage": ("stage",),
    "authz.reason": ("reason",),
    "authz.status": ("status",),
    "authz.rule": ("rule", "name"),
    "authz.rule.file": ("rule", "file"),
    "authz.rule.line": ("rule", "line"),
    "authz.source.principal": ("source", "principal"),
    "authz.source.mtls": ("source", "mtls"),
    "authz.destination.workload": ("destination", "workload"),
    "authz.destination.namespace": ("destination", "namespace"),
    "authz.token.issuer": ("token", "issuer"),
    "authz.token.key_id": ("token", "key_id"),
    "authz.token.digest": ("token", "digest"),
    "authz.token.cached": ("token", "cached"),
    "authz.audit": ("audit",),
    "authz.would_deny": ("would_deny",),
    "authz.would_deny.by": ("by",),
    "authz.policy_version": ("policy_version",),
    "authz.x_request_id": ("x_request_id",),
}
"""Span attribute to its field in the audit record."""
SPAN_CONSTANTS = {
    "rpc.system": "grpc",
    "rpc.service": "envoy.service.auth.v3.Authorization",
    "rpc.method": "Check",
}
"""Attributes of every span: it is the server's side of Envoy's call."""


class Metric(NamedTuple):
    """Name, help and labels of one metric; the kind is counter, gauge or histogram."""

    name: str
    kind: str
    help: str
    labels: tuple[str, ...] = ()


_RULE = ("policy_namespace", "policy", "rule")
_WORKLOAD = ("namespace", "workload")
_ISTIO = (
    "reporter",
    "source_workload",
    "source_workload_namespace",
    "destination_workload",
    "destination_workload_namespace",
    "destination_app",
    "destination_version",
    "request_protocol",
    "response_code",
    "connection_security_policy",
)

DECISIONS = Metric("authz_decisions_total", "counter", "Decisions made", (*_WORKLOAD, "effect", "stage", *_RULE))
DURATION = Metric("authz_decision_duration_seconds", "histogram", "Time from request to answer", ("effect",))
DRY_RUN = Metric(
    "authz_dry_run_results_total",
    "counter",
    "What dry-run policies would have answered",
    (*_WORKLOAD, "action", "result", *_RULE),
)
AUDIT_MATCHES = Metric("authz_audit_policy_matches_total", "counter", "Requests an AUDIT rule matched", _RULE)
TOKENS = Metric("authz_tokens_total", "counter", "Tokens judged", ("outcome", "cached"))
PROVIDERS = Metric("authz_provider_duration_seconds", "histogram", "Time an external provider took", ("provider",))
REQUESTS = Metric(
    "istio_requests_total",
    "counter",
    "HTTP requests asked about; response_code is `unknown` for accepted ones, because the upstream answers them",
    _ISTIO,
)
CONNECTIONS = Metric(
    "istio_tcp_connections_opened_total",
    "counter",
    "TCP connections asked about",
    tuple(label for label in _ISTIO if label != "response_code"),
)
CACHE_HITS = Metric("authz_token_cache_hits_total", "counter", "Tokens found verified in the cache")
CACHE_MISSES = Metric("authz_token_cache_misses_total", "counter", "Tokens that had to be verified")
CACHE_ENTRIES = Metric("authz_token_cache_entries", "gauge", "Tokens in the cache")
CACHE_CAPACITY = Metric("authz_token_cache_capacity", "gauge", "Most tokens the cache holds")
INTROSPECTIONS = Metric(
    "authz_token_introspections_total",
    "counter",
    "Tokens of issuers that are asked about them: answered from memory (hit) or by the issuer (miss), not active "
    "(refused), without an answer (failed)",
    ("issuer", "result"),
)
INTROSPECTION_FAILING = Metric(
    "authz_token_introspection_failing", "gauge", "1 while the last question to an issuer had no answer", ("issuer",)
)
KEY_SET_KEYS = Metric("authz_key_set_keys", "gauge", "Usable keys of a key set; 0 when it was never read", ("key_set",))
KEY_SET_FETCHED = Metric(
    "authz_key_set_fetched_timestamp_seconds",
    "gauge",
    "When a key set was last read successfully; 0 when never",
    ("key_set",),
)
KEY_SET_STALE = Metric("authz_key_set_failing", "gauge", "1 while the last read of a key set failed", ("key_set",))
JWKS_SUCCESS = Metric("pilot_jwks_resolver_network_fetch_success_total", "counter", "Key sets fetched")
JWKS_FAIL = Metric("pilot_jwks_resolver_network_fetch_fail_total", "counter", "Key sets that could not be fetched")
RELOADS = Metric("authz_policy_reloads_total", "counter", "Reloads of the policies", ("result",))
RELOAD_OK = Metric("authz_policy_last_reload_successful", "gauge", "0 while a refused change waits to be repaired")
RELOAD_TIME = Metric(
    "authz_policy_last_reload_success_timestamp_seconds", "gauge", "When the policies in force were loaded"
)
POLICY_INFO = Metric("authz_policy_info", "gauge", "Version of the policies in force", ("version",))
PUBLISHED_INFO = Metric(
    "authz_policy_source_info", "gauge", "Where published policies come from", ("source", "revision")
)
PUBLISHED_REVISION = Metric("authz_policy_source_revision", "gauge", "Number of the published revision in force")
PUBLISHED_CREATED = Metric(
    "authz_policy_source_created_timestamp_seconds", "gauge", "When the published revision in force was made"
)
PUBLISHED_ASKED = Metric(
    "authz_policy_source_last_success_timestamp_seconds",
    "gauge",
    "When the source last said what is to be in force, and it was; 0 when never since the start",
)
PUBLISHED_FAILING = Metric(
    "authz_policy_source_failing", "gauge", "1 while the source does not answer, or what it says is refused"
)
PUBLISHED_ASKINGS = Metric("authz_policy_source_requests_total", "counter", "Times the source was asked", ("result",))
POLICIES = Metric("authz_policies", "gauge", "Documents in force", ("kind",))
PEER_TRUST_RELOADS = Metric(
    "authz_peer_trust_reloads_total", "counter", "Readings of trust bundles and the revocation list", ("result",)
)
PEER_TRUST_OK = Metric(
    "authz_peer_trust_last_reload_successful",
    "gauge",
    "0 while a change of trust bundles or revocations is refused and the last good one stays",
)
PEER_TRUST_TIME = Metric(
    "authz_peer_trust_last_reload_success_timestamp_seconds",
    "gauge",
    "When the trust bundles and revocations in force were read",
)
CANDIDATE_DECISIONS = Metric(
    "authz_candidate_decisions_total",
    "counter",
    "Decisions that the candidate policies made in shadow, compared with the answer: same, newly_denied, "
    "newly_allowed, other_status, other_rule (the same answer for another reason); undecided (cannot be said) or "
    "failed (a mistake of ours)",
    ("result",),
)
CANDIDATE_INFO = Metric("authz_candidate_info", "gauge", "Version of the candidate policies", ("version",))
CANDIDATE_OK = Metric(
    "authz_candidate_last_reload_successful", "gauge", "0 while the candidate as it was last written is refused"
)
HANDSHAKES_REFUSED = Metric(
    "authz_tls_handshakes_refused_total",
    "counter",
    "TLS handshakes that our own ports refused; the log has the reasons",
)
SIDECAR_REMARKS = Metric(
    "authz_sidecar_remarks_total",
    "counter",
    "Requests whose sidecar hides headers, or sends other labels than the mesh description has",
    ("kind",),
)
QUEUED = Metric("authz_audit_queue_entries", "gauge", "Decisions waiting to be recorded")
QUEUE_CAPACITY = Metric("authz_audit_queue_capacity", "gauge", "Most decisions that may wait")
DROPPED = Metric("authz_audit_dropped_total", "counter", "Decisions without a record", ("cause",))
SINK_RECORDS = Metric("authz_audit_sink_records_total", "counter", "Records by sink", ("sink", "result"))
SINK_OK = Metric("authz_audit_sink_healthy", "gauge", "0 while a sink fails", ("sink",))
SINK_WAITING = Metric("authz_audit_sink_waiting_bytes", "gauge", "What a sink keeps until it can deliver it", ("sink",))
CERTIFICATE = Metric(
    "authz_certificate_expiry_timestamp_seconds", "gauge", "When a certificate expires", ("kind", *_WORKLOAD)
)
ROOT_EXPIRY = Metric(
    "citadel_server_root_cert_expiry_timestamp", "gauge", "When the root certificate expires, in seconds"
)
READY = Metric("authz_ready", "gauge", "1 when requests are answered", ())
BUILD = Metric("authz_build_info", "gauge", "Version of this program", ("version",))
COLLECT_ERRORS = Metric("authz_metrics_errors_total", "counter", "Parts of this page that could not be read")

WORKER_SERVING = Metric("authz_worker_serving", "gauge", "1 while a worker answers checks", ("worker",))
WORKER_RESTARTS = Metric(
    "authz_worker_restarts_total", "counter", "Workers started again after they ended by themselves", ("worker",)
)
NATIVE_ENTRIES = Metric(
    "authz_access_log_entries_total", "counter", "Access log entries of proxies that enforce", ("carrier", "result")
)
NATIVE_VERDICTS = Metric(
    "authz_native_verified_total", "counter", "Entries that the engine decided again, by the result", ("result",)
)
NATIVE_DISAGREEMENTS = Metric(
    "authz_native_disagreements_total", "counter", "Requests that Envoy decided differently from the engine", _WORKLOAD
)
NATIVE_NEWEST = Metric(
    "authz_access_log_newest_timestamp_seconds", "gauge", "When the newest recorded request of the access logs ended"
)
NATIVE_WAITING = Metric("authz_access_log_waiting_bytes", "gauge", "Bytes of followed access logs not read yet")
NATIVE_FOLLOWING = Metric("authz_access_log_following", "gauge", "0 while access logs cannot be followed")
NATIVE_MISSING = Metric(
    "authz_access_log_missing_total", "counter", "Requests that a proxy counted and that have no entry", ("proxy",)
)
NATIVE_UNCOMPARED = Metric(
    "authz_access_log_uncompared", "gauge", "1 while the counters of a proxy cannot be read", ("proxy",)
)
NATIVE_IN_FORCE = Metric(
    "authz_native_filters_in_force", "gauge", "1 while a proxy runs the filters rendered for it", ("proxy",)
)

RATE_LIMITS = Metric(
    "authz_rate_limit_requests_total",
    "counter",
    "Requests counted for a rate limit: allowed, refused, over a limit in shadow mode, or uncounted because the store "
    "does not answer",
    (*_RULE, "result"),
)
RATE_LIMITS_UNKNOWN = Metric(
    "authz_rate_limit_unknown_rules_total", "counter", "Rules that a proxy asked about and this server does not have"
)
RATE_LIMITS_FAILING = Metric("authz_rate_limit_store_failing", "gauge", "1 while the store of counts does not answer")

CA_ASKED = Metric("citadel_server_csr_count", "counter", "Requests for certificates.")
CA_ISSUED = Metric("citadel_server_success_cert_issuance_count", "counter", "Certificates issued.")
CA_JWTS = Metric("authz_ca_jwt_svids_issued_total", "counter", "JWT-SVIDs issued.")
WORKLOAD_STREAMS = Metric("authz_workload_streams", "gauge", "Open streams of the SPIFFE Workload API.")
CA_BUNDLE_TIME = Metric(
    "authz_ca_federated_bundle_timestamp_seconds",
    "gauge",
    "When the bundle of another trust domain was fetched from its endpoint.",
    ("trust_domain",),
)
CA_DENIED = Metric(
    "citadel_server_authentication_failure_count", "counter", "Requests of somebody without proof or without an entry."
)
CA_UNUSABLE = Metric("citadel_server_csr_parsing_err_count", "counter", "Certificate requests that cannot be used.")
CA_UNSIGNED = Metric(
    "citadel_server_csr_sign_err_count",
    "counter",
    "Certificates that should have been signed and could not be.",
    ("error",),
)
CA_LIMITED = Metric("authz_ca_limited_total", "counter", "Requests refused because there were too many.")
CA_UNRECORDED = Metric("authz_ca_unrecorded_refusals_total", "counter", "Refusals without a record.")
CA_ROOT_EXPIRY = ROOT_EXPIRY._replace(help="When the first trusted root expires.")
CA_CHAIN_EXPIRY = Metric(
    "citadel_server_cert_chain_expiry_timestamp", "gauge", "When the first certificate of the signing chain expires."
)
CA_RELOAD_OK = Metric(
    "authz_ca_last_reload_successful", "gauge", "0 while a change of the files is refused and the last good one stays."
)
CA_RELOAD_FAILURES = Metric("authz_ca_reload_failures_total", "counter", "Refused changes.")
SDS_PUSHES = Metric("authz_sds_pushes_total", "counter", "Secrets sent.")
SDS_ACKNOWLEDGED = Metric("authz_sds_acknowledged_total", "counter", "Secrets that a proxy took.")
SDS_REJECTED = Metric("authz_sds_rejected_total", "counter", "Secrets that a proxy refused.")
SDS_REFUSED = Metric("authz_sds_refused_total", "counter", "Peers and names that were refused.")
SDS_STREAMS = Metric("authz_sds_streams", "gauge", "Open streams.")
CANARY_WORKLOADS = Metric("authz_canary_workloads", "gauge", "Workloads that have the candidate in force.")
CANARY_STATE = Metric(
    "authz_canary_state", "gauge", "1 for what holds of the candidate: none, in force, refused, aborted.", ("state",)
)
CANARY_REQUESTS = Metric(
    "authz_canary_requests", "gauge", "Requests of the last window at workloads that have the candidate and report."
)
CANARY_REFUSED = Metric("authz_canary_refused", "gauge", "Those of them that were refused.")
CA_FAILING_RENEWALS = Metric("authz_ca_failing_renewals", "gauge", "Certificates in use whose last renewal failed.")
CA_SVID_EXPIRY = Metric(
    "authz_ca_svid_expiration_timestamp_seconds",
    "gauge",
    "End of the certificate in use that expires first.",
    ("identity",),
)

SERVED_EXPIRY = Metric(
    "authz_certificate_expiration_timestamp_seconds",
    "gauge",
    "End of a certificate that a proxy serves.",
    ("proxy", "identity"),
)
DRIFT = Metric("authz_certificate_drift", "gauge", "Things that differ from what was issued.", ("proxy", "kind"))
