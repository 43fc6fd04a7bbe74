"""The corpus of policy documents with the result of Istio's validation."""

import re
from pathlib import Path
from typing import Any

import pytest

from authz.core.errors import Severity
from authz.policy.reader import read_policies
from tests.yaml_text import read_yaml

CORPUS = Path(__file__).parents[1] / "conformance"
LINTS = ("VA-47", "RE-16")
DOCUMENTS: list[dict[str, Any]] = read_yaml((CORPUS / "validation.yaml").read_text())["documents"]


@pytest.mark.parametrize("case", DOCUMENTS, ids=lambda case: str(case["id"]))
def test_document_has_the_result_of_istios_validation(case: dict[str, Any]) -> None:
    """Istio says nothing of what VA-47 warns of: lints of our own are free to say more."""
    result = read_policies([("policy.yaml", case["yaml"].encode())])
    worst = [p for p in result.problems if p.severity is not Severity.INFO and p.code not in LINTS]
    found = "error" if result.has_errors else "warning" if worst else "ok"
    assert found == case["expect"], [str(problem) for problem in result.problems]


@pytest.mark.parametrize("case", [d for d in DOCUMENTS if d["expect"] != "ok"], ids=lambda case: str(case["id"]))
def test_document_is_refused_for_the_clause_that_says_so(case: dict[str, Any]) -> None:
    result = read_policies([("policy.yaml", case["yaml"].encode())])
    assert {problem.code for problem in result.problems} & set(case["clauses"])


@pytest.mark.parametrize("case", DOCUMENTS, ids=lambda case: str(case["id"]))
def test_every_problem_has_a_place_and_a_document(case: dict[str, Any]) -> None:
    for problem in read_policies([("policy.yaml", case["yaml"].encode())]).problems:
        assert problem.location.file == "policy.yaml"
        assert problem.location.line > 0
        assert problem.document == 1
        assert problem.message[0].islower() or problem.message[0] in "`("
        assert "\n" not in problem.message
        assert not problem.message.endswith(".")


REQUESTS = [
    (group["id"], group["policies"])
    for path in sorted(CORPUS.glob("[0-9]*.yaml"))
    for group in read_yaml(path.read_text())["groups"]
]


@pytest.mark.parametrize(("name", "text"), REQUESTS, ids=[name for name, _ in REQUESTS])
def test_policies_of_the_request_corpus_are_accepted(name: str, text: str) -> None:
    keys = '{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB"}]}'
    text = re.sub(r"\$\{JWKS:[^}]*\}", keys, text)
    text = re.sub(r"\$\{JWKS_URI[^}]*\}", "https://keys.example/jwks", text)
    result = read_policies([(f"{name}.yaml", text.encode())], allow_empty=True)
    assert not [str(problem) for problem in result.problems if problem.is_error]
