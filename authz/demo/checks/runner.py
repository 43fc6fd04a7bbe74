"""Run the scenarios one after the other and say for each what was expected and what happened."""

import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

from authz.core.errors import AuthzError
from authz.demo.checks.afterwards import findings
from authz.demo.checks.door import door_scenarios
from authz.demo.checks.identity import OUTAGE_SECONDS, identity_scenarios
from authz.demo.checks.incidents import incidents
from authz.demo.checks.keycloak_scenarios import keycloak_events
from authz.demo.checks.mesh import mesh_scenarios
from authz.demo.checks.modes import mode_scenarios
from authz.demo.checks.scenario import Scenario
from authz.demo.checks.signing_in import login_scenarios
from authz.demo.checks.traffic_figures import figure_scenarios
from authz.demo.checks.traffic_scenarios import traffic_scenarios
from authz.demo.checks.world import World
from authz.demo.programs import envoy_shows_roots
from authz.demo.traffic_rules import EXAMPLES
from authz.envoy.options import Authz, Secrets
from authz.mesh.nouns import Enforce


@dataclass(frozen=True, slots=True)
class Result:
    """One row of the table."""

    scenario: Scenario
    actual: str
    seconds: float
    remark: str = ""
    """Figures that belong to it."""

    @property
    def is_ok(self) -> bool:
        """Whether what happened is what was expected."""
        return self.actual == self.scenario.expected


def all_scenarios(
    *,
    secrets: Secrets = Secrets.SDS,
    authz: Authz = Authz.SERVER,
    enforce: Enforce = Enforce.CHECK,
    outage_seconds: float = OUTAGE_SECONDS,
    has_users: bool = False,
    shows_roots: bool = True,
    has_keycloak: bool = False,
    has_examples: bool = False,
    has_quotas: bool = False,
) -> Iterator[Scenario]:
    """Yield every scenario in the order of the table; the rough ones come last."""
    yield from door_scenarios(has_keycloak=has_keycloak)
    if not has_keycloak:
        yield from login_scenarios()
    yield from mesh_scenarios(enforce=enforce)
    yield from findings(enforce=enforce)
    if secrets is Secrets.SDS:
        yield from identity_scenarios(outage_seconds, has_users=has_users, shows_roots=shows_roots)
        yield from mode_scenarios()
    if has_examples and not has_keycloak:  # whose realm does not know jason
        yield from traffic_scenarios(has_quotas=has_quotas)
        yield from figure_scenarios()
    yield from incidents(authz=authz, enforce=enforce)
    if has_keycloak:
        yield from keycloak_events()


async def run_check(world: World, pattern: str = "", outage_seconds: float = OUTAGE_SECONDS) -> AsyncIterator[Result]:
    """
    Yield a result for each scenario whose group or name contains ``pattern``.

    A scenario that fails to run is also a result. Raises DemoError when the check itself cannot begin.
    """
    await world.prepare()
    layout = world.layout
    chosen = all_scenarios(
        secrets=layout.secrets,
        authz=layout.authz,
        enforce=layout.enforce,
        outage_seconds=outage_seconds,
        has_users=world.has_users,
        shows_roots=world.has_users or envoy_shows_roots(),  # containers bring an Envoy of their own
        has_keycloak=layout.keycloak is not None,
        has_examples=layout.traffic is not None and (layout.traffic / EXAMPLES).is_dir(),
        has_quotas=bool(layout.limits_port),
    )
    for scenario in chosen:
        if pattern.lower() not in f"{scenario.group} {scenario.name}".lower():
            continue
        began = time.monotonic()
        try:
            actual = await scenario.run(world)
        except (AuthzError, OSError, KeyError, ValueError) as error:
            actual = f"could not be tried: {error}"
        yield Result(scenario, actual, time.monotonic() - began, world.take_remarks())
