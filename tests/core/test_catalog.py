import pytest

from authz.core.attributes import UNKNOWN
from authz.core.catalog import claim_path, condition_attribute
from authz.core.identities import rewrite_principal
from tests import build


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("request.auth.claims[a]", ("a",)),
        ("request.auth.claims[a][b][c]", ("a", "b", "c")),
        ("request.auth.claims[a.b]", ("a.b",)),
        ("request.auth.claims[a[b]]", ("a[b]",)),
        ("request.auth.claims[a]x[b]", ("a]x[b",)),
    ],
)
def test_claim_paths(key: str, path: tuple[str, ...]) -> None:
    """AP-61, AP-62."""
    assert claim_path(key) == path


@pytest.mark.parametrize(
    "key",
    [
        "source.user", "Source.ip", "destination.labels[app]", "request.headers", "request.headers[]",
        "request.headersX[a]", "request.auth.claims", "request.auth.claims.a[b]", "request.auth.claims[]",
        "experimental.envoy.filters.a", "experimental.envoy.filters.a[]", "experimental.envoy.filters.[k]",
    ],
)  # fmt: skip
def test_unknown_and_malformed_keys_are_refused(key: str) -> None:
    """VA-30, VA-31, AP-76."""
    with pytest.raises(ValueError, match=r"`.+`"):
        condition_attribute(key)


@pytest.mark.parametrize(
    ("principal", "rewritten"),
    [
        ("cluster.local/ns/a/sa/b", ("new/ns/a/sa/b", "old/ns/a/sa/b")),
        ("old/ns/a/sa/*", ("new/ns/a/sa/*", "old/ns/a/sa/*")),
        ("other/ns/a/sa/b", ("other/ns/a/sa/b",)),
        ("cluster.local/ns/a/*", ("cluster.local/ns/a/*",)),
        ("*", ("*",)),
        ("*/ns/a/sa/b", ("*/ns/a/sa/b",)),
        ("*ld/ns/a/sa/b", ("new/ns/a/sa/b", "*ld/ns/a/sa/b")),
        ("ne*/ns/a/sa/b", ("new/ns/a/sa/b", "old/ns/a/sa/b")),
        ("zz*/ns/a/sa/b", ("zz*/ns/a/sa/b",)),
    ],
)
def test_trust_domains_of_principals_are_rewritten(principal: str, rewritten: tuple[str, ...]) -> None:
    """AP-27 to AP-29."""
    assert rewrite_principal(principal, ("new", "old")) == rewritten


def test_a_starred_member_of_the_mesh_is_treated_symmetrically() -> None:
    assert rewrite_principal("eu.corp/ns/a/sa/b", ("*.corp",)) == ("*.corp/ns/a/sa/b",)


@pytest.mark.parametrize(
    ("claim", "values"),
    [("x", ("x",)), (["x", 1, "y", None], ("x", "y")), (5, ()), (True, ()), (None, ()), ({"a": "b"}, ())],
)
def test_only_strings_of_claims_are_values(claim: object, values: tuple[str, ...]) -> None:
    """AP-60."""
    attributes = build.request(claims={"c": claim})  # type: ignore[dict-item]  # the table holds one of each JSON type

    assert condition_attribute("request.auth.claims[c]").read(attributes) == values


def test_a_missing_intermediate_object_has_no_values() -> None:
    attributes = build.request(claims={"a": "text"})

    assert condition_attribute("request.auth.claims[a][b]").read(attributes) == ()


@pytest.mark.parametrize("claims", [{"iss": "i"}, {"sub": "s"}, {"iss": "i", "sub": 5}])
def test_a_token_without_issuer_or_subject_has_no_principal(claims: dict[str, object]) -> None:
    attributes = build.request(claims=claims)  # type: ignore[arg-type]  # wrong types are the point

    assert condition_attribute("request.auth.principal").read(attributes) == ()


def test_facts_that_are_not_delivered_are_unknown() -> None:
    """CS-7, CS-8."""
    attributes = build.request(
        source_ip=UNKNOWN, remote_ip=UNKNOWN, destination_ip=UNKNOWN, port=UNKNOWN, sni=UNKNOWN, metadata=UNKNOWN
    )
    keys = (
        "source.ip", "remote.ip", "destination.ip", "destination.port", "connection.sni",
        "experimental.envoy.filters.a[b]",
    )  # fmt: skip

    assert [condition_attribute(key).read(attributes) for key in keys] == [UNKNOWN] * 6


def test_metadata_members_are_strings_or_lists_of_strings() -> None:
    attribute = condition_attribute("experimental.envoy.filters.http.x[k]")
    metadata = {"envoy.filters.http.x": {"k": ["a", 1, "b"]}}

    assert attribute.read(build.request(metadata=metadata)) == ("[a", "[b")
    assert attribute.read(build.request(metadata={"envoy.filters.http.x": {"k": "v"}})) == ("=v",)
    assert attribute.read(build.request(metadata={"envoy.filters.http.x": {"k": 5}})) == ()
    assert attribute.read(build.request(metadata={"envoy.filters.http.x": {}})) == ()
    assert attribute.read(build.request(metadata={})) is UNKNOWN


def test_the_host_header_is_the_authority() -> None:
    attribute = condition_attribute("request.headers[Host]")

    assert attribute.read(build.request(host="h.example")) == ("h.example",)
