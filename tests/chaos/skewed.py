"""``apns-live`` with a clock that is off: ``-m tests.chaos.skewed SECONDS WORDS...``, where libfaketime is absent."""

from __future__ import annotations

import sys
import time

from apns_live.cli import main

if __name__ == "__main__":
    ahead, right = float(sys.argv.pop(1)), time.time
    time.time = lambda: right() + ahead
    main()
