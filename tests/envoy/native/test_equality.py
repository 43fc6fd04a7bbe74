"""No disagreement between Istio's linear filters, the looked-up filters and our engine, on a real Envoy."""

from pathlib import Path

import pytest

from tests.envoy.native.equality import compare

pytestmark = [pytest.mark.envoy, pytest.mark.slow]

SETS, REQUESTS = 25, 100


@pytest.mark.parametrize("first_seed", range(0, 225, SETS))
def test_three_evaluators_agree(first_seed: int, tmp_path: Path) -> None:
    pytest.importorskip("envoy")
    compared = compare(tmp_path, first_seed, SETS, REQUESTS)
    assert compared.disagreements == []
    assert compared.pairs >= 0.9 * SETS * REQUESTS  # a set of a TCP port has half as many connections
    assert 0.05 * compared.pairs < compared.kinds["allowed"] < 0.95 * compared.pairs
    assert compared.kinds["unasked"] < 0.1 * compared.pairs
    kinds = {"gateway", "sidecar", "HTTP/1.1", "HTTP/2", "CONNECT", "TCP"}
    if not first_seed:  # a set in forty has a provider that refuses, so not every part has one
        kinds.add("provider asked")
    assert kinds - compared.kinds.keys() == set()
