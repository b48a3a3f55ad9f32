"""Every exception that apns_live raises. docs/errors.md shows them as a tree.

A message says what is wrong, where, and what to do. No message contains a private key, a provider
token, an API key, or more than the first eight digits of a device token.
"""

from functools import partial


class ApnsLiveError(Exception):
    """Base class of every exception of this package."""


class InvalidInput(ApnsLiveError, ValueError):
    """The caller's input is wrong. Raised before anything is sent.

    ``problem`` says what is wrong. ``field`` is the path of the wrong value in the caller's argument
    (``content_state.score.home``). ``remedy`` is a sentence that says what to do.
    """

    def __init__(self, problem: str, field: str = "", remedy: str = "") -> None:
        self.problem = problem
        self.field = field
        self.remedy = remedy
        text = f"{field}: {problem}" if field else problem
        if remedy:
            text = f"{text.rstrip('.')}. {remedy}"
        super().__init__(text)

    def __reduce__(self) -> tuple[object, ...]:
        # Exceptions with keyword arguments need help to cross a process boundary.
        again = partial(type(self), field=self.field, remedy=self.remedy)
        return again, (self.problem,), self.__dict__


class InvalidPayload(InvalidInput):
    """A message that APNs would refuse, or that a phone would silently ignore."""


class PayloadTooLarge(InvalidPayload):
    """The encoded payload is over the limit (4096 bytes, 5120 for a broadcast).

    ``size`` and ``limit`` are bytes. ``breakdown`` maps each key's path to its bytes, largest first.
    """

    def __init__(
        self,
        problem: str,
        *,
        field: str = "",
        remedy: str = "",
        size: int = 0,
        limit: int = 0,
        breakdown: dict[str, int] | None = None,
    ) -> None:
        super().__init__(problem, field=field, remedy=remedy)
        self.size = size
        self.limit = limit
        self.breakdown = dict(breakdown or {})


class InvalidToken(InvalidInput):
    """A malformed token or channel id."""


class InvalidKey(InvalidInput):
    """A provider key, key id or team id that is not valid for APNs."""


class InvalidSetting(InvalidInput):
    """An option, topic, endpoint or settings file that cannot be used."""


class WrongEventLoop(ApnsLiveError, RuntimeError):
    """An object was used on another event loop than before. Its connections belong to that loop."""


class SourceCancelled(ApnsLiveError):
    """The caller's source of tokens raised CancelledError, although the fan-out was not cancelled."""


class CredentialError(ApnsLiveError):
    """Provider tokens cannot be signed here (for example no RFC 6979 in the linked OpenSSL)."""


class TransportError(ApnsLiveError):
    """No push can be sent to APNs now."""


class ConnectFailed(TransportError):
    """No connection could be opened; the message names the step and the address.

    ``permanent`` is True if a retry cannot succeed until a setting changes.
    """

    def __init__(self, message: str, *, permanent: bool = False) -> None:
        super().__init__(message)
        self.permanent = permanent


class ManagementUnreachable(ConnectFailed):
    """Channel management cannot be reached. Networks often block its ports, 2195 and 2196."""


class PoolFull(TransportError):
    """The waiting room stayed full for ``queue_timeout`` seconds. Nothing was sent."""


class ClientClosed(TransportError):
    """The client is closed, or was closed during the call."""


class Http2Error(TransportError):
    """A violation of the HTTP/2 protocol. ``code`` is the error code of RFC 9113, section 7."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


class Http2ConnectionError(Http2Error):
    """The connection must end. A GOAWAY with ``code`` is among the bytes to send.

    ``events`` has what ``receive()`` decoded from the same bytes before; answers in it are valid.
    """

    events: tuple[object, ...] = ()


class Http2StreamError(Http2Error):
    """The stream ``stream_id`` must end."""

    def __init__(self, message: str, code: int = 1, stream_id: int = 0) -> None:
        super().__init__(message, code)
        self.stream_id = stream_id


class ChannelError(ApnsLiveError):
    """A channel management request was refused, or got no answer (``status`` 0).

    ``status`` and ``reason`` are Apple's, ``remedy`` is one sentence that says what to do, and
    ``request_id`` is the id that Apple's support needs.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 0,
        reason: str = "",
        remedy: str = "",
        request_id: str = "",
    ) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.remedy = remedy
        self.request_id = request_id


class DeliveryError(ApnsLiveError):
    """Base class of the errors of `apns_live.delivery`."""


class ActivityEnded(DeliveryError):
    """A message was submitted for an activity after its end."""


class JournalError(DeliveryError):
    """The journal cannot be read or written."""


class ActivitiesError(ApnsLiveError):
    """Base class of the errors of the service."""


class NotFound(ActivitiesError):
    """There is no such app, device, activity, stream, segment or operation."""


class Conflict(ActivitiesError):
    """The object exists already, or its state does not allow this."""


class KeyReused(Conflict):
    """The idempotency key was used for another request."""


class StoreError(ActivitiesError):
    """The database cannot be used, has another version, or a stored key cannot be decrypted."""


class Busy(ActivitiesError):
    """Nothing was stored, and the same request may succeed later.

    ``retry_after`` is how many seconds to wait. Raised when too many writes are waiting, and for
    every write of a transaction whose commit failed.
    """

    def __init__(self, message: str, *, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class AddressRefused(ActivitiesError):
    """The host of a webhook resolves to an address that is not public."""


class GatewayError(ApnsLiveError):
    """The HTTP API refuses a request before it reaches the service. ``status`` is the HTTP status."""

    status = 400


class BadBody(GatewayError):
    """The request body is not valid JSON (400), is too large (413), or has the wrong Content-Type (415).

    ``problem`` is one sentence without the body's content.
    """

    def __init__(self, problem: str, *, status: int = 400) -> None:
        super().__init__(problem)
        self.problem = problem
        self.status = status


class TooManyRequests(GatewayError):
    """A key is over its rate or its concurrent requests. ``retry_after`` is seconds."""

    status = 429

    def __init__(self, message: str, *, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class NotAllowed(GatewayError):
    """The key is missing or unknown (401), or lacks permission (403).

    ``missing`` is the scope that the key lacks, or empty.
    """

    def __init__(self, message: str, *, status: int = 403, missing: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.missing = missing


class BenchError(ApnsLiveError):
    """A sender, sink or server of ``apns-live bench`` failed, or is not installed."""


class FakeError(ApnsLiveError):
    """The fake APNs cannot do what was asked."""
