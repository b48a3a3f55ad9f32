"""The engine of both faces: takes a request and returns what a face must do with it.

The engine applies faults first, then the rules, and records the result. A face executes the plan as far
as its HTTP/2 implementation allows.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, cast

import msgspec

from .clock import FakeClock
from .exchange import APNS_ID, JSON, REQUEST_ID, authorize, echo_id, penalty
from .faults import ActiveFault, Fault, Faults, Target, draw
from .log import FaultStruck, Recorder, Refusal
from .reasons import find
from .rules import respond
from .state import ApnsState, ConnectionIdentity, Effect, Request, Response

BODY_KEPT = 5121
"""Bytes of a refused body that are remembered: one more than the largest that APNs takes."""
_TOLD = {
    name: b"apns-" + name.replace("_", "-").encode()
    for name in ("channel_id", "topic", "push_type", "priority", "expiration", "collapse_id")
}
"""Fields of a refusal, and the headers that they repeat."""
Act = Literal["answer", "withhold", "stall", "reset", "goaway", "disconnect", "silence"]
_ACTS = {"throttle": "answer", "refuse_stream": "reset"}
"""What a face does for a fault whose action is not an act itself."""


class Plan(msgspec.Struct, frozen=True):
    """What a face must do with a request.

    ``response`` is the answer, or None; it is sent after ``delay`` seconds. ``fault`` has the details
    of the action.
    """

    act: Act
    response: Response | None
    delay: float = 0.0
    fault: Fault | None = None


@dataclass(slots=True, eq=False)
class Engine:
    """Rules, faults, latency and record of one fake.

    ``latency`` and ``spread`` are seconds: every answer waits ``latency`` plus an exponentially
    distributed time with mean ``spread``, drawn like a fault. ``wall`` returns the epoch seconds by
    which provider tokens are checked.
    """

    state: ApnsState
    clock: FakeClock
    faults: Faults
    recorder: Recorder
    wall: Callable[[], float]
    latency: float = 0.0
    spread: float = 0.0
    token_offset: float = 0.0
    """Seconds that the clock of provider tokens was moved ahead of ``wall``."""
    faults_of: Callable[[str], Faults] | None = None
    """Returns the faults for a token or channel, if namespaces have their own faults."""
    connections: int = 0

    def next_connection_id(self) -> int:
        """Return the number of a new connection, from 1, counted over both ports."""
        self.connections += 1
        return self.connections

    def answer(self, request: Request, connection: ConnectionIdentity) -> Plan:
        """Answer a request by the rules, unless a fault strikes it."""
        faults = self.faults
        if self.faults_of is not None:
            faults = self.faults_of(key_of(dict(request.headers)))
        if faults or self.latency or self.spread:
            return self._plan(request, connection, faults)
        return Plan("answer", self._respond(request, connection))

    def _respond(self, request: Request, connection: ConnectionIdentity) -> Response:
        now, wall = self.clock.time(), self.wall() + self.token_offset
        response = respond(request, connection, self.state, now, wall)
        if response.push is not None:
            self.recorder.record(response.push)
        elif response.reason:
            self._record_refusal(request, connection, response)
        return response

    def _plan(self, request: Request, connection: ConnectionIdentity, faults: Faults) -> Plan:
        fields = dict(request.headers)
        key = key_of(fields)
        told = (_text(fields, _TOLD[name]) for name in ("topic", "push_type", "priority"))
        target = Target(connection.connection_id, request.face, key, *told)
        nth = faults.nth(key) if key else 1
        delay = self._delay(self.latency, self.spread, "latency", key, nth)
        for active in faults.choose(target, nth):
            fault = active.fault
            if fault.action == "throttle" and not faults.over_limit(active, key):
                continue
            self.record_strike(active, connection.connection_id, key, nth)
            if fault.action == "delay":
                delay += self._delay(fault.delay, fault.spread, active.draws_as, key, nth)
                continue
            act = _ACTS.get(fault.action, fault.action)
            is_processed = fault.is_processed or (act == "goaway" and fault.processed is None)
            response = self._respond(request, connection) if is_processed else None
            if act == "answer":
                response = self._faulty(fault, request, connection, response)
            return Plan(cast("Act", act), response, delay + fault.delay, fault)
        return Plan("answer", self._respond(request, connection), delay)

    def _faulty(
        self,
        fault: Fault,
        request: Request,
        connection: ConnectionIdentity,
        processed: Response | None,
    ) -> Response:
        fields = dict(request.headers)
        effects: tuple[Effect, ...] = ()
        if processed is None:
            unbound = connection.key is None
            wall = self.wall() + self.token_offset
            if authorize(fields.get(b"authorization"), connection, self.state, wall):
                return self._respond(request, connection)
            if unbound:
                effects = (Effect.RAISE_STREAMS,)
        response = self._made_up(fault, fields, connection)
        if response.reason == "ExpiredProviderToken":
            # The client must now sign a new token at once, so that one is never too early.
            for seen in connection.seen.values():
                seen.since = -math.inf
        self._record_refusal(request, connection, response)
        return msgspec.structs.replace(
            response, effects=(*(processed.effects if processed else effects), *response.effects)
        )

    def _made_up(
        self, fault: Fault, fields: dict[bytes, bytes], connection: ConnectionIdentity
    ) -> Response:
        """Return the answer that the fault describes."""
        reason = fault.reason or ("TooManyRequests" if fault.action == "throttle" else "")
        row = find(reason)
        status = fault.status or (row.status if row is not None else 429)
        name = APNS_ID if fields.get(b":path", b"").startswith(b"/3/") else REQUEST_ID
        headers = [(name, echo_id(fields.get(name), self.state))]
        body = b""
        if fault.body is not None:
            body = fault.body.encode("utf-8")
        elif reason:
            content: dict[str, object] = {"reason": reason}
            if status == 410:
                now = int(self.clock.time() * 1000)
                content["timestamp"] = now if fault.timestamp is None else fault.timestamp
            body = msgspec.json.encode(content)
            headers.append(JSON)
        if fault.retry_after is not None:
            after = fault.retry_after
            text = after if isinstance(after, str) else f"{after:g}"
            headers.append((b"retry-after", text.encode("latin-1")))
        headers += [
            (name.lower().encode("latin-1"), value.encode("latin-1"))
            for name, value in fault.headers.items()
        ]
        effects = penalty(status, reason, connection, self.state)
        return Response(status, tuple(headers), body, reason, effects)

    def _delay(self, fixed: float, spread: float, name: str, key: str, nth: int) -> float:
        if not spread:
            return fixed
        drawn = draw(self.faults.seed, f"{name} spread", key, nth)
        return fixed + spread * min(10.0, -math.log(1.0 - drawn))

    def record_strike(self, active: ActiveFault, connection_id: int, key: str, nth: int) -> None:
        """Record that a fault struck a request, or a new connection."""
        fault, now = active.fault, self.clock.time()
        self.recorder.record(
            FaultStruck(active.fault_id, fault.name, fault.action, connection_id, key, nth, now)
        )

    def _record_refusal(
        self, request: Request, connection: ConnectionIdentity, response: Response
    ) -> None:
        fields = dict(request.headers)
        is_push = request.face == "device"
        self.state.pushes += is_push
        target = key_of(fields)
        is_device = fields.get(b":path", b"").startswith(b"/3/device/")
        self.recorder.record(
            Refusal(
                number=self.state.pushes if is_push else 0,
                at=self.clock.time(),
                connection_id=connection.connection_id,
                face=request.face,
                target=target,
                status=response.status,
                reason=response.reason,
                apns_id=response.headers[0][1].decode("latin-1") if response.headers else "",
                token=target if is_device else "",
                body=request.body[:BODY_KEPT],
                **{name: _text(fields, header) for name, header in _TOLD.items()},
            )
        )


def _text(fields: dict[bytes, bytes], name: bytes) -> str:
    return fields.get(name, b"").decode("latin-1")


def key_of(fields: dict[bytes, bytes]) -> str:
    """Return the target of a request: the device token, else the channel id, else the path."""
    path = fields.get(b":path", b"").decode("latin-1")
    if path.startswith("/3/device/"):
        return path[len("/3/device/") :].lower()
    return fields.get(b"apns-channel-id", b"").decode("latin-1") or path
