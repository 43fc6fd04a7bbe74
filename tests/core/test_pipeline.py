from dataclasses import replace

import pytest

from authz.core import resources as r
from authz.core.attributes import AttributeContext, Authentication, AuthenticationOutcome, Token
from authz.core.decision import Decision, Effect, Stage
from authz.core.pipeline import decide
from authz.core.providers import ProviderAnswer, ProviderQuestion
from tests import build
from tests.build import ANYTHING, operation, policy, source, when

CUSTOM, DENY, AUDIT = r.Action.CUSTOM, r.Action.DENY, r.Action.AUDIT
STRICT = r.PeerAuthentication(r.Metadata("m", "istio-system"), mode=r.MtlsMode.STRICT)
DISABLE = r.PeerAuthentication(r.Metadata("m", "istio-system"), mode=r.MtlsMode.DISABLE)
GRPC = r.ExtensionProvider("idp", "grpc", "idp.auth", 9000)
HTTP = r.ExtensionProvider("idp", "http", "idp.auth", 8000)


def run(
    attributes: AttributeContext,
    *items: r.AuthorizationPolicy | r.PeerAuthentication,
    answer: ProviderAnswer | None = None,
    authentication: Authentication | None = None,
    mesh: r.MeshConfig | None = None,
) -> tuple[AttributeContext, Decision, list[ProviderQuestion]]:
    asked: list[ProviderQuestion] = []

    def ask(question: ProviderQuestion) -> ProviderAnswer:
        asked.append(question)
        assert answer is not None
        return answer

    found = build.policies_for(*items, mesh=mesh, workload=attributes.destination.workload)
    seen, decision = decide(found, attributes, lambda a, rules: authentication or a.authentication, ask)
    return seen, decision, asked


def mesh(*providers: r.ExtensionProvider, several: bool = False) -> r.MeshConfig:
    return r.MeshConfig(extension_providers=providers, multiple_custom_providers=several)


REJECTED = Authentication(
    AuthenticationOutcome.REJECTED, status=401, body="Jwt is expired", challenge="Bearer x", reason="expired"
)


def test_plaintext_to_strict_is_refused_before_anything_else() -> None:
    """PA-9."""
    _, decision, _ = run(build.request(caller=None), STRICT, policy(ANYTHING), authentication=REJECTED)

    assert (decision.stage, decision.status) == (Stage.PEER_AUTHENTICATION, 403)


def test_an_identity_on_a_disabled_port_does_not_count() -> None:
    """PA-11."""
    assert not run(build.request(), DISABLE, policy(source(principals=("*",))))[1].is_allowed


def test_a_rejected_token_comes_before_deny_and_allow() -> None:
    """EV-3."""
    _, decision, _ = run(build.request(), policy(ANYTHING, action=DENY), authentication=REJECTED)

    assert (decision.stage, decision.status, decision.body) == (Stage.JWT, 401, "Jwt is expired")
    assert decision.headers == (("www-authenticate", "Bearer x"),)
    assert decision.audit is None


def test_tcp_has_no_jwt_stage() -> None:
    """EV-5."""
    assert run(build.request(tcp=True), authentication=REJECTED)[1].is_allowed


def test_a_path_without_slash_is_refused_and_connect_is_not() -> None:
    """RA-9."""
    assert run(build.request(path="*"))[1].stage is Stage.NORMALIZATION
    assert run(build.request(path="", method="CONNECT"))[1].is_allowed


def test_later_stages_see_the_request_as_the_jwt_stage_left_it() -> None:
    """EV-6, RA-45, RA-49."""
    accepted = Authentication(
        AuthenticationOutcome.ACCEPTED,
        Token({"sub": "s"}),
        headers_to_set=(("x-sub", "s"),),
        headers_to_remove=("authorization", "x-payload"),
        query_parameters_to_remove=("access_token",),
        rewritten_path="/a",
    )
    attributes = build.request(
        path="/a?access_token=t", headers={"authorization": ("Bearer t",), "x-sub": ("forged",), "x-payload": ("f",)}
    )
    seen, decision, _ = run(attributes, policy(when("request.headers[x-sub]", "s")), authentication=accepted)

    assert seen.http is not None
    assert dict(seen.http.headers) == {
        ":method": ("GET",), ":path": ("/a",), ":authority": ("api.example.com",), "x-sub": ("s",)
    }  # fmt: skip
    assert decision.obligations.headers_to_set == (("x-sub", "s"),)
    assert decision.obligations.headers_to_remove == ("authorization", "x-payload")
    assert decision.obligations.query_parameters_to_remove == ("access_token",)


def test_a_denial_asks_nothing_of_envoy() -> None:
    accepted = Authentication(AuthenticationOutcome.ACCEPTED, Token({}), headers_to_remove=("authorization",))

    assert run(build.request(), policy(), authentication=accepted)[1].obligations.headers_to_remove == ()


@pytest.mark.parametrize(
    ("items", "path", "audit"),
    [
        ([], "/x", None),
        ([policy(action=AUDIT)], "/x", False),
        ([policy(operation(paths=("/x",)), action=AUDIT)], "/x", True),
        ([policy(operation(paths=("/x",)), action=AUDIT)], "/y", False),
    ],
)
def test_the_audit_flag(items: list[r.AuthorizationPolicy], path: str, audit: bool | None) -> None:
    """AP-90: absent, false or true."""
    decision = run(build.request(path=path), *items)[1]

    assert decision.audit is audit
    assert decision.is_allowed


def test_dry_run_policies_only_report() -> None:
    """AP-87 to AP-89."""
    would_allow = policy(operation(paths=("/a*",)), name="wa", dry_run=True)
    would_deny = policy(operation(paths=("/a/b*",)), name="wd", action=DENY, dry_run=True)

    decision = run(build.request(path="/a/b"), would_allow, would_deny)[1]

    assert (decision.effect, decision.stage) == (Effect.ALLOW, Stage.DEFAULT)
    assert decision.dry_run_allow is not None
    assert decision.dry_run_deny is not None
    assert (decision.dry_run_allow.effect, decision.dry_run_deny.effect) == (Effect.ALLOW, Effect.DENY)
    assert decision.dry_run_deny.rule is not None
    assert decision.dry_run_deny.rule.short == "shop/wd/0"


def test_a_denied_request_never_reaches_the_allow_dry_run() -> None:
    """AP-89."""
    decision = run(build.request(), policy(ANYTHING, dry_run=True), policy(ANYTHING, name="d", action=DENY))[1]

    assert decision.dry_run_allow is None


ASK = policy(operation(paths=("/c*",), ports=("8080",)), action=CUSTOM, provider="idp", name="ask")


def test_the_provider_is_asked_only_when_a_rule_fires() -> None:
    """AP-77."""
    assert run(build.request(path="/x"), ASK, mesh=mesh(GRPC))[2] == []
    asked = run(build.request(path="/c"), ASK, mesh=mesh(GRPC), answer=ProviderAnswer(True))[2]
    assert [question.rule.name for question in asked] == ["istio-ext-authz-idp-ns[shop]-policy[ask]-rule[0]"]


def test_a_refusing_provider_wins_over_a_bad_token() -> None:
    """EV-2."""
    answer = ProviderAnswer(False, 302, "go", (("location", "/login"),))
    decision = run(build.request(path="/c"), ASK, mesh=mesh(GRPC), answer=answer, authentication=REJECTED)[1]

    assert (decision.stage, decision.status, decision.body) == (Stage.CUSTOM, 302, "go")
    assert decision.headers == (("location", "/login"),)


def test_an_accepting_provider_overrides_nothing() -> None:
    """AP-77."""
    decision = run(build.request(path="/c"), ASK, policy(), mesh=mesh(GRPC), answer=ProviderAnswer(True))[1]

    assert (decision.effect, decision.stage) == (Effect.DENY, Stage.ALLOW)


def test_later_stages_see_the_headers_of_the_provider() -> None:
    answer = ProviderAnswer(
        True,
        headers_to_set=(("x-user", "u"), ("x-drop", "1")),
        headers_to_append=(("x-list", "b"), ("x-absent", "c")),
        headers_to_remove=("x-drop",),
        response_headers_to_add=(("x-seen", "1"),),
    )
    attributes = build.request(path="/c", headers={"x-list": ("a", "z")})
    seen, decision, _ = run(
        attributes, ASK, policy(when("request.headers[x-user]", "u")), mesh=mesh(GRPC), answer=answer
    )

    assert decision.is_allowed
    assert seen.header("x-list") == ("a,b", "z")
    assert seen.header("x-drop") == seen.header("x-absent") == ()
    assert decision.obligations.headers_to_set == (("x-user", "u"), ("x-list", "a,b"))
    assert decision.obligations.headers_to_remove == ("x-drop",)
    assert decision.obligations.response_headers_to_add == (("x-seen", "1"),)


def test_output_headers_of_the_jwt_stage_win_over_a_provider() -> None:
    """RA-49: a provider is as little able to forge them as a client."""
    accepted = Authentication(
        AuthenticationOutcome.ACCEPTED, Token({}), headers_to_set=(("x-sub", "s"),), headers_to_remove=("x-other",)
    )
    answer = ProviderAnswer(
        True, headers_to_set=(("x-sub", "forged"), ("x-other", "forged")), headers_to_remove=("x-sub",)
    )
    decision = run(build.request(path="/c"), ASK, mesh=mesh(GRPC), answer=answer, authentication=accepted)[1]

    assert decision.obligations.headers_to_set == (("x-sub", "s"),)
    assert decision.obligations.headers_to_remove == ("x-other",)


@pytest.mark.parametrize(
    ("provider", "is_final", "status"),
    [
        (GRPC, False, 403),
        (replace(GRPC, status_on_error=503), False, 503),
        (replace(GRPC, fail_open=True), False, None),
        (replace(GRPC, fail_open=True), True, 413),
    ],
)
def test_a_provider_that_cannot_be_asked(provider: r.ExtensionProvider, is_final: bool, status: int | None) -> None:
    """AP-83."""
    answer = ProviderAnswer(False, 413 if is_final else 403, error="timeout", is_final=is_final)
    decision = run(build.request(path="/c"), ASK, mesh=mesh(provider), answer=answer)[1]

    assert decision.is_allowed is (status is None)
    assert decision.status == (status or 0)


BAD = "-deny-due-to-bad-CUSTOM-action"


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (mesh(), "is not configured"),
        (mesh(replace(GRPC, problems=("`port` is missing",))), "`port` is missing"),
    ],
)
def test_an_unusable_provider_turns_custom_into_deny(settings: r.MeshConfig, problem: str) -> None:
    """AP-80."""
    decision = run(build.request(path="/c"), ASK, mesh=settings)[1]

    assert (decision.stage, decision.status, decision.body) == (Stage.CUSTOM, 403, "RBAC: access denied")
    assert problem in decision.reason
    assert decision.rule is not None
    assert decision.rule.name == f"istio-ext-authz-idp-ns[shop]-policy[ask]-rule[0]{BAD}"
    assert run(build.request(path="/free"), ASK, mesh=settings)[1].is_allowed


def test_two_providers_turn_all_custom_policies_into_deny() -> None:
    """AP-81."""
    other = policy(operation(paths=("/o*",)), action=CUSTOM, provider="other", name="o")
    settings = mesh(GRPC, replace(GRPC, name="other"))

    assert run(build.request(path="/c"), ASK, other, mesh=settings)[1].stage is Stage.CUSTOM
    assert run(build.request(path="/o"), ASK, other, mesh=settings)[1].stage is Stage.CUSTOM


def test_several_providers_are_asked_in_name_order_when_that_is_switched_on() -> None:
    """AP-82."""
    first = policy(ANYTHING, action=CUSTOM, provider="a-first", name="z")
    settings = mesh(GRPC, replace(GRPC, name="a-first"), several=True)
    asked = run(build.request(path="/c"), ASK, first, mesh=settings, answer=ProviderAnswer(True))[2]

    assert [question.provider.name for question in asked] == ["a-first", "idp"]


@pytest.mark.parametrize(("provider", "stage"), [(GRPC, Stage.CUSTOM), (HTTP, Stage.DEFAULT)])
def test_only_grpc_providers_are_asked_about_tcp(provider: r.ExtensionProvider, stage: Stage) -> None:
    """AP-84."""
    decision = run(build.request(tcp=True), ASK, mesh=mesh(provider), answer=ProviderAnswer(False))[1]

    assert decision.stage is stage


def test_headers_of_a_provider_mean_nothing_for_tcp() -> None:
    answer = ProviderAnswer(True, headers_to_set=(("x", "y"),))

    assert run(build.request(tcp=True), ASK, mesh=mesh(GRPC), answer=answer)[1].obligations.headers_to_set == ()
