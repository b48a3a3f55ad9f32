"""What is dear to make, and as good for the next test: made once in a test process."""

from __future__ import annotations

import functools
import itertools
import os
import ssl
from typing import Any

import certifi
from cryptography.hazmat.primitives.asymmetric import rsa

_new_context = ssl.create_default_context
_trusting = functools.cache(_new_context)
_new_key = rsa.generate_private_key
_lent_key = functools.cache(lambda number, **options: _new_key(**options))
_turns = itertools.cycle(range(4))


def _create_default_context(*purpose: Any, **options: Any) -> ssl.SSLContext:
    """Let httpx's clients share one context: to read the public authorities takes 30 ms of CPU.

    Only httpx asks in this way. A context that a test makes is its own, and the test may change it.
    """
    public = (certifi.where(), os.environ.get("SSL_CERT_FILE"))
    if not purpose and options.keys() == {"cafile"} and options["cafile"] in public:
        return _trusting(**options)
    return _new_context(*purpose, **options)


def _generate_private_key(**options: Any) -> rsa.RSAPrivateKey:
    """Give one of four keys in turn: one for a service account takes a tenth of a second of CPU."""
    return _lent_key(next(_turns), **options)


def share() -> None:
    """Put both in the places where everybody looks."""
    ssl.create_default_context = _create_default_context
    rsa.generate_private_key = _generate_private_key
