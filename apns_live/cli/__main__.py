"""``python -m apns_live.cli`` is the command ``apns-live``."""

from . import main

main()
