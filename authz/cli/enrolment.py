"""A workload's side of enrolment: make a key, ask with a token or the SVID at hand, write the files by rename."""

import time
from dataclasses import dataclass
from pathlib import Path

import grpc

from authz._proto import sds_pb2 as wire
from authz.cli import output
from authz.core.errors import FetchError, SettingsError
from authz.identity.files import read_secret, write_file, write_secret_files
from authz.identity.keys import KeyType, generate_key, write_key
from authz.identity.registrar import write_certificate_request
from authz.identity.renewal import renewal_time
from authz.identity.validate import Rejection, read_chain

TIMEOUT_SECONDS = 10.0
RETRY_SECONDS = 5.0
METHOD = "/authz.identity.v1.Enrolment/Enrol"


@dataclass(frozen=True, slots=True)
class Enrolling:
    """Where to ask and where to write."""

    server: str
    bundle_pem: bytes
    out: Path
    name: str
    key_type: KeyType
    server_name: str = ""

    def enrol(self, token: str = "") -> float:
        """
        Get a certificate and answer until when it is valid. Without ``token`` the SVID in ``out`` is the proof.

        Raises FetchError, SettingsError, OSError.
        """
        key = generate_key(self.key_type)
        request = wire.EnrolRequest(join_token=token, certificate_request=write_certificate_request(key))
        response = self._ask(request, self._credentials(token))
        chain = read_chain(response.chain)
        if isinstance(chain, Rejection):
            raise FetchError(f"`{self.server}` answered something that is {chain.reason}")
        write_secret_files(self.out, self.name, response.chain, write_key(key))
        write_file(self.out / "ca.crt", response.bundle)
        return chain[0].not_valid_after_utc.timestamp()

    def renew_at(self) -> float:
        """Half of the life of what lies in ``out``. Raises FetchError, OSError."""
        chain = read_chain((self.out / f"{self.name}.crt").read_bytes())
        if isinstance(chain, Rejection):
            raise FetchError(f"`{self.out / self.name}.crt` is {chain.reason}")
        leaf = chain[0]
        return renewal_time(leaf.not_valid_before_utc.timestamp(), leaf.not_valid_after_utc.timestamp(), 0.5)

    def _credentials(self, token: str) -> grpc.ChannelCredentials:
        roots = self.bundle_pem
        if token:
            return grpc.ssl_channel_credentials(roots)
        newest = self.out / "ca.crt"
        try:
            roots = newest.read_bytes() if newest.exists() else roots  # the root may have changed since the beginning
            chain = (self.out / f"{self.name}.crt").read_bytes()
            return grpc.ssl_channel_credentials(roots, read_secret(self.out / f"{self.name}.key"), chain)
        except FileNotFoundError:
            raise SettingsError(
                f"there is no SVID `{self.name}` in `{self.out}` to renew; a join token is needed"
            ) from None
        except ValueError as error:
            raise SettingsError(str(error)) from error

    def _ask(self, request: wire.EnrolRequest, credentials: grpc.ChannelCredentials) -> wire.EnrolResponse:
        options = [("grpc.ssl_target_name_override", self.server_name)] if self.server_name else []
        with grpc.secure_channel(self.server, credentials, options=options) as channel:
            call = channel.unary_unary(
                METHOD,
                request_serializer=wire.EnrolRequest.SerializeToString,
                response_deserializer=wire.EnrolResponse.FromString,
            )
            try:
                answer = call(request, timeout=TIMEOUT_SECONDS)
            except grpc.RpcError as error:
                details = error.details() if isinstance(error, grpc.Call) else str(error)
                raise FetchError(f"`{self.server}` refused: {details}") from None  # the cause may quote the request
        assert isinstance(answer, wire.EnrolResponse)
        return answer


def keep_renewed(enrolling: Enrolling) -> None:
    """Renew at half life, for ever; a failure is reported and tried again."""
    while True:
        time.sleep(max(0.1, enrolling.renew_at() - time.time()))
        try:
            until = enrolling.enrol()
            output.remark(f"renewed until {time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(until))}")
        except (FetchError, OSError) as error:
            output.remark(f"not renewed, trying again: {error}")
            time.sleep(RETRY_SECONDS)
