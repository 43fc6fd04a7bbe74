"""
Observed traffic as AuthorizationPolicies: one for each workload, one rule for each of its callers, with what they did.

What is left out stands there as a comment. Whatever a client could write is quoted, in comments too.
"""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator

from authz.analysis.replay.observed import MAX_SUBJECTS, Called, Caller, Observed
from authz.analysis.replay.path_templates import PathUse

_PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9/_.-]*")
_WORDS = frozenset("y n yes no true false on off null".split())  # noqa: SIM905  # read as a list of words
_NAMESPACE = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")
MAX_LABEL_VALUE = 63
NOBODY = "callers without an identity"


def policies_text(observed: Observed, min_count: int) -> str:
    """Write the policies as YAML; callers with fewer than ``min_count`` requests are comments."""
    lines = list(_head(observed, min_count))
    names: set[tuple[str, str]] = set()
    for called in sorted(observed.called.values(), key=_order):
        lines += ["---", *_policy(called, min_count, names)]
    return "\n".join(lines) + "\n"


def anonymous_rules(observed: Observed, min_count: int) -> list[str]:
    """The workloads with a rule that admits callers of whom nothing is known, ``namespace/name``."""
    return [
        f"{called.workload.namespace}/{_name(called)}"
        for called in sorted(observed.called.values(), key=_order)
        for caller in called.callers.values()
        if caller.count >= min_count and not caller.principal and not _principals(caller) and not _unselectable(called)
    ]


def _order(called: Called) -> tuple[str, str, list[tuple[str, str]]]:
    return called.workload.namespace, _name(called), sorted(called.workload.labels)


def _name(called: Called) -> str:
    return min(called.names) or "workload"


def _head(observed: Observed, min_count: int) -> Iterator[str]:
    span = f", {observed.first} to {observed.last}" if observed.last else ""
    yield f"# Written from {observed.records} records{span}: what was allowed then is"
    yield "# allowed here, and nothing else at these workloads. Read it before it is put in force."
    if observed.denied:
        yield f"# Denied requests ({observed.denied}) are no reason to allow and stand nowhere below."
    if observed.unknown:
        yield f"# Records that do not say who called ({observed.unknown}) stand nowhere below."
    if min_count > 1:
        yield f"# Callers with fewer than {min_count} requests are left out and stand as comments."
    issuers = {
        issuer for called in observed.called.values() for caller in called.callers.values() for issuer in caller.issuers
    }
    if issuers:
        yield "# requestPrincipals need the RequestAuthentication of their issuers, which is not written here:"
        yield from (f"#   {_shown(issuer)}" for issuer in sorted(issuers))


def _policy(called: Called, min_count: int, names: set[tuple[str, str]]) -> Iterator[str]:
    workload = called.workload
    callers = sorted(called.callers.values(), key=lambda one: (-one.count, one.principal, one.issuer))
    told = ", ".join(sorted(map(_shown, called.names)))
    total = sum(one.count for one in callers)
    number = f"{total} request{'s' if total > 1 else ''}" if total else "nothing but denied requests: nobody is allowed"
    yield f"# {_shown(workload.namespace) or '(no namespace)'}: {told}, {number}"
    problem = _unselectable(called)
    if problem:
        yield f"# left out: {problem}"
        for caller in callers:
            yield f"#   {_who(caller)}: {_counted(caller)}"
        return
    kept = [one for one in callers if one.count >= min_count and not one.problem]
    if not workload.labels:
        yield "# It has no labels: this policy is for the whole namespace."
    yield "apiVersion: security.istio.io/v1"
    yield "kind: AuthorizationPolicy"
    yield "metadata:"
    yield f"  name: {_policy_name(called, names)}"
    yield f"  namespace: {_quoted(workload.namespace)}"
    yield "spec:"
    if workload.labels:
        yield "  selector:"
        yield "    matchLabels:"
        yield from (f"      {_quoted(name)}: {_quoted(value)}" for name, value in sorted(workload.labels))
    yield "  action: ALLOW"
    rules = [line for caller in kept for line in _rules(caller)]
    yield "  rules:" if any(not line.lstrip().startswith("#") for line in rules) else "  rules: []"
    yield from (f"  {line}" for line in rules)
    for caller in callers:
        if caller not in kept:
            why = caller.problem or f"fewer than {min_count} requests"
            yield f"  # left out, {why}: {_who(caller)}, {_counted(caller)}"
            if not caller.problem:
                yield from (f"  # {line}" for line in _rules(caller) if not line.startswith("#"))


def _unselectable(called: Called) -> str:
    """Why no policy can be for a workload; empty when one can."""
    if not called.has_labels:
        return "the records do not say its labels, which a policy selects by; give the mesh description"
    if not _NAMESPACE.fullmatch(called.workload.namespace):
        return "the records do not say its namespace"
    if any(not name or "*" in name + value or len(value) > MAX_LABEL_VALUE for name, value in called.workload.labels):
        return "its labels cannot stand in a selector (VA-3)"
    return ""


def _rules(caller: Caller) -> Iterator[str]:
    """One rule for HTTP, one for plain TCP, each with a comment."""
    yield f"# {_who(caller)}: {_counted(caller)}"
    principals = _principals(caller)
    if not caller.principal and principals:
        yield "# Nothing but the token says who it is: whoever has one may come from anywhere."
    elif not caller.principal:
        yield "# ATTENTION: this admits everybody who reaches the workload, with or without mutual TLS."
    unwritten = caller.unwritten + caller.paths.unwritten
    if unwritten:
        yield f"# Requests whose method or path cannot be written here: {unwritten}."
    source = [f"principals: [{_quoted(caller.principal)}]"] if caller.principal else []
    operations = list(_operations(caller))
    if operations:
        tokens = [f"requestPrincipals: [{', '.join(map(_quoted, principals))}]"] if principals else []
        yield from _rule([*source, *tokens], operations)
    if caller.tcp_ports:
        yield f"# {sum(caller.tcp_ports.values())} of these were TCP connections, of which ports are all that is known."
        ports = sorted(port for port in caller.tcp_ports if port is not None)
        yield from _rule(source, [[_ports(ports)]] if None not in caller.tcp_ports else [])


def _rule(source: list[str], operations: list[list[str]]) -> Iterator[str]:
    """An empty rule would have no key: then it is `{}`, which matches everything (AP-5)."""
    lines = []
    if source:
        lines += ["from:", "- source:", *(f"    {line}" for line in source)]
    if operations:
        lines.append("to:")
        for operation in operations:
            lines += ["- operation:", *(f"    {line}" for line in operation)]
    yield f"- {lines[0] if lines else '{}'}"
    yield from (f"  {line}" for line in lines[1:])


def _operations(caller: Caller) -> Iterator[list[str]]:
    """Paths that were used alike stand together, so that no combination is allowed that was not seen."""
    alike: defaultdict[tuple[frozenset[str], frozenset[int | None]], list[str]] = defaultdict(list)
    for path, uses in caller.paths:
        for methods, ports in _rectangles(uses):
            alike[methods, ports].append(path)
    for (methods, ports), paths in sorted(alike.items(), key=lambda one: (one[1], sorted(one[0][0]))):
        with_path = [path for path in paths if path]
        base = [_ports(sorted(p for p in ports if p is not None))] if None not in ports else []
        base.append(f"methods: [{', '.join(_quoted(one) for one in sorted(methods))}]")
        if with_path:
            yield [*base, *_listed("paths", with_path)]
        if len(with_path) < len(paths):
            yield base


def _rectangles(uses: Counter[PathUse]) -> Iterator[tuple[frozenset[str], frozenset[int | None]]]:
    """Methods and ports that were all used with each other; an unknown port stands alone."""
    by_method: defaultdict[str, set[int | None]] = defaultdict(set)
    for method, port in uses:
        by_method[method].add(port)
    by_ports: defaultdict[frozenset[int | None], set[str]] = defaultdict(set)
    for method, ports in by_method.items():
        if None in ports:
            by_ports[frozenset({None})].add(method)  # it cannot be asked for, so none is (CS-8)
        else:
            by_ports[frozenset(ports)].add(method)
    return ((frozenset(methods), ports) for ports, methods in by_ports.items())


def _principals(caller: Caller) -> list[str]:
    """`requestPrincipals` where every request had a token: the one subject, else any of the issuer (AP-38)."""
    if not caller.has_tokens:
        return []
    return [
        f"{issuer}/{only}"
        if len(subjects) < MAX_SUBJECTS and "/" not in (only := min(subjects)) and not only.endswith("*")
        else f"{issuer}/*"
        for issuer, subjects in sorted(caller.issuers.items())
    ]


def _who(caller: Caller) -> str:
    if caller.principal:
        return _shown(caller.principal)
    return f"{NOBODY}, tokens of {_shown(caller.issuer)}" if caller.issuer else NOBODY


def _counted(caller: Caller) -> str:
    span = f", {caller.first} to {caller.last}" if caller.last else ""
    return f"{caller.count} request{'s' if caller.count > 1 else ''}{span}"


def _policy_name(called: Called, names: set[tuple[str, str]]) -> str:
    plain = re.sub(r"[^a-z0-9]+", "-", _name(called).lower()).strip("-")[:50].strip("-") or "workload"
    name, number = f"{plain}-callers", 1
    while (called.workload.namespace, name) in names:
        number += 1
        name = f"{plain}-callers-{number}"
    names.add((called.workload.namespace, name))
    return name


def _ports(ports: Iterable[int]) -> str:
    return f"ports: [{', '.join(f'{json.dumps(str(port))}' for port in ports)}]"


def _listed(name: str, values: list[str]) -> list[str]:
    quoted = [_quoted(value) for value in values]
    if sum(map(len, quoted)) < 80:
        return [f"{name}: [{', '.join(quoted)}]"]
    return [f"{name}:", *(f"- {value}" for value in quoted)]


def _quoted(text: str) -> str:
    """A YAML scalar: plain where nothing can be mistaken, else in double quotes."""
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS:
        return text
    escaped = "".join(_escaped(character) for character in text)
    return f'"{escaped}"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return f"\\{character}"
    return character if character.isprintable() else f"\\U{ord(character):08x}"


def _shown(text: str) -> str:
    """Text in a comment: on one line, whatever it holds."""
    return "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in text)
