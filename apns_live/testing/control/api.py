"""What each endpoint of the control API does. ``routes`` says which is where."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from apns_live import explain
from apns_live.testing.clock import RealClock, SimulatedClock
from apns_live.testing.fake import FakeApns
from apns_live.testing.faults import Fault
from apns_live.testing.handles.pushes import PUSH_FIELDS, PushView, explain_misfit, fitting
from apns_live.testing.log import LogEntry, PushRecord
from apns_live.testing.phones import Activity, Device, Token

from . import shapes
from .hub import Hub, TooManySubscribersError
from .queries import (
    ACTIVITY_FILTERS,
    LIMIT,
    LOG_FILTERS,
    LONGEST_LIST,
    PUSH_FILTERS,
    TOKEN_FILTERS,
    BadRequestError,
    flag,
    integer,
    matcher,
    page,
    seconds,
)
from .routes import Routes
from .views import (
    activity_row,
    clock_row,
    connection_row,
    counts_row,
    device_row,
    fake_row,
    fault_row,
    log_row,
    push_row,
    token_row,
)

T = TypeVar("T")

LARGEST_BODY = 65_536
LONGEST_POLL = 60.0
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
        raise BadRequestError(str(error), field="body") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequestError(f"the body is no JSON: {error}") from None


def answer(content: object, status: int = 200) -> Response:
    """Return JSON."""
    return Response(msgspec.json.encode(content), status, media_type="application/json")


_DEVICES_QUERY = ("bundle_id", "automatic", "after", "limit")
_ACTIVITIES_QUERY = (*ACTIVITY_FILTERS, "after", "limit")
_TOKENS_QUERY = (*TOKEN_FILTERS, "after", "limit")
_TOKENS_NEXT_QUERY = (*TOKEN_FILTERS, "after", "timeout")
_PUSHES_QUERY = (*PUSH_FILTERS, "after", "limit", "newest", "payload")
_PUSHES_NEXT_QUERY = (*PUSH_FILTERS, "after", "timeout")
_EVENTS_QUERY = ("devices", "pushes", "payload")
route = Routes()


class ControlApi:
    """The endpoints over one fake. All of them run on the fake's event loop."""

    def __init__(self, fake: FakeApns) -> None:
        self.fake = fake
        self.hub = Hub(fake)

    # What runs here.

    @route("GET", "/v1/fake", shapes.FakeRow)
    async def get_fake(self, request: Request) -> object:
        """Say what runs here, with clock and counts."""
        row = fake_row(self.fake, self.hub.started_at)
        row.clock, row.counts = clock_row(self.fake), counts_row(self.fake)
        return row

    @route("GET", "/v1/health", shapes.HealthRow)
    async def health(self, request: Request) -> object:
        """Answer when the fake takes pushes."""
        return shapes.HealthRow()

    @route("GET", "/v1/counts", shapes.CountsRow)
    async def get_counts(self, request: Request) -> object:
        """Count pushes by state and reason."""
        return counts_row(self.fake)

    @route("GET", "/v1/connections", shapes.ConnectionRow, lists=True)
    async def get_connections(self, request: Request) -> object:
        """List open connections and the last closed ones."""
        rows = [connection_row(each) for each in self.fake.connections]
        return {"items": rows, "next": None}

    @route("POST", "/v1/connections/{id}/goaway", dict, shapes.GoAway, 202)
    async def send_goaway(self, request: Request, order: shapes.GoAway) -> object:
        """Send GOAWAY on a connection."""
        number = _number(request.path_params["id"])
        if not self.fake.go_away(order.reason, connection_id=number):
            raise BadRequestError("there is no such open connection", field="id", status=404)
        return {"id": number}

    # Phones.

    @route("GET", "/v1/devices", shapes.DeviceRow, query=_DEVICES_QUERY, lists=True)
    async def list_devices(self, request: Request) -> object:
        """List phones in the order in which they were made."""
        query = request.query_params
        after = integer(query, "after", 0)
        automatic = flag(query, "automatic") if "automatic" in query else None
        bundle_id = query.get("bundle_id")
        found = (
            device
            for device in self.fake.devices.devices.values()
            if device.serial > after
            and automatic in {None, device.automatic}
            and (bundle_id is None or any(t.bundle_id == bundle_id for t in device.tokens))
        )
        devices, more = page(found, _limit(query))
        return {
            "items": [self._device_row(device) for device in devices],
            "next": devices[-1].serial if more else None,
        }

    @route("POST", "/v1/devices", shapes.DeviceRow, shapes.NewDevice, 201)
    async def add_device(self, request: Request, order: shapes.NewDevice) -> object:
        """Make a phone; its tokens are issued at once."""
        values = msgspec.structs.asdict(order)
        device_id = values.pop("id")
        if device_id is not None and not (0 < len(device_id) <= 100 and "/" not in device_id):
            raise BadRequestError("1 to 100 characters, no slash", field="id")
        if device_id is not None and device_id in self.fake.devices.devices:
            raise BadRequestError("there is a phone of that id already", field="id", status=409)
        return self._device_row(self.fake.devices.add_device(device_id, **values))

    @route("GET", "/v1/devices/{id}", shapes.DeviceRow)
    async def get_device(self, request: Request) -> object:
        """Return one phone."""
        return self._device_row(self._device(request))

    @route("PATCH", "/v1/devices/{id}", shapes.DeviceRow, shapes.DeviceChanges)
    async def change_device(self, request: Request, order: shapes.DeviceChanges) -> object:
        """Flip switches of a phone, or take its network away for a while."""
        device = self._device(request)
        values = msgspec.structs.asdict(order)
        offline_for = values.pop("offline_for")
        changes = {name: value for name, value in values.items() if value is not None}
        if changes:
            self.fake.devices.configure(device, changes)
        if offline_for is not None:
            if not 0 < offline_for <= LONGEST_ADVANCE:
                raise BadRequestError("not a number of seconds above 0", field="offline_for")
            self.fake.devices.go_offline(device, offline_for)
        return self._device_row(device)

    @route("DELETE", "/v1/devices/{id}", status=204)
    async def remove_device(self, request: Request) -> object:
        """Delete the app from a phone."""
        self.fake.devices.delete_app(self._device(request))
        return None

    @route("POST", "/v1/devices/{id}/open-app", shapes.DeviceRow, shapes.OpenApp)
    async def open_app(self, request: Request, order: shapes.OpenApp) -> object:
        """Let the user open the app."""
        device = self._device(request)
        self.fake.devices.open_app(device, order.bundle_id, reads_tokens=order.reads_tokens)
        return self._device_row(device)

    @route("POST", "/v1/devices/{id}/consent", shapes.DeviceRow, shapes.Consent)
    async def consent(self, request: Request, order: shapes.Consent) -> object:
        """Let the owner answer a card that asks whether it may be shown and updated."""
        device = self._device(request)
        self.fake.devices.consent(device, order.answer)
        return self._device_row(device)

    # Activities.

    @route("POST", "/v1/devices/{id}/activities", shapes.ActivityRow, shapes.NewActivity, 201)
    async def start_activity(self, request: Request, order: shapes.NewActivity) -> object:
        """Let the app start an activity itself."""
        device = self._device(request)
        activity = self.fake.devices.start_activity(
            device,
            order.attributes_type,
            order.attributes,
            order.content_state,
            bundle_id=order.bundle_id,
            channel=order.channel,
            stale_date=order.stale_date,
        )
        return self._activity_row(activity)

    @route("GET", "/v1/activities", shapes.ActivityRow, query=_ACTIVITIES_QUERY, lists=True)
    async def list_activities(self, request: Request) -> object:
        """List activities."""
        query = request.query_params
        activities = self.fake.devices.activities.values()
        found: Iterator[Activity] = filter(matcher(query, ACTIVITY_FILTERS), activities)
        return self._listed(query, found)

    @route("GET", "/v1/activities/{id}", shapes.ActivityRow)
    async def get_activity(self, request: Request) -> object:
        """Return one activity."""
        return self._activity_row(self._activity(request))

    @route("POST", "/v1/activities/{id}/dismiss", shapes.ActivityRow, shapes.Empty)
    async def dismiss_activity(self, request: Request, _order: shapes.Empty) -> object:
        """Let the user swipe an activity away."""
        activity = self._activity(request)
        self.fake.devices.dismiss(activity)
        return self._activity_row(activity)

    @route("POST", "/v1/activities/{id}/end", shapes.ActivityRow, shapes.EndActivity)
    async def end_activity(self, request: Request, order: shapes.EndActivity) -> object:
        """Let the app end an activity itself."""
        activity = self._activity(request)
        self.fake.devices.end_activity(activity, order.content_state, order.dismissal_date)
        return self._activity_row(activity)

    @route("POST", "/v1/activities/{id}/rotate-token", shapes.ActivityRow, shapes.Empty)
    async def rotate_activity_token(self, request: Request, _order: shapes.Empty) -> object:
        """Give an activity a new token."""
        activity = self._activity(request)
        if activity.token is None or activity.state != "active":
            raise BadRequestError("the activity has no token to rotate", field="id", status=409)
        self.fake.devices.rotate(activity.token)
        return self._activity_row(activity)

    # Tokens.

    @route("GET", "/v1/tokens", shapes.TokenRow, query=_TOKENS_QUERY, lists=True)
    async def list_tokens(self, request: Request) -> object:
        """List the tokens of the phones, the dead ones that are remembered included."""
        query = request.query_params
        tokens = self.fake.devices.registry.tokens.values()
        found: Iterator[Token] = filter(matcher(query, TOKEN_FILTERS), tokens)
        return self._listed(query, found)

    @route("GET", "/v1/tokens/{token}", shapes.TokenRow)
    async def get_token(self, request: Request) -> object:
        """Return one token."""
        return token_row(self._token(request))

    @route("GET", "/v1/tokens/next", shapes.TokenRow, query=_TOKENS_NEXT_QUERY, may_be_empty=True)
    async def next_token(self, request: Request) -> object:
        """Wait for the next token that a phone issues."""
        query = request.query_params
        ring = self.fake.devices.registry.issued
        after = integer(query, "after", ring.total)
        fits = matcher(query, TOKEN_FILTERS)
        timeout = seconds(query, "timeout", 10.0, high=LONGEST_POLL)
        found = await self._next(lambda: filter(fits, ring.after(after)), timeout)
        return None if found is None else token_row(found)

    @route("POST", "/v1/tokens/{token}/kill", shapes.TokenRow, shapes.KillToken)
    async def kill_token(self, request: Request, order: shapes.KillToken) -> object:
        """Let a token die."""
        token = self._token(request)
        self.fake.devices.kill(token, order.condition, order.since)
        return token_row(token)

    @route("POST", "/v1/tokens/{token}/rotate", shapes.TokenRow, shapes.Rotate)
    async def rotate_token(self, request: Request, order: shapes.Rotate) -> object:
        """Issue a new token in the place of one."""
        token = self._token(request)
        return token_row(self.fake.devices.rotate(token, quietly=order.quietly))

    # Pushes and the log.

    @route("GET", "/v1/pushes", shapes.PushRow, query=_PUSHES_QUERY, lists=True)
    async def list_pushes(self, request: Request) -> object:
        """List pushes, the oldest first, or the newest first with ``newest=1``."""
        query = request.query_params
        ring, after = self.fake.log.pushes, integer(query, "after", 0)
        payload = flag(query, "payload")
        fits = matcher(query, PUSH_FILTERS)
        if flag(query, "newest"):
            items: Iterator[PushRecord] = (r for r in reversed(ring) if r.number > after)
        else:
            items = ring.after(after)
        records, more = page(filter(fits, items), _limit(query))
        return {
            "items": [push_row(record, payload=payload) for record in records],
            "next": records[-1].number if more and not flag(query, "newest") else None,
        }

    @route("GET", "/v1/pushes/next", shapes.PushRow, query=_PUSHES_NEXT_QUERY, may_be_empty=True)
    async def next_push(self, request: Request) -> object:
        """Wait for the next push that fits the filters."""
        query = request.query_params
        ring = self.fake.log.pushes
        after = integer(query, "after", ring.total)
        fits = matcher(query, PUSH_FILTERS)
        timeout = seconds(query, "timeout", 10.0, high=LONGEST_POLL)
        found = await self._next(lambda: filter(fits, ring.after(after)), timeout)
        return None if found is None else push_row(found, payload=True)

    @route("GET", "/v1/pushes/{number}", shapes.PushRow)
    async def get_push(self, request: Request) -> object:
        """Return one push with its log."""
        number = _number(request.path_params["number"])
        record = self.fake.log.pushes.get(number)
        if record is None:
            raise BadRequestError("there is no such push, or no longer", field="number", status=404)
        return push_row(record, payload=True, log=self.fake.log.entries_of(number))

    @route("POST", "/v1/pushes/verify", shapes.VerifiedRow, shapes.Verify)
    async def verify(self, request: Request, order: shapes.Verify) -> object:
        """Say whether exactly so many pushes fit, and else which comes closest and how it differs."""
        unknown = set(order.where) - PUSH_FIELDS
        if unknown or not 0 <= order.count <= 1_000_000:
            problem = f"a push has no {', '.join(map(repr, sorted(unknown)))}"[:300]
            remedy = f"Use {', '.join(sorted(PUSH_FIELDS))}."
            if not unknown:
                problem, remedy = "a count is from 0 to 1,000,000", ""
            raise BadRequestError(problem, field="where" if unknown else "count", remedy=remedy)
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

    @route("GET", "/v1/log", shapes.LogRow, query=(*LOG_FILTERS, "after", "limit"), lists=True)
    async def list_log(self, request: Request) -> object:
        """List what became of the pushes, the oldest first."""
        query = request.query_params
        items = self.fake.log.entries.after(integer(query, "after", 0))
        entries: list[LogEntry]
        entries, more = page(filter(matcher(query, LOG_FILTERS), items), _limit(query))
        return {
            "items": [log_row(entry) for entry in entries],
            "next": entries[-1].sequence if more else None,
        }

    @route("GET", "/v1/export/{kind}", dict, media_type="application/x-ndjson")
    async def export(self, request: Request) -> object:
        """Return everything that is kept of one kind as JSON Lines."""
        kinds: dict[str, Callable[[], Iterator[object]]] = {
            "pushes": self._push_lines,
            "log": lambda: (log_row(entry) for entry in self.fake.log.entries),
            "devices": lambda: map(self._device_row, list(self.fake.devices.devices.values())),
        }
        make = kinds.get(request.path_params["kind"])
        if make is None:
            raise BadRequestError("pushes, log or devices", field="kind", status=404)
        return StreamingResponse(_lines(make()), media_type="application/x-ndjson")

    def _push_lines(self) -> Iterator[object]:
        return (push_row(record, payload=True) for record in self.fake.log.pushes)

    # Faults, the clock, everything.

    @route("GET", "/v1/faults", shapes.FaultRow, lists=True)
    async def list_faults(self, request: Request) -> object:
        """List the faults in force."""
        return {"items": [fault_row(each) for each in self.fake.faults], "next": None}

    @route("POST", "/v1/faults", shapes.FaultRow, Fault, 201)
    async def add_fault(self, request: Request, values: dict[str, Any]) -> object:
        """Put a fault in force."""
        if "action" not in values:
            raise BadRequestError("a fault is an object with an action", field="action")
        fault_id = self.fake.fault(**values)
        self.hub.changed()
        return next(fault_row(each) for each in self.fake.faults if each.fault_id == fault_id)

    @route("DELETE", "/v1/faults/{id}", status=204)
    async def remove_fault(self, request: Request) -> object:
        """End a fault."""
        if not self.fake.faults.remove(_number(request.path_params["id"])):
            raise BadRequestError("there is no such fault", field="id", status=404)
        self.hub.changed()
        return None

    @route("DELETE", "/v1/faults", status=204)
    async def remove_faults(self, _request: Request) -> object:
        """End every fault."""
        self.fake.faults.clear()
        self.hub.changed()
        return None

    @route("GET", "/v1/clock", shapes.ClockRow)
    async def get_clock(self, request: Request) -> object:
        """Return the clock."""
        return clock_row(self.fake)

    @route("POST", "/v1/clock/advance", shapes.ClockRow, shapes.Advance)
    async def advance_clock(self, request: Request, order: shapes.Advance) -> object:
        """Move the clock; what falls due happens, in order."""
        if not 0 <= order.seconds <= LONGEST_ADVANCE:
            raise BadRequestError(
                "time only moves forward, 400 days at most at a time", field="seconds"
            )
        if not isinstance(self.fake.clock, RealClock | SimulatedClock):
            raise BadRequestError("this fake's clock cannot be moved", status=409)
        await self.fake.advance(order.seconds, tokens=order.tokens)
        self.hub.changed(phones=True)
        return clock_row(self.fake)

    @route("POST", "/v1/reset", None, shapes.Reset, 204)
    async def reset(self, request: Request, order: shapes.Reset) -> object:
        """Forget phones, pushes and faults, or some of them."""
        if order.devices and order.pushes and order.faults:
            self.fake.reset()
        else:
            if order.devices:
                self.fake.devices.clear()
            if order.pushes:
                self.fake.recorder.clear()
                self.fake.log.clear()
            if order.faults:
                self.fake.faults.clear()
        self.hub.changed()
        return None

    @route("GET", "/v1/events", dict, query=_EVENTS_QUERY, media_type="text/event-stream")
    async def events(self, request: Request) -> object:
        """Stream a snapshot and then what changes, as server-sent events."""
        query = request.query_params
        devices = integer(query, "devices", 500, high=5000)
        pushes = integer(query, "pushes", 200, high=5000)
        payload = flag(query, "payload") if "payload" in query else True
        try:
            self.hub.check_room()
        except TooManySubscribersError:
            raise BadRequestError("too many readers of the event stream", status=429) from None
        stream = self.hub.stream(devices, pushes, payload)
        return StreamingResponse(stream, media_type="text/event-stream")

    @route("GET", "/v1/explain/{word}", shapes.ExplainRow)
    async def explain(self, request: Request) -> object:
        """Say what a word of a push's fate means, whose fault it is, and what to do."""
        found = explain.find(request.path_params["word"])
        if found is None:
            raise BadRequestError("nothing is known of this word", field="word", status=404)
        return shapes.ExplainRow(*found[:-1])

    # Helpers.

    def _device_row(self, device: Device) -> shapes.DeviceRow:
        return device_row(device, self.fake.devices, self.fake.clock.time())

    def _activity_row(self, activity: Activity) -> shapes.ActivityRow:
        return activity_row(activity, self.fake.devices, self.fake.clock.time())

    def _device(self, request: Request) -> Device:
        device = self.fake.devices.devices.get(request.path_params["id"])
        if device is None:
            raise BadRequestError("there is no such phone", field="id", status=404)
        return device

    def _activity(self, request: Request) -> Activity:
        activity = self.fake.devices.activities.get(request.path_params["id"])
        if activity is None:
            raise BadRequestError("there is no such activity", field="id", status=404)
        return activity

    def _token(self, request: Request) -> Token:
        token = self.fake.devices.token(request.path_params["token"])
        if token is None:
            raise BadRequestError("no phone has such a token", field="token", status=404)
        return token

    def _listed(self, query: Mapping[str, str], items: Iterator[Activity | Token]) -> object:
        after, limit = integer(query, "after", 0), _limit(query)
        for _ in range(after):
            if next(items, None) is None:
                break
        found, more = page(items, limit)
        rows = [
            self._activity_row(each) if isinstance(each, Activity) else token_row(each)
            for each in found
        ]
        return {"items": rows, "next": after + limit if more else None}

    async def _next(
        self,
        scan: Callable[[], Iterator[T]],
        timeout: float,  # noqa: ASYNC109
    ) -> T | None:
        # The ring is scanned again as a whole: a push that was stored may fit once it is delivered.
        waiter = self.hub.add_waiter()
        loop = asyncio.get_running_loop()
        give_up = loop.time() + timeout
        try:
            while True:
                found = next(scan(), None)
                if found is not None:
                    return found
                left = give_up - loop.time()
                if left <= 0 or not await self.hub.wait(waiter, left):
                    return None
                await asyncio.sleep(min(_RESCAN, max(0.0, left)))
        finally:
            self.hub.remove_waiter(waiter)


def _limit(query: Mapping[str, str]) -> int:
    return integer(query, "limit", LIMIT, low=1, high=LONGEST_LIST)


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 15:
        raise BadRequestError("not a number", status=404)
    return int(text)


async def _lines(rows: Iterable[object]) -> AsyncIterator[bytes]:
    chunk = []
    for row in rows:
        chunk.append(msgspec.json.encode(row) + b"\n")
        if len(chunk) >= 200:
            yield b"".join(chunk)
            chunk.clear()
            await asyncio.sleep(0)
    yield b"".join(chunk)
