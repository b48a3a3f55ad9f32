"""How iOS handles a Live Activity push that has reached the phone.

The order of the checks is our choice: payload, kind of token, ended, budget, timestamp, content state.
So a push with an old timestamp also counts against the budget. docs/phones.md
has the source of each rule.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

from apns_live.testing import log as words
from apns_live.testing.clock import FakeClock
from apns_live.testing.log import DeliveryLog, PushRecord
from apns_live.testing.state import TokenCondition, TokenStatus

from .decoding import (
    DATA_LIMIT,
    Aps,
    UndecodableError,
    decode_activity,
    has_alert,
    is_object,
    shows_alert,
)
from .model import ENDED_KEPT, Activity, Device, PushToPhone, Refresh, Token
from .registry import Feeds, Registry
from .schedule import Schedule, Sleeper
from .schemas import ContentStateSchemas
from .settings import BEFORE_17_2, OBSERVED, Budget, BudgetLaw, PhoneSettings

PUSH_TO_START = (17, 2)
CHANNELS = (18, 0)
"""First iOS versions, per Apple's "Starting and updating Live Activities ..."."""
REFRESHES = (18, 0)


class ActivityKit(ABC):
    """Starts, updates, ends and ages activities. `SimulatedPhones` says how pushes reach it."""

    def __init__(self, settings: PhoneSettings, clock: FakeClock, log: DeliveryLog) -> None:
        self.settings = settings
        self.log = log
        self.now = clock.time
        self.registry = Registry(settings)
        self.schedule = Schedule(clock, self._wake)
        self.schemas = ContentStateSchemas(settings.schemas)
        self.feeds = Feeds()
        self.watch: Callable[[Device], object] | None = None
        self.channel_exists: Callable[[str, str], bool] = lambda _bundle_id, _channel: True

    def touch(self, device: Device) -> None:
        """Report that a phone's display has changed."""
        if self.watch is not None:
            self.watch(device)

    @abstractmethod
    def join(self, activity: Activity, now: float) -> None:
        """Subscribe an activity to its channel; a stored message arrives at once."""

    @abstractmethod
    def _hold(self, item: PushToPhone, now: float) -> None:
        """Keep a push for the phone's next burst."""

    @abstractmethod
    def _wake(self, who: Sleeper, now: float) -> None:
        """Apply the events of an activity or a phone that are due."""

    # Pushes.

    def take(self, item: PushToPhone, now: float, state: str) -> None:
        """Handle a push for a Live Activity. ``state`` is the log's for one that is shown."""
        record, activity = item.record, item.shown
        try:
            aps = decode_activity(record.push.body)
        except UndecodableError as error:
            self.discard(item, now, words.UNDECODABLE, str(error))
            return
        record.event, record.timestamp = aps.event or "", aps.timestamp
        if problem := _address_problem(aps, activity, item.token):
            self.discard(item, now, *problem)
        elif activity is not None:
            self._change(item, activity, aps, now, state)
        elif item.token is not None:
            self._start(item, item.token, aps, now, state)

    def _change(
        self, item: PushToPhone, activity: Activity, aps: Aps, now: float, state: str
    ) -> None:
        """Apply an update or an end to an activity, if the phone accepts it."""
        record, device, push = item.record, item.device, item.record.push
        law = self.law_of(device)
        ends, timestamp = aps.event == "end", aps.timestamp or 0
        content = bytes(aps.content_state) if is_object(aps.content_state) else b""
        problem: tuple[str, str] | None = None
        if activity.state != "active":
            problem = words.ENDED, f"the activity was ended by the {activity.ended_by}"
        elif (
            push.priority >= 10  # an absent priority counts as 10
            and push.channel_id is None
            and not record.demoted
            and law is not None
            and (budget := self.budget_of(activity)) is not None
            and not budget.spend(now)
            and not (law.exempt_end and ends)
        ):
            if law.demotes:
                record.demoted = True
                self._hold(item, now)
                return
            problem = words.BUDGET, "the hourly budget of priority-10 pushes is spent"
        elif not ends:
            problem = self._time_problem(activity, timestamp, now)
        if not problem and content:
            of_card = activity.attributes_type, activity.attributes
            problem = self._data_problem(device, *of_card, content)
        if problem:
            self.discard(item, now, *problem)
            return
        detail = self._show(activity, content, now, at_once=ends)
        activity.timestamp = max(timestamp, activity.timestamp)
        activity.updated_at = now
        activity.updates += 1
        detail = self._take_appearance(activity, aps, now) or detail
        if record.demoted:
            detail = "delayed: the hourly budget of priority-10 pushes was spent"
        self.note(item, now, state, detail=detail)
        if ends:
            self.end(activity, now, "push", aps.dismissal_date)
        else:
            self.plan(activity)
            self.touch(device)

    def _time_problem(
        self, activity: Activity, timestamp: float, now: float
    ) -> tuple[str, str] | None:
        """Return why an update's timestamp is refused, as (why, detail), or None."""
        held = activity.timestamp
        if timestamp < held or (
            timestamp == held and activity.content and self.settings.equal_timestamp == "discard"
        ):
            return words.OLDER_TIMESTAMP, f"{timestamp:.15g} is not after {held:.15g}"
        if timestamp > now + self.settings.future_limit:
            hours = self.settings.future_limit / 3600
            detail = f"{timestamp:.15g} is more than {hours:g} h ahead of the phone's clock"
            return words.FUTURE_TIMESTAMP, detail
        return None

    def _show(self, activity: Activity, content: bytes, now: float, *, at_once: bool) -> str:
        """Show a content state, at once or with the next refresh. Return the detail for the log."""
        interval = self.settings.refresh_interval
        if not interval or activity.device.os_version < REFRESHES:
            activity.content = content or activity.content
            return ""
        if activity.refresh is None:
            activity.refresh = Refresh(activity.started_at)
        refresh = activity.refresh
        newest = content or refresh.content or activity.content
        if not at_once and now < refresh.at + interval:
            refresh.content, refresh.due = newest, refresh.at + interval
            return f"shown with the next refresh, in {refresh.due - now:.3g} s"
        activity.content, activity.refresh = newest, Refresh(now)
        return ""

    def note(
        self, item: PushToPhone, now: float, state: str, why: str = "", detail: str = ""
    ) -> None:
        """Record that a push changed its state on the way to its phone."""
        shown = item.shown
        activity_id = shown.id if shown is not None else ""
        self.log.note(item.record, now, state, item.device.id, activity_id, why, detail)

    def discard(self, item: PushToPhone, now: float, why: str, detail: str = "") -> None:
        """Record that a push changed nothing."""
        if item.shown is not None:
            item.shown.ignored += 1
        self.note(item, now, words.DISCARDED, why, detail)
        self.touch(item.device)

    def _start(self, item: PushToPhone, token: Token, aps: Aps, now: float, state: str) -> None:
        record, device = item.record, item.device
        if refusal := self._start_refusal(record, token, aps, now):
            self.discard(item, now, *refusal)
            return
        data = bytes(aps.attributes), bytes(aps.content_state)
        activity = self.begin(device, token.bundle_id, aps.attributes_type or "", *data, now)
        activity.timestamp = aps.timestamp or 0
        activity.collapse_id = record.push.collapse_id
        detail = self._take_appearance(activity, aps, now)
        self.log.note(record, now, state, device.id, activity.id, detail=detail)
        if aps.input_push_channel:
            activity.channel = aps.input_push_channel
        elif device.os_version < CHANNELS or aps.input_push_token in {1, "1"}:
            self._ask(activity, now)
        token.attributes_type = token.attributes_type or aps.attributes_type
        rate, draw = self.settings.rotate_start_token, self.settings.draw
        if rate and not token.automatic and draw("rotate", device.id, device.starts) < rate:
            self.replace_token(token, now)
        self.plan(activity)
        if activity.channel:
            self.join(activity, now)
        self.touch(device)

    def _start_refusal(
        self, record: PushRecord, token: Token, aps: Aps, now: float
    ) -> tuple[str, str] | None:
        """Return why a start shows nothing, as (why, detail)."""
        device, bundle_id = token.device, token.bundle_id
        if not has_alert(aps):
            return words.NO_ALERT, "Received start without an alert configuration"
        if not device.live_activities_enabled:
            return words.DISABLED, "Live Activities are switched off"
        if device.consent == "deny":
            return words.DENIED, "the owner answered Don't Allow to this app's Live Activities"
        if device.os_version < PUSH_TO_START:
            return words.DISABLED, "push-to-start needs iOS 17.2"
        if device.low_power:
            return words.LOW_POWER, "in Low Power Mode nothing is started"
        if token.attributes_type is not None and aps.attributes_type != token.attributes_type:
            asked = str(aps.attributes_type)[:80]
            return words.WRONG_TOKEN, f"the token is for {token.attributes_type}, not {asked}"
        data = bytes(aps.attributes), bytes(aps.content_state)
        if problem := self._data_problem(device, aps.attributes_type, *data):
            return problem
        channel = aps.input_push_channel
        if channel and device.os_version < CHANNELS:
            return words.CHANNEL, "input-push-channel needs iOS 18"
        if channel and not self.channel_exists(bundle_id, channel):
            return words.CHANNEL, "there is no such channel"
        collapse_id = record.push.collapse_id
        running = [activity for activity in device.activities if activity.state == "active"]
        if collapse_id and any(
            activity.collapse_id == collapse_id and activity.bundle_id == bundle_id
            for activity in running
        ):
            return words.COLLAPSED, "an activity with this collapse id is running"
        budget = self.start_budget_of(device, bundle_id)
        if budget is not None and not budget.spend(now):
            kind = aps.attributes_type
            return words.START_BUDGET, f"Push-to-start budget exceeded for {kind}; not starting"
        of_app = sum(activity.bundle_id == bundle_id for activity in running)
        if of_app >= self.settings.app_limit:
            return words.LIMIT, f"the app has {of_app} activities running"
        if len(running) >= self.settings.device_limit:
            return words.LIMIT, f"{device.id} has {len(running)} activities running"
        return None

    def _data_problem(
        self, device: Device, attributes_type: str | None, attributes: bytes, content: bytes
    ) -> tuple[str, str] | None:
        if (size := len(attributes) + len(content)) > DATA_LIMIT:
            return words.TOO_LARGE, f"attributes and content state are {size} bytes, over 4096"
        if len(self.schemas):
            named = attributes_type, attributes, content
            if problem := self.schemas.problem(*named, device.app_version):
                return words.UNDECODABLE, problem
        return None

    @staticmethod
    def _take_appearance(activity: Activity, aps: Aps, now: float) -> str:
        activity.stale_date = aps.stale_date
        activity.stale = aps.stale_date is not None and aps.stale_date <= now
        activity.relevance_score = aps.relevance_score
        if not has_alert(aps):
            return ""
        if not shows_alert(aps):
            return "the alert has no title: nothing is announced, and no sound is played"
        activity.alert, activity.alerted_at = bytes(aps.alert), now
        activity.alerts += 1
        return ""

    # Budgets.

    def law_of(self, device: Device) -> BudgetLaw | None:
        """Return the budget rule for priority-10 pushes on a phone."""
        law = self.settings.budget
        return BEFORE_17_2 if law == OBSERVED and device.os_version < PUSH_TO_START else law

    def budget_of(self, activity: Activity) -> Budget | None:
        """Return the budget that counts an activity's pushes; None if pushes have no budget."""
        device = activity.device
        if (law := self.law_of(device)) is None:
            return None
        budgets = device.budgets = device.budgets or {}
        key = ("pushes", activity.bundle_id if law.pooled else activity.id)
        if key not in budgets:
            budgets[key] = Budget(self.capacity_of(activity, law), law.window, law.kind)
        return budgets[key]

    def capacity_of(self, activity: Activity, law: BudgetLaw) -> int:
        """Return how many priority-10 pushes an activity, or its app, may have in each window."""
        device = activity.device
        capacity = law.frequent_capacity if device.frequent_pushes else law.capacity
        if isinstance(capacity, int):
            return capacity
        low, high = capacity
        who = f"{device.id} {activity.bundle_id}" if law.pooled else activity.id
        return low + int((high - low + 1) * self.settings.draw("budget", who))

    def start_budget_of(self, device: Device, bundle_id: str) -> Budget | None:
        """Return the push-to-start budget of an app on a phone; None if starts have no budget."""
        if (law := self.settings.start_budget) is None:
            return None
        budgets = device.budgets = device.budgets or {}
        full = Budget(law.capacity, law.window, counts_refused=True)
        return budgets.setdefault(("starts", bundle_id), full)

    # The life of an activity.

    def begin(
        self,
        device: Device,
        bundle_id: str,
        attributes_type: str | None,
        attributes: bytes,
        content: bytes,
        now: float,
    ) -> Activity:
        """Create an activity on a phone."""
        device.starts += 1
        who = f"{device.id}\0{bundle_id}"
        activity = Activity(
            id=f"a-{self.settings.short_id('activity', who, device.starts)}",
            device=device,
            bundle_id=bundle_id,
            attributes_type=attributes_type,
            attributes=attributes,
            content=content,
            started_at=now,
            updated_at=now,
            ends_at=now + self.settings.active_for,
        )
        device.activities.append(activity)
        self.registry.activities[activity.id] = activity
        return activity

    def end(
        self, activity: Activity, now: float, ended_by: str, dismissal_date: float | None = None
    ) -> None:
        """End an activity. It stays on the Lock Screen until its dismissal date, at most 4 hours."""
        if activity.state != "active":
            return
        latest = now + self.settings.shown_after_end
        activity.state, activity.ended_at, activity.ended_by = "ended", now, ended_by
        activity.dismissal_date = latest if dismissal_date is None else min(dismissal_date, latest)
        activity.token_due = activity.rotate_at = None
        activity.asks = False
        if activity.refresh is not None:
            activity.content = activity.refresh.content or activity.content
            activity.refresh = None
        if activity.device.budgets:
            activity.device.budgets.pop(("pushes", activity.id), None)
        self.feeds.leave(activity)
        if (law := self.settings.after_end) == "410":
            activity.expires_at = now
        elif law == "8 hours":
            activity.expires_at = activity.started_at + self.settings.active_for
        self.wake(activity, now)

    def wake(self, activity: Activity, now: float) -> None:
        """Apply the events of an activity that are due at ``now``."""
        device = activity.device
        if device.removed:
            return
        if activity.token_due is not None and activity.token_due <= now:
            activity.asks = False
            self.issue_token(activity, now)
        refresh = activity.refresh
        if refresh is not None and refresh.due is not None and refresh.due <= now:
            activity.content, activity.refresh = refresh.content, Refresh(now)
        if activity.rotate_at is not None and activity.rotate_at <= now and activity.token:
            self.replace_token(activity.token, now)
        if activity.state == "active":
            if activity.stale_date is not None and activity.stale_date <= now:
                activity.stale = True
            if activity.ends_at <= now:
                self.end(activity, now, "system")
                return
        if activity.state == "ended" and (activity.dismissal_date or 0) <= now:
            activity.state = "dismissed"
            self._prune(device)
        if activity.expires_at is not None and activity.expires_at <= now:
            activity.expires_at = None
            if activity.token is not None:
                activity.token.status = TokenStatus(TokenCondition.EXPIRED, int(now * 1000))
                self.registry.bury(activity.token)
        self.plan(activity)
        self.touch(device)

    def _prune(self, device: Device) -> None:
        gone = [activity for activity in device.activities if activity.state == "dismissed"]
        for activity in gone[:-ENDED_KEPT]:
            device.activities.remove(activity)
            self.registry.activities.pop(activity.id, None)
            if activity.token is not None:
                activity.token.activity = None
                if activity.expires_at is None and activity.token in device.tokens:
                    self.registry.bury(activity.token)

    def plan(self, activity: Activity) -> None:
        """Schedule the next event of an activity."""
        if (due := activity.next_due()) is not None:
            self.schedule.add(activity, due)

    # Tokens.

    def _ask(self, activity: Activity, now: float) -> None:
        """Ask the owner whether a card that was started by push may be updated."""
        settings, consent = self.settings, activity.device.consent
        if consent == "always":
            self._promise_token(activity, now)
            return
        activity.asks = True
        if consent == "allow":
            bounds = settings.consent_delay
            activity.token_due = now + settings.draw_between("consent", activity.id, bounds)

    def _promise_token(self, activity: Activity, now: float) -> None:
        settings = self.settings
        never = settings.token_never
        if never and settings.draw("token never", activity.id) < never:
            return
        if (delay := settings.draw_between("token delay", activity.id, settings.token_delay)) > 0:
            activity.token_due = now + delay
        else:
            self.issue_token(activity, now)

    def issue_token(self, activity: Activity, now: float) -> None:
        """Give an activity its token, or a new one."""
        activity.token_due = None
        self.registry.issue(
            "activity",
            activity.bundle_id,
            activity.device,
            attributes_type=activity.attributes_type,
            activity=activity,
        )
        if self.settings.rotate_activity_token is not None:
            activity.rotate_at = now + self.settings.rotate_activity_token

    def replace_token(self, token: Token, now: float, *, quietly: bool = False) -> Token:
        """Replace a token. APNs still answers 200 for the old one, and the phone shows nothing.

        ``quietly`` hides the new token from the app's token stream; the app finds it when it is opened.
        """
        token.silent = True
        self.registry.bury(token)
        if (activity := token.activity) is not None:
            self.issue_token(activity, now)
            self.plan(activity)
            return activity.token or token
        silent = self.settings.silent_stream
        if silent and token.kind == "start" and not quietly:
            quietly = self.settings.draw("stream", token.device.id, token.device.starts) < silent
        return self.registry.issue(
            token.kind,
            token.bundle_id,
            token.device,
            attributes_type=token.attributes_type,
            nth=token.device.starts + 1,
            told=not quietly,
        )


def _address_problem(
    aps: Aps, activity: Activity | None, token: Token | None
) -> tuple[str, str] | None:
    """Return why a push has the wrong kind of token, as (why, detail). None is a broadcast's token."""
    if aps.event == "start":
        if token is None:
            return words.WRONG_TOKEN, "a start cannot be broadcast"
        if token.kind != "start":
            detail = "a start goes to a push-to-start token; this one belongs to an activity"
            return words.WRONG_TOKEN, detail
    elif token is not None and token.kind == "start":
        detail = f"an {aps.event} goes to an activity token; this one is a push-to-start token"
        if token.attributes_type is not None:
            detail += f" of {token.attributes_type}"
        return words.WRONG_TOKEN, detail
    elif activity is None:
        return words.ENDED, "the activity is gone"
    return None
