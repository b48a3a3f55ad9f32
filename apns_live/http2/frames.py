"""Builds and parses frames (RFC 9113, sections 4.1 and 6); constants of the protocol."""

import enum
from collections.abc import Mapping
from struct import Struct
from typing import Final

from apns_live.errors import Http2ConnectionError

CLIENT_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What a client sends before its first frame (RFC 9113, section 3.4)."""

DEFAULT_WINDOW: Final = 65_535
MAXIMUM_WINDOW: Final = 2**31 - 1
MAXIMUM_STREAM_ID: Final = 2**31 - 1
DEFAULT_FRAME_SIZE: Final = 16_384
MAXIMUM_FRAME_SIZE: Final = 2**24 - 1
DEFAULT_HEADER_TABLE_SIZE: Final = 4096
UNLIMITED_STREAMS: Final = 2**31 - 1
"""The value that stands for "no limit" if a peer does not send MAX_CONCURRENT_STREAMS."""


class ErrorCode(enum.IntEnum):
    """Error codes (RFC 9113, section 7)."""

    NO_ERROR = 0x0
    PROTOCOL_ERROR = 0x1
    INTERNAL_ERROR = 0x2
    FLOW_CONTROL_ERROR = 0x3
    SETTINGS_TIMEOUT = 0x4
    STREAM_CLOSED = 0x5
    FRAME_SIZE_ERROR = 0x6
    REFUSED_STREAM = 0x7
    CANCEL = 0x8
    COMPRESSION_ERROR = 0x9
    CONNECT_ERROR = 0xA
    ENHANCE_YOUR_CALM = 0xB
    INADEQUATE_SECURITY = 0xC
    HTTP_1_1_REQUIRED = 0xD


class Setting(enum.IntEnum):
    """Settings (RFC 9113, section 6.5.2; the last one is RFC 9218, section 2.1)."""

    HEADER_TABLE_SIZE = 0x1
    ENABLE_PUSH = 0x2
    MAX_CONCURRENT_STREAMS = 0x3
    INITIAL_WINDOW_SIZE = 0x4
    MAX_FRAME_SIZE = 0x5
    MAX_HEADER_LIST_SIZE = 0x6
    NO_RFC7540_PRIORITIES = 0x9


class FrameType(enum.IntEnum):
    """Frame types (RFC 9113, section 6)."""

    DATA = 0x0
    HEADERS = 0x1
    PRIORITY = 0x2
    RST_STREAM = 0x3
    SETTINGS = 0x4
    PUSH_PROMISE = 0x5
    PING = 0x6
    GOAWAY = 0x7
    WINDOW_UPDATE = 0x8
    CONTINUATION = 0x9


# Flags. Their meaning depends on the frame type; ACK and END_STREAM share a bit.
END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
PRIORITY: Final = 0x20

FRAME_HEADER = Struct(">LBL")
"""Length and type in one word (``length << 8 | type``), flags, stream id."""

SETTING = Struct(">HL")
TWO_WORDS = Struct(">LL")


def frame(frame_type: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    """Return one frame. Neither type, flags nor length are checked: tests send bad ones too."""
    return FRAME_HEADER.pack(len(payload) << 8 | frame_type, flags, stream_id) + payload


def header_frames(
    stream_id: int, block: bytes, max_frame_size: int, *, end_stream: bool
) -> list[bytes]:
    """Return HEADERS, and as many CONTINUATION frames as the block needs."""
    flags = END_STREAM if end_stream else 0
    size = len(block)
    if size <= max_frame_size:
        return [FRAME_HEADER.pack(size << 8 | 1, flags | END_HEADERS, stream_id), block]
    pieces = [block[at : at + max_frame_size] for at in range(0, size, max_frame_size)]
    frames = [frame(FrameType.HEADERS, flags, stream_id, pieces[0])]
    frames.extend(frame(FrameType.CONTINUATION, 0, stream_id, piece) for piece in pieces[1:-1])
    frames.append(frame(FrameType.CONTINUATION, END_HEADERS, stream_id, pieces[-1]))
    return frames


def settings_frame(settings: Mapping[int, int]) -> bytes:
    """Return SETTINGS with the given ids and values."""
    payload = b"".join(SETTING.pack(identifier, value) for identifier, value in settings.items())
    return frame(FrameType.SETTINGS, 0, 0, payload)


SETTINGS_ACK = frame(FrameType.SETTINGS, ACK, 0)


def ping_frame(data: bytes, *, ack: bool = False) -> bytes:
    """Return PING with eight bytes of data."""
    return frame(FrameType.PING, ACK if ack else 0, 0, data)


def window_update_frame(stream_id: int, increment: int) -> bytes:
    """Return WINDOW_UPDATE; stream 0 is the connection."""
    return frame(FrameType.WINDOW_UPDATE, 0, stream_id, increment.to_bytes(4, "big"))


def reset_frame(stream_id: int, code: int) -> bytes:
    """Return RST_STREAM."""
    return frame(FrameType.RST_STREAM, 0, stream_id, code.to_bytes(4, "big"))


def goaway_frame(last_stream_id: int, code: int, debug_data: bytes = b"") -> bytes:
    """Return GOAWAY."""
    return frame(FrameType.GOAWAY, 0, 0, TWO_WORDS.pack(last_stream_id, code) + debug_data)


_SHAPES: dict[int, tuple[bool | None, int | None]] = {
    FrameType.DATA: (True, None),
    FrameType.HEADERS: (True, None),
    FrameType.PRIORITY: (True, 5),
    FrameType.RST_STREAM: (True, 4),
    FrameType.SETTINGS: (False, None),
    FrameType.PING: (False, 8),
    FrameType.GOAWAY: (False, None),
    FrameType.WINDOW_UPDATE: (None, 4),
    FrameType.CONTINUATION: (True, None),
}
"""For each type: True if it needs a stream, False if it may not have one; its size in bytes."""


def check_frame(frame_type: int, stream_id: int, length: int) -> None:
    """Raise Http2ConnectionError for a frame on the wrong stream or of the wrong size."""
    on_stream, size = _SHAPES.get(frame_type, (None, None))
    problem, code = "", ErrorCode.PROTOCOL_ERROR
    if on_stream is not None and on_stream != (stream_id > 0):
        problem = "on stream 0" if on_stream else "on a stream"
    elif size is not None and length != size:
        problem, code = f"is not {size} bytes", ErrorCode.FRAME_SIZE_ERROR
    if problem:
        raise Http2ConnectionError(f"{FrameType(frame_type).name} {problem}", code)


def strip_padding(payload: bytes, flags: int, what: str) -> bytes:
    """Return a DATA or HEADERS payload without padding and without priority fields.

    Raises Http2ConnectionError: FRAME_SIZE_ERROR when the payload is too short for the fields
    that the flags announce, PROTOCOL_ERROR when the padding does not fit (RFC 9113, section 6.1).
    """
    start = padding = 0
    problem = ""
    if flags & PADDED and not payload:
        problem = f"{what} with the PADDED flag has no pad length"
    elif flags & PADDED:
        start, padding = 1, payload[0]
    if flags & PRIORITY and what == "HEADERS":
        start += 5
        if len(payload) < start:
            problem = problem or "HEADERS with the PRIORITY flag is too short"
    if problem:
        raise Http2ConnectionError(problem, ErrorCode.FRAME_SIZE_ERROR)
    end = len(payload) - padding
    if end < start:
        raise Http2ConnectionError(f"{what} has more padding than payload")
    return payload[start:end]
