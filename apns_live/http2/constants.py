"""The numbers of RFC 9113: error codes, settings, frame types and flags, limits."""

from __future__ import annotations

import enum
from typing import Final

CLIENT_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What a client sends before its first frame (RFC 9113, section 3.4)."""

DEFAULT_WINDOW: Final = 65_535
MAXIMUM_WINDOW: Final = 2**31 - 1
MAXIMUM_STREAM_ID: Final = 2**31 - 1
DEFAULT_FRAME_SIZE: Final = 16_384
MAXIMUM_FRAME_SIZE: Final = 2**24 - 1
DEFAULT_HEADER_TABLE_SIZE: Final = 4096
UNLIMITED_STREAMS: Final = 2**31 - 1
"""What we take for "no limit" when a peer does not send MAX_CONCURRENT_STREAMS."""


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
