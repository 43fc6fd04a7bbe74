"""What a proxy tries again: what never reached a server, where nobody wrote more; else what Istio makes of it."""

from functools import cache

from envoy_data_plane.envoy.config.route.v3 import (
    RetryPolicy,
    RetryPolicyRetryBackOff,
    RetryPolicyRetryHostPredicate,
    RetryPolicyRetryPriority,
)
from envoy_data_plane.envoy.extensions.retry.host.previous_hosts.v3 import PreviousHostsPredicate
from envoy_data_plane.envoy.extensions.retry.priority.previous_priorities.v3 import PreviousPrioritiesConfig

from authz.envoy.messages import pack, seconds
from authz.envoy.plain import kept
from authz.mesh.virtual_service import HttpRetry

NEVER_REACHED = "connect-failure,refused-stream,reset-before-request"
"""Conditions where nobody wrote any."""
ISTIO_CONDITIONS = "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes"
"""Conditions of ``retries`` without ``retryOn``."""
BY_CODE = "retriable-status-codes"


@cache
def default_retries() -> RetryPolicy:
    """Two more tries of what never reached a server, at another one; one message for all routes, to be left alone."""
    return kept(
        RetryPolicy(
            retry_on=NEVER_REACHED,
            num_retries=2,
            retry_host_predicate=_elsewhere(),
            host_selection_retry_max_attempts=5,
        )
    )


def retry_policy(retries: HttpRetry | None) -> RetryPolicy | None:
    """``retries`` of a route; None where retrying is switched off."""
    if retries is None:
        return default_retries()
    if retries.attempts <= 0:
        return None
    conditions, codes = retry_conditions(retries.retry_on)
    found = RetryPolicy(
        retry_on=conditions,
        num_retries=retries.attempts,
        retriable_status_codes=codes,
        retry_host_predicate=_elsewhere() if retries.ignore_previous_hosts else [],
        host_selection_retry_max_attempts=5,
    )
    if retries.per_try_timeout is not None:
        found.per_try_timeout = seconds(retries.per_try_timeout)
    if retries.backoff is not None:
        found.retry_back_off = RetryPolicyRetryBackOff(base_interval=seconds(retries.backoff))
    if retries.remote_localities:
        found.retry_priority = RetryPolicyRetryPriority(
            name="envoy.retry_priorities.previous_priorities",
            typed_config=pack(PreviousPrioritiesConfig(update_frequency=2)),
        )
    return found


def retry_conditions(written: str) -> tuple[str, list[int]]:
    """``retryOn``: numbers in it are status codes, and imply the condition that looks at them."""
    if not written:
        return ISTIO_CONDITIONS, []
    parts = [part for part in (part.strip() for part in written.split(",")) if part]
    codes = [int(part) for part in parts if part.isdigit()]
    conditions = ",".join(part for part in parts if not part.isdigit())
    if codes and BY_CODE not in conditions:
        conditions += f",{BY_CODE}"
    return conditions, codes


def _elsewhere() -> list[RetryPolicyRetryHostPredicate]:
    name = "envoy.retry_host_predicates.previous_hosts"
    return [RetryPolicyRetryHostPredicate(name=name, typed_config=pack(PreviousHostsPredicate()))]
