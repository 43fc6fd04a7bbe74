"""The operator's side of several workers: asks each over its own Unix socket, one address for all."""

from collections.abc import Callable, Sequence

import httpx

from authz.admin.page import Page
from authz.admin.page_workers import WorkersSource
from authz.admin.workers import WorkerAnswer, WorkerRequest, WorkerStatus, create_workers_app
from authz.service.ports.http import make_admin_server
from authz.service.workers.place import Worker
from authz.settings.sections import AdminSettings

_ASK_SECONDS = 2.0
_PASSED = ("content-type", "cache-control", "location", "content-security-policy", "x-content-type-options")


class WorkersAdmin:
    """``start`` once, ``stop`` once. Raises SettingsError when it cannot listen."""

    def __init__(self, workers: Sequence[Worker], settings: AdminSettings, is_draining: Callable[[], bool]) -> None:
        """``settings`` are the supervisor's, whose address answers for all; ``is_draining`` is asked each time."""
        self._clients = [
            httpx.AsyncClient(
                transport=httpx.AsyncHTTPTransport(uds=str(worker.admin_socket)),
                base_url="http://worker",
                timeout=_ASK_SECONDS,
            )
            for worker in workers
        ]

        def statuses() -> list[WorkerStatus]:
            return [
                WorkerStatus(w.index, w.serving.is_set(), w.restarts, w.process.pid if w.process else None)
                for w in workers
            ]

        self._page = Page(WorkersSource(lambda: range(len(self._clients)), self._fetch))
        app = create_workers_app(statuses, self._fetch, is_draining, routes=self._page.routes)
        self._server = make_admin_server(app, settings)
        self.url = self._server.url

    async def _fetch(self, index: int, request: WorkerRequest) -> WorkerAnswer:
        try:
            answer = await self._clients[index].request(
                request.method, request.target, headers=list(request.headers), content=request.body
            )
        except httpx.HTTPError:
            return WorkerAnswer()
        headers = tuple((k, v) for k, v in answer.headers.items() if k in _PASSED)
        return WorkerAnswer(answer.status_code, headers, answer.content)

    async def start(self) -> None:
        """Begin to serve."""
        await self._server.start()

    async def stop(self) -> None:
        """Stop serving, and close the connections to the workers."""
        self._page.close()
        await self._server.stop()
        for client in self._clients:
            await client.aclose()
