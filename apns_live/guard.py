"""Calls the caller's callbacks. An error is logged once and does not stop the caller."""

import asyncio
import logging
from collections.abc import Callable

logger = logging.getLogger("apns_live")

RAISED = (Exception, asyncio.CancelledError)
"""What a caller's code may raise without effect. KeyboardInterrupt and SystemExit pass."""


class Guarded:
    """A callback of the caller's: a hook, ``on_outcome``, ``drops_to``.

    The first exception is logged with its traceback; later ones are counted in ``failures``.
    """

    __slots__ = ("_call", "_name", "failures")

    def __init__(self, call: Callable[..., object], name: str) -> None:
        self._call = call
        self._name = name
        self.failures = 0

    def __call__(self, *arguments: object) -> None:
        """Call the callback."""
        try:
            self._call(*arguments)
        except RAISED:
            self.failures += 1
            if self.failures == 1:
                logger.exception("%s raised; its further errors are not logged", self._name)
