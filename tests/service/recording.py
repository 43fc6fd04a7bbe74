"""An audit that is a list."""

from authz.core.decided import Offer


class Recorder:
    def __init__(self, *, accepts: bool = True) -> None:
        self.entries: list[Offer] = []
        self._accepts = accepts

    def record(self, offer: Offer) -> bool:
        self.entries.append(offer)
        return self._accepts

    def clear(self) -> None:
        self.entries.clear()
