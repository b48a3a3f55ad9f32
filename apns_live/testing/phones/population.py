"""All simulated phones of one fake: receives pushes, and performs users' actions."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import inf
from typing import Any, Literal, get_args

import msgspec

from apns_live.errors import FakeError
from apns_live.testing import log as words
from apns_live.testing.clock import FakeClock
from apns_live.testing.log import DeliveryLog
from apns_live.testing.state import Push, TokenCondition, TokenStatus
from apns_live.testing.topics import LIVE_ACTIVITY

from .activitykit import PUSH_TO_START, ActivityKit
from .decoding import as_json, peek_event
from .model import NOTIFICATIONS_KEPT, Activity, Device, PushToPhone, Token
from .registry import kept_until, second_key
from .schedule import Sleeper, away_until, is_held, next_burst
from .settings import Consent, PhoneSettings, check_consent, parse_version

Fate = Literal["unregistered", "expired", "silent"]
SWITCHES = ("awake", "frequent_pushes", "live_activities_enabled", "low_power", "online")
"""What `configure` changes on a phone."""
STORED_FOR = 30 * 86_400.0
"""Apple, "Sending notification requests to APNs": 30 days at most."""
CONTROLS, WIDGETS = (18, 0), (26, 0)
"""First iOS versions that take pushes of these types (Apple's pages of ControlCenter and WidgetKit)."""
HELD_AT_MOST = 32
"""Pushes that wait for a burst on one phone; beyond it the oldest is discarded as replaced."""


class SimulatedPhones(ActivityKit):
    """The phones behind the tokens. Implements ``apns_live.testing.state.Phones``.

    Pure and repeatable: the results depend only on the settings, the calls and their times. Due events
    happen as the ``clock`` moves. Use it from one thread only.

    ``bundle_id`` is the app of phones that are added without one. ``watch`` is called with a phone
    whose display has changed; ``on_token`` are callables that get (device, activity, token) when an
    activity token is issued. ``devices`` and ``activities`` are by id: phones in the order in which
    they were made, of activities also the last few dismissed ones of each phone.
    ``channel_exists(bundle_id, channel_id)`` may be set, so that a start on an unknown channel fails as
    on a phone. ``on_join`` is called with an activity that is about to follow its channel.
    """

    def __init__(
        self,
        settings: PhoneSettings | None = None,
        *,
        clock: FakeClock,
        log: DeliveryLog | None = None,
        bundle_id: str = "com.example.scores",
    ) -> None:
        log = DeliveryLog() if log is None else log
        super().__init__(settings or PhoneSettings(), clock, log)
        self.bundle_id = bundle_id
        self.on_join: Callable[[Activity], object] | None = None
        self._tokens = self.registry.tokens
        self.devices = self.registry.devices
        self.activities = self.registry.activities
        self.on_token = self.registry.on_token

    # Calls from APNs.

    def token_status(self, token: str, topic: str) -> TokenStatus:
        """Return the status of ``token`` (lower-case hex) for ``topic``, as APNs sees it."""
        self.schedule.run(self.now())
        return self.registry.status(token, topic)

    def receive(self, push: Push) -> None:
        """Receive a device push that was answered with 200."""
        now = push.received_at
        self.schedule.run(now)
        record = self.log.received(push)
        token = self._tokens.get(push.token)
        if token is None or token.topic != push.topic:
            token = self._meet(push, token, now)
        item = PushToPhone(record, token.device, token.activity, token)
        self.note(item, now, words.RECEIVED)
        self._send(item, now)

    def receive_broadcast(self, push: Push) -> None:
        """Receive a broadcast that was answered with 200."""
        now = push.received_at
        self.schedule.run(now)
        record = self.log.received(push)
        self.log.note(record, now, words.RECEIVED)
        feed = self.feeds.of(push.bundle_id, push.channel_id or "")
        if kept_until(record) > now:
            feed.latest = record
        record.subscribers = len(feed.activities)
        for activity in list(feed.activities):
            self._send(PushToPhone(record, activity.device, activity), now)

    def _send(self, item: PushToPhone, now: float) -> None:
        """Deliver a push, unless its phone has no network or saves power."""
        device = item.device
        may_be_away = device.offline_until is not None or self.settings.offline
        if until := may_be_away and away_until(device, self.settings, now):
            self._store(item, now, until)
        elif is_held(device, self.settings, item.record.push.priority):
            self._hold(item, now)
        else:
            self._deliver(item, now, words.DELIVERED)

    # Phones and tokens.

    def add_device(
        self,
        device_id: str | None = None,
        *,
        bundle_id: str | None = None,
        attributes_types: Sequence[str] = (),
        widgets: bool = False,
        controls: Sequence[str] = (),
        os_version: str | None = None,
        app_version: str = "",
        online: bool = True,
        awake: bool = True,
        low_power: bool = False,
        live_activities_enabled: bool = True,
        frequent_pushes: bool | None = None,
        has_dynamic_island: bool = True,
        consent: Consent | None = None,
    ) -> Device:
        """Make a phone on which the app was opened once: its tokens are issued at once.

        It has a device token, from iOS 17.2 on a push-to-start token for each attributes type, from
        iOS 18 on a token for each of ``controls``, and with ``widgets`` from iOS 26 on the widgets'
        token. Raises ``FakeError`` when the id is taken, or the version or consent cannot be read.
        """
        settings = self.settings
        version = parse_version(os_version or settings.os_version)
        serial = self.registry.serial + 1
        device = Device(
            id=device_id or f"phone-{serial}",
            serial=serial,
            os_version=version,
            app_version=app_version,
            offline_until=None if online else inf,
            awake=awake,
            low_power=low_power,
            live_activities_enabled=live_activities_enabled,
            frequent_pushes=settings.frequent_pushes
            if frequent_pushes is None
            else frequent_pushes,
            has_dynamic_island=has_dynamic_island,
            consent=check_consent(consent or settings.consent),
        )
        self.registry.add_device(device)
        app = bundle_id or self.bundle_id
        self.registry.issue("device", app, device)
        if version >= PUSH_TO_START:
            for attributes_type in attributes_types:
                self.registry.issue("start", app, device, attributes_type=attributes_type)
        for control in controls if version >= CONTROLS else ():
            self.registry.issue("controls", app, device, attributes_type=control)
        if widgets and version >= WIDGETS:
            self.registry.issue("widgets", app, device)
        self.touch(device)
        return device

    def token(self, text: str) -> Token | None:
        """Return a token, or None if it is unknown."""
        return self._tokens.get(text.lower())

    def mark(self, text: str, status: TokenStatus) -> Token:
        """Make APNs answer for a token with ``status``. The token may be unknown."""
        if (token := self._tokens.get(text)) is None:
            device = self._automatic_device(text)
            token = self.registry.adopt(text, "device", self.bundle_id, device)
        token.status = status
        return token

    def kill(self, token: Token, condition: Fate, since: float | None = None) -> None:
        """Let a token die: ``unregistered`` or ``expired`` (410), or ``silent`` (200 forever)."""
        if condition not in get_args(Fate):
            raise FakeError(f"a token cannot become {condition!r}: unregistered, expired or silent")
        moment = self.now() if since is None else since
        if not 0 <= moment < 1e11:
            raise FakeError(f"since is {moment!r}; give seconds since 1970")
        if condition == "silent":
            token.silent = True
        else:
            token.status = TokenStatus(TokenCondition(condition), int(moment * 1000))
        self.touch(token.device)

    def rotate(self, token: Token, *, quietly: bool = False) -> Token:
        """Issue a new token in the place of one; the old one goes silent.

        ``quietly``: the app's token stream does not tell of it, until the app is opened.
        """
        if token.automatic:
            raise FakeError("this token was not issued by a phone of the fake: it cannot rotate")
        new = self.replace_token(token, self.now(), quietly=quietly)
        self.touch(token.device)
        return new

    # What users and apps do.

    def configure(self, device: Device, changes: Mapping[str, bool]) -> None:
        """Change ``online``, ``awake`` and other switches of a phone; what waited may arrive."""
        for name, value in changes.items():
            if name not in SWITCHES:
                raise FakeError(f"a phone has no switch {name!r}; it has {', '.join(SWITCHES)}")
            if name == "online":
                device.offline_until = None if value else inf
            else:
                setattr(device, name, bool(value))
        if "frequent_pushes" in changes and device.budgets:
            device.budgets = {k: each for k, each in device.budgets.items() if k[0] == "starts"}
        now = self.now()
        if not away_until(device, self.settings, now):
            self._release(device, now, held=False)
            if changes.get("awake"):
                self._release(device, now, held=True)
        self.touch(device)

    def go_offline(self, device: Device, seconds: float | None = None) -> None:
        """Take the network away, permanently or for a while."""
        device.offline_until = inf if seconds is None else self.now() + seconds
        if seconds is not None:
            self.schedule.add(device, device.offline_until)
        self.touch(device)

    def open_app(
        self, device: Device, bundle_id: str | None = None, *, reads_tokens: bool = True
    ) -> None:
        """Open the app: the start budget is full again, missing activity tokens arrive.

        An app that ``reads_tokens`` at launch finds those that its token streams kept quiet about;
        one that waits for the streams does not. A card that waits for consent stays without one.
        """
        app = bundle_id or self.bundle_id
        now = self.now()
        for activity in list(device.activities):
            if activity.state != "active" or activity.bundle_id != app or activity.asks:
                continue
            if activity.token is None and activity.channel is None:
                self.issue_token(activity, now)
                self.plan(activity)
        for token in device.tokens if reads_tokens else ():
            if not token.told and token.bundle_id == app:
                self.registry.tell(token)
        if (starts := (device.budgets or {}).get(("starts", app))) is not None:
            starts.refill()
        self.touch(device)

    def consent(self, device: Device, answer: Consent) -> None:
        """Let the owner answer a card that asks: ``allow``, ``always`` or ``deny``; ``none`` forgets.

        Allow holds for the cards that ask now: later ones ask again, and are allowed when seen.
        Raises ``FakeError`` for another answer.
        """
        now, device.consent = self.now(), check_consent(answer)
        for activity in list(device.activities):
            if answer == "deny" and activity.state == "active":
                self.end(activity, now, "denied", now)
            elif activity.asks and answer in {"allow", "always"}:
                activity.asks = False
                self._promise_token(activity, now)
                self.plan(activity)
        self.touch(device)

    def delete_app(self, device: Device) -> None:
        """Delete the app: activities are gone, tokens answer 410 Unregistered."""
        for activity in list(device.activities):
            self.dismiss(activity)
        for token in list(device.tokens):
            self.kill(token, "unregistered")
            self.registry.bury(token)
        device.removed = True
        self.registry.devices.pop(device.id, None)
        for activity in device.activities:
            self.registry.activities.pop(activity.id, None)
        self.touch(device)

    def start_activity(
        self,
        device: Device,
        attributes_type: str,
        attributes: Mapping[str, Any],
        content_state: Mapping[str, Any],
        *,
        bundle_id: str | None = None,
        channel: str | None = None,
        stale_date: float | None = None,
    ) -> Activity:
        """Let the app start an activity itself (``Activity.request``); no budget applies."""
        now = self.now()
        activity = self.begin(
            device,
            bundle_id or self.bundle_id,
            attributes_type,
            msgspec.json.encode(attributes),
            msgspec.json.encode(content_state),
            now,
        )
        activity.stale_date = stale_date
        if channel is not None:
            activity.channel = channel
            self.join(activity, now)
        else:
            self.issue_token(activity, now)
        self.plan(activity)
        self.touch(device)
        return activity

    def dismiss(self, activity: Activity) -> None:
        """Swipe an activity away, which ends and removes it."""
        now = self.now()
        if activity.state == "active":
            self.end(activity, now, "user", now)
        elif activity.state == "ended":
            activity.dismissal_date = now
            self.wake(activity, now)

    def end_activity(
        self,
        activity: Activity,
        content_state: Mapping[str, Any] | None = None,
        dismissal_date: float | None = None,
    ) -> None:
        """Let the app end an activity itself."""
        if activity.state == "active" and content_state is not None:
            activity.content, activity.refresh = msgspec.json.encode(content_state), None
        self.end(activity, self.now(), "app", dismissal_date)

    def clear(self) -> None:
        """Remove all phones, tokens and channels. The log and the listeners stay."""
        self.schedule.clear()
        self.registry.clear()
        self.feeds.clear()

    # Inside.

    def _automatic_device(self, text: str) -> Device:
        settings = self.settings
        device_id = f"auto-{settings.short_id('device', text)}"
        if (device := self.registry.devices.get(device_id)) is None:
            device = Device(
                id=device_id,
                serial=self.registry.serial + 1,
                automatic=True,
                os_version=parse_version(settings.os_version),
                awake=not settings.asleep or settings.draw("asleep", device_id) >= settings.asleep,
                frequent_pushes=settings.frequent_pushes,
                consent=settings.consent,
            )
            self.registry.add_device(device)
        return device

    def _meet(self, push: Push, known: Token | None, now: float) -> Token:
        """Return the phone's token for a push whose token or topic is new."""
        text, topic = push.token, push.topic
        if known is not None:
            if not known.automatic:
                return known
            if (second := self._tokens.get(second_key(text, topic))) is not None:
                return second
        device = known.device if known is not None else self._automatic_device(text)
        if not topic.endswith(LIVE_ACTIVITY):
            return self.registry.adopt(text, "device", topic, device)
        if peek_event(push.body) == "start":
            return self.registry.adopt(text, "start", topic, device)
        token = self.registry.adopt(text, "activity", topic, device)
        token.activity = self.begin(device, token.bundle_id, None, b"", b"", now)
        token.activity.token = token
        self.plan(token.activity)
        return token

    def _deliver(self, item: PushToPhone, now: float, state: str) -> None:
        record, device, token = item.record, item.device, item.token
        if token is not None and token.silent:
            self.discard(item, now, words.SILENT_TOKEN)
        elif token is None or token.topic.endswith(LIVE_ACTIVITY):
            self.take(item, now, state)
        elif token.kind in {"widgets", "controls"}:
            # Widgets and controls reload. The body says only that content has changed.
            body = as_json(record.push.body)
            aps = body.get("aps") if isinstance(body, dict) else None
            if isinstance(aps, dict) and aps.get("content-changed") is True:
                self.note(item, now, state, detail=f"{token.kind} reload")
            else:
                detail = 'a push of this type says {"aps": {"content-changed": true}}'
                self.discard(item, now, words.UNDECODABLE, detail)
        else:
            device.notifications = [*(device.notifications or ()), record][-NOTIFICATIONS_KEPT:]
            self.note(item, now, state)
            self.touch(device)

    def join(self, activity: Activity, now: float) -> None:
        """Subscribe an activity to its channel; a stored message arrives at once."""
        if self.on_join is not None:
            self.on_join(activity)
        feed = self.feeds.of(activity.bundle_id, activity.channel or "")
        feed.activities[activity] = None
        if feed.latest is not None and kept_until(feed.latest) > now:
            item = PushToPhone(feed.latest, activity.device, activity)
            self._deliver(item, now, words.DELIVERED_FROM_STORAGE)

    # Storage: APNs stores messages for offline phones, and delays some to save power.

    def _store(self, item: PushToPhone, now: float, until: float) -> None:
        device, token, push = item.device, item.token, item.record.push
        if (expires := _expires(item)) <= now:
            why = words.OFFLINE if push.expiration == 0 or not expires else words.EXPIRED
            self.discard(item, now, why)
            return
        if token is None:
            key = f"channel {push.channel_id} {item.activity.id if item.activity else ''}"
        else:
            key = token.bundle_id if self.settings.storage == "app" else token.text
        stored = device.stored = device.stored or {}
        if (replaced := stored.pop(key, None)) is not None:
            self.discard(replaced, now, words.REPLACED)
        stored[key] = item
        self.note(item, now, words.STORED, words.DEVICE_OFFLINE)
        if until != inf:
            self.schedule.add(device, until)
        self.touch(device)

    def _hold(self, item: PushToPhone, now: float) -> None:
        device = item.device
        held = device.held = device.held or []
        if len(held) >= HELD_AT_MOST:
            self.discard(held.pop(0), now, words.REPLACED)
        held.append(item)
        self.note(item, now, words.STORED, words.DEMOTED if item.record.demoted else words.POWER)
        if device.burst_at is None:
            device.burst_at = next_burst(device, self.settings, now)
        self.schedule.add(device, device.burst_at)
        self.touch(device)

    def _release(self, device: Device, now: float, *, held: bool) -> None:
        """Deliver the pushes that waited for power (``held``) or for a network."""
        waiting: Iterable[PushToPhone]
        if held:
            waiting, device.held, device.burst_at = device.held or (), None, None
        else:
            stored, device.stored = device.stored, None
            waiting = (stored or {}).values()
        for item in waiting:
            # A push for one attempt (expiration 0) may wait for power, but not for a network.
            expires = (item.record.push.expiration or inf) if held else _expires(item)
            if expires <= now:
                self.discard(item, now, words.EXPIRED)
            else:
                self._deliver(item, now, words.DELIVERED_FROM_STORAGE)

    def _wake(self, who: Sleeper, now: float) -> None:
        if isinstance(who, Activity):
            self.wake(who, now)
            return
        if not (until := away_until(who, self.settings, now)):
            self._release(who, now, held=False)
        if who.burst_at is not None and who.burst_at <= now:
            if until:
                held, who.held, who.burst_at = who.held, None, None
                for item in held or ():
                    self._store(item, now, until)
            else:
                self._release(who, now, held=True)
        if who.burst_at is not None:
            self.schedule.add(who, who.burst_at)
        if who.stored and until and until != inf:
            self.schedule.add(who, until)
        self.touch(who)


def _expires(item: PushToPhone) -> float:
    """Return until when APNs stores a push; a past time if it may not be stored."""
    push = item.record.push
    if item.token is None:
        return kept_until(item.record)
    longest = push.received_at + STORED_FOR
    return longest if push.expiration is None else min(longest, float(push.expiration))
