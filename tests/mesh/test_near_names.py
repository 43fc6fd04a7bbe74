"""What a mistaken name, or what only looks like a pattern, is answered with."""

import pytest

from authz.core.errors import Severity
from tests.mesh.test_virtual_services import HEAD, TO, read

FAR = (
    "hosts: [reviews.shop.svc.cluster.local], http: [{route: [{destination: {host: reviews.shop.svc.cluster.local}}]}]"
)
MEANT = [
    ("{hosts: [reviews], http: [{route: [{destination: {host: reveiws}}]}]}", "did you mean `reviews.shop.svc"),
    ("{hosts: [reviews], http: [{route: [{destination: {host: reviews.default}}]}]}", "write `reviews.shop.svc"),
    ("{hosts: [reviews], http: [{route: [{destination: {host: zzz}}]}]}", "needs a ServiceEntry with this host"),
    (f"{{hosts: [reviews], http: [{{{TO}, timeout: 5}}]}}", "write its unit, too: `5s`"),
    (f"{{hosts: [reviews], http: [{{match: [{{uri: /a}}], {TO}}}]}}", "write how it is compared"),
    (f"{{hosts: [reviews], http: [{{match: [{{headers: {{end-user: jason}}}}], {TO}}}]}}", "write how it is compared"),
]
DOUBTED = [
    (f"{{hosts: [reveiws], http: [{{{TO}}}]}}", "spec.hosts[0]", "so no sidecar has a route for it"),
    (f"{{hosts: [reviews], http: [{{match: [{{uri: {{prefix: /a/.*}}}}], {TO}}}]}}", "uri.prefix", "is no pattern"),
    (f"{{hosts: [reviews], http: [{{match: [{{uri: {{exact: /a/*}}}}], {TO}}}]}}", "uri.exact", "is no pattern"),
]


@pytest.mark.parametrize(("spec", "help_text"), MEANT)
def test_a_mistake_is_answered_with_what_was_meant(spec: str, help_text: str) -> None:
    errors = [one for one in read(f"{HEAD}  {spec}\n")[1] if one.is_error]
    assert any(help_text in one.help for one in errors), [str(one) for one in errors]


@pytest.mark.parametrize(("spec", "path", "words"), DOUBTED)
def test_what_istio_takes_and_nobody_means_is_a_warning(spec: str, path: str, words: str) -> None:
    found = [one for one in read(f"{HEAD}  {spec}\n")[1] if words in one.message]
    assert [(one.severity, one.path.endswith(path)) for one in found] == [(Severity.WARNING, True)]


def test_the_status_of_an_export_is_left_alone() -> None:
    assert read(f"{HEAD}  {{{FAR}}}\nstatus: {{}}\n")[1] == ()


@pytest.mark.parametrize(
    ("kind", "words"),
    [("AuthorizationPolicy", "--policies"), ("Service", "ServiceEntry"), ("HTTPRoute", "VirtualService")],
)
def test_a_kind_of_another_place_is_sent_there(kind: str, words: str) -> None:
    problems = read(f"apiVersion: v1\nkind: {kind}\nmetadata: {{name: x}}\n")[1]
    assert [words in one.help for one in problems] == [True]
