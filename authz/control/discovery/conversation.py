"""
The discovery conversation of one Envoy without a stream: requests in, responses out (XA-153 to XA-157).

One object serves every type, one type alone or all of them on an aggregated stream, as the state of the world or as
deltas. It knows neither gRPC nor who may have what: the shell gives it the world of its peer, and nothing else.

Order is Envoy's, make before break: clusters and endpoints, then listeners, then routes, each after what it refers to
was answered. Envoy answers clusters once they are ready, which takes their endpoints. A cluster that is gone stays
until listeners and routes that do without it were taken.
"""

from collections.abc import Mapping

from authz._proto import delta_discovery_pb2 as delta
from authz._proto import sds_pb2 as sotw
from authz.control.discovery.discovered import (
    CHAIN,
    CLUSTER_TYPE,
    ENDPOINTS_TYPE,
    FREE,
    LISTENER_TYPE,
    ROUTES_TYPE,
    Discovered,
    ProxyWorld,
    Push,
    TypeWorld,
    version_of,
)
from authz.control.discovery.subscription import MAX_TYPE, MAX_WORDS, WITH_WILDCARD, Subscription

Request = sotw.DiscoveryRequest | delta.DeltaDiscoveryRequest
MAX_TYPES = 16
"""Types that one stream may ask for."""
_LEADING = (LISTENER_TYPE, ROUTES_TYPE)
"""What leads requests to clusters."""
_RETIRED = (CLUSTER_TYPE, ENDPOINTS_TYPE)
"""What stays as long as something may lead to it."""
_ORDERED = frozenset(CHAIN + FREE)
_CHAINED = frozenset(CHAIN)
_NOTHING: TypeWorld = {}


class Conversation:
    """One stream of one Envoy."""

    def __init__(self, world: ProxyWorld | None = None, *, only: str = "") -> None:
        """
        Args:
            world: all that there is for this Envoy.
            only: the one type that is served, where a stream is not aggregated; its requests may leave it out. It is
                pushed to those as well that never answer, which some clients of secrets do not.
        """
        self._world: ProxyWorld = world or {}
        self._only = only
        self._nonce = 0
        self.subscriptions: dict[str, Subscription] = {}
        """By type URL; replaced by nobody else."""
        self.node = ""
        """``node.id`` from the first request: later ones may leave it out (XA-154)."""

    def receive(self, request: Request) -> list[Push]:
        """
        Take a request: a subscription, an ACK or a NACK. Return what is due, often nothing.

        Raises ValueError when another type than the only one is asked for, too many types or names, or too long ones.
        """
        type_url = request.type_url or self._only
        if self._only and type_url != self._only:
            raise ValueError(f"this server has `{self._only}` only, not `{type_url}`")
        if len(type_url) > MAX_TYPE:
            raise ValueError(f"a type of {len(type_url)} characters, at most {MAX_TYPE} are served")
        if request.node.id:
            self.node = request.node.id
        known = self.subscriptions.get(type_url)
        if known is None and len(self.subscriptions) >= MAX_TYPES:
            raise ValueError(f"more than {MAX_TYPES} types were asked for on one stream")
        subscription = known if known is not None else Subscription(type_url)
        if isinstance(request, delta.DeltaDiscoveryRequest):
            _take_delta(subscription, request, is_first=known is None)
        elif not _take_state(subscription, request, is_first=known is None):
            return []
        self.subscriptions[type_url] = subscription
        return self._due(is_delta=isinstance(request, delta.DeltaDiscoveryRequest))

    def update(self, world: ProxyWorld) -> list[Push]:
        """Replace what there is; return what this Envoy has not been sent yet."""
        if world is self._world:
            return []
        self._world = world
        return self._due(is_delta=self._is_delta)

    def go_on(self) -> list[Push]:
        """
        Wait no longer for answers until there have been all: return what is due.

        A cluster that never becomes ready, for want of its certificate or an answer of the DNS, must hold up neither
        listeners, which enforce, nor the clusters that mend it.
        """
        self.is_impatient = not self.is_settled
        return self._due(is_delta=self._is_delta)

    @property
    def is_settled(self) -> bool:
        """Whether every response was answered."""
        for one in self.subscriptions.values():  # noqa: SIM110  # asked three times at every answer of every proxy
            if one.is_waiting:
                return False
        return True

    def has(self, world: ProxyWorld) -> bool:
        """Whether this Envoy was sent this very world, and has answered it."""
        return self._world is world and self.is_settled

    _is_delta = False
    is_impatient = False
    """Whether ``go_on`` was called since there last were all answers."""

    def _due(self, *, is_delta: bool) -> list[Push]:
        self._is_delta = is_delta
        self.is_impatient = self.is_impatient and not self.is_settled
        there = self._world.get
        busy = [url for url, one in self.subscriptions.items() if not one.is_at_rest(there(url, _NOTHING))]
        pushes: list[Push] = []
        if not busy:
            return pushes  # after most answers
        for type_url in (*FREE, *(other for other in busy if other not in _ORDERED)):
            pushes += self._push(type_url, keeps=False)
        if _CHAINED.isdisjoint(busy):
            return pushes  # new filters refer to nothing
        keeps = any(self._is_unsettled(type_url) for type_url in _LEADING)
        for together in (_RETIRED, (LISTENER_TYPE,), (ROUTES_TYPE,)):
            for type_url in together:
                pushes += self._push(type_url, keeps=keeps and type_url in _RETIRED)
            asked = [one for type_url in together if (one := self.subscriptions.get(type_url)) is not None]
            if any(one.is_waiting for one in asked) and not self.is_impatient:
                break  # what comes next may refer to it
        return pushes

    def _is_unsettled(self, type_url: str) -> bool:
        """Whether this Envoy may still lead requests to where it is no longer to."""
        one = self.subscriptions.get(type_url)
        if one is None:
            return False
        there = self._world.get(type_url, _NOTHING)
        return one.is_waiting or bool(one.rejection) or not one.is_done(there)

    def _push(self, type_url: str, *, keeps: bool) -> list[Push]:
        """What is due of one type; nothing while a response has no answer, and what is gone only if nobody keeps it."""
        one = self.subscriptions.get(type_url)
        if one is None or (one.is_waiting and not self._only and not self.is_impatient):
            return []
        if one.rejection and self._is_delta and not one.is_waiting:
            one.forget_refused()
        there = self._world.get(type_url, _NOTHING)
        changed, gone = ((), ()) if one.done is there else (one.changed(there), one.gone(there))
        if not (changed or gone or one.unknown) and (one.nonce or one.sent):
            one.done = there
            return []
        wanted, done = one.wanted(there), None if keeps else there
        if keeps:
            wanted, gone = {**{name: one.sent[name] for name in gone}, **wanted}, ()
        if self._is_delta:
            missing = tuple(sorted(one.unknown - wanted.keys() - set(gone)))
            one.unknown.clear()
            resources, removed = changed, gone + missing
        else:
            resources, removed = tuple(wanted.values()), ()
        # Of listeners and clusters the state of the world says by leaving out that they are gone, and that there are
        # none is news to a proxy that begins.
        is_new = one.is_wildcard and not one.nonce and not one.sent
        is_listed = type_url in WITH_WILDCARD and (bool(gone) or is_new)
        if not (changed or removed or is_listed):
            if gone:  # nobody needs to be told
                one.sent, one.done = wanted, done
            return []
        self._note_awaited(type_url, changed)
        if self._is_delta:
            resources = self._with_untaken(one, changed, wanted)
        one.untaken |= {resource.name for resource in changed}
        one.sent, one.done = wanted, done
        self._nonce += 1
        one.nonce, one.is_waiting, one.pushed = str(self._nonce), True, version_of(wanted.values())
        return [Push(type_url, one.pushed, one.nonce, resources, removed, self._is_delta)]

    def _with_untaken(
        self, one: Subscription, changed: tuple[Discovered, ...], wanted: TypeWorld
    ) -> tuple[Discovered, ...]:
        """
        What is sent in a delta: what changed, and again what the proxy refused, or has left without an answer.

        So the answer to the last response says whether it has everything, as in the state of the world; it would take
        a delta without what it refused, and what it says of one that another has overtaken is no longer known.
        """
        if not one.untaken or self._only:
            return changed
        again = one.untaken - {resource.name for resource in changed}
        return tuple(sorted((*changed, *(wanted[name] for name in again if name in wanted)), key=lambda it: it.name))

    def _note_awaited(self, type_url: str, changed: tuple[Discovered, ...]) -> None:
        """A cluster that is made again waits for its endpoints, though they are the ones it had."""
        endpoints = self.subscriptions.get(ENDPOINTS_TYPE)
        if type_url != CLUSTER_TYPE or endpoints is None:
            return
        for cluster in changed:
            for name in cluster.awaited:
                endpoints.sent.pop(name, None)
                endpoints.done = None


def _take_state(subscription: Subscription, request: sotw.DiscoveryRequest, *, is_first: bool) -> bool:
    """Take a request of the state of the world; False for the answer to a response that another has overtaken."""
    if request.response_nonce and not is_first:
        if not subscription.answer(request.response_nonce, _error(request)):
            return False
    else:
        subscription.done = None
        subscription.sent.clear()  # "resend anyway": the first request after a reconnect (XA-154, 5)
        subscription.is_waiting = False
    subscription.name_all(request.resource_names)
    return True


def _take_delta(subscription: Subscription, request: delta.DeltaDiscoveryRequest, *, is_first: bool) -> None:
    if request.response_nonce and not is_first:
        subscription.answer(request.response_nonce, _error(request))
    if is_first:
        versions: Mapping[str, str] = request.initial_resource_versions
        if versions:
            subscription.sent = {name: Discovered(name, version, b"") for name, version in versions.items()}
            subscription.done = None
            subscription.accepted = version_of(subscription.sent.values())
        subscription.is_wildcard = not request.resource_names_subscribe and subscription.type_url in WITH_WILDCARD
    subscription.unsubscribe(request.resource_names_unsubscribe)
    subscription.subscribe(request.resource_names_subscribe, is_first=is_first)


def _error(request: Request) -> str | None:
    if not request.HasField("error_detail"):
        return None
    return request.error_detail.message[:MAX_WORDS] or f"code {request.error_detail.code}"
