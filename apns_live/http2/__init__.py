"""HTTP/2 without I/O: frames, header blocks, a client and a server connection (RFC 9113)."""

from apns_live.http2.client_connection import ClientConnection
from apns_live.http2.events import (
    AnswersReceived,
    Event,
    GoAwayReceived,
    PingAcknowledged,
    RequestReceived,
    ResponseReceived,
    SettingsAcknowledged,
    SettingsReceived,
    StreamReset,
)
from apns_live.http2.frames import CLIENT_PREFACE, ErrorCode, FrameType, Setting, frame
from apns_live.http2.headers import EncodedString, HeaderDecoder, Indexing, PreparedHeaders
from apns_live.http2.server_connection import ServerConnection

__all__ = [
    "CLIENT_PREFACE",
    "AnswersReceived",
    "ClientConnection",
    "EncodedString",
    "ErrorCode",
    "Event",
    "FrameType",
    "GoAwayReceived",
    "HeaderDecoder",
    "Indexing",
    "PingAcknowledged",
    "PreparedHeaders",
    "RequestReceived",
    "ResponseReceived",
    "ServerConnection",
    "Setting",
    "SettingsAcknowledged",
    "SettingsReceived",
    "StreamReset",
    "frame",
]
