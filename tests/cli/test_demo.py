"""``authz demo``: options that cannot go together. What it does is tried in ``tests/demo``."""

import pytest

from tests.cli.conftest import Run

WRONG = [
    (("--outage", "600"), "--outage, --compose and --output need --check"),
    (("--check", "--compose", "--port-offset", "100"), "--compose takes neither --mesh nor --port-offset"),
    (("--check", "--outage", "600", "--compose"), "--outage needs the authority as a process"),
    (("--check", "--outage", "600", "--secrets", "files"), "--outage needs the authority as a process"),
    (("--check", "--outage", "0"), "0.0 is not in the range x>=1"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG)
def test_what_cannot_go_together_is_wrong_usage(run: Run, arguments: tuple[str, ...], message: str) -> None:
    result = run("demo", *arguments)
    assert (result.exit_code, message in " ".join(result.stderr.split())) == (2, True), result.stderr
