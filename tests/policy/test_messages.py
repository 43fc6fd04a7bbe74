"""What people read: the whole text of a representative problem of each sort."""

from pathlib import Path

import pytest

from authz.policy.reader import read_policies
from tests.yaml_text import read_yaml

CASES: list[dict[str, str]] = read_yaml(Path(__file__).with_name("messages.yaml").read_text())
HEADER = "apiVersion: security.istio.io/v1\nkind: {}\nmetadata: {{name: p, namespace: n}}\n"


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["text"].strip()))
def test_message_is_exactly(case: dict[str, str]) -> None:
    result = read_policies([("f.yaml", f"{HEADER.format(case['kind'])}{case['text']}".encode())])
    assert "\n".join(str(problem) for problem in result.problems) == case["problems"].rstrip("\n")


def test_an_inline_key_set_is_never_repeated_in_a_message() -> None:
    secret = "c2VjcmV0"
    for case in CASES:
        if secret in case["text"]:
            assert secret not in case["problems"]
