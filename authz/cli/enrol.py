"""
A workload's side of enrolment: make a key, ask with a token or the SVID at hand, write the files by rename.

The private key never leaves. With ``--watch`` the certificate is renewed at half life, and at once when the authority
has begun to sign with another one, so that a change of the root reaches certificates in files as it reaches those of
secret discovery.
"""

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from authz._proto import sds_pb2 as wire
from authz.cli import terminal
from authz.cli.ca_files import time_of
from authz.cli.renewal_hook import RenewalHook
from authz.control.authority.holders import AGAIN_HEADER, MOST_ASK_SECONDS, SIGNER_HEADER, TRUSTED_HEADER
from authz.core.errors import AuthzError, FetchError, SettingsError
from authz.envoy.svid_pointers import svid_pointers
from authz.identity.delivered import Delivered
from authz.identity.keys import KeyType, generate_key, write_key
from authz.identity.registrar import write_certificate_request
from authz.identity.secret_files import FILE_NAME, read_secret, write_file, write_secret_files

TIMEOUT_SECONDS = 10.0
LOOK_SECONDS = 5.0
"""How often ``--watch`` asks what is trusted, unless the authority has too many to answer, and retries what failed."""
SERVICE = "authz.identity.v1.Enrolment"
REFUSALS = (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.INVALID_ARGUMENT)


class Declined(AuthzError):
    """The authority refused, or would refuse; asking again in the same way changes nothing."""


@dataclass(slots=True)
class Enrolling:
    """Where to ask and where to write."""

    servers: tuple[str, ...]
    """Authorities below one root, ``host:port``; the one that answered last comes first."""
    bundle: Path
    out: Path
    key_type: KeyType
    server_name: str = ""
    changes: int = 0
    """How often certificate or roots were written."""
    again: float = 0.0
    """In how many seconds the authority that answered last wants to be asked again; 0: it does not say."""
    _line: "tuple[str, bytes, grpc.Channel] | None" = field(default=None, repr=False)
    """
    The connection by which was asked last, its server, and by what both knew each other: a handshake every few seconds
    for each machine of a fleet is more than an authority can do.
    """

    def __post_init__(self) -> None:
        """Raises SettingsError for a bundle that holds no certificate; OSError."""
        try:
            Delivered.read(self.bundle.read_bytes())
        except ValueError as error:
            raise SettingsError(f"`{self.bundle}` is not a trust bundle: {error}") from error

    def enrol(self, now: float, token: str = "") -> float:
        """
        Get a certificate and answer until when it is valid. Without ``token`` the SVID in ``out`` is the proof.

        Raises Declined, FetchError, SettingsError, OSError.
        """
        key = generate_key(self.key_type)
        request = wire.EnrolRequest(join_token=token, certificate_request=write_certificate_request(key))

        def judge(issued: Delivered) -> str:
            if not issued.is_of(key):
                return "a certificate for another key"
            return (
                "" if issued.begin <= now < issued.end else "a certificate that is not valid now: whose clock is wrong?"
            )

        response, issued = self._ask("Enrol", request, self._knows(now, token), judge)
        write_secret_files(self.out, FILE_NAME, response.chain, write_key(key))
        self.changes += 1
        self._write_roots(response.bundle)
        return issued.end

    def follow(self, now: float) -> bool:
        """
        Fetch what is trusted; say whether the authority now signs with another one than that which signed ``out``.

        Raises what ``enrol`` does.
        """
        response, signing = self._ask("Trust", wire.EnrolRequest(), self._knows(now), lambda _: "")
        self._write_roots(response.bundle)
        return not self._own().is_signed_by(signing)

    def valid_until(self, now: float) -> float | None:
        """The identity in ``out``; None when there is nothing or it has expired."""
        try:
            return self.must_be_valid(now)
        except (Declined, SettingsError, OSError):
            return None

    def must_be_valid(self, now: float) -> float:
        """Until when the identity in ``out`` is good. Raises Declined when it has expired, SettingsError, OSError."""
        end = self._own().end
        if now >= end:
            told = f"the SVID in `{self.out}` expired at {time_of(end)}"
            raise Declined(f"{told} and renews nothing; a join token is needed")
        return end

    def renew_at(self) -> float:
        """Half of the life of what lies in ``out``. Raises SettingsError, OSError."""
        return self._own().renew_at

    def _own(self) -> Delivered:
        file = self.out / f"{FILE_NAME}.crt"
        try:
            return Delivered.read(file.read_bytes())
        except ValueError as error:
            raise SettingsError(f"`{file}` is {error}") from error

    def _write_roots(self, pem: bytes) -> None:
        """The roots, and how an Envoy follows all of it."""
        for name, content in {"ca.crt": pem, **svid_pointers(str(self.out))}.items():
            file = self.out / name
            if not file.exists() or file.read_bytes() != content:
                write_file(file, content)
                self.changes += 1

    def _roots(self) -> bytes:
        """Take the newer of two bundles: the one given at the start, or the one the authority has told since."""
        files = [self.bundle, self.out / "ca.crt"]
        return max((file for file in files if file.exists()), key=lambda file: file.stat().st_mtime_ns).read_bytes()

    def _told(self) -> list[tuple[str, str | bytes]]:
        """What is trusted here, and below which root our certificate is: a change of the root waits for that."""
        try:
            trusted, signer = self._own().roots_among((self.out / "ca.crt").read_bytes())
        except (OSError, ValueError, SettingsError):
            return []
        return [(TRUSTED_HEADER, ",".join(trusted)), (SIGNER_HEADER, signer)]

    def _knows(self, now: float, token: str = "") -> tuple[bytes, bytes | None, bytes | None]:
        """The roots, and the key and chain of what lies in ``out``, where no token is the proof."""
        if token:
            return self.bundle.read_bytes(), None, None
        try:
            self.must_be_valid(now)
            chain = (self.out / f"{FILE_NAME}.crt").read_bytes()
            return self._roots(), read_secret(self.out / f"{FILE_NAME}.key"), chain
        except FileNotFoundError:
            raise SettingsError(
                f"there is no SVID `{FILE_NAME}` in `{self.out}` to renew; a join token is needed"
            ) from None
        except ValueError as error:
            raise SettingsError(str(error)) from error

    def _channel(self, server: str, known: tuple[bytes, bytes | None, bytes | None]) -> grpc.Channel:
        """The connection of last time, if server and certificates are the same."""
        roots, key, chain = known
        shown = roots + b"\0" + (chain or b"")
        if self._line is not None:
            if self._line[:2] == (server, shown):
                return self._line[2]
            self.hang_up()
        options = [("grpc.ssl_target_name_override", self.server_name)] if self.server_name else []
        channel = grpc.secure_channel(server, grpc.ssl_channel_credentials(roots, key, chain), options=options)
        self._line = server, shown, channel
        return channel

    def hang_up(self) -> None:
        """End the connection, if there is one."""
        if self._line is not None:
            self._line[2].close()
            self._line = None

    def _ask(
        self,
        method: str,
        request: wire.EnrolRequest,
        known: tuple[bytes, bytes | None, bytes | None],
        judge: Callable[[Delivered], str],
    ) -> tuple[wire.EnrolResponse, Delivered]:
        """
        Ask one authority after the other until one's answer can be used: one that refuses may have a wrong clock.

        ``judge`` says what is wrong with what an authority answered. When nobody's answer can be used, a refusal counts
        for more than silence.
        """
        refused: Declined | None = None
        silent = []
        for server in self.servers:
            try:
                answer = self._ask_one(server, method, request, known)
                delivered = _delivered(server, answer.chain, judge)
            except Declined as error:
                refused = refused or error
            except FetchError as error:
                silent.append(str(error))
            else:
                self.servers = (server, *(other for other in self.servers if other != server))
                return answer, delivered
        raise refused or FetchError("; ".join(silent))

    def _ask_one(
        self, server: str, method: str, request: wire.EnrolRequest, known: tuple[bytes, bytes | None, bytes | None]
    ) -> wire.EnrolResponse:
        call = self._channel(server, known).unary_unary(
            f"/{SERVICE}/{method}",
            request_serializer=wire.EnrolRequest.SerializeToString,
            response_deserializer=wire.EnrolResponse.FromString,
        )
        self.again = 0.0
        try:
            answer, done = call.with_call(request, timeout=TIMEOUT_SECONDS, metadata=tuple(self._told()))
        except grpc.RpcError as error:
            self.hang_up()
            code, details = (error.code(), error.details()) if isinstance(error, grpc.Call) else (None, str(error))
            reason = (details or "").rpartition("last error: ")[2]
            if code in REFUSALS:
                raise Declined(f"`{server}` refused: {reason}") from None  # the cause may quote the request
            raise FetchError(f"`{server}` gave no answer: {reason}") from None
        assert isinstance(answer, wire.EnrolResponse)
        self.again = _again(done.trailing_metadata() or ())
        return answer


def _again(metadata: Iterable[tuple[str, str | bytes]]) -> float:
    """What an authority says of the next time; nothing that it says keeps us from asking for long."""
    told = dict(metadata).get(AGAIN_HEADER, "")
    return min(MOST_ASK_SECONDS, float(told)) if isinstance(told, str) and told.isdecimal() else 0.0


def _delivered(server: str, pem: bytes, judge: Callable[[Delivered], str]) -> Delivered:
    """Read what an authority answered. Raises FetchError when it cannot be used."""
    try:
        delivered = Delivered.read(pem)
    except ValueError as error:
        raise FetchError(f"`{server}` answered with something that is {error}") from error
    if wrong := judge(delivered):
        raise FetchError(f"`{server}` answered with {wrong}")
    return delivered


def keep_renewed(enrolling: Enrolling, stopping: threading.Event, hook: RenewalHook | None = None) -> None:
    """
    Keep certificate and roots current until ``stopping``; a failure, of ``hook`` too, is reported and tried again.

    Raises Declined when the SVID has expired meanwhile: then nothing but a token helps.
    """
    told = ""
    if hook is not None:
        hook.run(enrolling.changes)
    while not stopping.wait(max(0.1, min(max(LOOK_SECONDS, enrolling.again), enrolling.renew_at() - time.time()))):
        now = time.time()
        try:
            if now >= enrolling.renew_at() or enrolling.follow(now):
                until = enrolling.enrol(now)
                terminal.remark(f"renewed until {time_of(until)}")
            told = ""
        except (AuthzError, OSError) as error:
            # It may have ended while the authority was asked, and a handshake refused for that looks like silence.
            until = enrolling.must_be_valid(time.time())
            if str(error) != told:  # once, not every few seconds
                terminal.remark(f"not renewed, trying again: {error}")
            told = str(error)
            stopping.wait(min(LOOK_SECONDS, max(0.1, until - now)))
        if hook is not None:
            hook.run(enrolling.changes)
