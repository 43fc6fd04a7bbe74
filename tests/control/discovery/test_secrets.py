"""The secret discovery conversation, driven without a stream (XA-153 to XA-157)."""

import pytest
from google.protobuf.any_pb2 import Any

from authz._proto import sds_pb2 as wire
from authz.control.discovery.conversation import Conversation
from authz.control.discovery.discovered import SECRET_TYPE, Discovered, Push
from authz.control.discovery.secrets import (
    ROOTS,
    SPIFFE_VALIDATOR_TYPE,
    federated_roots_secret,
    roots_secret,
    tls_secret,
)
from authz.control.discovery.subscription import Subscription

REVIEWS = "spiffe://mesh.test/ns/shop/sa/reviews"
FIRST = tls_secret(REVIEWS, b"chain one", b"key one")
SECOND = tls_secret(REVIEWS, b"chain two", b"key two")
BUNDLE = roots_secret(ROOTS, b"roots")


def ask(*names: str, version: str = "", nonce: str = "", error: str = "", node: str = "") -> wire.DiscoveryRequest:
    request = wire.DiscoveryRequest(
        resource_names=names or (REVIEWS,), version_info=version, response_nonce=nonce, type_url=SECRET_TYPE
    )
    if error:
        request.error_detail.code = 13
        request.error_detail.message = error
    if node:
        request.node.id = node
    return request


class SecretStream:
    """The conversation about secrets alone, with its responses as messages."""

    def __init__(self, secrets: dict[str, Discovered] | None = None) -> None:
        self.conversation = Conversation({SECRET_TYPE: secrets or {}}, only=SECRET_TYPE)

    def receive(self, request: wire.DiscoveryRequest) -> list[wire.DiscoveryResponse]:
        return [on_the_wire(push) for push in self.conversation.receive(request)]

    def update(self, secrets: dict[str, Discovered]) -> list[wire.DiscoveryResponse]:
        return [on_the_wire(push) for push in self.conversation.update({SECRET_TYPE: secrets})]

    @property
    def subscription(self) -> Subscription:
        return self.conversation.subscriptions[SECRET_TYPE]


def on_the_wire(push: Push) -> wire.DiscoveryResponse:
    return wire.DiscoveryResponse.FromString(push.encode())


def message(secret: Discovered) -> wire.Secret:
    packed = Any.FromString(secret.packed)
    assert packed.type_url == SECRET_TYPE
    return wire.Secret.FromString(packed.value)


def table(*secrets: Discovered) -> dict[str, Discovered]:
    return {secret.name: secret for secret in secrets}


def subscribed(*secrets: Discovered) -> tuple[SecretStream, wire.DiscoveryResponse]:
    stream = SecretStream(table(*secrets))
    (response,) = stream.receive(ask(*[secret.name for secret in secrets], node="reviews-v1"))
    return stream, response


def opened(response: wire.DiscoveryResponse) -> list[wire.Secret]:
    assert {resource.type_url for resource in response.resources} == {SECRET_TYPE}
    return [wire.Secret.FromString(resource.value) for resource in response.resources]


def test_a_subscription_is_answered_with_the_secret_under_its_own_name() -> None:
    stream, response = subscribed(FIRST)
    assert response.type_url == SECRET_TYPE
    assert response.version_info == FIRST.version
    assert response.nonce == "1"
    (secret,) = opened(response)
    assert secret.name == REVIEWS
    assert secret.tls_certificate.certificate_chain.inline_bytes == b"chain one"
    assert secret.tls_certificate.private_key.inline_bytes == b"key one"
    assert stream.conversation.node == "reviews-v1"


def test_after_an_ack_the_server_is_silent_until_there_is_something_new() -> None:
    stream, response = subscribed(FIRST)
    assert stream.receive(ask(version=FIRST.version, nonce=response.nonce)) == []
    assert stream.update(table(FIRST)) == []
    (push,) = stream.update(table(SECOND))
    assert push.version_info == SECOND.version
    assert push.nonce == "2"


def test_a_refused_secret_is_not_sent_again_but_a_newer_one_is() -> None:
    stream, first = subscribed(FIRST)
    stream.receive(ask(version=FIRST.version, nonce=first.nonce))
    (second,) = stream.update(table(SECOND))
    nack = ask(version=FIRST.version, nonce=second.nonce, error="KEY_VALUES_MISMATCH")
    assert stream.receive(nack) == []
    assert stream.subscription.rejection == "KEY_VALUES_MISMATCH"
    assert stream.update(table(SECOND)) == []
    (third,) = stream.update(table(tls_secret(REVIEWS, b"chain three", b"key three")))
    stream.receive(ask(version=third.version_info, nonce=third.nonce))
    assert stream.subscription.rejection == ""


def test_the_last_good_secret_may_be_pushed_after_a_refused_one() -> None:
    stream, first = subscribed(FIRST)
    stream.receive(ask(version=FIRST.version, nonce=first.nonce))
    (second,) = stream.update(table(SECOND))
    stream.receive(ask(version=FIRST.version, nonce=second.nonce, error="bad"))
    (again,) = stream.update(table(FIRST))
    assert again.version_info == FIRST.version


def test_a_late_answer_to_an_overtaken_response_is_ignored() -> None:
    stream, first = subscribed(FIRST)
    (second,) = stream.update(table(SECOND))
    assert stream.receive(ask(version=FIRST.version, nonce=first.nonce)) == []
    assert stream.receive(ask(version=FIRST.version, nonce=first.nonce, error="of the first")) == []
    assert stream.subscription.rejection == ""
    stream.receive(ask(version=FIRST.version, nonce=second.nonce, error="of the second"))
    assert stream.subscription.rejection == "of the second"


def test_after_a_reconnect_the_secret_is_sent_even_if_envoy_still_has_it() -> None:
    stream = SecretStream(table(FIRST))
    (response,) = stream.receive(ask(version=FIRST.version))
    assert response.version_info == FIRST.version


def test_a_secret_that_does_not_exist_yet_is_waited_for() -> None:
    stream = SecretStream()
    assert stream.receive(ask()) == []
    (push,) = stream.update(table(FIRST))
    assert opened(push)[0].name == REVIEWS


def test_several_names_are_answered_together_and_again_together_when_one_changes() -> None:
    stream, response = subscribed(FIRST, BUNDLE)
    assert [secret.name for secret in opened(response)] == [REVIEWS, ROOTS]
    (push,) = stream.update(table(SECOND, BUNDLE))
    assert [secret.name for secret in opened(push)] == [REVIEWS, ROOTS]
    assert push.version_info != response.version_info


def test_a_changed_subscription_is_answered_with_what_is_now_wanted() -> None:
    stream = SecretStream(table(FIRST, BUNDLE))
    (first,) = stream.receive(ask(REVIEWS))
    (second,) = stream.receive(ask(REVIEWS, ROOTS, version=first.version_info, nonce=first.nonce))
    assert [secret.name for secret in opened(second)] == [REVIEWS, ROOTS]
    assert stream.receive(ask(ROOTS, version=second.version_info, nonce=second.nonce)) == []
    assert list(stream.subscription.names) == [ROOTS]
    assert stream.update(table(SECOND, BUNDLE)) == []


def test_the_node_of_the_first_request_is_kept() -> None:
    stream, response = subscribed(FIRST)
    stream.receive(ask(version=FIRST.version, nonce=response.nonce))
    assert stream.conversation.node == "reviews-v1"


def test_something_else_than_secrets_is_an_error() -> None:
    request = ask()
    request.type_url = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
    with pytest.raises(ValueError, match="only, not"):
        SecretStream(table(FIRST)).receive(request)


def test_versions_are_equal_for_equal_secrets_and_never_show_the_key() -> None:
    assert tls_secret(REVIEWS, b"chain one", b"another key").version == FIRST.version
    assert SECOND.version != FIRST.version
    assert "key one" not in repr(FIRST)


def test_federated_bundles_are_each_for_their_own_trust_domain() -> None:
    secret = federated_roots_secret("ALL", {"b.test": b"b roots", "a.test": b"a roots"})
    assert secret.version == federated_roots_secret("ALL", {"a.test": b"a roots", "b.test": b"b roots"}).version
    config = message(secret).validation_context.custom_validator_config
    assert config.name == "envoy.tls.cert_validator.spiffe"
    assert config.typed_config.type_url == SPIFFE_VALIDATOR_TYPE
    validator = wire.SpiffeCertValidatorConfig.FromString(config.typed_config.value)
    found = [(domain.name, domain.trust_bundle.inline_bytes) for domain in validator.trust_domains]
    assert found == [("a.test", b"a roots"), ("b.test", b"b roots")]


def test_the_field_numbers_are_envoys() -> None:
    """What is written here means the same in messages generated from Envoy's own files."""
    from envoy_data_plane.envoy.extensions.transport_sockets.tls.v3 import Secret as EnvoySecret
    from envoy_data_plane.envoy.extensions.transport_sockets.tls.v3 import SpiffeCertValidatorConfig
    from envoy_data_plane.envoy.service.discovery.v3 import DiscoveryRequest, DiscoveryResponse

    secret = EnvoySecret.parse(message(FIRST).SerializeToString())
    assert secret.name == REVIEWS
    assert secret.tls_certificate is not None
    assert secret.tls_certificate.certificate_chain is not None
    assert secret.tls_certificate.private_key is not None
    assert secret.tls_certificate.certificate_chain.inline_bytes == b"chain one"
    assert secret.tls_certificate.private_key.inline_bytes == b"key one"
    context = EnvoySecret.parse(message(BUNDLE).SerializeToString()).validation_context
    assert context is not None
    assert context.trusted_ca is not None
    assert context.trusted_ca.inline_bytes == b"roots"
    federated = federated_roots_secret("ALL", {"a.test": b"a roots"})
    context = EnvoySecret.parse(message(federated).SerializeToString()).validation_context
    assert context is not None
    assert context.custom_validator_config is not None
    assert context.custom_validator_config.typed_config is not None
    config = SpiffeCertValidatorConfig.parse(context.custom_validator_config.typed_config.value)
    assert config.trust_domains[0].name == "a.test"
    request = DiscoveryRequest.parse(ask(version="v", nonce="n", error="no", node="reviews-v1").SerializeToString())
    assert (request.version_info, request.response_nonce, request.resource_names) == ("v", "n", [REVIEWS])
    assert request.node is not None
    assert request.node.id == "reviews-v1"
    assert request.error_detail is not None
    assert (request.error_detail.code, request.error_detail.message) == (13, "no")
    response = DiscoveryResponse.parse(Push(SECRET_TYPE, FIRST.version, "7", (FIRST,)).encode())
    assert (response.version_info, response.nonce, response.type_url) == (FIRST.version, "7", SECRET_TYPE)
    assert response.resources[0].type_url == SECRET_TYPE
