"""What a proxy must do to an accepted request: it is told, or where it could not do it the request is refused."""

from pathlib import Path

import jwt
import pytest

from tests.service.doors.opened import WHOLE, asked
from tests.service.doors.test_forms import ASKED, target
from tests.service.doors.test_never_less_strict import TOKENS

KEY = b"secret-secret-secret-secret-secret"
BEARER = {"authorization": f"Bearer {jwt.encode({'iss': 'https://issuer.test', 'sub': 'alice'}, KEY, 'HS256')}"}
OUTPUT = f"{TOKENS}    outputClaimToHeaders: [{{header: x-subject, claim: sub}}]\n"
KEPT = f"{OUTPUT}    forwardOriginalToken: true\n"
IN_QUERY = f"{TOKENS}    fromParams: [token]\n"
REMOVE = "x-envoy-auth-headers-to-remove"


@pytest.mark.parametrize(
    ("kind", "policies", "sets", "token", "status", "told"),
    [
        ("nginx", KEPT, ["X-Subject"], True, 200, {"x-subject": "alice"}),
        ("nginx", KEPT, ["X-Subject"], False, 200, {"x-subject": ""}),
        ("nginx", KEPT, [], True, 403, {}),
        ("nginx", KEPT, [], False, 403, {}),
        ("nginx", OUTPUT, ["x-subject"], True, 403, {}),
        ("nginx", OUTPUT, ["x-subject", "authorization"], True, 200, {"x-subject": "alice", "authorization": ""}),
        ("forward-auth", KEPT, ["X-Subject"], True, 200, {"x-subject": "alice"}),
        ("forward-auth", OUTPUT, ["x-subject"], True, 403, {}),
        ("envoy-http", OUTPUT, ["x-subject"], True, 200, {"x-subject": "alice", REMOVE: "authorization"}),
        ("envoy-http", OUTPUT, ["x-subject"], False, 200, {REMOVE: "x-subject"}),
        ("envoy-http", OUTPUT, [], False, 200, {REMOVE: "x-subject"}),
        ("envoy-http", OUTPUT, [], True, 403, {}),
    ],
)
async def test_headers_are_told_or_the_request_is_refused(
    kind: str, policies: str, sets: list[str], token: bool, status: int, told: dict[str, str], tmp_path: Path
) -> None:
    async with asked(policies, tmp_path, kind, upstream_headers=sets, **WHOLE) as door:
        answer = await door.client.get(target(kind), headers={**ASKED[kind], **(BEARER if token else {})})
        decision = door.records.entries[0].decision
    assert answer.status_code == status
    assert {name: answer.headers.get(name) for name in told} == told
    assert decision.is_allowed == (status == 200)  # the record says what became of the request
    if status == 403:
        assert "`upstream_headers`" in decision.reason


@pytest.mark.parametrize("kind", list(ASKED))
@pytest.mark.parametrize(("name", "status"), [("x_subject", 403), ("X_Subject", 403), ("x_other", 200)])
async def test_a_header_that_applications_take_for_one_that_the_proxy_sets_is_refused(
    kind: str, name: str, status: int, tmp_path: Path
) -> None:
    async with asked(KEPT, tmp_path, kind, upstream_headers=["x-subject"], **WHOLE) as door:
        answer = await door.client.get(target(kind), headers={**ASKED[kind], name: "mallory"})
    assert answer.status_code == status


@pytest.mark.parametrize("kind", list(ASKED))
async def test_a_token_cannot_be_taken_out_of_the_query(kind: str, tmp_path: Path) -> None:
    path = f"/open?token={BEARER['authorization'][7:]}"
    headers = {**ASKED[kind], **{name: path for name in ASKED[kind] if name.endswith("-uri")}}
    async with asked(IN_QUERY, tmp_path, kind, upstream_headers=["authorization"], **WHOLE) as door:
        answer = await door.client.get(path if kind == "envoy-http" else "/", headers=headers)
        assert "out of the query" in door.why
    assert answer.status_code == 403
