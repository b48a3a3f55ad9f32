"""Reading the body of a request: bounded in bytes and depth before anything is made of it."""

from __future__ import annotations

import asyncio
import io
import re
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import msgspec
from starlette.requests import ClientDisconnect, Request

from ..errors import BadBody
from .admission import current_visit

_STRUCTURE = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)
_SECONDS = 20.0
_USED_SECONDS = 600.0


async def read_bytes(request: Request, *, limit_bytes: int) -> bytes:
    """Return the body.

    Raises `BadBody`: 413 as soon as it is over ``limit_bytes``, 408 when it does not come in time;
    and `Busy`. The call then has its place.
    """
    parts: list[bytes] = []
    visit = current_visit()
    seconds = _SECONDS if visit is None else visit.admission.settings.body_seconds
    await _read(request, limit_bytes, seconds, parts.append)
    if visit is not None:
        await visit.enter()
    return b"".join(parts)


class Upload(io.BufferedReader):
    """A body on disk, read as a file."""

    name = "body"  # what messages call it


@asynccontextmanager
async def spooled(request: Request, *, limit_bytes: int, seconds: float) -> AsyncIterator[Upload]:
    """Keep a large body in a file that has no name and goes at the end of the block.

    Nothing of it is used before it is complete. Raises `BadBody`: 413 when it is over
    ``limit_bytes``, 408 when it is not complete within ``seconds``. Using it may take ten minutes.
    """
    visit = current_visit()
    if visit is not None:
        visit.within(seconds + _USED_SECONDS)
    with tempfile.TemporaryFile(buffering=0) as file:
        await _read(request, limit_bytes, seconds, file.write)
        file.seek(0)
        yield Upload(file)


async def _read(
    request: Request, limit_bytes: int, seconds: float, take: Callable[[bytes], object]
) -> None:
    declared = request.headers.get("content-length")
    if declared is not None and declared.isdecimal() and int(declared) > limit_bytes:
        raise _too_large(limit_bytes)
    visit = current_visit()
    size = 0
    try:
        with _nobody() if visit is None else visit.admission.arriving(visit) as came:
            async with asyncio.timeout(seconds):
                async for part in request.stream():
                    size += len(part)
                    if size > limit_bytes:
                        raise _too_large(limit_bytes)
                    came(len(part))
                    take(part)
    except TimeoutError:
        raise BadBody("the body did not come in time", status=408) from None
    except ClientDisconnect:
        raise BadBody("the connection was closed before the body was complete") from None


@contextmanager
def _nobody() -> Iterator[Callable[[int], None]]:
    yield lambda _: None


async def read_json(
    request: Request, *, limit_bytes: int, max_depth: int, media_type: bool = True
) -> Any:
    """Return the body as JSON; None for an empty one.

    Objects are dicts, arrays lists. NaN, Infinity, bad UTF-8 and anything behind the value are
    refused; of a key given twice the last one counts (RFC 8259, section 4, leaves it open).
    ``media_type`` asks for ``Content-Type: application/json`` when there is a body. Raises `BadBody`.
    """
    body = await read_bytes(request, limit_bytes=limit_bytes)
    if not body:
        return None
    if media_type:
        check_media_type(request)
    check_depth(body, max_depth)
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadBody(f"the body is no JSON: {error}"[:200]) from None
    except RecursionError:
        raise BadBody(f"the body is nested over {max_depth} deep") from None


async def read_object(request: Request, *, limit_bytes: int, max_depth: int) -> dict[str, Any]:
    """Return the body, a JSON object. Raises `BadBody` as `read_json`."""
    body = await read_json(request, limit_bytes=limit_bytes, max_depth=max_depth)
    if not isinstance(body, dict):
        raise BadBody("the body is not a JSON object")
    return body


def check_media_type(request: Request) -> None:
    """Raise `BadBody` (415) unless the body is declared as JSON."""
    given = request.headers.get("content-type", "")
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
