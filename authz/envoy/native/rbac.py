"""
One rule of an AuthorizationPolicy as a policy of Envoy's RBAC filter, structurally as Istio's builder emits it.

A rule is a list of permissions and a list of principals; each is an AND of what one ``to`` (or ``from``) entry says and
of the conditions that belong to its side. Values have been checked when the policies were read.
"""

from collections.abc import Callable, Iterator

from authz.core.attributes import Json
from authz.core.catalog import claim_path
from authz.core.identities import rewrite_principal
from authz.core.resources import Action, AuthorizationPolicy, Condition, MeshConfig, Operation, Rule, Source
from authz.envoy.native import value_matchers as v
from authz.envoy.native.value_matchers import Message

Policies = dict[str, Message]
"""The policies of an RBAC filter by Istio's names."""

NEVER: Message = {
    "permissions": [{"not_rule": {"any": True}}],
    "principals": [{"not_id": {"any": True}}],
}
"""The form of a policy without rules: it matches nothing, but still makes the workload one with ALLOW policies."""

_PERMISSION_KEYS = ("destination.ip", "destination.port", "connection.sni")
_FILTERS, _HEADERS, _CLAIMS = "experimental.envoy.filters.", "request.headers", "request.auth.claims"


class _HttpOnlyError(Exception):
    """The attribute does not exist on TCP (AP-68)."""


def rule_name(policy: AuthorizationPolicy, index: int) -> str:
    """Istio's name of a rule (AP-92)."""
    prefix = f"istio-ext-authz-{policy.provider}-" if policy.action is Action.CUSTOM else ""
    return f"{prefix}ns[{policy.metadata.namespace}]-policy[{policy.metadata.name}]-rule[{index}]"


def rbac_policies(policy: AuthorizationPolicy, mesh: MeshConfig, *, tcp: bool = False) -> Iterator[tuple[str, Message]]:
    """
    Emit the rules of one policy, name and RBAC policy.

    For TCP an ALLOW rule with an HTTP-only attribute is left out (AP-69); in other rules only the attribute is (AP-70).
    """
    if not policy.rules:
        yield rule_name(policy, 0), NEVER
    emitter = _Emitter(policy, mesh, tcp=tcp)
    for index, rule in enumerate(policy.rules):
        try:
            yield rule_name(policy, index), emitter.rule(rule)
        except _HttpOnlyError:
            continue


class _Emitter:
    def __init__(self, policy: AuthorizationPolicy, mesh: MeshConfig, *, tcp: bool) -> None:
        self._namespace = policy.metadata.namespace
        self._allow = policy.action is Action.ALLOW
        self._trust_domains = mesh.trust_domains
        self._tcp = tcp

    def rule(self, rule: Rule) -> Message:
        on_permission = [condition for condition in rule.conditions if _is_permission(condition.key)]
        on_principal = [condition for condition in rule.conditions if not _is_permission(condition.key)]
        shared = [part for condition in on_permission for part in self._permission_condition(condition)]
        permissions = [
            [part for parts in self._operation(operation) for part in parts] + shared for operation in rule.operations
        ]
        shared_ids = [part for condition in on_principal for part in self._principal_condition(condition)]
        principals = [
            [part for parts in self._source(source) for part in parts] + shared_ids for source in rule.sources
        ]
        return {
            "permissions": [{"and_rules": {"rules": found or [{"any": True}]}} for found in permissions or [shared]],
            "principals": [{"and_ids": {"ids": found or [{"any": True}]}} for found in principals or [shared_ids]],
        }

    # --- permissions -------------------------------------------------------------------------------------------

    def _operation(self, operation: Operation) -> Iterator[list[Json]]:
        yield self._permission(
            operation.hosts,
            operation.not_hosts,
            lambda value: {"header": v.header(":authority", value, fold=True)},
            True,
        )
        yield self._permission(
            operation.methods, operation.not_methods, lambda value: {"header": v.header(":method", value)}, True
        )
        yield self._permission(operation.paths, operation.not_paths, v.path, True)
        yield self._permission(operation.ports, operation.not_ports, lambda value: {"destination_port": int(value)})

    def _permission_condition(self, condition: Condition) -> list[Json]:
        key, values, not_values = condition.key, condition.values, condition.not_values
        if key.startswith(_FILTERS):
            found: list[Json] = [{"metadata": v.filter_metadata(key, values)}] if values else []
            if not_values:
                found.append({"not_rule": {"metadata": v.filter_metadata(key, not_values)}})
            return found
        single: dict[str, Callable[[str], Message]] = {
            "destination.ip": lambda value: {"destination_ip": v.network(value)},
            "destination.port": lambda value: {"destination_port": int(value)},
            "connection.sni": lambda value: {"requested_server_name": v.plain(value)},
        }
        return self._permission(values, not_values, single[key])

    def _permission(
        self,
        values: tuple[str, ...],
        not_values: tuple[str, ...],
        one: Callable[[str], Message],
        http_only: bool = False,  # private, and every call stands above
    ) -> list[Json]:
        if not self._keeps(values, not_values, http_only=http_only):
            return []
        found: list[Json] = []
        if values:
            found.append({"or_rules": {"rules": [one(value) for value in values]}})
        if not_values:
            found.append({"not_rule": {"or_rules": {"rules": [one(value) for value in not_values]}}})
        return found

    # --- principals --------------------------------------------------------------------------------------------

    def _source(self, source: Source) -> Iterator[list[Json]]:
        yield self._principals(source.principals, source.not_principals)
        yield self._whole(source.request_principals, source.not_request_principals, _request_principals)
        yield self._identities(source.service_accounts, source.not_service_accounts, self._account)
        yield self._trust(source.trust_domains, source.not_trust_domains)
        yield self._identities(source.namespaces, source.not_namespaces, v.namespace_name)
        yield self._networks("remote_ip", source.remote_ip_blocks, source.not_remote_ip_blocks)
        yield self._networks("direct_remote_ip", source.ip_blocks, source.not_ip_blocks)

    def _principal_condition(self, condition: Condition) -> list[Json]:
        key, values, not_values = condition.key, condition.values, condition.not_values
        match key:
            case "source.ip":
                return self._networks("direct_remote_ip", values, not_values)
            case "remote.ip":
                return self._networks("remote_ip", values, not_values)
            case "source.namespace":
                return self._identities(values, not_values, v.namespace_name)
            case "source.serviceAccount":
                return self._identities(values, not_values, self._account)
            case "source.trustDomain":
                return self._trust(values, not_values)
            case "source.principal":
                return self._principals(values, not_values)
            case "request.auth.principal":
                return self._whole(values, not_values, _request_principals)
            case "request.auth.audiences":
                return self._whole(values, not_values, lambda found: {"metadata": v.claim(("aud",), found)})
            case "request.auth.presenter":
                return self._whole(values, not_values, lambda found: {"metadata": v.claim(("azp",), found)})
        if key.startswith(_HEADERS):
            name = key[len(_HEADERS) + 1 : -1]
            return self._ids(values, not_values, lambda value: {"header": v.header(name, value)}, http_only=True)
        names = claim_path(key)
        return self._whole(values, not_values, lambda found: {"metadata": v.claim(names, found)})

    def _account(self, value: str) -> Message:
        return v.account_name(value, self._namespace)

    def _principals(self, values: tuple[str, ...], not_values: tuple[str, ...]) -> list[Json]:
        def rewritten(written: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(name for value in written for name in rewrite_principal(value, self._trust_domains))

        return self._identities(rewritten(values), rewritten(not_values), v.principal_name)

    def _trust(self, values: tuple[str, ...], not_values: tuple[str, ...]) -> list[Json]:
        def expanded(written: tuple[str, ...]) -> tuple[str, ...]:
            domains = self._trust_domains
            return tuple(dict.fromkeys(n for value in written for n in (domains if value in domains else (value,))))

        return self._identities(expanded(values), expanded(not_values), v.trust_domain_name)

    def _identities(
        self, values: tuple[str, ...], not_values: tuple[str, ...], name: Callable[[str], Message]
    ) -> list[Json]:
        return self._ids(values, not_values, lambda value: {"authenticated": {"principal_name": name(value)}})

    def _networks(self, field: str, values: tuple[str, ...], not_values: tuple[str, ...]) -> list[Json]:
        return self._ids(values, not_values, lambda value: {field: v.network(value)})

    def _ids(
        self,
        values: tuple[str, ...],
        not_values: tuple[str, ...],
        one: Callable[[str], Message],
        *,
        http_only: bool = False,
    ) -> list[Json]:
        if not self._keeps(values, not_values, http_only=http_only):
            return []
        found: list[Json] = []
        if values:
            found.append({"or_ids": {"ids": [one(value) for value in values]}})
        if not_values:
            found.append({"not_id": {"or_ids": {"ids": [one(value) for value in not_values]}}})
        return found

    def _whole(
        self, values: tuple[str, ...], not_values: tuple[str, ...], of_all: Callable[[tuple[str, ...]], Message]
    ) -> list[Json]:
        """Attributes of a token: one principal for all values together."""
        if not self._keeps(values, not_values, http_only=True):
            return []
        found: list[Json] = [of_all(values)] if values else []
        if not_values:
            found.append({"not_id": of_all(not_values)})
        return found

    def _keeps(self, values: tuple[str, ...], not_values: tuple[str, ...], *, http_only: bool) -> bool:
        if not values and not not_values:
            return False
        if self._tcp and http_only:
            if self._allow:
                raise _HttpOnlyError
            return False
        return True


def _request_principals(values: tuple[str, ...]) -> Message:
    found: list[Json] = [
        {"and_ids": {"ids": [{"metadata": matcher} for matcher in v.request_principal(value)]}} for value in values
    ]
    return found[0] if len(found) == 1 and isinstance(found[0], dict) else {"or_ids": {"ids": found}}


def _is_permission(key: str) -> bool:
    return key in _PERMISSION_KEYS or key.startswith(_FILTERS)
