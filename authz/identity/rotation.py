"""
Rotate the root with overlap: prepare, activate, taint, retire. Each step gives a new authority value, or says why not.

prepare   a second root is trusted everywhere, and signs nothing yet
activate  it signs; what the old one signed is still trusted (a proxy that lacked the new root would now break)
taint     everything the old one signed is renewed at once
retire    the old root is no longer trusted (a proxy that still serves its certificates would now break)

Whether every proxy is ready for a step is ``drift``'s question; a step does not look at proxies.
"""

from dataclasses import replace

from authz.identity.authority import Authority, AuthorityState, create_authority, renew_intermediate, succeed
from authz.identity.ca import CertificateAuthority
from authz.identity.keys import KeyType


def prepare(
    ca: CertificateAuthority,
    now: float,
    *,
    key_type: KeyType = KeyType.ECDSA_P256,
    adopted: Authority | None = None,
) -> CertificateAuthority:
    """Add a root, made here or ``adopted``. Raises ValueError when one is prepared already."""
    for authority in ca.authorities:
        if authority.state is AuthorityState.PREPARED:
            raise ValueError(f"the authority `{authority.id}` is prepared already; activate or retire it first")
    added = adopted or create_authority(ca.trust_domain, now, ca.random, key_type=key_type)
    if any(authority.id == added.id for authority in ca.authorities):
        raise ValueError(f"the authority `{added.id}` is here already")
    return replace(ca, authorities=(*ca.authorities, replace(added, state=AuthorityState.PREPARED)))


def renew(
    ca: CertificateAuthority,
    now: float,
    *,
    key_type: KeyType = KeyType.ECDSA_P256,
    adopted: Authority | None = None,
) -> CertificateAuthority:
    """
    Sign with another intermediate, made here or ``adopted``, of the same root: nobody's trust changes.

    Raises ValueError when it is of another root, the one in use, or cannot be made here.
    """
    active = ca.active
    if adopted is None:
        renewed = renew_intermediate(active, ca.trust_domain, now, ca.random, key_type=key_type)
    elif adopted.root != active.root:
        raise ValueError("the intermediate belongs to another root; change the root with `authz ca root prepare`")
    elif adopted.signing == active.signing:
        raise ValueError("the intermediate is in use already")
    else:
        renewed = succeed(active, adopted.chain, adopted.key, now)
    return replace(ca, authorities=tuple(renewed if a is active else a for a in ca.authorities))


def activate(ca: CertificateAuthority, authority_id: str = "") -> CertificateAuthority:
    """Sign with the prepared (or an old) authority; the active one becomes old. Empty: the prepared one."""
    chosen = ca.authority(authority_id) if authority_id else _only(ca, AuthorityState.PREPARED)
    if chosen.state is AuthorityState.ACTIVE:
        raise ValueError(f"the authority `{chosen.id}` is active already")
    if chosen.state is AuthorityState.TAINTED:
        raise ValueError(f"the authority `{chosen.id}` is tainted and cannot sign again")
    states = {ca.active.id: AuthorityState.OLD, chosen.id: AuthorityState.ACTIVE}
    return _with_states(ca, states)


def taint(ca: CertificateAuthority, authority_id: str = "") -> CertificateAuthority:
    """Have everything that an old authority signed renewed. Empty: the only old one."""
    chosen = ca.authority(authority_id) if authority_id else _only(ca, AuthorityState.OLD)
    if chosen.state is not AuthorityState.OLD:
        raise ValueError(f"the authority `{chosen.id}` is {chosen.state}; only an old one can be tainted")
    return _with_states(ca, {chosen.id: AuthorityState.TAINTED})


def retire(ca: CertificateAuthority, authority_id: str = "") -> CertificateAuthority:
    """Stop trusting an authority; spire's ``revoke``. A prepared one may be given up too. Empty: the tainted one."""
    chosen = ca.authority(authority_id) if authority_id else _only(ca, AuthorityState.TAINTED)
    if chosen.state is AuthorityState.ACTIVE:
        raise ValueError(f"the authority `{chosen.id}` is active; activate another one first")
    if chosen.state is AuthorityState.OLD:
        raise ValueError(f"the authority `{chosen.id}` is old but not tainted; its certificates may still be in use")
    return replace(ca, authorities=tuple(a for a in ca.authorities if a.id != chosen.id))


def _only(ca: CertificateAuthority, state: AuthorityState) -> Authority:
    found = [authority for authority in ca.authorities if authority.state is state]
    if len(found) != 1:
        what = "no authority is" if not found else f"{len(found)} authorities are"
        raise ValueError(f"{what} {state}; name one of {', '.join(f'{a.id} ({a.state})' for a in ca.authorities)}")
    return found[0]


def _with_states(ca: CertificateAuthority, states: dict[str, AuthorityState]) -> CertificateAuthority:
    return replace(ca, authorities=tuple(replace(a, state=states.get(a.id, a.state)) for a in ca.authorities))
