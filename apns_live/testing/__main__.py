"""``python -m apns_live.testing`` is ``apns-live fake``."""

import sys

from apns_live.cli import main

if __name__ == "__main__":
    main(["fake", *sys.argv[1:]])
