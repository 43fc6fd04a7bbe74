"""Bundles over real HTTPS, by both profiles: our endpoint, our client, and both of go-spiffe's."""

import asyncio
import contextlib
import json
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from authz._proto import workload_pb2 as wire
from authz.control.authority.authority_server import AuthorityServer
from authz.control.authority.bundle_endpoint import EndpointDoor
from authz.control.authority.figures import causes, figures
from authz.control.federation.bundle_fetch import by_environment, fetch_document
from authz.control.federation.bundle_follower import MAX_AGE_SECONDS, NOTHING, BundleFollower
from authz.core.attributes import AuthenticationOutcome
from authz.core.errors import FetchError
from authz.core.resources import JwtRule
from authz.core.spiffe import SpiffeId, TrustDomain
from authz.identity.bundle_document import read_bundle_document, write_bundle_document
from authz.identity.ca import CertificateAuthority
from authz.identity.federation import Profile, Relationship
from authz.identity.rotation import activate, prepare
from authz.identity.secret_files import write_secret_files
from authz.sources.keys.source import KeySource
from authz.tokens.authenticate import authenticate
from authz.tokens.jwks import read_key_set
from authz.tokens.key_sets import KeySetState
from tests.control.authority.conftest import go_spiffe as go_spiffe  # the same program
from tests.control.authority.workload import ask, authority, certificates, channel, entry, run, short_directory, svids
from tests.sources.keys.test_fetch import connect_proxy
from tests.tokens.material import bearer

PARTNER = TrustDomain("partner.test")
ENDPOINT_ID = SpiffeId(PARTNER, "/authz/ca")


@pytest.fixture
def directory() -> Iterator[Path]:
    with short_directory() as path:
        yield path


@asynccontextmanager
async def partner(directory: Path, profile: Profile = Profile.SPIFFE) -> AsyncIterator[tuple[AuthorityServer, str]]:
    """The other trust domain's authority and the URL of its bundle endpoint; ``first.json`` is its bundle by hand."""
    place = directory / "partner"
    place.mkdir()
    door = EndpointDoor("127.0.0.1:0")
    if profile is Profile.WEB:
        web = CertificateAuthority.create("web.test", time.time())
        issued = web.issue_server_certificate(
            ("localhost", "bundle.partner.test"), time.time(), addresses=("127.0.0.1",)
        )
        files = write_secret_files(directory / "web", "tls", issued.chain_pem, issued.key_pem)
        (directory / "web.pem").write_bytes(web.bundle_pem)
        door = EndpointDoor("127.0.0.1:0", *files)
    async with authority(
        place, entry("spiffe://partner.test/app"), trust_domain="partner.test", endpoint=door
    ) as server:
        (directory / "first.json").write_bytes(write_bundle_document(server.stock.registrar.trust_bundle, 1, 300))
        yield server, f"https://127.0.0.1:{server.ports['bundle']}/"


def relationship(directory: Path, url: str, profile: Profile = Profile.SPIFFE) -> Relationship:
    if profile is Profile.WEB:
        return Relationship(PARTNER, url, profile, ca_bundle=directory / "web.pem")
    return Relationship(PARTNER, url, profile, ENDPOINT_ID, directory / "first.json")


def follower(directory: Path, *relationships: Relationship) -> BundleFollower:
    return BundleFollower(relationships, directory / "federated", time.time)


# Our endpoint


@pytest.mark.parametrize("profile", list(Profile))
async def test_an_endpoint_is_fetched_by_either_profile(directory: Path, profile: Profile) -> None:
    async with partner(directory, profile) as (server, url):
        found = follower(directory, relationship(directory, url, profile))
        assert await found.refresh(found.relationships[0]) == 300
        document = read_bundle_document(PARTNER, (directory / "federated/partner.test.json").read_bytes())
        bundle = server.stock.registrar.trust_bundle
        assert document.bundle.roots == bundle.roots
        assert [key.kid for key in document.bundle.jwt_keys] == [key.kid for key in bundle.jwt_keys]
        assert (document.sequence or 0) > 0
        assert found.failures == {}
        assert found.fetched_at[PARTNER] == pytest.approx(time.time(), abs=10)


@pytest.mark.slow
@pytest.mark.parametrize("profile", list(Profile))
async def test_go_spiffe_fetches_our_bundle_by_either_profile(
    directory: Path, profile: Profile, go_spiffe: str
) -> None:
    async with partner(directory, profile) as (_, url):
        proof = (
            [str(directory / "web.pem")]
            if profile is Profile.WEB
            else [str(ENDPOINT_ID), str(directory / "first.json")]
        )
        code, told, complaint = await run(go_spiffe, f"fetch-{profile.value[6:]}", "partner.test", url, *proof)
        assert (code, told, complaint) == (0, "bundle partner.test 1 1 5m0s true\n", "")


async def test_the_endpoint_serves_keys_and_discovery_and_nothing_else(directory: Path) -> None:
    async with authority(directory, jwt_issuer="https://ca.example/") as server:  # noqa: SIM117  # the second needs the first
        async with httpx.AsyncClient(verify=False, base_url=f"https://127.0.0.1:{server.ports['bundle']}") as client:
            answers = {
                path: await client.get(path) for path in ("/", "/keys", "/.well-known/openid-configuration", "/x")
            }
            assert [answer.status_code for answer in answers.values()] == [200, 200, 200, 404]
            assert {answer.headers["content-type"] for answer in answers.values()} == {"application/json"}
            (key,) = answers["/keys"].json()["keys"]
            assert (key["alg"], key["use"], key["kty"]) == ("ES256", "sig", "EC")
            assert {entry["use"] for entry in answers["/"].json()["keys"]} == {"x509-svid", "jwt-svid"}
            discovery = answers["/.well-known/openid-configuration"].json()
            assert (discovery["issuer"], discovery["jwks_uri"]) == ("https://ca.example/", "https://ca.example/keys")
            assert (await client.post("/")).status_code == 405
            assert (await client.head("/keys")).content == b""


async def test_the_sequence_grows_with_every_change(directory: Path) -> None:
    async with authority(directory) as server:  # as above
        async with httpx.AsyncClient(verify=False, base_url=f"https://127.0.0.1:{server.ports['bundle']}") as client:
            first = (await client.get("/")).json()
            await asyncio.sleep(0.01)  # a millisecond must pass between two changes
            prepare(server.stock.registrar.ca, time.time()).save(directory / "ca")
            server.look()
            second = (await client.get("/")).json()
        assert second["spiffe_sequence"] > first["spiffe_sequence"]
        assert len(second["keys"]) == len(first["keys"]) + 1


async def test_an_authorization_server_fetches_keys_of_tokens_from_it(directory: Path) -> None:
    """RA-24, RA-39: a rule with `jwksUri` and no issuer; `jwks_ca_bundles` trusts the authority's own roots."""
    async with authority(directory, dns=("localhost",)) as server, channel(directory) as to:
        url = f"https://localhost:{server.ports['bundle']}/keys"
        bundles = {url: str(directory / "ca/bundle.pem")}
        rule = JwtRule(issuer="", jwks_uri=url, audiences=("reports",), name="shop/jwt-svids/0")
        keys = KeySource(read_key_set, KeySetState, clock=time.time, ca_bundles=bundles)
        keys.update([rule])
        assert await keys.wait_ready(10)
        request = wire.JWTSVIDRequest(audience=["reports"])
        answer = await ask(to, "FetchJWTSVID", request, wire.JWTSVIDResponse)
        assert isinstance(answer, wire.JWTSVIDResponse), answer
        judged = authenticate(bearer(answer.svids[0].svid), (rule,), keys.key_sets, time.time())
        assert judged.outcome is AuthenticationOutcome.ACCEPTED
        assert judged.token is not None
        assert (judged.token.issuer, judged.token.subject) == ("", answer.svids[0].spiffe_id)
        await keys.close()


async def test_an_issuer_alone_is_a_rule_where_tokens_name_one(directory: Path) -> None:
    """RA-38: discovery from the issuer, which the tokens name as they are asked to."""
    async with authority(directory, dns=("localhost",)) as server, channel(directory) as to:
        issuer = server.stock.registrar.jwt_issuer = f"https://localhost:{server.ports['bundle']}"
        rule = JwtRule(issuer=issuer, name="shop/jwt-svids/0")
        bundles = {issuer: str(directory / "ca/bundle.pem")}
        keys = KeySource(read_key_set, KeySetState, clock=time.time, ca_bundles=bundles)
        keys.update([rule])
        assert await keys.wait_ready(10)
        answer = await ask(to, "FetchJWTSVID", wire.JWTSVIDRequest(audience=["a"]), wire.JWTSVIDResponse)
        assert isinstance(answer, wire.JWTSVIDResponse), answer
        judged = authenticate(bearer(answer.svids[0].svid), (rule,), keys.key_sets, time.time())
        assert judged.token is not None
        assert (judged.token.issuer, judged.token.subject) == (issuer, answer.svids[0].spiffe_id)
        await keys.close()


# Our client


WRONG_ENDPOINTS = [
    (
        SpiffeId(PARTNER, "/somebody"),
        "first.json",
        f"the endpoint is `{ENDPOINT_ID}`, expected `spiffe://partner.test/some",
    ),
    (ENDPOINT_ID, "forged.json", "certificate verify failed"),
    (ENDPOINT_ID, None, f"there is no bundle of `{PARTNER}` to judge `{ENDPOINT_ID}` by; bring one by hand first"),
    (SpiffeId(TrustDomain("other.test"), "/x"), "first.json", "there is no bundle of `other.test` to judge"),
]


@pytest.mark.parametrize(("endpoint_id", "first", "reason"), WRONG_ENDPOINTS)
async def test_an_endpoint_that_is_not_who_it_should_be_is_refused(
    directory: Path, endpoint_id: SpiffeId, first: str | None, reason: str
) -> None:
    async with partner(directory) as (_, url):
        (directory / "forged.json").write_bytes(CertificateAuthority.create(PARTNER, time.time()).bundle_pem)
        wrong = replace(
            relationship(directory, url), endpoint_id=endpoint_id, first_bundle=directory / first if first else None
        )
        found = follower(directory, wrong)
        assert await found.refresh(wrong) == 10
        assert reason in found.failures[PARTNER]
        assert not (directory / "federated").exists()


@pytest.mark.parametrize("profile", list(Profile))
async def test_the_proxy_of_the_environment_is_used_and_believed_in_nothing(directory: Path, profile: Profile) -> None:
    async with partner(directory, profile) as (server, _), connect_proxy(server.ports["bundle"]) as (port, heads):
        fetch = by_environment({"HTTPS_PROXY": f"http://127.0.0.1:{port}"})
        there = relationship(directory, "https://bundle.partner.test/", profile)
        found = BundleFollower((there,), directory / "federated", time.time, fetch)
        await found.refresh(there)
        assert found.failures == {}
        somebody = SpiffeId(PARTNER, "/somebody")
        is_spiffe = profile is Profile.SPIFFE
        wrong = replace(there, endpoint_id=somebody) if is_spiffe else replace(there, url="https://other.test/")
        await found.refresh(wrong)
        assert found.failures
        assert heads[0].startswith("CONNECT bundle.partner.test:443 ")


async def test_a_web_certificate_of_an_unknown_authority_is_refused(directory: Path) -> None:
    async with partner(directory, Profile.WEB) as (_, url):
        strange = replace(relationship(directory, url, Profile.WEB), ca_bundle=None)
        with pytest.raises(FetchError, match="certificate"):
            await fetch_document(strange, None)


async def test_an_endpoint_of_another_trust_domain_is_judged_by_that_ones_bundle(
    directory: Path,
) -> None:
    """ "The latest available SPIFFE bundle corresponding to the trust domain of the endpoint's SPIFFE ID" (5.2.2.4)."""
    async with partner(directory) as (_, url):
        hosted = Relationship(TrustDomain("hosted.test"), url, Profile.SPIFFE, ENDPOINT_ID)
        found = follower(directory, hosted, relationship(directory, url))
        await found.refresh(hosted)
        assert found.failures == {}
        assert (directory / "federated/hosted.test.json").exists()


async def test_the_partners_new_root_is_followed_and_then_it_alone(directory: Path) -> None:
    async with partner(directory) as (server, url):
        found = follower(directory, relationship(directory, url))
        await found.refresh(found.relationships[0])
        (directory / "first.json").unlink()  # of no use any more
        prepared = prepare(server.stock.registrar.ca, time.time())
        prepared.save(server.files.directory)
        server.look()
        await found.refresh(found.relationships[0])
        activate(prepared).save(server.files.directory)
        server.look()
        assert server._web[0].renew()
        await found.refresh(found.relationships[0])
        assert found.failures == {}
        kept = read_bundle_document(PARTNER, (directory / "federated/partner.test.json").read_bytes())
        assert kept.bundle.roots == prepared.roots


# What is fetched


def made(sequence: int | None, hint: int | None = None, roots: int = 1) -> bytes:
    one = CertificateAuthority.create(PARTNER, time.time()).trust_bundle
    document = json.loads(write_bundle_document(one, sequence or 0, hint or 0))
    if sequence is None:
        del document["spiffe_sequence"]
    if hint is None:
        del document["spiffe_refresh_hint"]
    return json.dumps(document).encode()


class Answers:
    """Documents, or failures, one after the other; the time is what the test says."""

    def __init__(self, directory: Path, *answers: bytes | FetchError) -> None:
        self.now = 1_000_000.0
        self.answers = list(answers)
        self.changes: list[TrustDomain] = []
        self.relationship = Relationship(PARTNER, "https://partner.test/", Profile.WEB)
        self.file = directory / "federated" / "partner.test.json"
        self.follower = BundleFollower(
            (self.relationship,), self.file.parent, lambda: self.now, self.fetch, self.changes.append
        )

    async def fetch(self, _: Relationship, __: object) -> bytes:
        answer = self.answers.pop(0)
        if isinstance(answer, FetchError):
            raise answer
        return answer

    async def next(self) -> tuple[float, str]:
        pause = await self.follower.refresh(self.relationship)
        return pause, self.follower.failures.get(PARTNER, "")


DOWN = FetchError("https://partner.test/: Connection refused")


async def test_the_owner_says_how_often_and_what_is_broken_leaves_the_last_good_bundle(directory: Path) -> None:
    good = made(7, 60)
    answers = Answers(directory, DOWN, good, DOWN, b"<html>", made(6), good)
    assert await answers.next() == (10, str(DOWN))
    assert await answers.next() == (60, "")
    assert await answers.next() == (60, str(DOWN))
    assert "is not a JSON object" in (await answers.next())[1]
    assert "the endpoint has sequence 6, an older bundle than the one at hand (7)" in (await answers.next())[1]
    assert answers.file.read_bytes() == good
    assert await answers.next() == (60, "")
    assert answers.changes == [PARTNER]


@pytest.mark.parametrize(("hint", "pause"), [(None, 300), (0, 10), (5, 10), (3600, 3600), (10**9, 86400)])
async def test_the_pace_has_bounds(directory: Path, hint: int | None, pause: float) -> None:
    assert await Answers(directory, made(1, hint)).next() == (pause, "")


async def test_a_bundle_that_is_not_refreshed_for_a_week_is_trusted_no_more(directory: Path) -> None:
    answers = Answers(directory, made(7, 60), DOWN, DOWN, made(8))
    await answers.next()
    answers.now += MAX_AGE_SECONDS
    await answers.next()
    assert answers.file.read_bytes() != NOTHING
    answers.now += 1
    await answers.next()
    assert answers.file.read_bytes() == NOTHING
    await answers.next()
    assert len(read_bundle_document(PARTNER, answers.file.read_bytes()).bundle.roots) == 1


async def test_the_age_of_a_bundle_survives_a_restart(directory: Path) -> None:
    answers = Answers(directory, made(7))
    await answers.next()
    again = BundleFollower((answers.relationship,), answers.file.parent, lambda: 0.0)
    assert again.fetched_at == {PARTNER: 1_000_000.0}


async def test_a_trust_domain_that_is_listed_no_more_is_trusted_no_more(directory: Path) -> None:
    """Whoever follows the file sees it; a file that nobody fetched stays as it is."""
    answers = Answers(directory, made(7))
    await answers.next()
    by_hand = answers.file.with_name("other.test.json")
    by_hand.write_bytes(made(1))
    before = by_hand.read_bytes()
    assert BundleFollower((), answers.file.parent, lambda: 0.0).fetched_at == {}
    assert answers.file.read_bytes() == NOTHING
    assert by_hand.read_bytes() == before


@pytest.mark.parametrize(("first", "second"), [(7, None), (None, 1), (7, 7)])
async def test_without_two_numbers_the_last_bundle_is_the_newest(
    directory: Path, first: int | None, second: int | None
) -> None:
    last = made(second)
    answers = Answers(directory, made(first), last)
    await answers.next()
    assert (await answers.next())[1] == ""
    assert answers.file.read_bytes() == last


# All together


async def test_an_authority_fetches_hands_out_and_keeps_a_partners_bundle(directory: Path) -> None:
    async with partner(directory) as (server, url):
        federation = directory / "federation.yaml"
        written = {
            "trustDomain": "partner.test",
            "bundleEndpointURL": url,
            "bundleEndpointProfile": "https_spiffe",
            "endpointSpiffeID": str(ENDPOINT_ID),
            "trustDomainBundlePath": "first.json",
        }
        federation.write_text(json.dumps({"federatesWith": [written]}))
        ours = entry(federatesWith=["partner.test"])
        async with authority(directory, ours, files={"federation": federation}) as own, channel(directory) as to:
            assert own.follower is not None
            async with asyncio.timeout(10):
                while not (directory / "ca/federated/partner.test.json").exists():  # noqa: ASYNC110  # a task of its own
                    await asyncio.sleep(0.02)
            own.look()
            answer = await svids(to).read()
            bundle = answer.federated_bundles["spiffe://partner.test"]
            assert certificates(bundle) == list(server.stock.registrar.trust_bundle.roots)
        async with authority(directory, ours, files={"federation": federation}), channel(directory) as to:
            answer = await svids(to).read()  # at once: the file is there
            assert answer.federated_bundles["spiffe://partner.test"] == bundle


async def test_an_operator_is_told_what_cannot_be_fetched_and_when_a_bundle_came(directory: Path) -> None:
    written = {
        "trustDomain": "partner.test",
        "bundleEndpointURL": "https://127.0.0.1:1/",
        "bundleEndpointProfile": "https_web",
    }
    (directory / "federation.yaml").write_text(json.dumps({"federatesWith": [written]}))
    async with authority(directory, files={"federation": directory / "federation.yaml"}) as own:
        assert own.follower is not None
        await own.follower.refresh(own.follower.relationships[0])
        (cause,) = causes(own._facts())
        assert cause["part"] == "federation"
        assert str(cause["message"]).startswith(
            "the bundle of partner.test cannot be fetched, the last good one stays: https://127.0.0.1:1/: "
        )
        own.follower.fetched_at[PARTNER] = 5.0
        told = {metric.name: value for metric, value in figures(own._facts())}
        assert told["authz_ca_federated_bundle_timestamp_seconds"] == {("partner.test",): 5.0}


@pytest.mark.slow
async def test_a_bundle_is_fetched_from_an_endpoint_of_go_spiffe(directory: Path, go_spiffe: str) -> None:
    async with partner(directory) as (server, _):
        socket = f"unix://{server.doors.socket}"
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(go_spiffe, "serve", socket, stdin=pipe, stdout=pipe)
        assert process.stdin is not None
        assert process.stdout is not None
        address = (await asyncio.wait_for(process.stdout.readline(), 20)).decode().strip()
        app = SpiffeId(PARTNER, "/app")
        theirs = replace(relationship(directory, f"https://{address}/"), endpoint_id=app)
        found = follower(directory, theirs)
        await found.refresh(theirs)
        process.stdin.close()
        await asyncio.wait_for(process.wait(), 10)
        assert found.failures == {}
        kept = read_bundle_document(PARTNER, (directory / "federated/partner.test.json").read_bytes())
        assert kept.bundle.roots == server.stock.registrar.trust_bundle.roots


async def test_connections_to_the_endpoint_are_few_and_short(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Anybody in the world may open them, in the process that holds the keys."""
    monkeypatch.setattr("authz.service.ports.http.MAX_PUBLIC_CONNECTIONS", 2)
    monkeypatch.setattr("authz.service.ports.http.PUBLIC_CONNECTION_SECONDS", 0.5)
    context = ssl.create_default_context(cafile=None)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    async with authority(directory) as server:
        opened = [await asyncio.open_connection("127.0.0.1", server.ports["bundle"], ssl=context) for _ in range(3)]
        ends = []
        for reader, _ in opened:
            async with asyncio.timeout(10):
                with contextlib.suppress(ConnectionResetError):
                    assert await reader.read() == b""
            ends.append(asyncio.get_running_loop().time())
        assert ends[0] <= ends[1]
        for _, writer in opened:
            writer.close()
