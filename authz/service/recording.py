"""
From settings to the audit trail: sinks, rules of what is recorded, spans, and the nearest miss of a denial.

Whatever is unusable is reported by name before anything is served.
"""

import secrets
from collections.abc import Callable
from pathlib import Path

from authz.audit.builder import RecordSteps
from authz.audit.chain import Chain, read_signing_key
from authz.audit.entry import Sink
from authz.audit.file_sink import FileSink, Rotation
from authz.audit.omissions import RecordRules
from authz.audit.request_fields import RecordOptions
from authz.audit.sinks import OtlpSink, log_exporter
from authz.audit.spool import Spool
from authz.audit.trail import AuditTrail
from authz.core.attributes import AttributeContext
from authz.core.decided import Offer, TraceIds
from authz.core.decision import Decision
from authz.core.errors import SettingsError
from authz.core.explain import RuleNote, nearest_miss
from authz.core.policies_by_workload import PoliciesByWorkload
from authz.identity.pem import refuse_encrypted_key
from authz.service.truth_connection import truth_client
from authz.settings.audit_section import AuditSettings
from authz.settings.sections import OtlpSettings, TruthSettings
from authz.telemetry.counters import Telemetry
from authz.telemetry.otlp import OtlpTarget, service_resource, span_exporter
from authz.telemetry.spans import DecisionTracer

MOST_RULES_WALKED = 200
"""
A workload with more ALLOW rules has its nearest miss found on demand only (``authz explain``, the page): it walks all
of them, and the writer's time is the checks' time.
"""


_TRUTH = "nats://"
_NO_FILES = TruthSettings()


def make_tracer(otlp: OtlpSettings) -> DecisionTracer:
    """Spans go out only with an endpoint; ids of the trace are recorded always."""
    return DecisionTracer(
        [span_exporter(_target(otlp))] if otlp.endpoint else [],
        resource=service_resource(),
        root_ratio=otlp.root_ratio if otlp.endpoint else 0.0,
    )


def make_trail(
    audit: AuditSettings,
    otlp: OtlpSettings,
    stdout: Sink,
    telemetry: Telemetry,
    tracer: DecisionTracer,
    in_force: Callable[[], PoliciesByWorkload | None],
    watch: Callable[[Offer, TraceIds], None] | None = None,
    truth: TruthSettings = _NO_FILES,
) -> AuditTrail:
    """
    Build the trail; it is not started.

    Args:
        stdout: the sink of that name, in case it is asked for.
        in_force: the policies, asked when a denial is explained.
        watch: told of every decision, for the page.
        truth: for records that go there.

    Raises:
        SettingsError: names the setting.
    """

    def nearest(attributes: AttributeContext, decision: Decision) -> RuleNote | None:
        current = in_force()
        if current is None:
            return None
        policies = current.for_workload(attributes.destination.workload)
        if policies.version != decision.policy_version:
            return None  # those that decided are gone; a guess from others would mislead
        sets = policies.http if attributes.http is not None else policies.tcp
        if sets.allow is None or len(sets.allow.rules) > MOST_RULES_WALKED:
            return None
        return nearest_miss(policies, attributes)

    return AuditTrail(
        _sinks(audit, otlp, stdout, truth),
        capacity=audit.capacity,
        on_full=audit.on_full,
        flush_seconds=audit.flush_seconds,
        steps=RecordSteps(
            telemetry=telemetry,
            tracer=tracer,
            rules=_rules(audit),
            options=RecordOptions(query_values=frozenset(audit.query_values)),
            nearest=nearest,
            watch=watch,
        ),
    )


def _rules(audit: AuditSettings) -> RecordRules:
    key = b""
    if audit.hash_key is not None:
        key = _read("audit_hash_key", audit.hash_key).strip()
        if len(key) < 16:
            raise SettingsError(f"setting `audit_hash_key`: `{audit.hash_key}` holds less than 16 bytes")
    try:
        return RecordRules.parse(audit.redact, audit.drop, key)
    except ValueError as error:
        raise SettingsError(f"setting `audit_redact` or `audit_drop`: {error}") from error


def _sinks(audit: AuditSettings, otlp: OtlpSettings, stdout: Sink, truth: TruthSettings) -> list[Sink]:
    if sum(name.startswith(_TRUTH) for name in audit.sinks) > 1:
        raise SettingsError("setting `audit`: records go to one fleet only, and `nats://…` is there twice")
    sinks: list[Sink] = []
    for name in audit.sinks:
        kind, _, argument = name.partition(":")
        if name == "stdout":
            sinks.append(stdout)
        elif name == "otlp" and otlp.endpoint:
            sinks.append(OtlpSink(log_exporter(_target(otlp))))
        elif kind == "file" and argument:
            sinks.append(_file(audit, Path(argument)))
        elif name.startswith(_TRUTH):
            sinks.append(_truth(audit, truth, name))
        elif name != "none":
            raise SettingsError(
                f"setting `audit`: `{name}` is not a sink; it is stdout, file:PATH, otlp (with otlp_endpoint), "
                "nats://HOST:PORT/FLEET or none"
            )
    return sinks


def _truth(audit: AuditSettings, truth: TruthSettings, name: str) -> Sink:
    if audit.spool is None:
        raise SettingsError(f"setting `audit`: {name} needs `audit_spool`, a directory for records that wait")
    client = truth_client("audit", name, truth)
    from authz.audit.truth_sink import TruthSink  # needs what `truth_client` has found

    try:
        return TruthSink(client, Spool(audit.spool, audit.spool_bytes, sync=audit.sync == "disk"))
    except OSError as error:
        client.stop()
        raise SettingsError(f"setting `audit_spool`: `{audit.spool}` cannot be written: {error.strerror}") from error


def _file(audit: AuditSettings, path: Path) -> FileSink:
    chain = None
    if audit.chain != "off":
        key = None
        if audit.signing_key is not None:
            try:
                refuse_encrypted_key(audit.signing_key)
                key = read_signing_key(_read("audit_signing_key", audit.signing_key))
            except OSError as error:
                raise SettingsError(f"setting `audit_signing_key`: {error.strerror}") from error
            except (ValueError, TypeError) as error:
                raise SettingsError(f"setting `audit_signing_key`: {error}") from error
        chain = Chain(key, secrets.token_hex(8))
    rotation = Rotation(
        max_bytes=audit.rotate_bytes,
        max_age_seconds=audit.rotate_seconds,
        keep=audit.keep,
        compress=audit.compress == "gzip",
    )
    try:
        return FileSink(path, rotation=rotation, chain=chain, sync=audit.sync == "disk")
    except OSError as error:
        raise SettingsError(f"setting `audit`: `{path}` cannot be written: {error.strerror}") from error


def _target(otlp: OtlpSettings) -> OtlpTarget:
    if otlp.key is not None:
        try:
            refuse_encrypted_key(otlp.key)
        except OSError as error:
            raise SettingsError(f"setting `otlp_key`: `{otlp.key}`: {error.strerror}") from error
    headers = {}
    if otlp.headers is not None:
        for line in _read("otlp_headers", otlp.headers).decode("utf-8", "replace").splitlines():
            name, colon, value = line.partition(":")
            if line.strip() and not colon:
                raise SettingsError(f"setting `otlp_headers`: `{otlp.headers}` has a line without a colon")
            if colon:
                headers[name.strip().lower()] = value.strip()
    return OtlpTarget(
        otlp.endpoint,
        otlp.protocol,
        headers or None,
        str(otlp.ca or ""),
        str(otlp.key or ""),
        str(otlp.certificate or ""),
    )


def _read(setting: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SettingsError(f"setting `{setting}`: `{path}` cannot be read: {error.strerror}") from error
