"""Python's garbage collector, kept out of work that only makes things that are kept. It changes no answer."""

import gc
from types import TracebackType


class WithoutCollector:
    """
    A block in which nothing is collected; afterwards all goes on as before.

    Ten thousand policies are a million small objects without cycles. Walking them takes a fifth of the time of a
    command that reads them and ends, and half of the time in which they are compiled to filters.

    A process that ends soon sets aside what was made in the block (``for_good``), or it would be walked right after.
    One that lives on does not, for what is set aside is never collected.
    """

    def __init__(self, *, for_good: bool = False) -> None:
        self._for_good = for_good

    def __enter__(self) -> None:
        self._was_enabled = gc.isenabled()
        gc.disable()

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self._was_enabled:
            if self._for_good:
                gc.freeze()
            gc.enable()
