"""Frames written by hand, for answers that no tidy HTTP/2 stack would send.

RFC 9113, sections 4 and 6; header fields as "literal without indexing, new name" (RFC 7541, 6.2.2),
so that they need no table. Everything here is legal HTTP/2, only unusual.
"""

from __future__ import annotations

from collections.abc import Sequence

DATA, HEADERS, CONTINUATION = 0x0, 0x1, 0x9
END_STREAM, END_HEADERS, PADDED = 0x1, 0x4, 0x8


def frame(kind: int, flags: int, stream_id: int, payload: bytes) -> bytes:
    """Return one frame."""
    return (
        len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream_id.to_bytes(4, "big")
    ) + payload


def header_block(status: int, headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Return a header block that uses and changes no table."""
    fields = [(b":status", str(status).encode("ascii")), *headers]
    return b"".join(b"\x00" + _string(name) + _string(value) for name, value in fields)


def response_in_pieces(
    stream_id: int,
    status: int,
    headers: Sequence[tuple[bytes, bytes]],
    body: bytes,
    pieces: int = 5,
) -> bytes:
    """Return a response with its headers in CONTINUATION frames and a padded body in pieces."""
    block = header_block(status, headers)
    third = max(1, len(block) // 3)
    out = [
        frame(HEADERS, 0 if body else END_STREAM, stream_id, block[:third]),
        frame(CONTINUATION, 0, stream_id, block[third : 2 * third]),
        frame(CONTINUATION, END_HEADERS, stream_id, block[2 * third :]),
    ]
    if body:
        step = max(1, -(-len(body) // pieces))
        for start in range(0, len(body), step):
            padding = 1 + start % 7
            payload = bytes((padding,)) + body[start : start + step] + bytes(padding)
            out.append(frame(DATA, PADDED, stream_id, payload))
        out.append(frame(DATA, END_STREAM, stream_id, b""))
    return b"".join(out)


def half_a_response(
    stream_id: int, status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes
) -> bytes:
    """Return the headers and the first half of the body; the rest never comes."""
    half = body[: len(body) // 2] or b'{"reas'
    return frame(HEADERS, END_HEADERS, stream_id, header_block(status, headers)) + frame(
        DATA, 0, stream_id, half
    )


def _string(text: bytes) -> bytes:
    length = len(text)
    if length < 127:
        return bytes((length,)) + text
    rest = length - 127
    out = bytearray((127,))
    while rest >= 128:
        out.append(rest % 128 + 128)
        rest //= 128
    out.append(rest)
    return bytes(out) + text
