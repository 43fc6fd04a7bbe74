"""Key sets over real HTTP and HTTPS on loopback; time is a number that the tests move."""

import asyncio
import contextlib
import datetime
import json
import logging
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from authz.core.attributes import AttributeContext, Destination, HttpRequest, Workload
from authz.core.attributes import Source as Peer
from authz.core.resources import JwtRule
from authz.sources.keys.fetch import MAX_BODY_BYTES, is_refused_address
from authz.sources.keys.schedule import refresh_delay, retry_delay
from authz.sources.keys.source import HINT_SECONDS, KeySource, KeySourceStatus
from authz.tokens.authenticate import authenticate
from authz.tokens.cache import TokenCache
from authz.tokens.jwks import KeySet, read_key_set
from authz.tokens.key_sets import KeySetState
from authz.tokens.signing import jwks_text, make_keys, make_token

KEYS = make_keys({"one": {"kty": "EC", "kid": "one"}, "two": {"kty": "EC", "kid": "two"}})
ONE, TWO = (jwks_text([KEYS[name]]) for name in ("one", "two"))
START = 1_800_000_000.0
PATIENCE = 10.0
"""Bound of every wait in real time; reached only when a test fails."""

Source = KeySource[KeySet, KeySetState]


@dataclass
class Clock:
    """A clock that moves when a test says so; ``slept`` tells how long the source under test wants to sleep."""

    now: float = START
    slept: "asyncio.Queue[float]" = field(default_factory=asyncio.Queue)
    sleepers: "list[tuple[float, asyncio.Future[None]]]" = field(default_factory=list)

    async def sleep(self, seconds: float) -> None:
        future = asyncio.get_running_loop().create_future()
        self.sleepers.append((self.now + seconds, future))
        self.slept.put_nowait(seconds)
        await future

    def advance(self, seconds: float) -> None:
        self.now += seconds
        for due, future in self.sleepers:
            if due <= self.now and not future.done():
                future.set_result(None)

    async def next_sleep(self) -> float:
        return await asyncio.wait_for(self.slept.get(), PATIENCE)


@dataclass
class Reply:
    body: str | bytes = ONE
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    hangs: bool = False


@dataclass
class Server:
    """Answers by path; ``asked`` lists the paths in order."""

    replies: dict[str, Reply] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    port: int = 0
    scheme: str = "http"

    @property
    def url(self) -> str:
        return f"{self.scheme}://localhost:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            path = head.split(b" ")[1].decode()
            self.asked.append(path)
            reply = self.replies.get(path, Reply("", 404))
            if reply.hangs:
                await reader.read()  # until the client gives up
            else:
                body = reply.body.encode() if isinstance(reply.body, str) else reply.body
                lines = [f"HTTP/1.1 {reply.status} x", "connection: close", f"content-length: {len(body)}"]
                lines += [f"{name}: {value}" for name, value in reply.headers.items()]
                writer.write("\r\n".join([*lines, "", ""]).encode() + body)
                await writer.drain()
        writer.close()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await writer.wait_closed()


@contextlib.asynccontextmanager
async def running(context: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    server = Server(scheme="https" if context else "http")
    listener = await asyncio.start_server(server.serve, "localhost", 0, ssl=context)
    server.port = listener.sockets[0].getsockname()[1]
    for extra in listener.sockets[1:]:
        extra.close()
    try:
        yield server
    finally:
        listener.close()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with running() as server:
        yield server


@pytest.fixture
def clock() -> Clock:
    return Clock()


Make = Callable[..., Source]


@pytest.fixture
async def make(clock: Clock) -> AsyncIterator[Make]:
    made: list[Source] = []

    def make(**more: object) -> Source:
        source: Source = KeySource(
            read_key_set,
            KeySetState,
            clock=lambda: clock.now,
            sleep=clock.sleep,
            **more,  # type: ignore[arg-type]  # tests pass what the constructor knows
        )
        made.append(source)
        return source

    yield make
    for source in made:
        await source.close()


def kids(source: Source, rule: JwtRule) -> list[str] | None:
    key_set = source.key_sets[rule.keys_from].key_set
    return None if key_set is None else [key.kid for key in key_set.keys]


def row(source: Source) -> KeySourceStatus:
    (only,) = source.status()
    return only


async def test_keys_are_fetched_when_rules_come(server: Server, clock: Clock, make: Make) -> None:
    server.replies["/keys"] = Reply()
    rule = JwtRule(issuer="i", jwks_uri=f"{server.url}/keys")
    seen: list[Mapping[str, KeySetState]] = []
    source = make(on_change=seen.append)
    source.update((rule, JwtRule(issuer="j", jwks_uri=rule.jwks_uri), JwtRule(issuer="k", jwks=ONE)))
    assert source.key_sets[rule.keys_from].key_set is None
    assert not source.is_ready
    assert await source.wait_ready(PATIENCE)
    assert kids(source, rule) == ["one"]
    assert await clock.next_sleep() == 1200
    assert source.status() == (KeySourceStatus(rule.keys_from, ("i", "j"), 1, START, "", 1),)
    assert server.asked == ["/keys"], "one source, however many rules use it"
    assert seen[-1] is source.key_sets


async def test_no_remote_rule_is_ready_at_once(make: Make) -> None:
    source = make()
    source.update((JwtRule(jwks=ONE),))
    assert source.is_ready
    assert source.key_sets == {}


@pytest.mark.parametrize("slash", ["", "/"])
async def test_discovery_from_the_issuer(server: Server, make: Make, slash: str) -> None:
    """RA-38."""
    document = json.dumps({"jwks_uri": f"{server.url}/k"})
    server.replies = {"/i/.well-known/openid-configuration": Reply(document), "/k": Reply()}
    rule = JwtRule(issuer=f"{server.url}/i{slash}")
    source = make()
    source.update((rule,))
    assert await source.wait_ready(PATIENCE)
    assert kids(source, rule) == ["one"]


@pytest.mark.parametrize(
    ("discovery", "error"),
    [
        (Reply("{}"), "has no http(s) `jwks_uri`"),
        (Reply('{"jwks_uri": 5}'), "has no http(s) `jwks_uri`"),
        (Reply('{"jwks_uri": "file:///etc/passwd"}'), "has no http(s) `jwks_uri`"),
        (Reply('{"jwks_uri": "http://169.254.169.254/k"}'), "metadata service: refused"),
        (Reply("", 500), "status 500, expected 2xx"),
    ],
)
async def test_bad_discovery(server: Server, clock: Clock, make: Make, discovery: Reply, error: str) -> None:
    server.replies["/.well-known/openid-configuration"] = discovery
    source = make()
    source.update((JwtRule(issuer=server.url),))
    assert await clock.next_sleep() == 1
    assert error in row(source).last_error


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (Reply("", 404), "status 404, expected 2xx"),
        (Reply(ONE, 500), "status 500, expected 2xx"),
        (Reply("no JSON"), "the key set is not a JSON object"),
        (Reply(b"\xff"), "the body is not JSON"),
        (Reply("[]"), "not a JSON object"),
        (Reply("{}"), "has no `keys` list"),
        (Reply('{"keys": {}}'), "has no `keys` list"),
        (Reply('{"keys": [], "x": 1, "x": 2}'), "repeated member name"),
        (Reply(" " * (MAX_BODY_BYTES + 1)), "more than"),
        (Reply(ONE, headers={"content-encoding": "gzip"}), "compressed"),
        (Reply("", 302, {"location": "http://169.254.169.254/latest"}), "169.254.169.254, which is link-local"),
        (Reply("", 302, {"location": "http://[fe80::1]/"}), "fe80::1, which is link-local"),
        (Reply("", 302, {"location": "ftp://localhost/"}), "not an http or https URL"),
        (Reply("", 302, {"location": "/keys"}), "redirects"),
        (Reply(hangs=True), "no answer within 1 s"),
    ],
)
async def test_failed_fetch_says_why_and_is_retried(
    server: Server, clock: Clock, make: Make, reply: Reply, error: str
) -> None:
    """RA-39."""
    server.replies["/keys"] = reply
    rule = JwtRule(jwks_uri=f"{server.url}/keys", timeout_seconds=1 if reply.hangs else 5)
    source = make()
    source.update((rule,))
    assert await clock.next_sleep() == 1
    assert error in row(source).last_error
    assert source.key_sets[rule.keys_from] == KeySetState(None, None, row(source).last_error)
    assert not await source.wait_ready(0)
    server.replies["/keys"] = Reply()
    clock.advance(1)
    assert await source.wait_ready(PATIENCE)
    assert row(source).last_error == ""


async def test_refused_connection_is_named(clock: Clock, make: Make) -> None:
    async with running() as gone:
        url = gone.url
    source = make()
    source.update((JwtRule(jwks_uri=f"{url}/keys?secret=1"),))
    await clock.next_sleep()
    assert "refused" in row(source).last_error.lower() or "failed" in row(source).last_error.lower()
    assert "secret" not in row(source).last_error.replace(row(source).source, "")


async def test_redirect_is_followed(server: Server, make: Make) -> None:
    server.replies = {"/old": Reply("", 302, {"location": "/new"}), "/new": Reply()}
    source = make()
    source.update((JwtRule(jwks_uri=f"{server.url}/old"),))
    assert await source.wait_ready(PATIENCE)


async def test_last_good_keys_stay_while_refreshes_fail(server: Server, clock: Clock, make: Make) -> None:
    """RA-39: the age grows, the error shows, the delays double."""
    server.replies["/keys"] = Reply()
    rule = JwtRule(jwks_uri=f"{server.url}/keys")
    source = make()
    source.update((rule,))
    assert await clock.next_sleep() == 1200
    server.replies["/keys"] = Reply("", 503)
    clock.advance(1200)
    for expected in (1, 2, 4, 8, 16, 32, 60, 120):
        assert await clock.next_sleep() == expected
        assert kids(source, rule) == ["one"]
        assert row(source).fetched_at == START
        assert source.is_ready
        clock.advance(expected)
    server.replies["/keys"] = Reply(TWO)
    assert await clock.next_sleep() == 1200
    assert kids(source, rule) == ["two"]
    assert (row(source).fetched_at, row(source).last_error) == (clock.now, "")
    assert (row(source).fetches, row(source).failures) == (2, 8)


async def test_keys_not_refreshed_for_a_week_are_discarded(server: Server, clock: Clock, make: Make) -> None:
    """RA-39."""
    server.replies["/keys"] = Reply()
    rule = JwtRule(jwks_uri=f"{server.url}/keys")
    source = make()
    source.update((rule,))
    await clock.next_sleep()
    server.replies["/keys"] = Reply("", 503)
    clock.advance(7 * 86400)
    await clock.next_sleep()
    assert kids(source, rule) == ["one"]
    clock.advance(1)
    await clock.next_sleep()
    assert kids(source, rule) is None
    assert not source.is_ready


async def test_set_without_usable_key_does_not_replace_a_good_one(server: Server, clock: Clock, make: Make) -> None:
    """RA-37."""
    server.replies["/keys"] = Reply('{"keys": []}')
    rule = JwtRule(jwks_uri=f"{server.url}/keys")
    source = make()
    source.update((rule,))
    assert await clock.next_sleep() == 1200
    assert kids(source, rule) == []
    server.replies["/keys"] = Reply()
    clock.advance(1200)
    await clock.next_sleep()
    server.replies["/keys"] = Reply('{"keys": [{"kty": "new"}]}')
    clock.advance(1200)
    assert await clock.next_sleep() == 1
    assert kids(source, rule) == ["one"]
    assert "no usable key" in row(source).last_error


async def test_hint_refreshes_once_and_not_sooner_than_allowed(server: Server, clock: Clock, make: Make) -> None:
    server.replies["/keys"] = Reply()
    rule = JwtRule(jwks_uri=f"{server.url}/keys")
    source = make()
    source.update((rule,))
    assert await clock.next_sleep() == 1200
    server.replies["/keys"] = Reply(TWO)
    clock.advance(HINT_SECONDS - 1)
    for _ in range(100):
        source.hint(rule.keys_from)
    source.hint("uri:unknown")
    assert await clock.next_sleep() == 1
    assert kids(source, rule) == ["one"]
    clock.advance(1)
    assert await clock.next_sleep() == 1200
    assert kids(source, rule) == ["two"]
    assert len(server.asked) == 2
    clock.advance(HINT_SECONDS)
    await asyncio.to_thread(source.hint, rule.keys_from)
    assert await clock.next_sleep() == 1200
    assert len(server.asked) == 3


async def test_rotated_key_is_learnt_from_the_first_token_that_names_it(
    server: Server, clock: Clock, make: Make
) -> None:
    """The whole way: refused, hinted, refreshed, accepted; and remembered tokens of the old key are not."""
    server.replies["/keys"] = Reply()
    rules = (JwtRule(issuer="i", jwks_uri=f"{server.url}/keys"),)
    source, cache = make(), TokenCache()
    source.update(rules)
    assert await clock.next_sleep() == 1200
    clock.advance(HINT_SECONDS)

    def status_of(key: str) -> int:
        token = make_token({"key": key, "alg": "ES256", "claims": {"iss": "i"}}, KEYS, START)
        http = HttpRequest("GET", "h", "/", {"authorization": (f"Bearer {token}",)})
        attributes = AttributeContext(Peer(), Destination(Workload("ns")), http)
        answer = authenticate(attributes, rules, source.key_sets, clock.now, cache=cache, on_unknown_key=source.hint)
        return answer.status

    assert (status_of("one"), status_of("one")) == (0, 0)
    server.replies["/keys"] = Reply(TWO)
    assert status_of("two") == 401
    assert await clock.next_sleep() == 1200
    assert (status_of("two"), status_of("one")) == (0, 401)


async def test_sources_of_old_and_new_rules_keep_their_keys(server: Server, clock: Clock, make: Make) -> None:
    server.replies = {"/a": Reply(), "/b": Reply(TWO)}
    a, b = (JwtRule(issuer=name, jwks_uri=f"{server.url}/{name}") for name in ("a", "b"))
    source = make()
    source.update((a,))
    assert await source.wait_ready(PATIENCE)
    before = source.key_sets
    source.update((JwtRule(issuer="renamed", jwks_uri=a.jwks_uri), b))
    assert kids(source, a) == ["one"]
    assert kids(source, b) is None, "keys never pass to another URI"
    assert await source.wait_ready(PATIENCE)
    assert server.asked == ["/a", "/b"]
    assert source.status()[0].issuers == ("renamed",)
    source.update((b,))
    assert list(source.key_sets) == [b.keys_from]
    assert list(before) == [a.keys_from], "what was read once does not change"
    source.update((a, b))
    assert kids(source, a) is None


async def test_close_stops_asking(server: Server, clock: Clock, make: Make) -> None:
    server.replies["/keys"] = Reply()
    source = make()
    source.update((JwtRule(jwks_uri=f"{server.url}/keys"),))
    await clock.next_sleep()
    await source.close()
    clock.advance(1e6)
    assert source.status() == ()
    assert server.asked == ["/keys"]


def certificate(folder: Path, host: str = "localhost") -> tuple[ssl.SSLContext, Path]:
    """A server context for a host, and the certificate that vouches for it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "ca.pem"
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    both = folder / "both.pem"
    both.write_bytes(
        path.read_bytes()
        + key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(both)
    return context, path


@pytest.mark.parametrize("by", ["issuer", "uri"])
async def test_private_ca_bundle_by_issuer_or_uri(clock: Clock, make: Make, tmp_path: Path, by: str) -> None:
    context, bundle = certificate(tmp_path)
    async with running(context) as server:
        server.replies["/keys"] = Reply()
        rule = JwtRule(issuer="i", jwks_uri=f"{server.url}/keys")
        source = make(ca_bundles={rule.issuer if by == "issuer" else rule.jwks_uri: str(bundle)})
        source.update((rule,))
        assert await source.wait_ready(PATIENCE)


async def test_unknown_certificate_is_refused(clock: Clock, make: Make, tmp_path: Path) -> None:
    context, _ = certificate(tmp_path)
    async with running(context) as server:
        server.replies["/keys"] = Reply()
        source = make(ca_bundles={"another issuer": "/nowhere"})
        source.update((JwtRule(issuer="i", jwks_uri=f"{server.url}/keys"),))
        await clock.next_sleep()
        assert "certificate verify failed" in row(source).last_error
        assert server.asked == []


async def test_certificate_for_another_name_is_refused(clock: Clock, make: Make, tmp_path: Path) -> None:
    """The connection goes to an address, the certificate is still held against the name."""
    context, bundle = certificate(tmp_path)
    async with running(context) as server:
        rule = JwtRule(issuer="i", jwks_uri=f"https://127.0.0.1:{server.port}/keys")
        source = make(ca_bundles={"i": str(bundle)})
        source.update((rule,))
        await clock.next_sleep()
        assert "certificate" in row(source).last_error


async def test_redirect_from_https_to_http_is_refused(server: Server, clock: Clock, make: Make, tmp_path: Path) -> None:
    context, bundle = certificate(tmp_path)
    async with running(context) as secure:
        server.replies["/keys"] = Reply()
        secure.replies["/keys"] = Reply("", 302, {"location": f"{server.url}/keys"})
        source = make(ca_bundles={"i": str(bundle)})
        source.update((JwtRule(issuer="i", jwks_uri=f"{secure.url}/keys"),))
        await clock.next_sleep()
        assert "redirected from https to http" in row(source).last_error


@pytest.mark.parametrize("way", ["redirect", "discovery"])
async def test_an_issuer_cannot_send_us_to_a_metadata_service(
    server: Server, clock: Clock, make: Make, way: str
) -> None:
    """What answers for an issuer chooses where we ask next, but not among addresses that tell a machine its secrets."""
    inside = "http://169.254.169.254/latest/meta-data/iam/security-credentials/"
    if way == "redirect":
        server.replies["/keys"] = Reply("", 302, {"location": inside})
        rule = JwtRule(issuer="i", jwks_uri=f"{server.url}/keys")
    else:
        server.replies["/.well-known/openid-configuration"] = Reply(json.dumps({"jwks_uri": inside}))
        rule = JwtRule(issuer=server.url)
    source = make()
    source.update((rule,))
    await clock.next_sleep()
    assert "link-local or a metadata service: refused" in row(source).last_error


async def test_unreadable_ca_bundle_is_named(clock: Clock, make: Make, tmp_path: Path) -> None:
    source = make(ca_bundles={"i": str(tmp_path / "none.pem")})
    source.update((JwtRule(issuer="i", jwks_uri="https://localhost:1/keys"),))
    await clock.next_sleep()
    assert row(source).last_error == f"CA bundle `{tmp_path}/none.pem`: No such file or directory"


@pytest.mark.parametrize(
    ("address", "is_refused"),
    [
        ("169.254.169.254", True),
        ("169.254.0.1", True),
        ("::ffff:169.254.169.254", True),
        ("64:ff9b::a9fe:a9fe", True),
        ("2002:a9fe:a9fe::1", True),
        ("fe80::1%eth0", True),
        ("fd00:ec2::254", True),
        ("100.100.100.200", True),
        ("168.63.129.16", True),
        ("192.0.0.192", True),
        ("127.0.0.1", False),
        ("10.0.0.1", False),
        ("169.253.1.1", False),
        ("::1", False),
        ("fd12::1", False),
    ],
)
def test_refused_addresses(address: str, is_refused: bool) -> None:
    """RA-39."""
    assert is_refused_address(address) == is_refused


def test_retry_delays() -> None:
    assert [retry_delay(n) for n in (1, 2, 6, 7, 8, 12, 13, 1000)] == [1, 2, 32, 60, 120, 1920, 3600, 3600]


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, 1200),
        ({"cache-control": "max-age=600"}, 600),
        ({"cache-control": "public, Max-Age = 600, must-revalidate"}, 600),
        ({"cache-control": 'max-age="600"'}, 600),
        ({"cache-control": "max-age=600", "age": "500"}, 100),
        ({"cache-control": "max-age=600", "age": "x"}, 600),
        ({"cache-control": "max-age=0"}, 30),
        ({"cache-control": "max-age=86400"}, 1200),
        ({"cache-control": "max-age=99999999999999"}, 1200),
        ({"cache-control": "max-age=-5"}, 1200),
        ({"cache-control": "s-maxage=60"}, 1200),
        ({"cache-control": "no-store"}, 1200),
    ],
)
def test_cache_control_brings_the_refresh_forward(headers: dict[str, str], expected: float) -> None:
    assert refresh_delay(headers, 1200) == expected


def _firebase(keys: dict[str, rsa.RSAPrivateKey]) -> str:
    """The form that Firebase publishes: an object of ``kid`` and PEM certificate."""
    found = {}
    for name, key in keys.items():
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "securetoken")])
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        certificate = (
            builder.not_valid_before(now).not_valid_after(now + datetime.timedelta(1)).sign(key, hashes.SHA256())
        )
        found[name] = certificate.public_bytes(serialization.Encoding.PEM).decode()
    return json.dumps(found)


async def test_certificates_by_their_kid_are_a_key_set_over_http_too(make: Make, server: Server) -> None:
    server.replies["/certs"] = Reply(_firebase({"a": rsa.generate_private_key(65537, 2048)}))
    source = make()
    source.update([JwtRule(issuer="i", jwks_uri=f"{server.url}/certs")])
    assert await source.wait_ready(PATIENCE)
    (status,) = source.status()
    assert (status.keys, status.skipped, status.last_error) == (1, (), "")


async def test_keys_that_are_not_used_are_logged_with_the_reason(
    make: Make, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    one, *_ = json.loads(ONE)["keys"]
    small = {"kty": "RSA", "kid": "small", "n": "AQAB", "e": "AQAB"}
    server.replies["/keys"] = Reply(json.dumps({"keys": [one, small]}))
    source = make()
    source.update([JwtRule(issuer="i", jwks_uri=f"{server.url}/keys")])
    with caplog.at_level(logging.WARNING):
        assert await source.wait_ready(PATIENCE)
    (status,) = source.status()
    assert len(status.skipped) == 1
    assert "small" in status.skipped[0]
    assert caplog.messages == [f"key set of uri:{server.url}/keys: not used: {status.skipped[0]}"]
