"""What the streams of a proxy say of it."""

from authz.control.discovery.conversation import Conversation
from authz.control.discovery.discovered import CLUSTER_TYPE, SECRET_TYPE, SHORT_NAMES
from authz.control.discovery.overdue import waits_of
from authz.control.fleet.fleet_figures import ProxyState, TypeState
from authz.control.fleet.fleet_snapshot import FleetMember
from authz.control.fleet.proxy_stream import ProxyStream

_MAY_BE_LEFT = frozenset((SECRET_TYPE,))
"""A proxy without mutual TLS asks for none of these."""


def state_of(member: FleetMember, stream: ProxyStream, *, is_connected: bool) -> ProxyState:
    """A proxy as the newest of its streams shows it, or did when that ended."""
    conversation, is_late = stream.conversation, stream.conversation.is_impatient
    waits = {CLUSTER_TYPE: waits_of(conversation.subscriptions, member.world)} if is_late else {}
    types = {
        SHORT_NAMES.get(url, url): TypeState(
            one.accepted, one.refused, one.rejection, one.is_waiting, one.is_waiting and is_late, waits.get(url, ())
        )
        for url, one in sorted(conversation.subscriptions.items())
    }
    is_current = is_connected and has_everything(member, conversation)
    expires = stream.evidence.expires_at
    return ProxyState(member.name, str(member.spiffe_id), is_connected, is_current, expires, types)


def has_everything(member: FleetMember, conversation: Conversation) -> bool:
    """Whether a proxy has taken all that there is for it: it has also asked for every type of that, but for secrets."""
    if not conversation.has(member.world):
        return False
    asked = conversation.subscriptions
    return (member.world.keys() - asked.keys()) <= _MAY_BE_LEFT and not any(one.rejection for one in asked.values())
