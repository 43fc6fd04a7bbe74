"""Rate limits on real Envoys with a real Redis: who is counted together, what the client is told, what is recorded."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from authz.mesh.nouns import Enforce
from tests.envoy.limits_rig import Limited, limited, limits, redis_server, serve
from tests.envoy.native_rig import token
from tests.envoy.test_native_record import wait_for

pytest.importorskip("envoy")
pytest.importorskip("limits")
pytestmark = [pytest.mark.envoy, pytest.mark.slow]

LIMITS = limits("""
type: Global
global:
  rules:
  - clientSelectors:
    - path: {type: Template, value: "/by-caller/{*}"}
      attributes: [{name: source.principal, type: Distinct, default: nobody}]
    limit: {requests: 3, unit: Day}
  - clientSelectors:
    - path: {value: /by-user}
      attributes: [{name: "request.auth.claims[sub]", type: Distinct}]
    limit: {requests: 2, unit: Day}
  - clientSelectors:
    - path: {value: /from-app}
      attributes: [{name: source.namespace, value: app}]
    limit: {requests: 1, unit: Day}
  - clientSelectors: [{path: {value: /shadow}}]
    limit: {requests: 1, unit: Day}
    shadowMode: true
  - clientSelectors:
    - path: {value: /by-header}
      headers: [{name: x-key, type: Distinct}]
      methods: [{value: GET}]
    limit: {requests: 1, unit: Day}
  - clientSelectors: [{path: {value: /secret}}]
    limit: {requests: 1, unit: Day}
  - clientSelectors: [{path: {value: /dear}}]
    limit: {requests: 10, unit: Day}
    cost: {request: {from: Number, number: 4}}
  - clientSelectors: [{path: {type: Exact, value: /one}, sourceCIDR: {value: 127.0.0.0/8, type: Distinct}}]
    limit: {requests: 1, unit: Day}
local:
  rules:
  - clientSelectors:
    - path: {value: /local}
      attributes: [{name: source.principal, type: Distinct}]
    limit: {requests: 2, unit: Day}
  - clientSelectors:
    - path: {value: /local-user}
      attributes: [{name: "request.auth.claims[sub]", value: jason}]
    limit: {requests: 1, unit: Day}
    cost: {request: {from: Number, number: 1}}
""")


@pytest.fixture(scope="module", params=[Enforce.CHECK, Enforce.NATIVE])
def mesh(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Limited]:
    state = tmp_path_factory.mktemp("limited")
    logs = ("--access-logs", "file:logs") if request.param is Enforce.NATIVE else ()
    with (
        redis_server(tmp_path_factory.mktemp("redis")) as url,
        limited(state, LIMITS, "--rate-limit-store", url, *logs, enforce=request.param) as found,
    ):
        yield found


def bearer(**claims: object) -> tuple[str, str]:
    return ("authorization", f"Bearer {token(**claims)}")


def test_a_caller_has_a_quota_of_its_own_over_all_paths_of_a_template(mesh: Limited) -> None:
    assert [mesh.ask(f"/by-caller/{name}?q={name}")[0] for name in ("a", "b", "c", "d")] == [200, 200, 200, 429]
    assert mesh.statuses(4, "/by-caller/a", plain=True) == [200, 200, 200, 429], "those without identity share one"
    assert mesh.statuses(2, "/by-caller/a/b") == [200, 200], "another template"


def test_however_long_a_request_is_it_is_counted(mesh: Limited) -> None:
    path, long = f"/by-header/{'a' * 15_000}?{'b' * 15_000}", "k" * 15_000
    headers = (("x-key", long), ("x-request-id", "r" * 5_000))
    assert [mesh.ask(path, *headers)[0] for _ in range(2)] == [200, 429]
    record = wait_for(
        lambda: [one for one in mesh.served.limited() if one["request"]["path"].startswith("/by-header/aa")]
    )
    assert len(record) == 1


def test_a_header_that_is_not_utf_8_is_counted_like_any_other(mesh: Limited) -> None:
    before = mesh.served.said().count("Traceback")
    keys = (b"\xff", b"\xff", b"\xfe", b"\xc3\xa9", b"\xc3\xa9")
    headers = [(("x-key", key), ("x-request-id", b"\xff%d" % i)) for i, key in enumerate(keys)]
    assert [mesh.ask("/by-header", *one)[0] for one in headers] == [200, 429, 200, 200, 429]
    assert mesh.served.said().count("Traceback") == before


def test_the_client_is_told_what_is_left(mesh: Limited) -> None:
    status, headers = mesh.ask("/dear")
    assert (status, headers["x-ratelimit-limit"], headers["x-ratelimit-remaining"]) == (200, "10, 10;w=86400", "6")
    assert 0 < int(headers["x-ratelimit-reset"]) <= 86_400
    assert mesh.ask("/dear")[1]["x-ratelimit-remaining"] == "2"
    status, headers = mesh.ask("/dear")
    assert (status, headers["x-ratelimit-remaining"], headers["x-envoy-ratelimited"]) == (429, "0", "true")


def test_a_user_is_counted_by_a_verified_claim_and_nobody_else(mesh: Limited) -> None:
    assert mesh.statuses(3, "/by-user", bearer(sub="jason")) == [200, 200, 429]
    assert mesh.statuses(3, "/by-user", bearer(sub="tester")) == [200, 200, 429]
    assert mesh.statuses(3, "/by-user") == [200, 200, 200], "without a token the rule does not apply"
    assert mesh.statuses(1, "/by-user", ("authorization", "Bearer forged.token.x")) == [401]


def test_the_namespace_of_the_caller_chooses_a_rule(mesh: Limited) -> None:
    assert mesh.statuses(2, "/from-app") == [200, 429]
    assert mesh.statuses(3, "/from-app", plain=True) == [200, 200, 200]


def test_shadow_mode_counts_and_refuses_nothing(mesh: Limited) -> None:
    status, headers = mesh.ask("/shadow")
    assert status == 200
    assert "x-ratelimit-limit" not in headers
    assert mesh.statuses(2, "/shadow") == [200, 200]
    assert mesh.served.metric("authz_rate_limit_requests_total", policy="quota", rule="3", result="shadow") == 2


def test_a_header_and_a_method_choose(mesh: Limited) -> None:
    assert [mesh.ask("/by-header", ("x-key", key))[0] for key in ("a", "a", "b")] == [200, 429, 200]
    assert mesh.ask("/by-header", ("x-key", "a"), method="HEAD")[0] == 501, "the application's own answer"
    assert mesh.statuses(2, "/by-header") == [200, 200], "an absent header is no value"


def test_what_the_policies_refuse_costs_nothing(mesh: Limited) -> None:
    before = mesh.served.metric("authz_rate_limit_requests_total", rule="5")
    assert mesh.statuses(3, "/secret") == [403, 403, 403]
    assert mesh.served.metric("authz_rate_limit_requests_total", rule="5") == before == 0


def test_addresses_of_a_range_are_counted_each_by_itself(mesh: Limited) -> None:
    assert mesh.statuses(2, "/one") == [200, 429]
    assert mesh.statuses(2, "/one/more") == [200, 200], "an exact path"


def test_a_proxy_counts_by_itself(mesh: Limited) -> None:
    assert mesh.statuses(3, "/local") == [200, 200, 429]
    assert mesh.statuses(3, "/local", plain=True) == [200, 200, 200], "without an identity the rule does not apply"
    assert mesh.statuses(2, "/local-user", bearer(sub="jason")) == [200, 429]
    assert mesh.statuses(2, "/local-user", bearer(sub="tester")) == [200, 200]
    status, headers = mesh.ask("/local")
    assert (status, headers["x-ratelimit-limit"]) == (429, "2, 2;w=86400") or headers["x-ratelimit-limit"] == "2"


def test_a_refusal_is_recorded_once_and_counted(mesh: Limited) -> None:
    path = "/by-caller/recorded"
    mesh.statuses(4, path)
    record = wait_for(lambda: [one for one in mesh.served.limited() if one["request"]["path"] == path])[0]
    assert record["effect"] == "deny"
    assert record["status"] == 429
    assert record["rule"]["name"] == "ns[app]-limit[quota]-global[0]"
    assert record["source"]["principal"] == "cluster.local/ns/app/sa/client"
    assert record["destination"]["workload"] == "server-v1"
    assert record["decision_id"] == record["x_request_id"]
    ids = [one["decision_id"] for one in mesh.served.limited()]
    assert len(ids) == len(set(ids))
    assert mesh.served.metric("authz_decisions_total", stage="rate-limit", effect="deny", policy="quota") >= 1
    assert mesh.served.metric("authz_rate_limit_requests_total", rule="0", result="refused") >= 1


def test_what_a_proxy_refuses_by_itself_is_recorded_too(mesh: Limited) -> None:
    path = "/local/recorded"
    mesh.statuses(3, path)
    record = wait_for(lambda: [one for one in mesh.served.limited() if one["request"]["path"] == path])[0]
    assert (record["status"], record["rule"]) == (429, None)
    assert record["reason"] == "a limit that the proxy counts by itself is used up"
    assert record["source"]["principal"] == "cluster.local/ns/app/sa/client"
    assert mesh.served.metric("authz_native_disagreements_total") == 0


SHARED = limits("""
type: Global
global:
  rules: [{limit: {requests: 4, unit: Day}}]
""")
CLOSED = limits("""
type: Global
global:
  failClosed: true
  rules: [{limit: {requests: 4, unit: Day}}]
""")


def test_servers_that_share_a_store_count_together(tmp_path: Path) -> None:
    check = ("--listen", "unix:run/authz-0.sock", "--rate-limits", "unix:run/limits.sock")
    with redis_server(tmp_path) as url, limited(tmp_path, SHARED, "--rate-limit-store", url) as mesh:
        assert mesh.statuses(2) == [200, 200]
        mesh.served.process.terminate()
        mesh.served.process.wait(20)
        with serve(tmp_path, *check, "--rate-limit-store", url, name="second") as second:
            wait_for(lambda: mesh.ask("/health")[0] != 503)
            wait_for(lambda: mesh.ask("/health")[0] == 429)
            assert mesh.statuses(2) == [429, 429]
            assert second.metric("authz_rate_limit_requests_total", result="allowed") <= 2


def test_without_its_store_a_limit_lets_requests_pass_counts_them_and_says_so_once(tmp_path: Path) -> None:
    with limited(tmp_path, SHARED, "--rate-limit-store", f"unix://{tmp_path}/nobody.sock") as mesh:
        assert mesh.statuses(6) == [200] * 6
        assert mesh.served.metric("authz_rate_limit_requests_total", result="uncounted") == 6
        assert mesh.served.metric("authz_rate_limit_store_failing") == 1
        assert mesh.served.said().count("does not answer") == 1


def test_a_limit_that_fails_closed_refuses_what_nobody_can_count(tmp_path: Path) -> None:
    with limited(tmp_path, CLOSED, "--rate-limit-store", f"unix://{tmp_path}/nobody.sock") as mesh:
        assert mesh.statuses(2) == [503, 503]
        records = wait_for(lambda: mesh.served.limited() if len(mesh.served.limited()) == 2 else [])
        assert [one["status"] for one in records] == [503, 503]
        assert records[0]["reason"] == "nobody can count for the limit app/quota/0"


@pytest.mark.parametrize(("text", "status"), [(SHARED, 200), (CLOSED, 503)], ids=["open", "closed"])
def test_what_holds_without_the_service_is_what_the_limit_says(tmp_path: Path, text: str, status: int) -> None:
    with limited(tmp_path, text) as mesh:
        (tmp_path / "run" / "limits.sock").unlink()  # no new connection
        assert mesh.statuses(6) == [status] * 6


def test_a_store_that_comes_back_is_used_again(tmp_path: Path) -> None:
    with limited(tmp_path, SHARED, "--rate-limit-store", f"unix://{tmp_path}/redis.sock") as mesh:
        assert mesh.statuses(2) == [200, 200]
        with redis_server(tmp_path):
            wait_for(lambda: mesh.ask()[0] == 429)
            assert mesh.served.metric("authz_rate_limit_store_failing") == 0
            assert "answers again" in mesh.served.said()


def test_a_changed_number_holds_without_a_change_of_the_proxy(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url, limited(tmp_path, SHARED, "--rate-limit-store", url) as mesh:
        assert mesh.statuses(5) == [200, 200, 200, 200, 429]
        text = (tmp_path / "mesh.yaml").read_text()
        (tmp_path / "new.yaml").write_text(text.replace("requests: 4", "requests: 1000"))
        (tmp_path / "new.yaml").rename(tmp_path / "mesh.yaml")
        wait_for(lambda: mesh.ask()[0] == 200)


@pytest.mark.parametrize(("text", "status"), [(SHARED, 200), (CLOSED, 503)], ids=["open", "closed"])
def test_a_limit_that_only_the_proxy_knows_does_what_it_says(tmp_path: Path, text: str, status: int) -> None:
    with redis_server(tmp_path) as url, limited(tmp_path, text, "--rate-limit-store", url) as mesh:
        assert mesh.statuses(5) == [200, 200, 200, 200, 429]
        described = (tmp_path / "mesh.yaml").read_text()
        (tmp_path / "new.yaml").write_text(described.replace("name: quota", "name: other"))
        (tmp_path / "new.yaml").rename(tmp_path / "mesh.yaml")
        wait_for(lambda: mesh.ask()[0] == status)
        assert mesh.statuses(3) == [status] * 3
        assert mesh.served.metric("authz_rate_limit_unknown_rules_total") >= 4
        assert mesh.served.metric("authz_rate_limit_store_failing") == 0


def test_a_limit_that_cannot_be_read_keeps_the_last_good_ones(tmp_path: Path) -> None:
    with redis_server(tmp_path) as url, limited(tmp_path, SHARED, "--rate-limit-store", url) as mesh:
        text = (tmp_path / "mesh.yaml").read_text()
        (tmp_path / "new.yaml").write_text(text.replace("unit: Day", "unit: Fortnight"))
        (tmp_path / "new.yaml").rename(tmp_path / "mesh.yaml")
        wait_for(lambda: "`Fortnight` is not one of" in mesh.served.said())
        assert mesh.statuses(5) == [200, 200, 200, 200, 429]
