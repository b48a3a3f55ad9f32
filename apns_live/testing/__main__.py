"""``python -m apns_live.testing``: the same as ``apns-live fake``, in a terminal or out of one."""

from __future__ import annotations

import sys

from apns_live.cli import main

if __name__ == "__main__":
    main(["fake", *sys.argv[1:]])
