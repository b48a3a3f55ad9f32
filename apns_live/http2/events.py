"""The events that a connection returns for received bytes."""

import msgspec

from apns_live.http2.headers import EncodedString

Headers = list[tuple[bytes, bytes]]


class ResponseReceived(msgspec.Struct, gc=False):
    """A complete response: its stream has ended and its slot is free again.

    ``headers`` are in the order received, without ``:status`` and without trailers. ``body`` is at
    most ``max_response_body`` bytes. Interim (1xx) responses are not reported.
    """

    stream_id: int
    status: int
    headers: Headers
    body: bytes


class AnswersReceived(msgspec.Struct, gc=False):
    """Whole answers with status 200 and no body, recognised by their form (``answer_forms.py``).

    ``unique_ids`` are their ``apns-unique-id``, one for each stream, or empty if they have none.
    """

    stream_ids: list[int]
    unique_ids: list[EncodedString]


class RequestReceived(msgspec.Struct, gc=False):
    """A complete request, reported once the client has ended its stream.

    ``headers`` are in the order received, pseudo-headers included. When the body is longer than
    ``max_request_body``, ``body`` holds its beginning and ``truncated`` is true.
    """

    stream_id: int
    headers: Headers
    body: bytes
    truncated: bool = False


class RequestStarted(msgspec.Struct, gc=False):
    """The header block of a request. ``headers`` hold the pseudo-headers, in the order received."""

    stream_id: int
    headers: Headers


class DataReceived(msgspec.Struct, gc=False):
    """A piece of a body. ``size`` bytes of the stream's window are used up until they are granted."""

    stream_id: int
    content: bytes
    size: int


class StreamReset(msgspec.Struct, gc=False):
    """A stream ended without a response.

    ``processed`` is false only when the peer certainly did not act on the request: it sent
    REFUSED_STREAM (RFC 9113, section 8.7), or part of the request was not yet sent. ``local`` is
    true when we reset the stream because the peer broke a rule; ``message`` then names the rule.
    """

    stream_id: int
    error_code: int
    processed: bool = True
    local: bool = False
    message: str = ""


class GoAwayReceived(msgspec.Struct, gc=False):
    """The peer takes no new streams (RFC 9113, section 6.8).

    ``unprocessed`` are our streams above ``last_stream_id``: the peer certainly did not act on
    them, and their state is already removed here. The others may still be answered.
    """

    last_stream_id: int
    error_code: int
    debug_data: bytes
    unprocessed: list[int]


class SettingsReceived(msgspec.Struct, gc=False):
    """The peer sent SETTINGS; they are applied and acknowledged. ``changed`` maps id to value."""

    changed: dict[int, int]


class SettingsAcknowledged(msgspec.Struct, gc=False):
    """The peer acknowledged our oldest unacknowledged SETTINGS, which are now in force."""

    changed: dict[int, int]


class PingAcknowledged(msgspec.Struct, gc=False):
    """The peer answered a PING; ``data`` are the 8 bytes that were sent."""

    data: bytes


Event = (
    ResponseReceived
    | AnswersReceived
    | RequestReceived
    | RequestStarted
    | DataReceived
    | StreamReset
    | GoAwayReceived
    | SettingsReceived
    | SettingsAcknowledged
    | PingAcknowledged
)
