"""Callers that never rest, and count every answer."""

import http.client
import threading
from collections import Counter

from tests.fleet.network import Network, until
from tests.fleet.shop_mesh import OUT

ALLOWED, DENIED = "/one", "/never"
"""What every policy of the tests allows, and what none does."""
PAUSE_SECONDS = 0.01
"""Between two requests of a thread: others need the machine, too."""
RIGHT = {ALLOWED: "200", DENIED: "403"}


class Load:
    """Requests from a machine to a service, one after another on connections that stay, until the end of ``with``."""

    def __init__(self, network: Network, machine: str, host: str) -> None:
        """What is allowed and what is denied is asked for by a thread each."""
        self.counts = {path: Counter[str]() for path in RIGHT}
        self._network, self._machine, self._host = network, machine, host
        self._ending = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(path,)) for path in RIGHT]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join(30)

    def goes_on(self) -> None:
        """Wait until another fifty of each were answered."""
        wanted = {path: found.total() + 50 for path, found in self.counts.items()}
        until(lambda: all(self.counts[path].total() >= count for path, count in wanted.items()), "requests are made")

    def is_all_right(self) -> bool:
        """Whether no request was lost, none wrongly allowed, and none wrongly denied."""
        return all(found.keys() == {RIGHT[path]} for path, found in self.counts.items())

    def _ask(self, path: str) -> None:
        connection: http.client.HTTPConnection | None = None
        while not self._ending.wait(PAUSE_SECONDS):
            try:
                if connection is None:
                    connection = http.client.HTTPConnection(self._host)
                    connection.sock = self._network.connect(self._machine, OUT)
                connection.request("GET", path)
                answer = connection.getresponse()
                answer.read()
                self.counts[path][str(answer.status)] += 1
            except (OSError, http.client.HTTPException) as error:
                self.counts[path][type(error).__name__] += 1
                connection = None
        if connection is not None:
            connection.close()
