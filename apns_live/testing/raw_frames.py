"""Raw frames for answers that no HTTP/2 library would send.

RFC 9113, sections 4 and 6; header fields as "literal without indexing, new name" (RFC 7541, 6.2.2),
so that they need no table. Everything here is legal HTTP/2, only unusual.
"""

from __future__ import annotations

from apns_live.http2.frames import END_HEADERS, END_STREAM, PADDED, FrameType, frame, header_frames
from apns_live.http2.header_encoder import encode_string

from .state import Response

_PIECES = 5


def _header_block(response: Response) -> bytes:
    """Return a header block that uses and changes no table."""
    fields = [(b":status", str(response.status).encode("ascii")), *response.headers]
    return b"".join(b"\x00" + encode_string(name) + encode_string(value) for name, value in fields)


def response_in_pieces(stream_id: int, response: Response) -> bytes:
    """Return a response with its headers in CONTINUATION frames and a padded body in pieces."""
    block, body = _header_block(response), response.body
    out = header_frames(stream_id, block, max(1, len(block) // 3), end_stream=not body)
    if body:
        step = max(1, -(-len(body) // _PIECES))
        for start in range(0, len(body), step):
            padding = 1 + start % 7
            payload = bytes((padding,)) + body[start : start + step] + bytes(padding)
            out.append(frame(FrameType.DATA, PADDED, stream_id, payload))
        out.append(frame(FrameType.DATA, END_STREAM, stream_id, b""))
    return b"".join(out)


def half_a_response(stream_id: int, response: Response) -> bytes:
    """Return the headers and the first half of the body; the rest never comes."""
    half = response.body[: len(response.body) // 2] or b'{"reas'
    head = frame(FrameType.HEADERS, END_HEADERS, stream_id, _header_block(response))
    return head + frame(FrameType.DATA, 0, stream_id, half)
