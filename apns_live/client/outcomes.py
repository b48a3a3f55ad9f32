"""The outcomes of pushes."""

from collections.abc import Sequence
from typing import Any

from ..errors import InvalidInput, InvalidToken
from ..guard import RAISED
from ..outcome import Outcome, Verdict
from ..payload import EncodedMessage, are_tokens, check_token
from ..pool import Loss, Push
from ..reasons import Answer
from ..retry import LinkAction, Step

WORTH_ANOTHER_TRY = (Verdict.RETRY_LATER, Verdict.SLOW_DOWN, Verdict.REFRESH_CREDENTIALS)


def refused_token(token: object, error: InvalidInput, priority: int) -> Outcome:
    """Return the outcome of an invalid token; nothing was sent."""
    if not isinstance(token, str):
        try:
            token = repr(token)[:100]
        except RAISED:
            token = f"<{type(token).__name__}>"
    return Outcome(
        token=token,
        verdict=Verdict.FIX_REQUEST,
        reason="invalid_token",
        priority=priority,
        detail=str(error),
    )


def refused_tokens(tokens: Sequence[str], message: EncodedMessage) -> dict[int, Outcome]:
    """Return the outcomes of the invalid tokens, by index. Nothing was sent to them."""
    refused: dict[int, Outcome] = {}
    for index, token in enumerate(() if are_tokens(tokens) else tokens):
        try:
            check_token(token, message=message)
        except InvalidToken as error:
            refused[index] = refused_token(token, error, message.priority)
    return refused


def unanswered(push: Push, verdict: Verdict, reason: str, now: float, **more: Any) -> Outcome:
    """Return the outcome of a push whose last try certainly did not reach APNs.

    An earlier try may have reached it: after a 500 the push waited for a retry.
    """
    doubt = push.last is not None and push.last[1].may_have_been_sent
    if doubt and verdict is Verdict.NOT_SENT:
        verdict = Verdict.UNKNOWN
    return _outcome(push, now, verdict=verdict, reason=reason, may_have_been_sent=doubt, **more)


def unknown(push: Push, loss: Loss, now: float, detail: str, connection_id: int) -> Outcome:
    """Return the outcome of a push that was sent and not answered."""
    more = {"reason": loss.value, "connection_id": connection_id, "detail": detail}
    return _outcome(push, now, verdict=Verdict.UNKNOWN, may_have_been_sent=True, **more)


def refusal(
    push: Push, answer: Answer, step: Step, now: float, wall: float, connection_id: int
) -> Outcome:
    """Return the outcome of a push that was refused. ``wall`` is seconds since 1970."""
    row = answer.row
    detail = f"{row.meaning}. {row.remedy}" if row.remedy else row.meaning
    if step.link is LinkAction.RETIRE_AND_BAR:
        detail = clock_advice(answer)
    waits = step.delay is not None and step.verdict in WORTH_ANOTHER_TRY
    return _outcome(
        push,
        now,
        verdict=step.verdict,
        status=answer.status,
        reason=answer.reason,
        timestamp=answer.timestamp,
        may_have_been_sent=step.may_have_been_sent,
        check_environment=answer.reason == "BadDeviceToken",
        retry_at=wall + (step.delay or 0.0) if waits else 0.0,
        connection_id=connection_id,
        round_trip=now - push.sent_at,
        detail=detail,
    )


def _outcome(push: Push, now: float, **more: Any) -> Outcome:
    """Return an outcome with the fields common to all pushes that were not accepted."""
    return Outcome(
        token=push.token,
        apns_id=push.request_id,
        attempts=push.attempts,
        priority=push.message.priority,
        queue_time=(push.sent_at or now) - push.created,
        elapsed=now - push.created,
        **more,
    )


def clock_advice(answer: Answer) -> str:
    """Return advice for the case that APNs finds a new provider token too old."""
    advice = "APNs says that a provider token made just now is too old. Check this machine's clock"
    if answer.skew is None:
        return f"{advice}, and that NTP runs."
    side = "ahead of" if answer.skew > 0 else "behind"
    return f"{advice}: it is {abs(answer.skew):.0f} s {side} the server's."
