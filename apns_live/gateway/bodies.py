"""Reads the body of a request, with limits on size and nesting."""

from __future__ import annotations

import io
import re
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from ..errors import BadBody
from .admission import Visit

_STRUCTURE = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)
_USED_SECONDS = 600.0


async def read_bytes(visit: Visit, limit_bytes: int) -> bytes:
    """Return the body.

    Raises `BadBody`: 413 as soon as it is over ``limit_bytes``; and `Busy`. One that does not come in
    time is refused with 408 by the guard. The call then takes its slot.
    """
    settings = visit.admission.settings
    parts: list[bytes] = []
    await _read(visit, limit_bytes, settings.body_seconds, settings.call_seconds, parts.append)
    await visit.enter()
    return parts[0] if len(parts) == 1 else b"".join(parts)


class Upload(io.BufferedReader):
    """A body on disk, read as a file."""

    name = "body"  # what messages call it


@asynccontextmanager
async def spooled(visit: Visit, *, limit_bytes: int, seconds: float) -> AsyncIterator[Upload]:
    """Keep a large body in a file that has no name and goes at the end of the block.

    Nothing of it is used before it is complete. Raises `BadBody` as `read_bytes`, with ``seconds`` for
    it to come. Using it may take ten minutes.
    """
    with tempfile.TemporaryFile(buffering=0) as file:
        await _read(visit, limit_bytes, seconds, _USED_SECONDS, file.write)
        file.seek(0)
        yield Upload(file)


async def _read(
    visit: Visit, limit_bytes: int, seconds: float, then: float, take: Callable[[bytes], object]
) -> None:
    declared, size, more = visit.headers.get(b"content-length", b""), 0, True
    if visit.headers.get(b"content-encoding", b"").lower() not in (b"", b"identity"):
        raise BadBody("the body is encoded: send it without Content-Encoding", status=415)
    if declared.isdigit() and int(declared) > limit_bytes:
        raise _too_large(limit_bytes)
    visit.read(seconds)
    try:
        while more:
            message = await visit.receive()
            if message["type"] == "http.disconnect":
                raise BadBody("the connection was closed before the body was complete")
            part, more = message.get("body", b""), message.get("more_body", False)
            size += len(part)
            if size > limit_bytes:
                raise _too_large(limit_bytes)
            visit.took(len(part))
            take(part)
    finally:
        visit.has_read(then)


def check_media_type(given: str) -> None:
    """Raise `BadBody` (415) unless a Content-Type says JSON."""
    media_type = given.partition(";")[0].strip().lower()
    if media_type != "application/json" and not media_type.endswith("+json"):
        raise BadBody("the body is not declared as application/json", status=415)


def check_depth(body: bytes, max_depth: int) -> None:
    """Raise `BadBody` when arrays and objects are nested deeper than ``max_depth``."""
    if body.count(b"{") + body.count(b"[") <= max_depth:
        return
    depth = 0
    for found in _STRUCTURE.finditer(body):
        mark = found[0]
        if mark in (b"{", b"["):
            depth += 1
            if depth > max_depth:
                raise BadBody(f"the body is nested over {max_depth} deep")
        elif mark in (b"}", b"]"):
            depth -= 1


def _too_large(limit_bytes: int) -> BadBody:
    return BadBody(f"the body is over {limit_bytes} bytes", status=413)
