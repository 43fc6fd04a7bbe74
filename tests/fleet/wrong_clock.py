"""Our command with a clock that is ahead: `python wrong_clock.py SECONDS control …`."""

import sys
import time

ahead = float(sys.argv.pop(1))
right = time.time
if ahead:
    time.time = lambda: right() + ahead

from authz.cli import main  # noqa: E402  # it takes the clock when it is imported

if __name__ == "__main__":
    main()
