"""OpenTelemetry: the trace of a call shows the pushes that it became, and joins the caller's."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from .conftest import Live

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """The spans that ended. OpenTelemetry takes a provider once a process, so it is put in place."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    yield exporter
    provider.shutdown()


def named(exporter: InMemorySpanExporter, name: str) -> ReadableSpan:
    (found,) = [span for span in exporter.get_finished_spans() if span.name == name]
    return found


async def test_a_trace_of_one_call_shows_its_pushes(
    live: Live, exporter: InMemorySpanExporter
) -> None:
    await live.add_phones(2)
    await live.start("m1")
    await live.hand_in()
    await live.service.settled()
    answer = await live.http.post(
        "/v1/activities/m1/update",
        json={"content_state": {"n": 1}},
        headers={"traceparent": CALLER},
    )
    await live.service.settled()
    call = named(exporter, "POST /v1/activities/{activity}/update")
    assert call.parent is not None
    assert trace.format_span_id(call.parent.span_id) == "b7ad6b7169203331"
    assert call.kind is trace.SpanKind.SERVER
    assert call.attributes is not None
    assert call.attributes["http.response.status_code"] == 202
    sent = named(exporter, "send update")
    assert sent.parent is not None
    assert sent.parent.span_id == call.context.span_id
    assert sent.context.trace_id == call.context.trace_id == 0x0AF7651916CD43DD8448EB211C80319C
    assert sent.attributes is not None
    assert dict(sent.attributes) == {
        "messaging.system": "apns",
        "messaging.operation.type": "send",
        "messaging.operation.name": "update",
        "messaging.batch.message_count": 2,
        "apns_live.operation.id": answer.json()["operation"],
        "apns_live.operation.status": "done",
        "apns_live.accepted": 2,
        "apns_live.failed": 0,
    }
    ids = {event.attributes["messaging.message.id"] for event in sent.events if event.attributes}
    assert len(ids) == 2
    assert ids <= {push.apns_id for push in live.fake.pushes}
    assert named(exporter, "send start").attributes["messaging.batch.message_count"] == 2  # type: ignore[index]
    token = live.phones[0].activities[-1].token.text
    assert not any(
        token in span.to_json() or live.key in span.to_json()
        for span in exporter.get_finished_spans()
    )


def test_nothing_of_it_is_imported_where_it_is_not_installed() -> None:
    program = """
import sys
sys.modules["opentelemetry"] = None
import apns_live.activities.service, apns_live.activities.observed as observed
assert observed.trace is None
observed.accepted("an operation")
assert not [name for name in sys.modules if name.startswith("opentelemetry.")]
"""
    done = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
