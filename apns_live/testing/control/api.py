"""The handlers of the control API."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from itertools import islice
from operator import attrgetter
from typing import Any, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import StreamingResponse

from apns_live import explain
from apns_live.testing.channels import Channel
from apns_live.testing.clock import RealClock, SimulatedClock
from apns_live.testing.fake import FakeApns
from apns_live.testing.faults import ActiveFault, Fault
from apns_live.testing.handles.pushes import PUSH_FIELDS, PushView, explain_misfit, fitting
from apns_live.testing.log import LogEntry, PushRecord
from apns_live.testing.namespaces import Namespace
from apns_live.testing.phones import Activity, Device, Token
from apns_live.testing.recorder import Ring

from ...misfits import misfit
from . import queries, shapes, views
from .hub import Hub, TooManySubscribersError
from .queries import LONGEST_LIST, BadRequestError, Page, matcher
from .routes import Routes

T = TypeVar("T")

LARGEST_BODY = 65_536
LONGEST_ADVANCE = 400 * 86_400.0
_RESCAN = 0.02


async def read_body(request: Request, shape: type[T]) -> T:
    """Return the body as ``shape``. Raises ``BadRequestError``."""
    data = b""
    async for chunk in request.stream():
        data += chunk
        if len(data) > LARGEST_BODY:
            raise BadRequestError(f"the body is over {LARGEST_BODY} bytes", status=413)
    try:
        return msgspec.json.decode(data or b"{}", type=shape)
    except msgspec.ValidationError as error:
        found = misfit(error)
        raise BadRequestError(
            found.problem, field=found.field or "body", remedy=found.remedy
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequestError(f"the body is not valid JSON: {error}") from None


route = Routes()


class ControlApi:
    """The endpoints over one fake, or one of its namespaces. All of them run on the fake's event loop."""

    def __init__(self, fake: FakeApns | Namespace) -> None:
        self.fake = fake
        self.hub = Hub(fake)
        self._within: dict[str, ControlApi] = {}

    def within(self, name: str) -> ControlApi:
        """Return the endpoints over a namespace. Raises ``BadRequestError`` when it is not there."""
        if name not in self.fake.namespaces:
            raise BadRequestError("there is no such namespace", field="namespace", status=404)
        space, known = self.fake.namespaces[name], self._within.get(name)
        if known is None or known.fake is not space:
            there = self.fake.namespaces
            self._within = {each: api for each, api in self._within.items() if each in there}
            known = self._within[name] = ControlApi(space)
        return known

    def close(self) -> None:
        """End every stream and long poll."""
        for each in (self, *self._within.values()):
            each.hub.close()

    def found(self, name: str, path: Mapping[str, str]) -> object:
        """Return what a path names. Raises ``BadRequestError`` when it is not there."""
        phones = self.fake.devices
        word = next(iter(path.values()))
        found: object
        if name == "device":
            found, problem = phones.devices.get(word), "there is no such phone"
        elif name == "activity":
            found, problem = phones.activities.get(word), "there is no such activity"
        elif name == "token":
            found, problem = phones.token(word), "no phone has such a token"
        elif name == "number":
            is_number = word.isascii() and word.isdigit() and len(word) <= 15
            found, problem = int(word) if is_number else None, "not a number"
        else:
            return word
        if found is None:
            raise BadRequestError(problem, field=next(iter(path)), status=404)
        return found

    def shown(self, thing: object) -> object:
        """Return what is sent of a result."""
        phones, now = self.fake.devices, self.fake.clock.time()
        if isinstance(thing, Page):
            return {"items": [self.shown(each) for each in thing.items], "next": thing.next}
        if isinstance(thing, Device):
            return views.device_row(thing, phones, now)
        if isinstance(thing, Activity):
            return views.activity_row(thing, phones, now)
        if isinstance(thing, Token):
            return views.token_row(thing)
        if isinstance(thing, PushRecord):
            return views.push_row(thing, payload=True)
        if isinstance(thing, LogEntry):
            return views.log_row(thing)
        return views.fault_row(thing) if isinstance(thing, ActiveFault) else thing

    # What runs here.

    @route("GET", "/v1/fake", shapes.FakeRow)
    def get_fake(self) -> object:
        """Say what runs here, with clock and counts."""
        row = views.fake_row(self.fake, self.hub.started_at)
        row.clock, row.counts = views.clock_row(self.fake), views.counts_row(self.fake)
        return row

    @route("GET", "/v1/health", shapes.HealthRow)
    def health(self) -> object:
        """Answer when the fake takes pushes."""
        return shapes.HealthRow()

    @route("GET", "/v1/counts", shapes.CountsRow)
    def get_counts(self) -> object:
        """Count pushes by state and reason."""
        return views.counts_row(self.fake)

    @route("GET", "/v1/connections", shapes.ConnectionRow, lists=True)
    def get_connections(self) -> object:
        """List open connections and the last closed ones."""
        return Page([views.connection_row(each) for each in self.fake.connections], None)

    @route("POST", "/v1/connections/{id}/goaway", dict, shapes.GoAway, 202)
    def send_goaway(self, number: int, order: shapes.GoAway) -> object:
        """Send GOAWAY on a connection."""
        if not self.fake.go_away(order.reason, connection_id=number):
            raise BadRequestError("there is no such open connection", field="id", status=404)
        return {"id": number}

    # Namespaces, each with these same endpoints below its own path.

    @route("GET", "/v1/namespaces", shapes.NamespaceRow, lists=True)
    def list_namespaces(self) -> object:
        """List the namespaces."""
        return Page([shapes.NamespaceRow.of(each) for each in self.fake.namespaces], None)

    @route("POST", "/v1/namespaces", shapes.NamespaceRow, shapes.NewNamespace, 201)
    def add_namespace(self, order: shapes.NewNamespace) -> object:
        """Make a namespace: its path before those of this API makes them its own."""
        if order.name in self.fake.namespaces:
            raise BadRequestError("there is one of that name already", field="name", status=409)
        return shapes.NamespaceRow.of(self.fake.namespaces.add(order.name))

    @route("DELETE", "/v1/namespaces/{name}", status=204)
    def remove_namespace(self, name: str) -> None:
        """Forget a namespace with its phones, tokens, channels, faults and pushes."""
        self.within(name).hub.close()
        del self._within[name]
        self.fake.namespaces.remove(name)

    # Phones.

    @route("GET", "/v1/devices", shapes.DeviceRow, query=queries.DevicesQuery, lists=True)
    def list_devices(self, query: queries.DevicesQuery) -> object:
        """List phones in the order in which they were made."""
        wanted = query.bundle_id
        found = (
            device
            for device in self.fake.devices.devices.values()
            if device.serial > query.after
            and query.automatic in {None, device.automatic}
            and (wanted is None or any(t.bundle_id == wanted for t in device.tokens))
        )
        return Page.of(found, query.limit, attrgetter("serial"))

    @route("POST", "/v1/devices", shapes.DeviceRow, shapes.NewDevice, 201)
    def add_device(self, order: shapes.NewDevice) -> object:
        """Make a phone; its tokens are issued at once."""
        values = msgspec.structs.asdict(order)
        device_id = values.pop("id")
        if device_id is not None and not (0 < len(device_id) <= 100 and "/" not in device_id):
            raise BadRequestError("1 to 100 characters, no slash", field="id")
        if device_id is not None and device_id in self.fake.devices.devices:
            raise BadRequestError("there is a phone of that id already", field="id", status=409)
        return self.fake.devices.add_device(device_id, **values)

    @route("GET", "/v1/devices/{id}", shapes.DeviceRow)
    def get_device(self, device: Device) -> object:
        """Return one phone."""
        return device

    @route("PATCH", "/v1/devices/{id}", shapes.DeviceRow, shapes.DeviceChanges)
    def change_device(self, device: Device, order: shapes.DeviceChanges) -> object:
        """Flip switches of a phone, or take its network away for a while."""
        values = msgspec.structs.asdict(order)
        offline_for = values.pop("offline_for")
        changes = {name: value for name, value in values.items() if value is not None}
        if changes:
            self.fake.devices.configure(device, changes)
        if offline_for is not None:
            if not 0 < offline_for <= LONGEST_ADVANCE:
                raise BadRequestError("not a number of seconds above 0", field="offline_for")
            self.fake.devices.go_offline(device, offline_for)
        return device

    @route("DELETE", "/v1/devices/{id}", status=204)
    def remove_device(self, device: Device) -> None:
        """Delete the app from a phone."""
        self.fake.devices.delete_app(device)

    @route("POST", "/v1/devices/{id}/open-app", shapes.DeviceRow, shapes.OpenApp)
    def open_app(self, device: Device, order: shapes.OpenApp) -> object:
        """Let the user open the app."""
        self.fake.devices.open_app(device, order.bundle_id, reads_tokens=order.reads_tokens)
        return device

    @route("POST", "/v1/devices/{id}/consent", shapes.DeviceRow, shapes.Consent)
    def consent(self, device: Device, order: shapes.Consent) -> object:
        """Let the owner answer a card that asks whether it may be shown and updated."""
        self.fake.devices.consent(device, order.answer)
        return device

    # Activities.

    @route("POST", "/v1/devices/{id}/activities", shapes.ActivityRow, shapes.NewActivity, 201)
    def start_activity(self, device: Device, order: shapes.NewActivity) -> object:
        """Let the app start an activity itself."""
        return self.fake.devices.start_activity(device, **msgspec.structs.asdict(order))

    @route("GET", "/v1/activities", shapes.ActivityRow, query=queries.ActivitiesQuery, lists=True)
    def list_activities(self, query: Any) -> object:
        """List activities."""
        activities = self.fake.devices.activities.values()
        return _listed(query, filter(matcher(query, queries.ACTIVITY_FILTERS), activities))

    @route("GET", "/v1/activities/{id}", shapes.ActivityRow)
    def get_activity(self, activity: Activity) -> object:
        """Return one activity."""
        return activity

    @route("POST", "/v1/activities/{id}/dismiss", shapes.ActivityRow, shapes.Empty)
    def dismiss_activity(self, activity: Activity) -> object:
        """Let the user swipe an activity away."""
        self.fake.devices.dismiss(activity)
        return activity

    @route("POST", "/v1/activities/{id}/end", shapes.ActivityRow, shapes.EndActivity)
    def end_activity(self, activity: Activity, order: shapes.EndActivity) -> object:
        """Let the app end an activity itself."""
        self.fake.devices.end_activity(activity, order.content_state, order.dismissal_date)
        return activity

    @route("POST", "/v1/activities/{id}/rotate-token", shapes.ActivityRow, shapes.Empty)
    def rotate_activity_token(self, activity: Activity) -> object:
        """Give an activity a new token."""
        if activity.token is None or activity.state != "active":
            raise BadRequestError("the activity has no token to rotate", field="id", status=409)
        self.fake.devices.rotate(activity.token)
        return activity

    # Tokens.

    @route("GET", "/v1/tokens", shapes.TokenRow, query=queries.TokensQuery, lists=True)
    def list_tokens(self, query: Any) -> object:
        """List the tokens of the phones, the dead ones that are remembered included."""
        tokens = self.fake.devices.registry.tokens.values()
        return _listed(query, filter(matcher(query, queries.TOKEN_FILTERS), tokens))

    @route("POST", "/v1/tokens", shapes.TokenRow, shapes.NewToken, 201)
    def adopt_token(self, order: shapes.NewToken) -> object:
        """Give a phone to a token of your own, so that pushes to it are found here."""
        return self.fake.namespaces.adopt(self.fake, order.token)

    @route("GET", "/v1/tokens/{token}", shapes.TokenRow)
    def get_token(self, token: Token) -> object:
        """Return one token."""
        return token

    @route(
        "GET", "/v1/tokens/next", shapes.TokenRow, query=queries.NextTokenQuery, may_be_empty=True
    )
    async def next_token(self, query: Any) -> object:
        """Wait for the next token that a phone issues."""
        return await self._next(query, self.fake.devices.registry.issued, queries.TOKEN_FILTERS)

    @route("POST", "/v1/tokens/{token}/kill", shapes.TokenRow, shapes.KillToken)
    def kill_token(self, token: Token, order: shapes.KillToken) -> object:
        """Let a token die."""
        self.fake.devices.kill(token, order.condition, order.since)
        return token

    @route("POST", "/v1/tokens/{token}/rotate", shapes.TokenRow, shapes.Rotate)
    def rotate_token(self, token: Token, order: shapes.Rotate) -> object:
        """Issue a new token in the place of one."""
        return self.fake.devices.rotate(token, quietly=order.quietly)

    # Pushes and the log.

    @route("GET", "/v1/pushes", shapes.PushRow, query=queries.PushesQuery, lists=True)
    def list_pushes(self, query: Any) -> object:
        """List pushes, the oldest first, or the newest first with ``newest=1``."""
        ring = self.fake.log.pushes
        newest = (record for record in reversed(ring) if record.number > query.after)
        items: Iterator[PushRecord] = newest if query.newest else ring.after(query.after)
        fitting = filter(matcher(query, queries.PUSH_FILTERS), items)
        page = Page.of(fitting, query.limit, attrgetter("number"))
        rows = [views.push_row(record, payload=query.payload) for record in page.items]
        return Page(rows, None if query.newest else page.next)

    @route("GET", "/v1/pushes/next", shapes.PushRow, query=queries.NextPushQuery, may_be_empty=True)
    async def next_push(self, query: Any) -> object:
        """Wait for the next push that fits the filters."""
        return await self._next(query, self.fake.log.pushes, queries.PUSH_FILTERS)

    @route("GET", "/v1/pushes/{number}", shapes.PushRow)
    def get_push(self, number: int) -> object:
        """Return one push with its log."""
        record = self.fake.log.pushes.get(number)
        if record is None:
            raise BadRequestError("there is no such push, or no longer", field="number", status=404)
        return views.push_row(record, payload=True, log=self.fake.log.entries_of(number))

    @route("POST", "/v1/pushes/verify", shapes.VerifiedRow, shapes.Verify)
    def verify(self, order: shapes.Verify) -> object:
        """Say whether exactly so many pushes fit, and else which comes closest and how it differs."""
        unknown = set(order.where) - PUSH_FIELDS
        if unknown:
            problem = f"a push has no {', '.join(map(repr, sorted(unknown)))}"[:300]
            remedy = f"Use {', '.join(sorted(PUSH_FIELDS))}."
            raise BadRequestError(problem, field="where", remedy=remedy)
        pushes = [PushView(record) for record in self.fake.log.pushes.after(max(0, order.after))]
        fit, closest, different = fitting(pushes, order.where)
        ok = len(fit) == order.count
        return shapes.VerifiedRow(
            ok,
            order.count,
            len(fit),
            [push.number for push in fit[:LONGEST_LIST]],
            None if ok or closest is None else closest.number,
            [] if ok else [shapes.DifferenceRow(*each) for each in different],
            "" if ok else explain_misfit(fit, pushes, order.where, order.count),
        )

    @route("GET", "/v1/log", shapes.LogRow, query=queries.LogQuery, lists=True)
    def list_log(self, query: Any) -> object:
        """List what became of the pushes, the oldest first."""
        items = self.fake.log.entries.after(query.after)
        entries = filter(matcher(query, queries.LOG_FILTERS), items)
        return Page.of(entries, query.limit, attrgetter("sequence"))

    @route("GET", "/v1/export/{kind}", dict, media_type="application/x-ndjson")
    def export(self, kind: str) -> object:
        """Return everything that is kept of one kind as JSON Lines."""
        kinds: dict[str, Callable[[], Iterable[object]]] = {
            "pushes": lambda: self.fake.log.pushes,
            "log": lambda: self.fake.log.entries,
            "devices": lambda: list(self.fake.devices.devices.values()),
        }
        if kind not in kinds:
            raise BadRequestError("pushes, log or devices", field="kind", status=404)
        lines = _lines(map(self.shown, kinds[kind]()))
        return StreamingResponse(lines, media_type="application/x-ndjson")

    # Channels, faults, the clock, everything.

    @route("POST", "/v1/channels", Channel, shapes.NewChannel, 201)
    def add_channel(self, order: shapes.NewChannel) -> object:
        """Create a broadcast channel."""
        if order.bundle_id not in {None, *self.fake.state.apps}:
            raise BadRequestError("there is no such app", field="bundle_id", status=404)
        return self.fake.add_channel(order.storage_policy, bundle_id=order.bundle_id)

    @route("GET", "/v1/faults", shapes.FaultRow, lists=True)
    def list_faults(self) -> object:
        """List the faults in force."""
        return Page(list(self.fake.faults), None)

    @route("POST", "/v1/faults", shapes.FaultRow, Fault, 201)
    def add_fault(self, order: dict[str, Any]) -> object:
        """Put a fault in force."""
        if "action" not in order:
            raise BadRequestError("a fault is an object with an action", field="action")
        fault_id = self.fake.fault(**order)
        self.hub.changed()
        return next(each for each in self.fake.faults if each.fault_id == fault_id)

    @route("DELETE", "/v1/faults/{id}", status=204)
    def remove_fault(self, number: int) -> None:
        """End a fault."""
        if not self.fake.faults.remove(number):
            raise BadRequestError("there is no such fault", field="id", status=404)
        self.hub.changed()

    @route("DELETE", "/v1/faults", status=204)
    def remove_faults(self) -> None:
        """End every fault."""
        self.fake.faults.clear()
        self.hub.changed()

    @route("GET", "/v1/clock", shapes.ClockRow)
    def get_clock(self) -> object:
        """Return the clock."""
        return views.clock_row(self.fake)

    @route("POST", "/v1/clock/advance", shapes.ClockRow, shapes.Advance)
    async def advance_clock(self, order: shapes.Advance) -> object:
        """Move the clock; what falls due happens, in order."""
        if not 0 <= order.seconds <= LONGEST_ADVANCE:
            raise BadRequestError(
                "time only moves forward, 400 days at most at a time", field="seconds"
            )
        if not isinstance(self.fake.clock, RealClock | SimulatedClock):
            raise BadRequestError("this fake's clock cannot be moved", status=409)
        await self.fake.advance(order.seconds, tokens=order.tokens)
        self.hub.changed(phones=True)
        return views.clock_row(self.fake)

    @route("POST", "/v1/reset", None, shapes.Reset, 204)
    def reset(self, order: shapes.Reset) -> None:
        """Forget phones, pushes and faults, or some of them."""
        self.fake.reset(**msgspec.structs.asdict(order))
        self.hub.changed()

    @route("GET", "/v1/events", dict, query=queries.EventsQuery, media_type="text/event-stream")
    def events(self, query: queries.EventsQuery) -> object:
        """Stream a snapshot and then what changes, as server-sent events."""
        try:
            self.hub.check_room()
        except TooManySubscribersError:
            raise BadRequestError("too many readers of the event stream", status=429) from None
        stream = self.hub.stream(query.devices, query.pushes, query.payload)
        return StreamingResponse(stream, media_type="text/event-stream")

    @route("GET", "/v1/explain/{word}", shapes.ExplainRow)
    def explain(self, word: str) -> object:
        """Say what a word of a push's fate means, whose fault it is, and what to do."""
        found = explain.find(word)
        if found is None:
            raise BadRequestError("nothing is known of this word", field="word", status=404)
        return shapes.ExplainRow(*found[:-1])

    async def _next(
        self, query: Any, ring: Ring[T], filters: Mapping[str, Callable[[T], object]]
    ) -> T | None:
        # The ring is scanned again as a whole: a push that was stored may fit once it is delivered.
        after = ring.total if query.after is None else query.after
        fits = matcher(query, filters)
        waiter = self.hub.add_waiter()
        loop = asyncio.get_running_loop()
        give_up = loop.time() + query.timeout
        try:
            while True:
                found = next(filter(fits, ring.after(after)), None)
                if found is not None:
                    return found
                left = give_up - loop.time()
                if left <= 0 or not await self.hub.wait(waiter, left):
                    return None
                await asyncio.sleep(min(_RESCAN, max(0.0, left)))
        finally:
            self.hub.remove_waiter(waiter)


def _listed(query: Any, items: Iterator[T]) -> Page:
    """Return a page of what has no number of its own: counted from the beginning."""
    rest = islice(items, query.after, None)
    return Page.of(rest, query.limit, lambda _: query.after + query.limit)


async def _lines(rows: Iterable[object]) -> AsyncIterator[bytes]:
    chunk = []
    for row in rows:
        chunk.append(msgspec.json.encode(row) + b"\n")
        if len(chunk) >= 200:
            yield b"".join(chunk)
            chunk.clear()
            await asyncio.sleep(0)
    yield b"".join(chunk)
