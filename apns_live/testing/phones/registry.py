"""The registry of tokens, phones and activities, and of the subscribers of broadcast channels."""

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from apns_live.errors import FakeError
from apns_live.testing.log import PushRecord, Ring
from apns_live.testing.state import LIVE, UNKNOWN, TokenCondition, TokenStatus
from apns_live.testing.topics import LIVE_ACTIVITY, SUFFIXES

from .model import Activity, Device, Token, TokenKind
from .settings import PhoneSettings

_log = logging.getLogger(__name__)
_ISSUED_KEPT = 10_000
DEVICE_TOKEN_BYTES = 32
"""Ordinary device tokens of iPhones have 64 hex digits."""
ACTIVITY_TOKEN_BYTES = 80
"""Push-to-start and activity tokens of a real iPhone were seen with 160 hex digits."""

KEPT_FOR = 8 * 3600.0
MOST_FEEDS = 50_000
"""An app has at most 10,000 channels."""

_WRONG_TOPIC = TokenStatus(TokenCondition.WRONG_TOPIC)


class Registry:
    """Tokens by their text, phones and activities by their id; ``serial`` is the newest phone's number.

    ``on_token`` is called with (device, activity, token text) when an activity token is issued;
    ``on_issue`` with every ``Token`` that a phone issues. They must be quick and must not raise.
    ``generation`` counts the calls of `clear`.
    """

    def __init__(self, settings: PhoneSettings) -> None:
        self.settings = settings
        self.tokens: dict[str, Token] = {}
        self.devices: dict[str, Device] = {}
        self.activities: dict[str, Activity] = {}
        self.issued: Ring[Token] = Ring(_ISSUED_KEPT)
        self.on_token: list[Callable[[Device, Activity, str], object]] = []
        self.on_issue: list[Callable[[Token], object]] = []
        self.serial = 0
        self.generation = 0
        self._automatic: deque[Device] = deque()
        self._dead: deque[str] = deque()

    def status(self, text: str, topic: str) -> TokenStatus:
        """Return a token's status for a topic, as APNs does; automatic ones fit every topic."""
        if (token := self.tokens.get(text)) is None:
            return UNKNOWN
        if token.topic != topic and not token.automatic and token.status is LIVE:
            return _WRONG_TOPIC
        return token.status

    # Phones.

    def add_device(self, device: Device) -> None:
        """Register a phone. Raises ``FakeError`` if its id is taken."""
        if device.id in self.devices:
            raise FakeError(f"there is a phone {device.id!r} already; choose another id")
        self.devices[device.id] = device
        self.serial = device.serial
        if device.automatic:
            self._automatic.append(device)
            while len(self._automatic) > self.settings.max_devices:
                self.forget_device(self._automatic.popleft())

    def forget_device(self, device: Device) -> None:
        """Remove a phone with all of its tokens and activities."""
        if self.devices.get(device.id) is not device:
            return
        del self.devices[device.id]
        device.removed = True
        for token in device.tokens:
            self.tokens.pop(token.text, None)
            self.tokens.pop(second_key(token.text, token.topic), None)
        for activity in device.activities:
            self.activities.pop(activity.id, None)

    # Tokens.

    def adopt(self, text: str, kind: TokenKind, topic: str, device: Device) -> Token:
        """Register a token that was not issued here as one of ``device``."""
        token = Token(text, kind, topic, device, automatic=True)
        self.tokens[second_key(text, topic) if text in self.tokens else text] = token
        device.tokens.append(token)
        return token

    def issue(
        self,
        kind: TokenKind,
        bundle_id: str,
        device: Device,
        *,
        attributes_type: str | None = None,
        activity: Activity | None = None,
        nth: int = 0,
        told: bool = True,
    ) -> Token:
        """Issue a token. Its bytes depend on the seed, its owner and the number of its earlier tokens.

        ``told`` False hides it from the app until `tell`.
        """
        activity_id = activity.id if activity else ""
        who = f"{device.id}\0{bundle_id}\0{attributes_type or ''}\0{activity_id}"
        size = DEVICE_TOKEN_BYTES if kind == "device" else ACTIVITY_TOKEN_BYTES
        while (text := self.settings.make_token(kind, who, nth, size)) in self.tokens:
            nth += 1
        topic = bundle_id + ("" if kind == "device" else SUFFIXES.get(kind, LIVE_ACTIVITY))
        token = Token(text, kind, topic, device, attributes_type, activity)
        self.tokens[text] = token
        device.tokens.append(token)
        if activity is not None:
            activity.token, activity.token_due = token, None
        token.told = told
        if told:
            self.tell(token)
        return token

    def tell(self, token: Token) -> None:
        """Report a token to the app and the listeners."""
        token.told = True
        token.sequence = self.issued.total + 1
        self.issued.append(token)
        for listener in self.on_issue:
            _call(listener, token)
        if token.activity is not None:
            for on_token in self.on_token:
                _call(on_token, token.device, token.activity, token.text)

    def bury(self, token: Token) -> None:
        """Mark a token as dead. The oldest dead tokens are deleted at a limit."""
        if token in token.device.tokens:
            token.device.tokens.remove(token)
        self._dead.append(token.text)
        while len(self._dead) > self.settings.max_dead_tokens:
            self.tokens.pop(self._dead.popleft(), None)

    def clear(self) -> None:
        """Delete all tokens, phones and activities. Listeners stay."""
        self.tokens.clear()
        self.devices.clear()
        self.activities.clear()
        self.issued.clear()
        self._automatic.clear()
        self._dead.clear()
        self.serial = 0
        self.generation += 1


def second_key(text: str, topic: str) -> str:
    """Return the key of the token that an automatic phone uses for a further topic."""
    return f"{text} {topic}"


def _call(listener: Callable[..., object], *arguments: object) -> None:
    try:
        listener(*arguments)
    except Exception:  # noqa: BLE001
        # A listener belongs to a test. Its error must not stop the phones or the push port.
        _log.exception("a listener for tokens raised")


# Broadcast channels. Storage policy 1 keeps the newest message, eight hours at most; policy 0 keeps nothing
# (Apple, "Sending channel management requests to APNs"). What Apple counts for channels is not published:
# here a broadcast does not count against an activity's hourly budget.


@dataclass(slots=True, eq=False)
class Feed:
    """One channel: its listeners in the order in which they joined, and its newest message."""

    activities: dict[Activity, None] = field(default_factory=dict)
    latest: PushRecord | None = None


def kept_until(record: PushRecord) -> float:
    """Return when a stored broadcast is deleted; 0 if it is not stored."""
    push = record.push
    if push.storage_policy != 1 or push.expiration == 0:
        return 0.0
    longest = push.received_at + KEPT_FOR
    return longest if push.expiration is None else min(longest, float(push.expiration))


class Feeds:
    """All channels that have a listener or a stored message."""

    def __init__(self) -> None:
        self._feeds: dict[tuple[str, str], Feed] = {}

    def of(self, bundle_id: str, channel_id: str) -> Feed:
        """Return a channel's feed."""
        key = (bundle_id, channel_id)
        if (feed := self._feeds.get(key)) is None:
            if len(self._feeds) >= MOST_FEEDS:
                # Feeds of deleted channels remain. Drop those without listeners.
                self._feeds = {each: kept for each, kept in self._feeds.items() if kept.activities}
            feed = self._feeds[key] = Feed()
        return feed

    def leave(self, activity: Activity) -> None:
        """Remove an activity from its channel."""
        channel = activity.channel
        if channel is not None and (feed := self._feeds.get((activity.bundle_id, channel))):
            feed.activities.pop(activity, None)

    def clear(self) -> None:
        """Remove all channels."""
        self._feeds.clear()
