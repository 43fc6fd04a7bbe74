"""
Rate limits as Envoy's two filters: one that counts by itself, and those that ask the service that all proxies share.

They stand behind the filters that enforce: a refused request costs nothing, and what they count by is proven. What can
be compared in Envoy is compared there (headers, method, path, address), so that nothing unbounded is sent; who the
caller is goes along as metadata of the call, and the service takes it from there.
"""

import re

import betterproto2
from envoy_data_plane.envoy.config.core.v3 import (
    ApiVersion,
    GrpcService,
    GrpcServiceEnvoyGrpc,
    HeaderValue,
    RuntimeFractionalPercent,
)
from envoy_data_plane.envoy.config.ratelimit.v3 import RateLimitServiceConfig
from envoy_data_plane.envoy.config.route.v3 import (
    HeaderMatcher,
    RateLimitAction,
    RateLimitActionGenericKey,
    RateLimitActionHeaderValueMatch,
    RateLimitActionMetaData,
    RateLimitActionRemoteAddressMatch,
    RateLimitActionRequestHeaders,
    RateLimitHitsAddend,
)
from envoy_data_plane.envoy.config.route.v3 import RateLimit as RateLimitActions
from envoy_data_plane.envoy.extensions.common.ratelimit.v3 import (
    LocalRateLimitDescriptor,
    RateLimitDescriptorEntry,
    XRateLimitHeadersRfcVersion,
)
from envoy_data_plane.envoy.extensions.filters.http.local_ratelimit.v3 import LocalRateLimit
from envoy_data_plane.envoy.extensions.filters.http.ratelimit.v3 import RateLimit, RateLimitXRateLimitHeadersRfcVersion
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import HttpFilter
from envoy_data_plane.envoy.extensions.rate_limit_descriptors.expr.v3 import Descriptor
from envoy_data_plane.envoy.type.matcher.v3 import AddressMatcher, RegexMatcher, StringMatcher
from envoy_data_plane.envoy.type.metadata.v3 import MetadataKey, MetadataKeyPathSegment
from envoy_data_plane.envoy.type.v3 import FractionalPercent, HttpStatus, StatusCode, TokenBucket
from envoy_data_plane.xds.core.v3 import CidrRange

from authz.core.matchers import compile_template
from authz.envoy.check_filter import HTTP_FILTER
from authz.envoy.messages import extension, pack, seconds
from authz.envoy.native.record_log import JWT, PAYLOAD
from authz.envoy.options import LIMITS_CLUSTER, RenderOptions
from authz.envoy.refusal_log import tells_refusals
from authz.mesh.nouns import MeshWorkload
from authz.mesh.rate_limits import (
    AddressMatch,
    AddressSelector,
    AppliedLimit,
    AttributeSelector,
    HeaderSelector,
    LimitScope,
    MethodSelector,
    PathMatch,
    PathSelector,
    RateLimitRule,
    Selector,
    ValueMatch,
)

DOMAIN = "authz"
RULE, TARGET, MATCHED, YES = "rule", "target", "matched", "yes"
MOST_DISTINCT = 10_000
"""Values of `Distinct` that one proxy counts by itself; beyond that it forgets those unused for longest."""
CLAIMS_TOLD = "claims"
"""Member of the check's dynamic metadata with the claims that limits ask for."""
_PEER = "connection.uri_san_peer_certificate"
_ADDRESS = "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"
_FACTS = {
    "x-authz-principal": "%DOWNSTREAM_PEER_URI_SAN%",
    "x-authz-request-id": "%REQ(X-REQUEST-ID):128%",
    "x-authz-method": "%REQ(:METHOD):64%",
    "x-authz-host": "%REQ(:AUTHORITY):256%",
    "x-authz-path": "%PATH(NQ:PATH):1024%",
    "x-authz-remote-ip": _ADDRESS,
    "x-authz-direct-ip": "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%",
}
"""
Facts of the request as metadata of the call, which the client cannot forge; the path without its query. What a client
writes is cut off: gRPC refuses metadata of more than 8 kB, and the request would go uncounted.
"""


def rate_limit_filters(workload: MeshWorkload, options: RenderOptions) -> list[HttpFilter]:
    """The filters of a workload's limits, its own first: what a proxy refuses by itself asks nobody."""
    native = options.is_native(workload)
    found = []
    local = [one for one in workload.limits if one.rule.scope is LimitScope.LOCAL]
    if local:
        found.append(HttpFilter(name="authz.local-rate-limits", typed_config=pack(_local(local, native=native))))
    for closed in (False, True):
        asked = [one for one in global_limits(workload) if one.rule.fails_closed is closed]
        if asked:
            config = _global(asked, workload, closed=closed, native=native)
            name = f"authz.rate-limits{'-closed' if closed else ''}"
            found.append(HttpFilter(name=name, typed_config=pack(config)))
    return found


def global_limits(workload: MeshWorkload) -> list[AppliedLimit]:
    """The limits for which the service is asked."""
    return [one for one in workload.limits if one.rule.scope is LimitScope.GLOBAL]


def asks_service(workload: MeshWorkload, options: RenderOptions) -> bool:
    """Whether a proxy speaks to the service: it has others count, or tells of what it refused by itself."""
    return bool(global_limits(workload)) or tells_refusals(workload, options)


def _global(limits: list[AppliedLimit], workload: MeshWorkload, *, closed: bool, native: bool) -> RateLimit:
    facts = _FACTS | {"x-authz-proxy": workload.name, "x-authz-enforce": "native" if native else "check"}
    if closed:
        facts["x-authz-fail-closed"] = YES  # the service cannot know it of a rule that it does not know
    return RateLimit(
        domain=DOMAIN,
        timeout=seconds(0.25),
        failure_mode_deny=closed,
        status_on_error=HttpStatus(code=StatusCode.ServiceUnavailable),
        rate_limited_as_resource_exhausted=True,
        enable_x_ratelimit_headers=RateLimitXRateLimitHeadersRfcVersion.DRAFT_VERSION_03,
        stat_prefix="closed" if closed else "open",
        rate_limit_service=RateLimitServiceConfig(
            transport_api_version=ApiVersion.V3,
            grpc_service=GrpcService(
                envoy_grpc=GrpcServiceEnvoyGrpc(cluster_name=LIMITS_CLUSTER),
                initial_metadata=[HeaderValue(key=key, value=value) for key, value in facts.items()],
            ),
        ),
        rate_limits=[_actions(one, native=native) for one in limits],
    )


def _actions(limit: AppliedLimit, *, native: bool) -> RateLimitActions:
    found = [_named(RULE, limit.rule.id)]
    if limit.target:
        found.append(_named(TARGET, limit.target))
    found += [action for one in limit.rule.selectors for action in _global_action(one, native=native)]
    return RateLimitActions(actions=found)


def _global_action(selector: Selector, *, native: bool) -> list[RateLimitAction]:
    if isinstance(selector, AttributeSelector):
        # Principal and namespace are in the metadata of every call.
        return [_claim(selector, native=native)] if selector.claim else []
    return [_action(selector)]


def _local(limits: list[AppliedLimit], *, native: bool) -> LocalRateLimit:
    rules = [one.rule for one in limits]
    everything = RuntimeFractionalPercent(default_value=FractionalPercent(numerator=100))
    return LocalRateLimit(
        stat_prefix="rate_limits",
        filter_enabled=everything,
        filter_enforced=everything,
        rate_limited_as_resource_exhausted=True,
        enable_x_ratelimit_headers=XRateLimitHeadersRfcVersion.DRAFT_VERSION_03,
        always_consume_default_token_bucket=False,
        max_dynamic_descriptors=MOST_DISTINCT,
        rate_limits=[
            RateLimitActions(
                actions=[_named(RULE, rule.id), *(_local_action(one, native=native) for one in rule.selectors)],
                hits_addend=RateLimitHitsAddend(number=rule.cost) if rule.cost != 1 else None,
            )
            for rule in rules
        ],
        descriptors=[_bucket(rule) for rule in rules],
    )


def _bucket(rule: RateLimitRule) -> LocalRateLimitDescriptor:
    """The counter of a rule; Envoy takes an entry without a value for any value, each counted by itself."""
    entries = [RateLimitDescriptorEntry(key=RULE, value=rule.id)]
    entries += [RateLimitDescriptorEntry(key=_key(one), value=_wanted(one)) for one in rule.selectors]
    bucket = TokenBucket(
        max_tokens=rule.requests, tokens_per_fill=rule.requests, fill_interval=seconds(rule.unit.seconds)
    )
    return LocalRateLimitDescriptor(entries=entries, token_bucket=bucket)


def _local_action(selector: Selector, *, native: bool) -> RateLimitAction:
    if not isinstance(selector, AttributeSelector):
        return _action(selector)
    if selector.claim:
        return _claim(selector, native=native)
    # A name that the module also imports from protobuf, which is the only one that mypy sees.
    uri: betterproto2.Message = Descriptor(descriptor_key=_key(selector), text=_PEER)  # type: ignore[call-arg,assignment]  # see above
    return RateLimitAction(extension=extension("envoy.rate_limit_descriptors.expr", uri))


def _key(selector: Selector) -> str:
    match selector:
        case HeaderSelector(name=name, match=ValueMatch.DISTINCT):
            return f"header {name}"
        case AddressSelector(match=AddressMatch.DISTINCT):
            return "address"
        case AttributeSelector(key=key):
            return key
    return MATCHED


def _wanted(selector: Selector) -> str:
    """The value that an entry must have; empty for any."""
    match selector:
        case HeaderSelector(match=ValueMatch.DISTINCT) | AddressSelector(match=AddressMatch.DISTINCT):
            return ""
        case AttributeSelector(match=ValueMatch.DISTINCT):
            return ""
        case AttributeSelector(value=value):
            return value if selector.claim else f"spiffe://{value}"
    return YES


def _action(selector: HeaderSelector | MethodSelector | PathSelector | AddressSelector) -> RateLimitAction:
    match selector:
        case HeaderSelector(name=name, match=ValueMatch.DISTINCT):
            header = RateLimitActionRequestHeaders(header_name=name, descriptor_key=_key(selector))
            return RateLimitAction(request_headers=header)
        case HeaderSelector(name=name, value=value, invert=invert):
            is_regex = selector.match is ValueMatch.REGULAR_EXPRESSION
            return _matched(name, _regex(value) if is_regex else StringMatcher(exact=value), invert=invert)
        case MethodSelector(methods=methods, invert=invert):
            return _matched(":method", _regex("|".join(map(re.escape, methods))), invert=invert)
        case PathSelector(invert=invert):
            return _matched(":path", _regex(rf"(?:{_path_regex(selector)})(?:\?.*)?"), invert=invert)
        case AddressSelector(address=address, length=length):
            ranges = AddressMatcher(ranges=[CidrRange(address_prefix=address, prefix_len=length)])
            value = _ADDRESS if selector.match is AddressMatch.DISTINCT else YES
            matched = RateLimitActionRemoteAddressMatch(
                descriptor_key=_key(selector), descriptor_value=value, address_matcher=ranges
            )
            return RateLimitAction(remote_address_match=matched)


def _path_regex(path: PathSelector) -> str:
    match path.match:
        case PathMatch.EXACT:
            return re.escape(path.value)
        case PathMatch.PREFIX:  # of whole segments, as in the Gateway API
            stem = path.value.rstrip("/")
            return rf"{re.escape(stem)}(?:/[^?]*)?" if stem else "/[^?]*"
        case PathMatch.TEMPLATE:
            return compile_template(path.value).pattern
        case _:
            return path.value


def _claim(selector: AttributeSelector, *, native: bool) -> RateLimitAction:
    """A claim of the verified token that is a text; anything else is as if it were not there."""
    namespace, member = (JWT, PAYLOAD) if native else (HTTP_FILTER, CLAIMS_TOLD)
    path = [MetadataKeyPathSegment(key=name) for name in (member, *selector.claim)]
    claim = RateLimitActionMetaData(
        descriptor_key=selector.key,
        metadata_key=MetadataKey(key=namespace, path=path),
        default_value=selector.default,
    )
    return RateLimitAction(metadata=claim)


def _named(key: str, value: str) -> RateLimitAction:
    return RateLimitAction(generic_key=RateLimitActionGenericKey(descriptor_key=key, descriptor_value=value))


def _matched(name: str, value: StringMatcher, *, invert: bool) -> RateLimitAction:
    return RateLimitAction(
        header_value_match=RateLimitActionHeaderValueMatch(
            descriptor_key=MATCHED,
            descriptor_value=YES,
            expect_match=not invert,
            headers=[HeaderMatcher(name=name, string_match=value)],
        )
    )


def _regex(text: str) -> StringMatcher:
    return StringMatcher(safe_regex=RegexMatcher(regex=text))
