"""Observability of the service: times for metrics, spans for traces, context for log lines.

`CALL` has the context of the current call (request id, app), which is added to its log lines.
`accepted` links an operation to its call and to the call's OpenTelemetry span. When the operation is
finished, `Observed` creates a child span for it.

OpenTelemetry is optional (the extra ``otel``) and is not imported without it. The links are in memory,
so an operation that another process sends has its own trace.
"""

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from ..client.statistics import Histogram, Times

try:
    from opentelemetry import trace
except ImportError:  # pragma: no cover - the extra is not installed
    trace = None  # type: ignore[assignment]

__all__ = ["CALL", "Call", "Finished", "Observed", "accepted", "trace"]

_KEPT = 10_000
"""How many unfinished operations keep a link to their call."""
_PUSHES_SHOWN = 32
"""How many pushes of one operation its span lists."""


@dataclass(slots=True)
class Call:
    """The current call, for log lines. ``app`` and ``operation`` are empty until known."""

    request_id: str
    app: str = ""
    operation: str = ""


CALL: ContextVar[Call | None] = ContextVar("apns_live_call", default=None)
_parents: OrderedDict[str, Any] = OrderedDict()


def accepted(operation: str) -> None:
    """Join an operation (its public id) to the current call and span."""
    if not operation:
        return
    if (call := CALL.get()) is not None:
        call.operation = operation
    if trace is not None and trace.get_current_span().get_span_context().is_valid:
        _parents[operation] = trace.set_span_in_context(trace.get_current_span())
        while len(_parents) > _KEPT:
            _parents.popitem(last=False)


@dataclass(frozen=True, slots=True)
class Finished:
    """An operation that is finished. ``created_at`` is milliseconds since 1970."""

    row: int
    public_id: str
    kind: str
    status: str
    created_at: int
    accepted: int
    failed: int


class Observed:
    """Times of this process's operations, in seconds, since it began."""

    def __init__(self) -> None:
        self._operations: dict[str, Histogram] = {}
        self.state_age = Histogram()
        """How old the newest state was when APNs accepted it for a device."""
        self._pushes: OrderedDict[int, list[dict[str, str | int]]] = OrderedDict()

    def times(self) -> tuple[Times, Mapping[str, Times]]:
        """Return the ages of accepted states, and the durations of operations by kind."""
        kinds = {kind: histogram.times() for kind, histogram in self._operations.items()}
        return self.state_age.times(), kinds

    def pushed(self, outcomes: Iterable[Sequence[Any]]) -> None:
        """Keep the first pushes of each operation for its span; rows are those of a `Batch`."""
        if trace is None or not _parents:
            return
        for _, operation, _, verdict, status, reason, apns_id, _ in outcomes:
            shown = self._pushes.setdefault(operation, [])
            if len(shown) < _PUSHES_SHOWN:
                push = {"apns_live.verdict": verdict, "http.response.status_code": status}
                push["messaging.message.id"] = str(apns_id)
                shown.append(push | ({"apns_live.reason": reason} if reason else {}))
        while len(self._pushes) > _KEPT:
            self._pushes.popitem(last=False)

    def finished(self, operations: Iterable[Finished], now: int) -> None:
        """Record the duration of operations and create a span for each; ``now`` is milliseconds."""
        for one in operations:
            took = max(0, now - one.created_at) / 1000
            self._operations.setdefault(one.kind, Histogram()).add(took)
            pushes = self._pushes.pop(one.row, [])
            if trace is None or (parent := _parents.pop(one.public_id, None)) is None:
                continue
            span = trace.get_tracer("apns_live").start_span(
                f"send {one.kind}",
                parent,
                kind=trace.SpanKind.PRODUCER,
                start_time=one.created_at * 1_000_000,
                attributes={
                    "messaging.system": "apns",
                    "messaging.operation.type": "send",
                    "messaging.operation.name": one.kind,
                    "messaging.batch.message_count": one.accepted + one.failed,
                    "apns_live.operation.id": one.public_id,
                    "apns_live.operation.status": one.status,
                    "apns_live.accepted": one.accepted,
                    "apns_live.failed": one.failed,
                },
            )
            for push in pushes:
                span.add_event("push", push, timestamp=now * 1_000_000)
            if one.status == "failed":
                span.set_status(trace.StatusCode.ERROR)
            span.end(end_time=now * 1_000_000)
