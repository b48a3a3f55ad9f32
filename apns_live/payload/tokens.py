"""Validates tokens, channel ids and bundle ids, which go into paths and headers.

Apple, "Sending notification requests to APNs": the path holds the hexadecimal bytes of the token;
its length must not be assumed (64 digits for a device, 160 for an activity have been seen).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import ClassVar, Protocol, TypeVar, cast

from ..errors import InvalidInput, InvalidPayload, InvalidSetting, InvalidToken
from ..refusals import refused

MAX_TOKEN_DIGITS = 1024
MAX_CHANNEL_LENGTH = 256
MAX_COLLAPSE_ID_BYTES = 64
MAX_BUNDLE_ID_LENGTH = 255

_HEX_DIGITS = b"0123456789abcdefABCDEF"
_HEX = re.compile(rf"[0-9a-fA-F]{{2,{MAX_TOKEN_DIGITS}}}").fullmatch
_NOT_HEX = re.compile(r"[^0-9a-fA-F]").search
_CHANNEL = re.compile(rf"(?=.{{1,{MAX_CHANNEL_LENGTH}}}\Z)[A-Za-z0-9+/_-]+={{0,2}}").fullmatch
_BUNDLE_ID = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*").fullmatch
_TEAM_PREFIX = re.compile(r"(?=[A-Z]*[0-9])[A-Z0-9]{10}\.[^.]+\..+").fullmatch
_HIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff]").search
_NAMES = {13: "a carriage return", 10: "a line feed", 0: "a NUL", 9: "a tab"}

_TokenType = TypeVar("_TokenType", bound="_HexToken")


class HasEvent(Protocol):
    """A message, or an encoded one, with its event."""

    @property
    def event(self) -> str:
        """One of start, update, end, alert and background."""


class _HexToken(str):
    """A text of hexadecimal digits that is checked once."""

    __slots__ = ()
    advice: ClassVar[str] = ""
    """The remedy for a message that was sent to another kind of token."""

    def __new__(cls: type[_TokenType], text: str) -> _TokenType:
        """Check the text; raise `InvalidToken` for what cannot be a token."""
        return str.__new__(cls, _hex_digits(text))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self[:8]}...)"


class DeviceToken(_HexToken):
    """The token of an app on a device, for `Notification` and `Background`."""

    __slots__ = ()
    advice = "Send it to the token that UIKit registration gave the app."


class StartToken(_HexToken):
    """A push-to-start token, for `Start`. A device has one for each attributes type."""

    __slots__ = ()
    advice = "Send it to the push-to-start token that the app reads from pushToStartTokenUpdates."


class ActivityToken(_HexToken):
    """The token of one running activity, for `Update` and `End`."""

    __slots__ = ()
    advice = "Send it to the token that the activity reports in pushTokenUpdates."


class ChannelId(str):
    """The id of a broadcast channel, in base64 as APNs returned it."""

    __slots__ = ()

    def __new__(cls, text: str) -> ChannelId:
        """Check the text; raise `InvalidToken` for what cannot be a channel id."""
        return str.__new__(cls, _channel_text(text))


_WANTED: dict[str, tuple[str, type[_HexToken]]] = {
    "start": ("a Start", StartToken),
    "update": ("an Update", ActivityToken),
    "end": ("an End", ActivityToken),
    "alert": ("a Notification", DeviceToken),
    "background": ("a Background", DeviceToken),
}
"""What each event is called, and the kind of token that it needs."""


def check_token(token: str, *, message: HasEvent | None = None) -> str:
    """Return ``token`` unchanged if it is valid in a path, else raise `InvalidToken`.

    A typed token is also checked against ``message``: a `StartToken` takes a `Start`, and so on.
    """
    if isinstance(token, ChannelId):
        raise refused(InvalidToken, "token_is_channel", "token")
    if not isinstance(token, _HexToken):
        _hex_digits(token)
    elif message is not None:
        name, wanted = _WANTED[message.event]
        if not isinstance(token, wanted):
            raise refused(
                InvalidToken,
                "token_of_another_kind",
                "token",
                kind=type(token).__name__,
                shown=token[:8],
                message=name,
                wanted=wanted.__name__,
                remedy=wanted.advice,
            )
    return token


def are_tokens(tokens: Sequence[object]) -> bool:
    """Return True if all are plain text that can stand in a path. Typed tokens give False.

    When it is False, `check_token` says which one is wrong, and why.
    """
    if {*map(type, tokens)} != {str}:
        return False
    digits = cast("Sequence[str]", tokens)
    if any(size & 1 or not 2 <= size <= MAX_TOKEN_DIGITS for size in {*map(len, digits)}):
        return False
    text = "".join(digits)
    return text.isascii() and not text.encode().translate(None, _HEX_DIGITS)


def check_channel(channel: str) -> str:
    """Return ``channel`` unchanged if it can be a channel id, else raise `InvalidToken`."""
    if isinstance(channel, _HexToken):
        raise refused(InvalidToken, "channel_kind", "channel", kind=type(channel).__name__)
    if not isinstance(channel, ChannelId):
        _channel_text(channel)
    return channel


def check_bundle_id(text: str) -> str:
    """Return the bundle id unchanged, or raise `InvalidSetting`.

    The topic's suffix is added by apns_live, so a bundle id that already has one is refused.
    """
    field = "bundle_id"
    if not isinstance(text, str):
        raise refused(InvalidSetting, "bundle_id_kind", field, kind=type(text).__name__)
    if not text:
        raise refused(InvalidSetting, "bundle_id_empty", field)
    _no_hidden_characters(text, field, "the bundle id", InvalidSetting)
    if ".push-type." in text.lower() or text.lower().endswith(".push-type"):
        bare = text[: text.lower().index(".push-type")]
        raise refused(InvalidSetting, "bundle_id_suffix", field, bare=bare)
    if len(text) > MAX_BUNDLE_ID_LENGTH:
        raise refused(InvalidSetting, "bundle_id_length", field, size=len(text))
    if "*" in text:
        raise refused(InvalidSetting, "bundle_id_wildcard", field)
    if _TEAM_PREFIX(text):
        raise refused(InvalidSetting, "bundle_id_team", field, bare=text[11:])
    if not _BUNDLE_ID(text):
        raise refused(InvalidSetting, "bundle_id", field, text=text)
    return text


def check_collapse_id(text: object, field: str = "collapse_id") -> str:
    """Return a value for ``apns-collapse-id``: 1 to 64 bytes of printable ASCII."""
    if not isinstance(text, str):
        raise refused(InvalidPayload, "collapse_id_kind", field, kind=type(text).__name__)
    if not text:
        raise refused(InvalidPayload, "collapse_id_empty", field)
    _no_hidden_characters(text, field, "an id", InvalidPayload)
    if not text.isascii():
        raise refused(InvalidPayload, "collapse_id_not_ascii", field)
    if len(text) > MAX_COLLAPSE_ID_BYTES:
        sizes = {"size": len(text), "limit": MAX_COLLAPSE_ID_BYTES}
        raise refused(InvalidPayload, "collapse_id_length", field, **sizes)
    if text != text.strip():
        raise refused(InvalidPayload, "collapse_id_space", field)
    return str.__str__(text)


def _hex_digits(text: object) -> str:
    if isinstance(text, str) and _HEX(text) and not len(text) & 1:
        return str.__str__(text)
    if isinstance(text, (bytes, bytearray, memoryview)):
        raise refused(InvalidToken, "token_bytes", "token")
    if not isinstance(text, str):
        raise refused(InvalidToken, "token_kind", "token", kind=type(text).__name__)
    if not text:
        raise refused(InvalidToken, "token_empty", "token")
    _no_hidden_characters(text, "token", "a token", InvalidToken)
    if text[0] == "<" or " " in text:
        raise refused(InvalidToken, "token_description", "token")
    size = len(text)
    if size > MAX_TOKEN_DIGITS:
        raise refused(InvalidToken, "token_length", "token", size=size)
    wrong = _NOT_HEX(text)
    if wrong is None:
        raise refused(InvalidToken, "token_odd", "token", size=size)
    raise refused(InvalidToken, "token_not_hex", "token", at=wrong.start() + 1, size=size)


def _channel_text(text: object) -> str:
    field = "channel"
    if not isinstance(text, str):
        raise refused(InvalidToken, "channel_id_kind", field, kind=type(text).__name__)
    if not text:
        raise refused(InvalidToken, "channel_id_empty", field)
    if _CHANNEL(text):
        return str.__str__(text)
    _no_hidden_characters(text, field, "a channel id", InvalidToken)
    if len(text) > MAX_CHANNEL_LENGTH:
        raise refused(InvalidToken, "channel_id_length", field, size=len(text))
    raise refused(InvalidToken, "channel_not_base64", field)


def _no_hidden_characters(text: str, field: str, what: str, error: type[InvalidInput]) -> None:
    """Refuse characters that would end a header line or be invisible in one."""
    if hidden := _HIDDEN(text):
        code = ord(hidden[0])
        name = _NAMES.get(code, f"the control character U+{code:04X}")
        raise refused(error, "control", field, name=name, at=hidden.start() + 1, what=what)
