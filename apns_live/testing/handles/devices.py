"""The phones of a fake, for tests."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from apns_live.errors import FakeError
from apns_live.testing.fake import FakeApns
from apns_live.testing.phones import Activity, Device
from apns_live.testing.phones.decoding import as_json
from apns_live.testing.phones.model import TokenKind
from apns_live.testing.phones.population import Fate
from apns_live.testing.phones.settings import Consent
from apns_live.testing.threaded import ThreadedFakeApns

from .pushes import PATIENCE, PushView, describe, differences, waited

T = TypeVar("T")


class ActivityView:
    """A Live Activity as the phone shows it at this moment."""

    def __init__(self, activity: Activity) -> None:
        self.id = activity.id
        self.device = activity.device.id
        self.attributes_type = activity.attributes_type
        self.attributes = as_json(activity.attributes)
        self.content_state: Any = activity.content_state
        self.timestamp = activity.timestamp
        self.state = activity.state
        self.is_stale = activity.stale
        self.ended_by = activity.ended_by
        self.stale_date = activity.stale_date
        self.dismissal_date = activity.dismissal_date
        self.relevance_score = activity.relevance_score
        self.alert = as_json(activity.alert)
        self.alerts = activity.alerts
        self.token = activity.token.text if activity.token is not None else None
        self.channel = activity.channel
        self.updates = activity.updates
        self.ignored = activity.ignored

    def __repr__(self) -> str:
        return f"<activity {self.id}: {self.state}, shows {self.content_state!r}>"


class DeviceView:
    """A simulated phone. Its properties are read anew each time."""

    def __init__(self, running: ThreadedFakeApns, device_id: str) -> None:
        self._running = running
        self.id = device_id

    def _read(self, read: Callable[[FakeApns, Device], T]) -> T:
        def call(fake: FakeApns) -> T:
            if (device := fake.devices.devices.get(self.id)) is None:
                raise FakeError(f"there is no phone {self.id!r} any more")
            return read(fake, device)

        return self._running.call(call)

    def start_token(self, attributes_type: str | None = None) -> str:
        """Return its push-to-start token."""
        return self._token("start", attributes_type)

    def device_token(self) -> str:
        """Return its token for ordinary notifications."""
        return self._token("device")

    def activity_token(self) -> str:
        """Return the newest activity token."""
        return self._token("activity")

    def _token(self, kind: TokenKind, attributes_type: str | None = None) -> str:
        if (token := self._read(lambda _, device: device.token_of(kind, attributes_type))) is None:
            of = f" for {attributes_type}" if attributes_type else ""
            raise FakeError(f"{self.id} has no {kind} token{of}")
        return token.text

    @property
    def activities(self) -> list[ActivityView]:
        """Its activities, including the dismissed ones that it still keeps."""
        return self._read(lambda _, device: [ActivityView(each) for each in device.activities])

    @property
    def activity(self) -> ActivityView:
        """The newest activity. Raises AssertionError if there is none."""
        if not (activities := self.activities):
            raise AssertionError(f"{self.id} shows no activity{self._why_not()}")
        return activities[-1]

    @property
    def notifications(self) -> list[PushView]:
        """The last ordinary notifications."""
        return self._read(lambda _, device: [PushView(each) for each in device.notifications or ()])

    def start_activity(
        self,
        attributes_type: str,
        content_state: Mapping[str, Any],
        attributes: Mapping[str, Any] | None = None,
        *,
        channel: str | None = None,
    ) -> ActivityView:
        """Let the app start an activity itself; it has its token at once."""
        return self._read(
            lambda fake, device: ActivityView(
                fake.devices.start_activity(
                    device, attributes_type, attributes or {}, content_state, channel=channel
                )
            )
        )

    def shows(self, content_state: Any = ..., **wanted: Any) -> bool:
        """Whether the newest visible activity matches the description.

        ``wanted`` names fields of ``ActivityView``: ``state="ended"``, ``is_stale=True``.
        """
        return self._problem(content_state, wanted) == ""

    def assert_shows(
        self, content_state: Any = ..., *, timeout: float = PATIENCE, **wanted: Any
    ) -> ActivityView:
        """Return the activity if it matches; raise AssertionError with the differences otherwise.

        Waits as ``PushBook.assert_one`` does.
        """

        def look(late: bool) -> ActivityView | None:
            problem = self._problem(content_state, wanted)
            if problem and late:
                raise AssertionError(problem)
            return None if problem else self.activity

        return waited(look, timeout)

    def _problem(self, content_state: Any, wanted: dict[str, Any]) -> str:
        expected = wanted if content_state is ... else {**wanted, "content_state": content_state}
        any_state = "state" in expected
        visible = [each for each in self.activities if any_state or each.state != "dismissed"]
        if not visible:
            return f"{self.id} shows no activity{self._why_not()}"
        shown = visible[-1]
        if unknown := [name for name in expected if not hasattr(shown, name)]:
            raise TypeError(f"an activity has no {', '.join(unknown)}")
        if not (found := differences(shown, expected)):
            return ""
        return f"{self.id} shows something else\n{describe(found)}{self._why_not()}"

    def _why_not(self) -> str:
        ignored = self._running.call(
            lambda fake: [
                f"\n  {record.event or 'push'} {record.number} was discarded: {record.why}"
                + (f" ({record.detail})" if record.detail else "")
                for record in fake.log.pushes
                if record.device == self.id and record.state == "discarded"
            ][-3:]
        )
        return "".join(ignored)

    def open_app(self) -> None:
        """Let the user open the app: late tokens arrive, the start budget refills."""
        self._read(lambda fake, device: fake.devices.open_app(device))

    def consent(self, answer: Consent) -> None:
        """Let the owner answer a card that asks: ``allow``, ``always`` or ``deny``; ``none`` forgets."""
        self._read(lambda fake, device: fake.devices.consent(device, answer))

    def dismiss(self) -> None:
        """Let the user swipe the newest activity away."""
        self._read(lambda fake, device: fake.devices.dismiss(device.activities[-1]))

    def go_offline(self, seconds: float | None = None) -> None:
        """Take the network away, permanently or for some seconds of the fake's clock."""
        self._read(lambda fake, device: fake.devices.go_offline(device, seconds))

    def go_online(self) -> None:
        """Bring the network back; stored pushes arrive."""
        self.configure(online=True)

    def configure(self, **switches: bool) -> None:
        """Change ``online``, ``awake``, ``low_power``, ``live_activities_enabled``, ``frequent_pushes``."""
        self._read(lambda fake, device: fake.devices.configure(device, switches))

    def kill_token(self, text: str, condition: Fate = "unregistered") -> None:
        """Invalidate a token: ``unregistered`` or ``expired`` (410), or ``silent`` (always 200)."""

        def kill(fake: FakeApns) -> None:
            if (token := fake.devices.token(text)) is None:
                raise FakeError("no phone has such a token")
            fake.devices.kill(token, condition)

        self._running.call(kill)

    def delete_app(self) -> None:
        """Delete the app; its tokens answer 410 Unregistered."""
        self._read(lambda fake, device: fake.devices.delete_app(device))

    def __repr__(self) -> str:
        return f"<phone {self.id}: {self.activities!r}>"


class DeviceBook(Mapping[str, DeviceView]):
    """The phones, found by id or by token."""

    def __init__(self, running: ThreadedFakeApns) -> None:
        self._running = running

    def add(self, device_id: str | None = None, **options: Any) -> DeviceView:
        """Make a phone; options as ``SimulatedPhones.add_device`` (``attributes_types`` ...)."""
        made = self._running.call(lambda fake: fake.devices.add_device(device_id, **options))
        return DeviceView(self._running, made.id)

    def __getitem__(self, key: str) -> DeviceView:
        def find(fake: FakeApns) -> str | None:
            if key in fake.devices.devices:
                return key
            token = fake.devices.token(key)
            return token.device.id if token is not None else None

        if (found := self._running.call(find)) is None:
            raise KeyError(f"no phone has the id or token {key[:16]!r}; phones: {list(self)}")
        return DeviceView(self._running, found)

    def __iter__(self) -> Iterator[str]:
        return iter(self._running.call(lambda fake: list(fake.devices.devices)))

    def __len__(self) -> int:
        return self._running.call(lambda fake: len(fake.devices.devices))

    def __repr__(self) -> str:
        return "\n".join(map(repr, self.values())) or "<no phones>"
