"""Every test of this room runs with each header decoder that is usable here."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from apns_live.http2.headers import DECODER_VARIABLE, choose_decoder

DECODERS = sorted({choose_decoder("hpack"), choose_decoder()})


@pytest.fixture(params=DECODERS, scope="module", autouse=True)
def header_decoder(request: pytest.FixtureRequest) -> Iterator[str]:
    """Choose the decoder the way a user would: by the environment."""
    before = os.environ.get(DECODER_VARIABLE)
    os.environ[DECODER_VARIABLE] = request.param
    yield request.param
    if before is None:
        del os.environ[DECODER_VARIABLE]
    else:
        os.environ[DECODER_VARIABLE] = before
