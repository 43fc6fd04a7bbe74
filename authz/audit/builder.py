"""
From a decision to an entry: counted, given the ids of its span, written as a record, redacted, its span ended.

One failing step does not cost the others: a decision is never without a line.
"""

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from authz.audit.entry import Entry, encode_record
from authz.audit.omissions import RecordRules
from authz.audit.request_fields import DEFAULT_OPTIONS, RecordOptions, rfc3339
from authz.audit.writer import RecordWriter
from authz.core.attributes import AttributeContext
from authz.core.decided import NO_TRACE, Offer, Record, TraceIds
from authz.core.decision import Decision, Effect, Stage
from authz.core.explain import RuleNote
from authz.telemetry.counters import Telemetry
from authz.telemetry.spans import DecisionTracer

_log = logging.getLogger("authz.audit")


@dataclass(frozen=True, slots=True)
class RecordSteps:
    """The steps that the writer takes with each offer besides writing it."""

    telemetry: Telemetry = field(default_factory=Telemetry)
    """Counts every decision, those without a record too."""
    tracer: DecisionTracer = field(default_factory=lambda: DecisionTracer((), root_ratio=0.0))
    """Without exporters it only reads the ids of the trace. Sampling does not affect what is recorded."""
    rules: RecordRules = field(default_factory=RecordRules)
    options: RecordOptions = DEFAULT_OPTIONS
    nearest: Callable[[AttributeContext, Decision], RuleNote | None] | None = None
    """
    Finds the rule that came closest, asked for denials of the ALLOW stage only; None records none.

    It costs as much as the policies are long, so it is left out while the queue is filling up.
    """
    watch: Callable[[Offer, TraceIds], None] | None = None
    """Receives every decision with its request, as the sinks do: the operator's page explains from it."""


class EntryBuilder:
    """Used by one thread at a time."""

    def __init__(self, steps: RecordSteps, *, has_sinks: bool) -> None:
        """Without sinks and spans nobody reads records: decisions are counted and shown only."""
        self._steps = steps
        self._has_sinks = has_sinks
        self._writer = RecordWriter(steps.options)
        self._has_rules = not steps.rules.is_empty
        self._is_tracing = steps.tracer.is_exporting
        self._is_written = has_sinks or self._is_tracing
        self.filtered = self.failed = 0
        """Records that the rules dropped, and those that could not be built whole."""

    def takes_long(self, offer: Offer) -> bool:
        """Whether redaction, a span or finding the nearest rule make a record several times the work of a plain one."""
        if self._has_rules or (self._steps.nearest is not None and _needs_nearest(offer.decision)):
            return True
        return self._is_tracing and not offer.attributes.trace_parent.endswith("-00")

    def build(self, offer: Offer, *, is_hurried: bool) -> Entry | None:
        """
        Make the entry of one decision, or None when no sink is to see it.

        ``is_hurried`` leaves out the nearest rule, whose cost grows with the policies.
        """
        steps, trace, line, is_dropped = self._steps, NO_TRACE, b"", False
        try:
            steps.telemetry.observe(offer)
        except Exception:
            _log.exception("metrics of decision %s could not be counted", offer.decision_id)
        try:
            trace = steps.tracer.begin(offer)
            if self._is_written:
                nearest = None if is_hurried else self._nearest(offer)
                line = self._writer.write(offer, trace, nearest).encode()
                if self._has_rules:
                    record: Record = json.loads(line)
                    is_dropped = steps.rules.drops(record)
                    line = encode_record(steps.rules.redact(record))
        except Exception:
            _log.exception("the audit record of decision %s could not be built", offer.decision_id)
            self.failed += 1
            is_dropped, line = False, encode_record(_bare_record(offer))
        if steps.watch is not None:
            try:
                steps.watch(offer, trace)
            except Exception:
                _log.exception("decision %s could not be watched", offer.decision_id)
        entry = Entry(line, offer.started_at, trace)
        if self._is_tracing and trace.is_sampled:
            try:
                steps.tracer.finish(trace, offer, entry.record)
            except Exception:
                _log.exception("the span of decision %s could not be made", offer.decision_id)
        if is_dropped:
            self.filtered += 1
        return entry if self._has_sinks and not is_dropped else None

    def _nearest(self, offer: Offer) -> RuleNote | None:
        find = self._steps.nearest
        if find is None or not _needs_nearest(offer.decision):
            return None
        try:
            return find(offer.attributes, offer.decision)
        except Exception:
            _log.exception("the nearest rule of decision %s could not be found", offer.decision_id)
            return None


def _needs_nearest(decision: Decision) -> bool:
    return decision.effect is Effect.DENY and decision.stage is Stage.ALLOW


def _bare_record(offer: Offer) -> Record:
    """The certain facts of a decision whose record could not be built: no decision goes without a line."""
    return {
        "decision_id": offer.decision_id,
        "time": rfc3339(offer.started_at),
        "effect": offer.decision.effect.value,
        "stage": offer.decision.stage.value,
        "reason": "the full record could not be built; see the log of the service",
        "policy_version": offer.decision.policy_version,
    }
