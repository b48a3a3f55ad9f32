"""Log lines: JSON or text, each with the request, app and operation that it is about."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from apns_live.activities.logs import ACCESS, JsonFormatter, TextFormatter, configure
from apns_live.activities.observed import CALL, Call

from .conftest import Live


class Lines(logging.Handler):
    """Keeps what a formatter makes of each record."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(JsonFormatter())
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@pytest.fixture
def lines() -> Iterator[Lines]:
    handler = Lines()
    logger = logging.getLogger(ACCESS)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)


async def test_an_answer_is_a_line_with_its_request_app_and_operation(
    live: Live, lines: Lines
) -> None:
    await live.add_phones(1)
    lines.lines.clear()
    accepted = await live.start("m1")
    given = {"x-request-id": "web-17.a_b"}
    answer = await live.http.get("/v1/activities/m1?after=secret", headers=given)
    assert answer.headers["x-request-id"] == "web-17.a_b"
    odd = await live.http.get("/v1/activities/m1", headers={"x-request-id": 'a b"c'})
    assert len(odd.headers["x-request-id"]) == 32
    async with live.caller("wrong-secret") as stranger:
        await stranger.get("/v1/apps")
    start, read, _, refused = map(json.loads, lines.lines)
    assert start == {
        "time": start["time"],
        "level": "info",
        "logger": "apns_live.access",
        "message": "answered",
        "request_id": start["request_id"],
        "app": "a",
        "operation": accepted["operation"],
        "method": "POST",
        "route": "/v1/activities",
        "status": 202,
        "seconds": start["seconds"],
        "address": start["address"],
    }
    assert start["time"].endswith("+00:00")
    assert 0 < start["seconds"] < 60
    assert (read["request_id"], read["route"]) == ("web-17.a_b", "/v1/activities/{activity}")
    assert "operation" not in read
    assert refused["status"] == 401
    assert "app" not in refused
    assert not any("secret" in line or "m1" in line for line in lines.lines)


def test_a_line_is_one_line() -> None:
    record = logging.makeLogRecord({"msg": 'two\nlines "here"', "name": "apns_live.gateway"})
    context = CALL.set(Call("r1", app="scores"))
    try:
        said = json.loads(JsonFormatter().format(record))
        assert (said["message"], said["request_id"], said["app"]) == (
            'two\nlines "here"',
            "r1",
            "scores",
        )
        text = TextFormatter().format(record)
    finally:
        CALL.reset(context)
    assert "\n" not in text
    assert text.endswith("request_id=r1 app=scores")


def test_a_traceback_is_a_field_of_its_own() -> None:
    try:
        raise ValueError("no")
    except ValueError as error:
        record = logging.makeLogRecord({"msg": "failed", "exc_info": (ValueError, error, None)})
    assert json.loads(JsonFormatter().format(record))["error"] == "ValueError: no"
    assert TextFormatter().format(record).splitlines()[1] == "ValueError: no"


def test_others_never_log_below_warning() -> None:
    """They hold secrets at debug level."""
    root, ours = logging.getLogger(), logging.getLogger("apns_live")
    before = root.level, list(root.handlers), ours.level, logging.getLogger(ACCESS).level
    try:
        configure("json", "debug", access=True)
        assert root.level == logging.WARNING
        assert not logging.getLogger("aiosqlite").isEnabledFor(logging.INFO)
        assert logging.getLogger("apns_live.delivery").isEnabledFor(logging.DEBUG)
        assert logging.getLogger(ACCESS).isEnabledFor(logging.INFO)
        configure("text", "error")
        assert not logging.getLogger(ACCESS).isEnabledFor(logging.INFO)
        assert not logging.getLogger("apns_live.gateway").isEnabledFor(logging.WARNING)
    finally:
        root.handlers[:] = before[1]
        root.setLevel(before[0])
        ours.setLevel(before[2])
        logging.getLogger(ACCESS).setLevel(before[3])
