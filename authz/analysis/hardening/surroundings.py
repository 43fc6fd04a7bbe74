"""Checks 9, 10 and 12: sockets of proxies, clocks of others, and users that are shared."""

import stat
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from email.utils import parsedate_to_datetime
from pathlib import Path

from authz.analysis.hardening.checklist import Finding
from authz.core.errors import Severity
from authz.identity.registration import RegistrationEntry

CLOCK_SECONDS = 10.0
"""Less than the leeway that certificates and most issuers give (60 s for tokens); HTTP tells whole seconds."""


def judge_clock(where: str, date: str, now: float) -> Iterator[Finding]:
    """Compare an HTTP ``Date`` with our own time, seconds since the epoch. A header that is none tells nothing."""
    try:
        theirs = parsedate_to_datetime(date).timestamp()
    except ValueError:
        return
    if abs(now - theirs) > CLOCK_SECONDS:
        way = "ahead of" if now > theirs else "behind"
        what = f"this machine's clock is {abs(now - theirs):.0f} s {way} theirs"
        yield Finding(10, where, what, "run a time service (chrony, systemd-timesyncd) on both", Severity.ERROR)


def judge_admin_sockets(sockets: Mapping[str, Path]) -> Iterator[Finding]:
    """Yield sockets of proxies, by name, that strangers can use, and proxies that share a user or are root's."""
    users: dict[int, list[str]] = defaultdict(list)
    for proxy, path in sockets.items():
        try:
            status = path.stat()
        except OSError:
            continue
        users[status.st_uid].append(proxy)
        mode = stat.S_IMODE(status.st_mode)
        if mode & 0o002:
            what = f"every user of this machine can stop the proxy (mode {mode:04o})"
            yield Finding(9, f"{path}", what, "set the admin pipe's `mode` to 432 (0660)", Severity.ERROR)
    for uid, proxies in sorted(users.items()):
        if len(proxies) > 1:
            what = f"proxies of one user (uid {uid}) can have one another's identity: {', '.join(sorted(proxies))}"
            yield Finding(12, f"user {uid}", what, "give each proxy a user of its own, and each entry its uid")
        elif uid == 0:
            yield Finding(12, f"proxy {proxies[0]}", "runs as root", "give it a user of its own")


def judge_entries(file: str, entries: Iterable[RegistrationEntry]) -> Iterator[Finding]:
    """Yield selectors that give several identities to one user."""
    granted: dict[frozenset[str], set[str]] = defaultdict(set)
    for entry in entries:
        if entry.selectors:
            granted[entry.selectors].add(str(entry.grant.spiffe_id))
    for selectors, identities in sorted(granted.items(), key=lambda item: sorted(item[0])):
        wider = {name for other, names in granted.items() if other < selectors for name in names}
        if len(found := identities | wider) > 1:
            where = f"{file}: {', '.join(sorted(selectors))}"
            what = f"one user may have {len(found)} identities: {', '.join(sorted(found))}"
            yield Finding(12, where, what, "give each workload a user of its own, and each entry its uid")
