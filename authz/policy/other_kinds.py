"""
Objects of other kinds: passed over with a remark (RE-12), unless a policy could be lost with them.

A container that holds a policy, an object that older versions of Istio enforced, and a near miss of a kind are not
"other kinds": what they were meant to deny would be allowed.
"""

import re
from base64 import b64decode
from collections.abc import Iterator
from contextlib import suppress

from authz.documents import reading
from authz.documents.reading import Node, Scalar, Sequence
from authz.documents.schema import Notes, given, key_of, nearest

GROUP = "security.istio.io"
KINDS = ("AuthorizationPolicy", "RequestAuthentication", "PeerAuthentication")
_PEER, _REQUEST, _AUTHORIZATION = "PeerAuthentication", "RequestAuthentication", "AuthorizationPolicy"

_REPLACED = {
    "MeshPolicy": f"a {_PEER} in the root namespace for `peers`, a {_REQUEST} there for `origins`",
    "Policy": f"a {_PEER} for `peers`, a {_REQUEST} for `origins`",
    "ClusterRbacConfig": f"an {_AUTHORIZATION} with `spec: {{}}`, which allows nothing, in each namespace it included",
    "RbacConfig": f"an {_AUTHORIZATION} with `spec: {{}}`, which allows nothing, in each namespace it included",
    "ServiceRole": f"`to` and `when` of an {_AUTHORIZATION}'s rules",
    "ServiceRoleBinding": f"`from` of an {_AUTHORIZATION}'s rules",
    _AUTHORIZATION: f"an {_AUTHORIZATION} of `{GROUP}/v1`",
}
"""The kinds that replaced Istio's security kinds of before 1.6."""
_OLD_GROUPS = {
    "authentication.istio.io": f"a {_PEER} or a {_REQUEST}",
    "rbac.istio.io": f"an {_AUTHORIZATION}",
    "config.istio.io": f"an {_AUTHORIZATION}, with the action CUSTOM for checks of your own",
}
"""Kinds of authentication, of authorization, and of Mixer with its adapters."""

_SPECIAL = {
    "Template": "process it first: `oc process --local -o yaml -f FILE | authz validate -`",
    "ConfigMap": "write the policy into a file of its own",
    "Secret": "write the policy into a file of its own",
}
_OTHERS = re.compile(
    r"apps|batch|autoscaling|policy|extensions|"
    r"([a-z0-9-]+\.)*(k8s\.io|keda\.sh|linkerd\.io|cert-manager\.io|argoproj\.io|fluxcd\.io|cilium\.io|projectcalico\.org"
    r"|traefik\.io|traefik\.containo\.us|kyverno\.io|crossplane\.io|openshift\.io|gatekeeper\.sh|hashicorp\.com|smi-spec\.io"
    r"|projectcontour\.io|konghq\.com|getambassador\.io|solo\.io|kuma\.io|knative\.dev|tekton\.dev|coreos\.com|ory\.sh"
    r"|elastic\.co|strimzi\.io|azure\.com|amazonaws\.com|cloud\.google\.com|gke\.io|envoyproxy\.io|nginx\.org|dapr\.io"
    r"|external-secrets\.io|bitnami\.com|kuadrant\.io|spiffe\.io|keycloak\.org|open-cluster-management\.io|cattle\.io"
    r"|openservicemesh\.io|banzaicloud\.io|jaegertracing\.io|opentelemetry\.io|velero\.io|sailoperator\.io|grafana\.com"
    r"|(networking|extensions|telemetry|install|operator)\.istio\.io)|"
)
"""Groups of others: their kinds are theirs, however much they look like ours."""
_API_VERSION = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?/)?[A-Za-z0-9]+([-.][A-Za-z0-9]+)*")
_KIND = re.compile(r"[A-Za-z]([-A-Za-z0-9]*[A-Za-z0-9])?")
"""A kind that no API server could know may be one of ours, encrypted or with a variable that nobody replaced."""


def is_of_others(group: str) -> bool:
    """Whether a kind of one of our names is somebody else's: Linkerd has an AuthorizationPolicy too."""
    return "." in group and not group.endswith(("istio.io", "k8s.io")) and bool(_OTHERS.fullmatch(group))


def skip(root: reading.Mapping, kind: str, api_version: str, notes: Notes) -> None:
    """Note what becomes of an object that is not a policy; an error if a policy may be lost with it."""
    group = api_version.rpartition("/")[0]
    if not _API_VERSION.fullmatch(api_version):
        message = f"`{api_version}` is not an API version"
        notes.error("RE-1", root.entries["apiVersion"], message, f"expected a group and a version, as `{GROUP}/v1`")
    elif not _KIND.fullmatch(kind):
        notes.error("RE-1", root.entries["kind"], f"`{kind}` is not a kind", f"expected one of {', '.join(KINDS)}")
    elif group in _OLD_GROUPS:
        _refuse_old(root, kind, group, notes)
    elif (held := _held_policy(root)) is not None:
        message = f"this {kind} holds a policy, which would be lost"
        notes.error("RE-12", held, message, _SPECIAL.get(kind, "write the policy beside it, as a document of its own"))
    elif kind == "ProxyConfig" and _sets_connections(root):
        message = "`connectionSettings` can change path normalisation for one proxy, which is not supported"
        notes.error("PN-1", root.entries["spec"], message, "set the mesh's `pathNormalization`")
    else:
        _pass_over(root, kind, api_version, notes)


def _pass_over(root: reading.Mapping, kind: str, api_version: str, notes: Notes) -> None:
    """A near miss of one of our kinds is an error or a warning, unless the group is known to be somebody else's."""
    group = api_version.rpartition("/")[0]
    close = "" if _OTHERS.fullmatch(group) else nearest(kind, KINDS)
    if close and nearest(group, [GROUP]):
        message = f"`{kind}` of `{api_version}` is not a kind; did you mean `{close}` of `{GROUP}/v1`?"
        notes.error("RE-1", root.entries["kind"], message)
    elif close:
        message = f"`{kind}` of `{api_version}` is not a policy and is skipped; did you mean `{close}`?"
        notes.warn("RE-12", root.entries["kind"], message)
    else:
        notes.info("RE-12", root, f"`{kind}` of `{api_version}` is not a policy and is skipped")


def _refuse_old(root: reading.Mapping, kind: str, group: str, notes: Notes) -> None:
    new = _REPLACED.get(kind) or _OLD_GROUPS[group]
    message = f"`{kind}` of {group} is from before Istio 1.6; nothing reads it any more"
    notes.error("RE-1", root.entries["kind"], message, f"write {new}")


def _sets_connections(root: reading.Mapping) -> bool:
    spec = given(root, "spec")
    return isinstance(spec, reading.Mapping) and given(spec, "connectionSettings") is not None


_PLACEHOLDER = "${"
"""Begins a parameter of a Template: what it stands for is known only when it is processed."""


# --- containers ------------------------------------------------------------------------------------------------------


def _held_policy(root: reading.Mapping) -> Node | None:
    """
    A policy somewhere inside an object, as an object or as text; metadata left out, which may name owners.

    A mere reference to a policy, with kind and name, does not count. A kind that is a parameter may be any.
    """
    for node in _inside(root):
        if isinstance(node, Scalar) and _is_policy_text(node.value):
            return node
        if isinstance(node, reading.Mapping) and node is not root and _is_policy(node):
            return key_of(node, "kind")
    return None


def _inside(root: reading.Mapping) -> Iterator[Node]:
    waiting: list[Node] = [child for name, child in root.entries.items() if name != "metadata"]
    seen: set[int] = set()
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        yield node
        if isinstance(node, Sequence):
            waiting.extend(reversed(node.items))
        elif isinstance(node, reading.Mapping):
            waiting.extend(reversed(node.entries.values()))


def _is_policy(node: reading.Mapping) -> bool:
    kind, version = node.entries.get("kind"), node.entries.get("apiVersion")
    if not isinstance(kind, Scalar) or not isinstance(version, Scalar):
        return False
    is_ours = version.value.partition("/")[0] == GROUP or _PLACEHOLDER in version.value
    is_ours = is_ours and (kind.value.removesuffix("List") in KINDS or _PLACEHOLDER in kind.value)
    return is_ours and any(name in node.entries for name in ("metadata", "spec", "items", "data"))


_IN_TEXT = re.compile(rf"""["']?apiVersion["']?\s*:\s*["']?{re.escape(GROUP)}/""")
_KIND_IN_TEXT = re.compile(rf"""["']?kind["']?\s*:\s*["']?({"|".join(KINDS)})(List)?\b""")


_BASE64 = re.compile(r"[A-Za-z0-9+/\s]{60,}={0,2}\s*")
"""Base64 text long enough to hold a policy, as in `data` of a Secret and `binaryData` of a ConfigMap."""


def _is_policy_text(text: str) -> bool:
    if GROUP in text:
        return bool(_IN_TEXT.search(text)) and bool(_KIND_IN_TEXT.search(text))
    encoded = text.rpartition("base64,")[2]  # a data URL, as Ignition writes files
    if not _BASE64.fullmatch(encoded):
        return False
    with suppress(ValueError):
        inside = b64decode("".join(encoded.split()), validate=True).decode("utf-8", "replace")
        return GROUP in inside and _is_policy_text(inside)
    return False
