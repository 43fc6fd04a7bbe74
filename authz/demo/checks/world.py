"""
The check's hands and eyes: tokens and certificates of every sort, requests to any proxy, and the decisions made.

How a request ended is told in a few words that are the same every time (``outcome``).
"""

import asyncio
import re
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol, TypeVar

from authz.core.attributes import read_field
from authz.core.decided import Record
from authz.demo.certificates import issue_certificates
from authz.demo.checks.clients import TIMEOUT_SECONDS, Pair, Reply, Tls, exchange, send, shown_certificate
from authz.demo.checks.credentials import make_certificates
from authz.demo.checks.edits import changed, replace_file, replaced
from authz.demo.checks.issuing import Issuing, OwnIssuing
from authz.demo.checks.keycloak_client import KeycloakClient
from authz.demo.checks.places import Places
from authz.demo.layout import DemoError, Layout
from authz.demo.programs import envoy_binary
from authz.envoy.options import Secrets
from authz.identity.secret_files import write_file, write_secret_files
from authz.local.decision_lines import Tail

PATIENCE_SECONDS = 20.0
"""The patience for things that must happen but take their time: a restart, a health check."""
PROMPT_SECONDS = 1.0
"""A change of policies is in force within this time."""
PAUSE_SECONDS = 0.03
HeaderList = Sequence[tuple[str, str]]
T = TypeVar("T")


class Processes(Protocol):
    """The side that ends things and starts them again, by the names of ``demo.commands``."""

    async def kill(self, name: str) -> None:
        """End it at once and leave it down."""

    async def revive(self, name: str) -> None:
        """Start it again and wait until it is ready."""

    async def crash(self, name: str) -> bool:
        """Let it end as if by itself; True when it did."""


class World(Places):
    """
    One for a whole check; call ``prepare`` before the first request.

    Places and logs are those of processes on this machine; ``ContainerWorld`` has others.
    """

    def __init__(self, layout: Layout, processes: Processes) -> None:
        super().__init__(layout)
        self.processes = processes
        self._tails = [Tail(path) for path in self.audit_logs()]
        self._records: list[Record] = []
        self.issuing: Issuing = KeycloakClient(layout) if layout.keycloak else OwnIssuing(self.issuers)
        self._tokens: dict[str, str] = {}
        self._pairs: dict[str, Pair] = {}
        self._remarks: list[str] = []

    def remark(self, text: str) -> None:
        """Figures of the scenario that runs, shown beside what came of it."""
        self._remarks.append(text)

    def take_remarks(self) -> str:
        """Return what scenarios remarked since the last call, as one line."""
        taken, self._remarks = "; ".join(self._remarks), []
        return taken

    async def prepare(self) -> None:
        """Make tokens and certificates. Raises DemoError when the issuer gives none."""
        self._tokens = await asyncio.to_thread(self.issuing.tokens)
        await asyncio.to_thread(self._make_certificates)

    @asynccontextmanager
    async def impostor(self, configuration: str) -> AsyncIterator[None]:
        """Run for a while, in the state directory, an Envoy that the mesh does not know."""
        path = self.layout.state / "check" / "impostor.yaml"
        write_file(path, configuration.encode())
        arguments = ("-c", str(path), "--disable-hot-restart", "--concurrency", "1", "-l", "critical")
        envoy = await asyncio.create_subprocess_exec(envoy_binary(), *arguments, cwd=self.layout.state)
        try:
            yield
        finally:
            envoy.kill()
            await envoy.wait()

    # --- requests ---------------------------------------------------------------------------------------------------

    async def visit(
        self,
        path: str,
        token: str = "",
        *,
        method: str = "GET",
        headers: HeaderList = (),
        host: str = "localhost",
        body: bytes = b"",
        seconds: float = TIMEOUT_SECONDS,
    ) -> Reply:
        """Ask the ingress gateway from outside; ``token`` names one of ``prepare``."""
        bearer = [("authorization", f"Bearer {self._tokens[token]}")] if token else []
        tls = Tls(self.layout.state / "certs/web/ca.crt", "localhost")
        return await asyncio.to_thread(
            send,
            self.ingress(),
            method,
            path,
            headers=[*bearer, *headers],
            host=host,
            body=body,
            tls=tls,
            seconds=seconds,
        )

    async def call(
        self,
        caller: str | Pair,
        workload: str,
        path: str,
        *,
        method: str = "GET",
        headers: HeaderList = (),
        body: bytes = b"",
    ) -> Reply:
        """Ask a sidecar directly with the certificate of ``caller``; ``""``: no certificate, ``plaintext``: no TLS."""
        tls = None if caller == "plaintext" else self.mesh_tls(caller)
        return await asyncio.to_thread(
            send,
            self.inbound(workload),
            method,
            path,
            headers=headers,
            host=workload.rpartition("-")[0],
            body=body,
            tls=tls,
        )

    async def from_app(
        self, workload: str, service: str, path: str, *, method: str = "GET", host: str = "", headers: HeaderList = ()
    ) -> Reply:
        """Ask as an application does: its own sidecar's loopback port that leads to ``service`` (``""``: the proxy)."""
        port = self.layout.mesh.workload(workload).outbound_port(service)
        if port is None:
            raise DemoError(f"{workload} has no port that leads to `{service or 'the forward proxy'}`")
        place = self.outbound(workload, port)
        return await asyncio.to_thread(send, place, method, path, host=host or service, headers=headers)

    async def connect(self, caller: str, workload: str, message: bytes) -> Reply:
        """Send bytes to a TCP sidecar."""
        tls = None if caller == "plaintext" else self.mesh_tls(caller)
        return await asyncio.to_thread(exchange, self.inbound(workload), message, tls=tls)

    async def certificate(self, workload: str) -> bytes:
        """The certificate that a sidecar shows, as DER; empty when it shows none."""
        return await asyncio.to_thread(shown_certificate, self.inbound(workload), self.mesh_tls("ingressgateway"))

    def mesh_tls(self, caller: str | Pair) -> Tls:
        """How to speak to the mesh as ``caller``; ``""``: without a certificate."""
        pair = caller if isinstance(caller, Pair) else self._pairs[caller] if caller else None
        return Tls(self.layout.roots, client=pair, is_mesh=True)

    # --- what came of it --------------------------------------------------------------------------------------------

    async def outcome(self, reply: Reply) -> str:
        """A status, and what decided a denial of ours: ``403 DENY deny-internal``, ``401 token``, ``403 no ALLOW``."""
        if not reply.status:
            return reply.failure or "no answer"
        if not reply.decision_id:
            return str(reply.status)
        record = await self.find(lambda record: record.get("decision_id") == reply.decision_id)
        if record is None:
            return f"{reply.status} without a record"
        stage, policy = record.get("stage"), read_field(record, "rule", "policy")
        told = {"allow": "no ALLOW", "jwt": "token", "deny": f"DENY {policy}", "custom": f"CUSTOM {policy}"}
        return f"{reply.status} {told.get(str(stage), stage)}"

    async def authz(self, *arguments: str) -> tuple[int, str]:
        """Run a command in the state directory: exit code and output."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "authz", *arguments),
            cwd=self.layout.state,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        told = (await process.communicate())[0].decode()
        assert process.returncode is not None
        return process.returncode, told

    async def find(self, wanted: Callable[[Record], bool]) -> Record | None:
        """Wait for a decision that is ``wanted``; None when none came in time."""

        async def look() -> Record | None:
            for tail in self._tails:
                self._records += tail.read()
            return next((record for record in reversed(self._records) if wanted(record)), None)

        return await self.until(look)

    async def until(self, look: Callable[[], Awaitable[T | None]], seconds: float = PATIENCE_SECONDS) -> T | None:
        """Look again and again until there is something; None when the time is up."""
        ends = time.monotonic() + seconds
        while True:
            found = await look()
            if found is not None or time.monotonic() > ends:
                return found
            await asyncio.sleep(PAUSE_SECONDS)

    async def becomes(self, wanted: str, ask: Callable[[], Awaitable[str]]) -> str:
        """Ask until the answer is ``wanted``; return it, and whether that took longer than a change may."""
        began = time.monotonic()
        last = ""

        async def look() -> str | None:
            nonlocal last
            last = await ask()
            return last if last == wanted else None

        found = await self.until(look)
        seconds = time.monotonic() - began
        if found is None:
            return f"{last} even after {seconds:.0f} s"
        return f"{found} within 1 s" if seconds <= PROMPT_SECONDS else f"{found} after {seconds:.1f} s"

    # --- policies ---------------------------------------------------------------------------------------------------

    def edited(self, file: str, old: str, new: str) -> AbstractAsyncContextManager[None]:
        """Put ``new`` in place of ``old`` for a while, in a policy file of the copy."""
        return changed(self.layout.policies / file, lambda text: replaced(file, text, old, new))

    def written(self, file: str, text: str) -> AbstractAsyncContextManager[None]:
        """Add this policy file for a while."""
        return changed(self.layout.policies / file, lambda _: text)

    def granted(self, spiffe_id: str, selector: str) -> AbstractAsyncContextManager[None]:
        """Add this registration entry for a while."""
        entry = f"- spiffeID: {spiffe_id}\n  selectors: [{selector}]\n"
        return changed(self.entries, lambda text: text + entry)

    # --- tokens and certificates ------------------------------------------------------------------------------------

    @property
    def secrets(self) -> tuple[str, ...]:
        """The signatures of all tokens that were sent: they must not be found in any log."""
        return tuple(
            token.rpartition(".")[2] for token in self._tokens.values() if len(token) > 100 and not token.endswith(".")
        )

    def token(self, name: str) -> str:
        """One of the tokens made at the start, by name."""
        return self._tokens[name]

    async def new_token(self, name: str, person: str) -> None:
        """Get another token from the issuer."""
        self.add_token(name, await asyncio.to_thread(self.issuing.issued, person))

    def add_token(self, name: str, token: str) -> None:
        """Keep a token that a scenario got for itself."""
        self._tokens[name] = token

    async def issuer(self, method: str, path: str, body: bytes = b"") -> Reply:
        """Call the HTTP side of the demo's own issuer."""
        return await asyncio.to_thread(send, self.issuers(), method, path, body=body)

    def _make_certificates(self) -> None:
        directory = self.layout.state / "check"
        for name, issued in make_certificates(self.layout, time.time()).items():
            self._pairs[name] = Pair(*write_secret_files(directory, name, issued.chain_pem, issued.key_pem))

    def pair(self, name: str) -> Pair:
        """A certificate of ``prepare``."""
        return self._pairs[name]

    async def renew_callers(self) -> None:
        """Make the certificates again: the root may have changed."""
        await asyncio.to_thread(self._make_certificates)

    def renew_certificates(self, life_seconds: int | None = None) -> None:
        """
        Give every proxy a new one: by other files, or by another life in every registration entry.

        ``life_seconds`` is that life, for certificates by SDS; None: a second less than before.
        """
        if self.layout.secrets is Secrets.FILES:
            issue_certificates(self.layout, time.time())
            return
        text = self.entries.read_text(encoding="utf-8")
        shorter = re.sub(r"(x509SVIDTTL: )(\d+)", lambda match: f"{match[1]}{life_seconds or int(match[2]) - 1}", text)
        replace_file(self.entries, shorter)
