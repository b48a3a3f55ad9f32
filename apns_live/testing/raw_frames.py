"""Frames written by hand, for answers that no tidy HTTP/2 stack would send.

RFC 9113, sections 4 and 6; header fields as "literal without indexing, new name" (RFC 7541, 6.2.2),
so that they need no table. Everything here is legal HTTP/2, only unusual.
"""

from __future__ import annotations

from collections.abc import Sequence

from apns_live.http2.constants import END_HEADERS, END_STREAM, PADDED, FrameType
from apns_live.http2.frames import frame, header_frames
from apns_live.http2.header_encoder import encode_string


def header_block(status: int, headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Return a header block that uses and changes no table."""
    fields = [(b":status", str(status).encode("ascii")), *headers]
    return b"".join(b"\x00" + encode_string(name) + encode_string(value) for name, value in fields)


def response_in_pieces(
    stream_id: int,
    status: int,
    headers: Sequence[tuple[bytes, bytes]],
    body: bytes,
    pieces: int = 5,
) -> bytes:
    """Return a response with its headers in CONTINUATION frames and a padded body in pieces."""
    block = header_block(status, headers)
    out = header_frames(stream_id, block, max(1, len(block) // 3), end_stream=not body)
    if body:
        step = max(1, -(-len(body) // pieces))
        for start in range(0, len(body), step):
            padding = 1 + start % 7
            payload = bytes((padding,)) + body[start : start + step] + bytes(padding)
            out.append(frame(FrameType.DATA, PADDED, stream_id, payload))
        out.append(frame(FrameType.DATA, END_STREAM, stream_id, b""))
    return b"".join(out)


def half_a_response(
    stream_id: int, status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes
) -> bytes:
    """Return the headers and the first half of the body; the rest never comes."""
    half = body[: len(body) // 2] or b'{"reas'
    return frame(FrameType.HEADERS, END_HEADERS, stream_id, header_block(status, headers)) + frame(
        FrameType.DATA, 0, stream_id, half
    )
