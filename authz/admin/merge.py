"""
The answers of several workers as one: each worker remembers only what it decided itself.

Counts and rates are added, shares follow from the sums, and what all have in common is taken from the first.
Pure; nothing here asks a worker.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

JsonAnswer = dict[str, Any]
"""One JSON object as ``api`` makes it; docs/page.md names its fields."""


def merge_overviews(found: Sequence[JsonAnswer]) -> JsonAnswer:
    """
    The worst worker decides how the service is; a policy version that not all of them share is a cause of its own.
    """
    first = found[0]
    versions = sorted({str(one["policy_version"]) for one in found})
    causes = _distinct((cause for one in found for cause in one["causes"]), lambda cause: cause["message"])
    if len(versions) > 1:
        message = f"workers disagree on the policies in force: {', '.join(versions)}"
        causes.append({"part": "policies", "message": message, "blocks": False})
    return {
        **first,
        "reload_ok": all(one["reload_ok"] for one in found),
        "problems": max(one["problems"] for one in found),
        "ready": any(one["ready"] for one in found),
        "causes": causes,
        "started_at": min(one["started_at"] for one in found),
        "records": {name: sum(one["records"][name] for one in found) for name in first["records"]},
        "workers": len(found),
    }


def merge_policies(found: Sequence[JsonAnswer]) -> JsonAnswer:
    """Add the hits of each rule; where one worker refused a change, its problems are shown."""
    told = next((one for one in found if not one["reload_ok"]), found[0])
    merged = {**told, "reload_ok": all(one["reload_ok"] for one in found)}
    hits: dict[tuple[str, str, int], int] = {}
    for one in found:
        for policy in one.get("authorization", ()):
            for rule in policy["rules"]:
                key = (policy["namespace"], policy["name"], rule["index"])
                hits[key] = hits.get(key, 0) + rule["hits"]
    merged["authorization"] = [
        {
            **policy,
            "rules": [
                {**rule, "hits": hits[(policy["namespace"], policy["name"], rule["index"])]} for rule in policy["rules"]
            ],
        }
        for policy in told.get("authorization", ())
    ]
    return merged


def merge_identities(found: Sequence[JsonAnswer]) -> JsonAnswer:
    """A caller was last seen when any worker saw it; of the states of a key set, the one in trouble is shown."""
    peers: dict[str, float] = {}
    for one in found:
        for peer in one["peers"]:
            peers[peer["principal"]] = max(peer["last_at"], peers.get(peer["principal"], 0.0))
    key_sets = {key_set["name"]: key_set for one in reversed(found) for key_set in one["key_sets"]}
    key_sets.update({k["name"]: k for one in found for k in one["key_sets"] if k["error"]})
    return {
        **found[0],
        "key_sets": list(key_sets.values()),
        "peers": [{"principal": name, "last_at": at} for name, at in sorted(peers.items())],
    }


def merge_decisions(found: Sequence[tuple[int, JsonAnswer]], limit: int) -> list[JsonAnswer]:
    """Newest first; each row says which worker decided."""
    rows = [{**row, "worker": index} for index, one in found for row in one["decisions"]]
    rows.sort(key=lambda row: row["time"], reverse=True)
    return rows[:limit]


# --- the graph -------------------------------------------------------------------------------------------------------


def merge_graphs(found: Sequence[JsonAnswer]) -> JsonAnswer:
    """Join nodes and edges by id, in the order of the first worker that has them."""
    nodes: dict[str, JsonAnswer] = {}
    edges: dict[str, list[JsonAnswer]] = {}
    for one in found:
        for node in one["elements"]["nodes"]:
            data = node["data"]
            nodes[data["id"]] = _merge_nodes(nodes[data["id"]], data) if data["id"] in nodes else data
        for edge in one["elements"]["edges"]:
            edges.setdefault(edge["data"]["id"], []).append(edge["data"])
    return {
        **found[0],
        "namespaces": sorted({name for one in found for name in one.get("namespaces", ())}),
        "truncated": any(one.get("truncated", False) for one in found),
        "elements": {
            "nodes": [{"data": node} for node in nodes.values()],
            "edges": [{"data": merge_edges(alike)} for alike in edges.values()],
        },
    }


def _merge_nodes(first: JsonAnswer, second: JsonAnswer) -> JsonAnswer:
    traffic = {one["protocol"]: dict(one["rates"]) for one in first["traffic"]}
    for one in second["traffic"]:
        _add_rates(traffic.setdefault(one["protocol"], {}), one["rates"])
    merged = {**second, **first}  # a worker that knows more, such as the parent, is not forgotten
    merged["traffic"] = [{"protocol": protocol, "rates": rates} for protocol, rates in sorted(traffic.items())]
    return merged


def merge_edges(found: Sequence[JsonAnswer]) -> JsonAnswer:
    """One edge as several workers saw it."""
    if len(found) == 1:
        return found[0]
    policies = [one["policy"] for one in found]
    allowed, denied = (sum(policy[name] for policy in policies) for name in ("allowed", "denied"))
    total = allowed + denied
    mtls = sum(p["mtlsPercent"] * (p["allowed"] + p["denied"]) for p in policies) / total if total else 0.0
    merged = {key: value for one in reversed(found) for key, value in one.items() if key not in ("traffic", "isMTLS")}
    merged["policy"] = {
        **policies[0],
        "state": _state(allowed, denied, policies),
        "allowed": allowed,
        "denied": denied,
        "deniedPercent": round(100.0 * denied / total, 1) if total else 0.0,
        "rate": round(sum(policy["rate"] for policy in policies), 3),
        "mtlsPercent": round(mtls, 1),
        "lastAt": max(policy["lastAt"] or 0.0 for policy in policies) or None,
        "protocols": sorted({protocol for policy in policies for protocol in policy["protocols"]}),
        "principals": _added(policies, "principals", lambda one: one["principal"]),
        "rules": _added(policies, "rules", lambda one: (one["effect"], one["stage"], one["name"])),
        "permission": next((policy["permission"] for policy in policies if policy["permission"]), None),
        "permittedBy": _distinct((r for p in policies for r in p["permittedBy"]), lambda rule: rule["name"]),
    }
    if total:
        merged["isMTLS"] = f"{mtls:.0f}"
        merged["traffic"] = _merge_traffic([(one["traffic"], one["policy"]) for one in found if "traffic" in one])
    return merged


def _state(allowed: int, denied: int, policies: Iterable[JsonAnswer]) -> str:
    if allowed:
        return "mixed" if denied else "allowed"
    if denied:
        return "denied"
    return "idle" if any(policy["state"] == "idle" for policy in policies) else "unused"


def _merge_traffic(found: Sequence[tuple[JsonAnswer, JsonAnswer]]) -> JsonAnswer:
    """Rates are added; shares are weighted by the requests that each worker saw."""
    rates: dict[str, str] = {}
    weighted: dict[tuple[str, str], float] = {}
    total = sum(policy["allowed"] + policy["denied"] for _, policy in found) or 1
    denied = sum(policy["denied"] for _, policy in found)
    for traffic, policy in found:
        _add_rates(rates, {name: rate for name, rate in traffic["rates"].items() if not name.endswith("PercentErr")})
        for code, response in traffic["responses"].items():
            for flag, share in response["flags"].items():
                number = float(share) * (policy["allowed"] + policy["denied"])
                weighted[(code, flag)] = weighted.get((code, flag), 0.0) + number
    protocol = found[0][0]["protocol"]
    if denied:
        rates[f"{protocol}PercentErr"] = f"{100.0 * denied / total:.1f}"
    responses: JsonAnswer = {}
    for (code, flag), number in sorted(weighted.items()):
        responses.setdefault(code, {"flags": {}, "hosts": {}})["flags"][flag] = f"{number / total:.1f}"
    return {"protocol": protocol, "rates": rates, "responses": responses}


def _add_rates(rates: dict[str, str], more: dict[str, str]) -> None:
    for name, rate in more.items():
        rates[name] = f"{float(rates.get(name, 0)) + float(rate):.2f}"


def _added(policies: Iterable[JsonAnswer], name: str, key: Callable[[JsonAnswer], Any]) -> list[JsonAnswer]:
    """Entries that are the same thing, their ``requests`` added, most first."""
    found: dict[Any, JsonAnswer] = {}
    for policy in policies:
        for one in policy[name]:
            before = found.get(key(one))
            if before is None:
                found[key(one)] = dict(one)
                continue
            before["requests"] += one["requests"]
            before["rule" if name == "rules" else "permitted"] = (
                (before["rule"] or one["rule"]) if name == "rules" else (before["permitted"] or one["permitted"])
            )
    return sorted(found.values(), key=lambda one: -one["requests"])


def _distinct(found: Iterable[JsonAnswer], key: Callable[[JsonAnswer], Any]) -> list[JsonAnswer]:
    return list({key(one): one for one in found}.values())
