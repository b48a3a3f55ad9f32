"""The endpoints of the control API."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from itertools import islice
from operator import attrgetter
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta
from starlette.responses import StreamingResponse

from apns_live import explain
from apns_live.testing.channels import Channel
from apns_live.testing.clock import RealClock, SimulatedClock
from apns_live.testing.faults import Fault
from apns_live.testing.handles.pushes import PUSH_FIELDS, PushView, explain_misfit, fitting
from apns_live.testing.log import Ring
from apns_live.testing.phones import Activity, Device, SimulatedPhones
from apns_live.testing.phones.population import SWITCHES

from . import rows
from .hub import Hub
from .routes import BadRequestError, Filters, Fits, Routes

T = TypeVar("T")

LONGEST_ADVANCE = 400 * 86_400.0
LONGEST_LIST = 1000
LONGEST_POLL = 60.0
_RESCAN = 0.02

After = Annotated[int, Meta(ge=0, le=10**15)]
Limit = Annotated[int, Meta(ge=1, le=LONGEST_LIST)]
Most = Annotated[int, Meta(ge=0, le=5000)]
Timeout = Annotated[float, Meta(ge=0, le=LONGEST_POLL)]


def _filters(own: str, **more: str | Callable[[Any], object]) -> Filters:
    """Return filters by attribute; ``more`` maps names to an attribute's path or a function."""
    paths = dict.fromkeys(own.split()) | more
    return {
        name: read if callable(read) else attrgetter(read or name) for name, read in paths.items()
    }


PUSHES = _filters(
    "token device activity channel event push_type status reason state why apns_id collapse_id",
    token="push.token",
    channel="push.channel_id",
    event=rows.event_of,
    push_type="push.push_type",
    apns_id=lambda record: record.push.apns_id.lower(),
    collapse_id="push.collapse_id",
)
LOG = _filters(
    "push token device activity state why", push="record.number", token="record.push.token"
)
TOKENS = _filters("kind device bundle_id attributes_type condition", device="device.id")
ACTIVITIES = _filters("device state attributes_type channel", device="device.id")

route = Routes()


class ControlApi:
    """The endpoints over one fake, or one of its namespaces. All of them run on the fake's event loop.

    An endpoint returns the content (`shown`), None for 204, a whole response, or an awaitable of these.
    """

    def __init__(self, fake: rows.Fake) -> None:
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

    def found(self, path: str, places: Mapping[str, str]) -> list[object]:
        """Return the object that a path names, or None. Raises ``BadRequestError`` if it is missing."""
        phones = self.fake.devices
        kinds: dict[str, tuple[Callable[[str], object], str]] = {
            "devices": (phones.devices.get, "there is no such phone"),
            "activities": (phones.activities.get, "there is no such activity"),
            "tokens": (phones.token, "no phone has such a token"),
            **dict.fromkeys(("connections", "pushes", "faults"), (_number, "not a number")),
        }
        for name, word in places.items():
            find, problem = kinds.get(path.split("/")[2], (str, ""))
            if (found := find(word)) is None:
                raise BadRequestError(problem, field=name, status=404)
            return [found]
        return []

    def shown(self, thing: object) -> object:
        """Return the JSON form of a result. A pair is a page and the number of the next one."""
        if isinstance(thing, tuple):
            items, following = thing
            return {"items": [rows.row_of(each, self.fake) for each in items], "next": following}
        return rows.row_of(thing, self.fake)

    # The running fake.

    @route("GET", "/v1/fake", rows.FakeRow)
    def get_fake(self) -> object:
        """Describe the running fake, with clock and counts."""
        row = rows.FakeRow.of(self.fake, self.hub.started_at)
        row.clock, row.counts = rows.ClockRow.of(self.fake), rows.CountsRow.of(self.fake)
        return row

    @route("GET", "/v1/health", rows.HealthRow)
    def health(self) -> object:
        """Answer when the fake takes pushes."""
        return rows.HealthRow()

    @route("GET", "/v1/counts", rows.CountsRow)
    def get_counts(self) -> object:
        """Count pushes by state and reason."""
        return rows.CountsRow.of(self.fake)

    @route("GET", "/v1/connections", rows.ConnectionRow, lists=True)
    def get_connections(self) -> object:
        """List open connections and the last closed ones."""
        return self.fake.connections, None

    @route("POST", "/v1/connections/{id}/goaway", dict, 202)
    def send_goaway(self, number: int, reason: str | None = "Shutdown") -> object:
        """Send GOAWAY on a connection, without JSON where the reason is null."""
        if not self.fake.go_away(reason, connection_id=number):
            raise BadRequestError("there is no such open connection", field="id", status=404)
        return {"id": number}

    # Namespaces. Each has these endpoints below its own path.

    @route("GET", "/v1/namespaces", rows.NamespaceRow, lists=True)
    def list_namespaces(self) -> object:
        """List the namespaces."""
        return self.fake.namespaces, None

    @route("POST", "/v1/namespaces", rows.NamespaceRow, 201)
    def add_namespace(self, name: str | None = None) -> object:
        """Create a namespace. Its path before a path of this API selects it.

        Without a name it gets one that was never used.
        """
        if name in self.fake.namespaces:
            raise BadRequestError("there is one of that name already", field="name", status=409)
        return self.fake.namespaces.add(name)

    @route("DELETE", "/v1/namespaces/{name}", status=204)
    def remove_namespace(self, name: str) -> None:
        """Delete a namespace with its phones, tokens, channels, faults and pushes."""
        self.within(name).hub.close()
        del self._within[name]
        self.fake.namespaces.remove(name)

    @route("GET", "/v1/devices/{id}", rows.DeviceRow, name="get_device")
    @route("GET", "/v1/activities/{id}", rows.ActivityRow, name="get_activity")
    @route("GET", "/v1/tokens/{token}", rows.TokenRow, name="get_token")
    def get(self, thing: object) -> object:
        """Return one object with its current values."""
        return thing

    # Phones.

    @route("GET", "/v1/devices", rows.DeviceRow, lists=True)
    def list_devices(
        self,
        bundle_id: str | None = None,
        automatic: bool | None = None,
        after: After = 0,
        limit: Limit = 100,
    ) -> object:
        """List phones in the order in which they were made."""
        found = (
            device
            for device in self.fake.devices.devices.values()
            if device.serial > after
            and automatic in {None, device.automatic}
            and (bundle_id is None or any(t.bundle_id == bundle_id for t in device.tokens))
        )
        return _page(found, limit, attrgetter("serial"))

    @route(
        *("POST", "/v1/devices", rows.DeviceRow, 201),
        like=SimulatedPhones.add_device,
        rename={"device_id": "id"},
    )
    def add_device(self, device_id: str | None, **options: Any) -> object:
        """Make a phone."""
        if device_id is not None and not (0 < len(device_id) <= 100 and "/" not in device_id):
            raise BadRequestError("1 to 100 characters, no slash", field="id")
        if device_id is not None and device_id in self.fake.devices.devices:
            raise BadRequestError("there is a phone of that id already", field="id", status=409)
        return self.fake.devices.add_device(device_id, **options)

    @route("PATCH", "/v1/devices/{id}", rows.DeviceRow, optional=SWITCHES)
    def change_device(
        self, device: Device, offline_for: float | None = None, **switches: bool | None
    ) -> object:
        """Change switches of a phone, or take it offline for a while. Absent fields stay unchanged."""
        if changes := {name: value for name, value in switches.items() if value is not None}:
            self.fake.devices.configure(device, changes)
        if offline_for is not None:
            if not 0 < offline_for <= LONGEST_ADVANCE:
                raise BadRequestError("not a number of seconds above 0", field="offline_for")
            self.fake.devices.go_offline(device, offline_for)
        return device

    route.phones(
        *("DELETE", "/v1/devices/{id}", SimulatedPhones.delete_app, None, 204), name="remove_device"
    )
    route.phones("POST", "/v1/devices/{id}/open-app", SimulatedPhones.open_app, rows.DeviceRow)
    route.phones("POST", "/v1/devices/{id}/consent", SimulatedPhones.consent, rows.DeviceRow)

    # Activities.

    @route("GET", "/v1/activities", rows.ActivityRow, filters=ACTIVITIES, lists=True)
    def list_activities(self, fits: Fits, after: After = 0, limit: Limit = 100) -> object:
        """List activities."""
        return _listed(filter(fits, self.fake.devices.activities.values()), after, limit)

    route.phones(
        *("POST", "/v1/devices/{id}/activities", SimulatedPhones.start_activity),
        *(rows.ActivityRow, 201),
    )
    route.phones(
        *("POST", "/v1/activities/{id}/dismiss", SimulatedPhones.dismiss, rows.ActivityRow),
        name="dismiss_activity",
    )
    route.phones("POST", "/v1/activities/{id}/end", SimulatedPhones.end_activity, rows.ActivityRow)

    @route("POST", "/v1/activities/{id}/rotate-token", rows.ActivityRow)
    def rotate_activity_token(self, activity: Activity) -> object:
        """Give an activity a new token."""
        if activity.token is None or activity.state != "active":
            raise BadRequestError("the activity has no token to rotate", field="id", status=409)
        self.fake.devices.rotate(activity.token)
        return activity

    # Tokens.

    @route("GET", "/v1/tokens", rows.TokenRow, filters=TOKENS, lists=True)
    def list_tokens(self, fits: Fits, after: After = 0, limit: Limit = 100) -> object:
        """List the tokens of the phones, including the dead ones that are still kept."""
        return _listed(filter(fits, self.fake.devices.registry.tokens.values()), after, limit)

    @route("POST", "/v1/tokens", rows.TokenRow, 201)
    def adopt_token(self, token: str) -> object:
        """Create a phone for a token of your own (hex), so that pushes to it appear here."""
        return self.fake.namespaces.adopt(self.fake, token)

    @route("GET", "/v1/tokens/next", rows.TokenRow, filters=TOKENS, may_be_empty=True)
    async def next_token(
        self,
        fits: Fits,
        after: After | None = None,
        timeout: Timeout = 10.0,  # noqa: ASYNC109
    ) -> object:
        """Wait for the next token that a phone issues, after a number or after all existing ones."""
        return await self._next(self.fake.devices.registry.issued, fits, after, timeout)

    route.phones(
        *("POST", "/v1/tokens/{token}/kill", SimulatedPhones.kill, rows.TokenRow),
        name="kill_token",
        rename={"condition": "as"},
    )
    route.phones(
        *("POST", "/v1/tokens/{token}/rotate", SimulatedPhones.rotate, rows.TokenRow),
        name="rotate_token",
    )

    # Pushes and the log.

    @route("GET", "/v1/pushes", rows.PushRow, filters=PUSHES, lists=True)
    def list_pushes(
        self,
        fits: Fits,
        after: After = 0,
        limit: Limit = 100,
        newest: bool = False,
        payload: bool = False,
    ) -> object:
        """List pushes, the oldest first, or the newest first with ``newest=1``."""
        ring = self.fake.log.pushes
        back = (record for record in reversed(ring) if record.number > after)
        items = filter(fits, back if newest else ring.after(after))
        found, following = _page(items, limit, attrgetter("number"))
        row = rows.with_payload if payload else rows.row_of
        return [row(record, self.fake) for record in found], None if newest else following

    @route("GET", "/v1/pushes/next", rows.PushRow, filters=PUSHES, may_be_empty=True)
    async def next_push(
        self,
        fits: Fits,
        after: After | None = None,
        timeout: Timeout = 10.0,  # noqa: ASYNC109
    ) -> object:
        """Wait for the next matching push, after a number or after all existing ones."""
        found = await self._next(self.fake.log.pushes, fits, after, timeout)
        return found and rows.with_payload(found, self.fake)

    @route("GET", "/v1/pushes/{number}", rows.PushRow)
    def get_push(self, number: int) -> object:
        """Return one push with its log."""
        if (record := self.fake.log.pushes.get(number)) is None:
            raise BadRequestError("there is no such push, or no longer", field="number", status=404)
        log = [rows.row_of(entry, self.fake) for entry in self.fake.log.entries_of(number)]
        return rows.with_payload(record, self.fake) | {"log": log}

    @route("POST", "/v1/pushes/verify", rows.VerifiedRow)
    def verify(
        self,
        where: dict[str, Any] = {},  # noqa: B006 - msgspec copies it
        count: Annotated[int, Meta(ge=0, le=1_000_000)] = 1,
        after: int = 0,
    ) -> object:
        """Check that exactly ``count`` pushes match; if not, show how the closest one differs.

        ``where`` are fields of a push or of its payload: ``event``, ``content_state``, ``attributes``,
        ``attributes_type``, ``alert``, ``timestamp``, ``token``, ``channel``, ``priority``, ``status``,
        ``reason``, ``state``, ``why`` and more. ``after`` leaves out pushes up to this number.
        """
        if unknown := set(where) - PUSH_FIELDS:
            problem = f"a push has no {', '.join(map(repr, sorted(unknown)))}"[:300]
            remedy = f"Use {', '.join(sorted(PUSH_FIELDS))}."
            raise BadRequestError(problem, field="where", remedy=remedy)
        pushes = [PushView(record) for record in self.fake.log.pushes.after(max(0, after))]
        fit, closest, different = fitting(pushes, where)
        numbers = [push.number for push in fit[:LONGEST_LIST]]
        if len(fit) == count:
            return rows.VerifiedRow(True, count, count, numbers, None, [], "")
        near = None if closest is None else closest.number
        text = explain_misfit(fit, pushes, where, count)
        return rows.VerifiedRow(False, count, len(fit), numbers, near, different, text)

    @route("GET", "/v1/log", rows.LogRow, filters=LOG, lists=True)
    def list_log(self, fits: Fits, after: After = 0, limit: Limit = 100) -> object:
        """List the state changes of the pushes, oldest first."""
        entries = filter(fits, self.fake.log.entries.after(after))
        return _page(entries, limit, attrgetter("sequence"))

    @route("GET", "/v1/export/{kind}", dict, media_type="application/x-ndjson")
    def export(self, kind: str) -> object:
        """Return all kept records of one kind as JSON Lines."""
        fake = self.fake
        kinds: dict[str, Callable[[], Iterable[object]]] = {
            "pushes": lambda: (rows.with_payload(record, fake) for record in fake.log.pushes),
            "log": lambda: fake.log.entries,
            "devices": lambda: list(fake.devices.devices.values()),
        }
        if kind not in kinds:
            raise BadRequestError("pushes, log or devices", field="kind", status=404)
        lines = _lines(map(self.shown, kinds[kind]()))
        return StreamingResponse(lines, media_type="application/x-ndjson")

    # Channels, faults, the clock, everything.

    @route("POST", "/v1/channels", Channel, 201)
    def add_channel(
        self, storage_policy: Literal[0, 1] = 0, bundle_id: str | None = None
    ) -> object:
        """Create a broadcast channel, by default of the fake's own app."""
        if bundle_id not in {None, *self.fake.state.apps}:
            raise BadRequestError("there is no such app", field="bundle_id", status=404)
        return self.fake.add_channel(storage_policy, bundle_id=bundle_id)

    @route("GET", "/v1/faults", rows.FaultRow, lists=True)
    def list_faults(self) -> object:
        """List the faults in force."""
        return self.fake.faults, None

    @route("POST", "/v1/faults", rows.FaultRow, 201, raw=Fault)
    def add_fault(self, order: dict[str, Any]) -> object:
        """Add a fault."""
        if "action" not in order:
            raise BadRequestError("a fault is an object with an action", field="action")
        fault_id = self.fake.faults.add(Fault.from_mapping(order))
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

    @route("GET", "/v1/clock", rows.ClockRow)
    def get_clock(self) -> object:
        """Return the clock."""
        return rows.ClockRow.of(self.fake)

    @route("POST", "/v1/clock/advance", rows.ClockRow)
    async def advance_clock(self, seconds: float, tokens: bool = False) -> object:
        """Move the clock. Everything due happens, in order. ``tokens`` ages provider tokens too."""
        if not 0 <= seconds <= LONGEST_ADVANCE:
            problem = "time only moves forward, 400 days at most at a time"
            raise BadRequestError(problem, field="seconds")
        if not isinstance(self.fake.clock, RealClock | SimulatedClock):
            raise BadRequestError("this fake's clock cannot be moved", status=409)
        await self.fake.advance(seconds, tokens=tokens)
        self.hub.changed(phones=True)
        return rows.ClockRow.of(self.fake)

    @route("POST", "/v1/reset", status=204)
    def reset(self, devices: bool = True, pushes: bool = True, faults: bool = True) -> None:
        """Delete phones, pushes and faults, or some of these."""
        self.fake.reset(devices=devices, pushes=pushes, faults=faults)
        self.hub.changed()

    @route("GET", "/v1/events", dict, media_type="text/event-stream")
    def events(self, devices: Most = 500, pushes: Most = 200, payload: bool = True) -> object:
        """Stream a snapshot and then the changes, as server-sent events.

        A snapshot has at most this many ``devices`` and ``pushes``, with or without their ``payload``.
        """
        if self.hub.is_full:
            raise BadRequestError("too many readers of the event stream", status=429)
        stream = self.hub.stream(devices, pushes, payload)
        return StreamingResponse(stream, media_type="text/event-stream")

    @route("GET", "/v1/explain/{word}", rows.ExplainRow)
    def explain(self, word: str) -> object:
        """Explain a word of a push's result: its meaning, whose fault it is, and what to do."""
        if (found := explain.find(word)) is None:
            raise BadRequestError("nothing is known of this word", field="word", status=404)
        return rows.ExplainRow(*found[:-1])

    async def _next(
        self,
        ring: Ring[T],
        fits: Fits,
        given: int | None,
        timeout: float,  # noqa: ASYNC109
    ) -> T | None:
        # Scan the whole ring again, because a stored push may fit once it is delivered.
        after = ring.total if given is None else given
        waiter = self.hub.add_waiter()
        loop = asyncio.get_running_loop()
        give_up = loop.time() + timeout
        try:
            while True:
                if (found := next(filter(fits, ring.after(after)), None)) is not None:
                    return found
                left = give_up - loop.time()
                if left <= 0 or not await self.hub.wait(waiter, left):
                    return None
                await asyncio.sleep(min(_RESCAN, max(0.0, left)))
        finally:
            self.hub.remove_waiter(waiter)


def _number(word: str) -> int | None:
    return int(word) if word.isascii() and word.isdigit() and len(word) <= 15 else None


def _page(items: Iterator[T], limit: int, number: Callable[[T], int]) -> tuple[list[T], int | None]:
    """Return up to ``limit`` items, and the number of the last one if there are more."""
    found = list(islice(items, limit + 1))
    more = len(found) > limit
    return found[:limit], number(found[limit - 1]) if more else None


def _listed(items: Iterator[T], after: int, limit: int) -> tuple[list[T], int | None]:
    """Return a page of items without numbers, by their position in the list."""
    return _page(islice(items, after, None), limit, lambda _: after + limit)


async def _lines(found: Iterable[object]) -> AsyncIterator[bytes]:
    chunk = []
    for row in found:
        chunk.append(msgspec.json.encode(row) + b"\n")
        if len(chunk) >= 200:
            yield b"".join(chunk)
            chunk.clear()
            await asyncio.sleep(0)
    yield b"".join(chunk)
