"""One setting for all property tests."""

from hypothesis import HealthCheck, settings

# A busy machine is no finding: examples have no deadline, and slow generation is not an error.
settings.register_profile("authz", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("authz")
