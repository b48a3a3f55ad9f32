"""Tokens, channel ids and bundle ids: what goes into a path or a header is checked here.

Apple, "Sending notification requests to APNs": the path holds the hexadecimal bytes of the token;
its length must not be assumed (64 digits for a device, 160 for an activity have been seen).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol, TypeVar, cast

from ..errors import InvalidPayload, InvalidSetting, InvalidToken

MAX_TOKEN_DIGITS = 1024
MAX_CHANNEL_LENGTH = 256
MAX_COLLAPSE_ID_BYTES = 64
MAX_BUNDLE_ID_LENGTH = 255

_HEX_DIGITS = b"0123456789abcdefABCDEF"
_HEX = re.compile(rf"[0-9a-fA-F]{{2,{MAX_TOKEN_DIGITS}}}").fullmatch
_CHANNEL = re.compile(rf"(?=.{{1,{MAX_CHANNEL_LENGTH}}}\Z)[A-Za-z0-9+/_-]+={{0,2}}").fullmatch
_BUNDLE_ID = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*").fullmatch
_TEAM_PREFIX = re.compile(r"(?=[A-Z]*[0-9])[A-Z0-9]{10}\.[^.]+\..+").fullmatch

_TokenType = TypeVar("_TokenType", bound="_HexToken")


class HasEvent(Protocol):
    """A message, or an encoded one: it names its event."""

    @property
    def event(self) -> str:
        """One of start, update, end, alert and background."""


class _HexToken(str):
    """Text of hexadecimal digits, checked once."""

    __slots__ = ()

    def __new__(cls: type[_TokenType], text: str) -> _TokenType:
        """Check the text; raise `InvalidToken` for what cannot be a token."""
        return str.__new__(cls, _hex_digits(text))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self[:8]}...)"


class DeviceToken(_HexToken):
    """The token of an app on a device: for `Notification` and `Background` only."""

    __slots__ = ()


class StartToken(_HexToken):
    """A push-to-start token, one for each attributes type on a device: for `Start` only."""

    __slots__ = ()


class ActivityToken(_HexToken):
    """The update token of one running activity: for `Update` and `End` only."""

    __slots__ = ()


class ChannelId(str):
    """The id of a broadcast channel, in base64 as APNs gave it."""

    __slots__ = ()

    def __new__(cls, text: str) -> ChannelId:
        """Check the text; raise `InvalidToken` for what cannot be a channel id."""
        return str.__new__(cls, _channel_text(text, "channel"))


def check_token(token: str, *, message: HasEvent | None = None) -> str:
    """Return ``token`` unchanged if it can stand in a path, else raise `InvalidToken`.

    A typed token is also checked against ``message``: a `StartToken` takes a `Start`, and so on.
    """
    if type(token) is str:
        if _HEX(token) and not len(token) & 1:
            return token
        _hex_digits(token)
    if isinstance(token, ChannelId):
        raise InvalidToken(
            "is a channel id, not a token",
            field="token",
            remedy="Use broadcast() for channels; send() and fan_out() take tokens.",
        )
    if not isinstance(token, _HexToken):
        _hex_digits(token)
    elif message is not None:
        _check_kind(token, message)
    return token


def are_tokens(tokens: Sequence[object]) -> bool:
    """Tell whether all are plain text that can stand in a path; typed tokens are not looked at.

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
        raise InvalidToken(
            f"is a {type(channel).__name__}, not a channel id",
            field="channel",
            remedy="Use send() for tokens; broadcast() takes the id that channels.create() returned.",
        )
    if not isinstance(channel, ChannelId):
        _channel_text(channel, "channel")
    return channel


def check_bundle_id(text: str) -> str:
    """Return the bundle id unchanged, or raise `InvalidSetting`.

    The topic's suffix is added by apns_live, so a bundle id that already has one is refused.
    """
    field = "bundle_id"
    if not isinstance(text, str):
        raise InvalidSetting(
            f"is a {type(text).__name__}, not text",
            field=field,
            remedy="Pass the app's bundle id, such as 'com.example.scores'.",
        )
    if not text:
        raise InvalidSetting(
            "is empty",
            field=field,
            remedy="Pass the app's bundle id, such as 'com.example.scores'.",
        )
    _no_hidden_characters(text, field, "the bundle id", InvalidSetting)
    if ".push-type." in text.lower() or text.lower().endswith(".push-type"):
        bare = text[: text.lower().index(".push-type")]
        raise InvalidSetting(
            "already has a topic suffix",
            field=field,
            remedy=f"Pass the bare bundle id ({bare!r:.80}); the suffix is added for each kind of push.",
        )
    if len(text) > MAX_BUNDLE_ID_LENGTH:
        raise InvalidSetting(
            f"has {len(text)} characters",
            field=field,
            remedy="Pass the app's bundle id, such as 'com.example.scores'.",
        )
    if "*" in text:
        raise InvalidSetting(
            "is a wildcard", field=field, remedy="Push needs the explicit bundle id of one app."
        )
    if _TEAM_PREFIX(text):
        raise InvalidSetting(
            "starts with a team id",
            field=field,
            remedy=f"Pass the bundle id without the team in front: {text[11:]!r:.80}.",
        )
    if not _BUNDLE_ID(text):
        raise InvalidSetting(
            f"{text!r:.80} is no bundle id",
            field=field,
            remedy="A bundle id is letters, digits, hyphens and dots, such as 'com.example.scores'.",
        )
    return text


def check_collapse_id(text: object, field: str = "collapse_id") -> str:
    """Return a value for ``apns-collapse-id``: 1 to 64 bytes of printable ASCII."""
    if not isinstance(text, str):
        raise InvalidPayload(
            f"is a {type(text).__name__}, not text", field=field, remedy="Pass a short text."
        )
    if not text:
        raise InvalidPayload("is empty", field=field, remedy="Leave it out, or pass a short text.")
    _no_hidden_characters(text, field, "an id", InvalidPayload)
    if not text.isascii():
        raise InvalidPayload(
            "holds characters that a header cannot carry",
            field=field,
            remedy="Use printable ASCII, for example a hash of it in hex.",
        )
    if len(text) > MAX_COLLAPSE_ID_BYTES:
        raise InvalidPayload(
            f"has {len(text)} bytes; apns-collapse-id takes {MAX_COLLAPSE_ID_BYTES} at most",
            field=field,
            remedy="Use a shorter id, for example a hash of it in hex.",
        )
    if text != text.strip():
        raise InvalidPayload(
            "starts or ends with a space", field=field, remedy="Strip it: headers lose such spaces."
        )
    return str.__str__(text)


def _check_kind(token: _HexToken, message: HasEvent) -> None:
    event = message.event
    if event == "start":
        wanted: type[_HexToken] = StartToken
    elif event in {"update", "end"}:
        wanted = ActivityToken
    else:
        wanted = DeviceToken
    if not isinstance(token, wanted):
        raise InvalidToken(
            f"is a {type(token).__name__} ({token[:8]}...), and {_EVENT_NAMES[event]} needs a {wanted.__name__}",
            field="token",
            remedy=_KIND_REMEDIES[wanted.__name__],
        )


_EVENT_NAMES = {
    "start": "a Start",
    "update": "an Update",
    "end": "an End",
    "alert": "a Notification",
    "background": "a Background",
}
_KIND_REMEDIES = {
    "StartToken": "Send it to the push-to-start token that the app reads from pushToStartTokenUpdates.",
    "ActivityToken": "Send it to the token that the activity reports in pushTokenUpdates.",
    "DeviceToken": "Send it to the token that UIKit registration gave the app.",
}
_HEX_REMEDY = 'Pass the token\'s bytes in hex, as the app prints them with String(format: "%02x").'


def _hex_digits(text: object) -> str:
    if isinstance(text, (bytes, bytearray, memoryview)):
        raise InvalidToken(
            "is bytes, not text", field="token", remedy="Use token.hex() for raw bytes."
        )
    if not isinstance(text, str):
        raise InvalidToken(
            f"is a {type(text).__name__}, not text", field="token", remedy=_HEX_REMEDY
        )
    if _HEX(text) and not len(text) & 1:
        return str.__str__(text)
    if not text:
        raise InvalidToken("is empty", field="token", remedy=_HEX_REMEDY)
    _no_hidden_characters(text, "token", "a token", InvalidToken)
    if text[0] == "<" or " " in text:
        raise InvalidToken(
            "looks like the printed description of a Data value",
            field="token",
            remedy="Drop the spaces and angle brackets, so that only hex digits remain.",
        )
    if len(text) > MAX_TOKEN_DIGITS:
        raise InvalidToken(
            f"has {len(text)} characters, more than any token",
            field="token",
            remedy=_HEX_REMEDY,
        )
    wrong = next(
        (at for at, letter in enumerate(text) if letter not in "0123456789abcdefABCDEF"), None
    )
    if wrong is None:
        raise InvalidToken(
            f"has {len(text)} hex digits, an odd number, so one is missing",
            field="token",
            remedy="Pass two digits for each byte; check that leading zeros are kept.",
        )
    raise InvalidToken(
        f"is not hexadecimal (character {wrong + 1} of {len(text)})",
        field="token",
        remedy=_HEX_REMEDY,
    )


def _channel_text(text: object, field: str) -> str:
    remedy = "Pass the id that channels.create() returned, unchanged."
    if not isinstance(text, str):
        raise InvalidToken(f"is a {type(text).__name__}, not text", field=field, remedy=remedy)
    if not text:
        raise InvalidToken("is empty", field=field, remedy=remedy)
    if _CHANNEL(text):
        return str.__str__(text)
    _no_hidden_characters(text, field, "a channel id", InvalidToken)
    if len(text) > MAX_CHANNEL_LENGTH:
        raise InvalidToken(f"has {len(text)} characters", field=field, remedy=remedy)
    raise InvalidToken("is not base64 text", field=field, remedy=remedy)


def _no_hidden_characters(
    text: str,
    field: str,
    what: str,
    error: type[InvalidToken] | type[InvalidSetting] | type[InvalidPayload],
) -> None:
    """Refuse what would end a header line or hide in one."""
    for at, letter in enumerate(text):
        code = ord(letter)
        if code < 0x20 or code == 0x7F or 0x80 <= code < 0xA0 or letter in "\u2028\u2029\ufeff":
            name = {13: "a carriage return", 10: "a line feed", 0: "a NUL", 9: "a tab"}.get(
                code, f"the control character U+{code:04X}"
            )
            raise error(
                f"holds {name} (character {at + 1})",
                field=field,
                remedy=f"Strip it: {what} is one line of visible characters.",
            )
