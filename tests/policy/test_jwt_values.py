"""Addresses of key sets: what Go's net/url takes, by both of its readers (VA-35)."""

import pytest

from authz.policy.jwt_values import jwks_uri

# The answers of the CRD's rule and of istiod's webhook of 2026-08-27. The rule reads an address as the target of a
# request, which has no fragment: a `#` right after the host is part of the host, and refused.
REFUSED = [
    "https://a#",
    "https://a#x",
    "https://a:1#x",
    "https://i#p.example/keys",
    "http://h:#080/k",
    "https://[::1]#",
]
TAKEN = ["https://a/#x", "https://a/k#x%41", "https://a?#x", "https://[::1]/#", "https://u@a?b#c", "https://a:1/k?b#"]


@pytest.mark.parametrize("uri", REFUSED)
def test_a_number_sign_right_after_the_host_is_refused(uri: str) -> None:
    fault = jwks_uri(uri)
    assert fault is not None
    assert (fault.code, fault.severity) == ("VA-35", "error")


@pytest.mark.parametrize("uri", TAKEN)
def test_a_fragment_after_a_path_or_query_is_taken(uri: str) -> None:
    assert jwks_uri(uri) is None
