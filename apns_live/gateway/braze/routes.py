"""The two calls, from the key to the answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from ...activities.requests import End
from ...errors import ActivityEnded, InvalidInput, NotAllowed, NotFound
from ..bodies import read_object
from ..callers import (
    Endpoint,
    check_id,
    find_caller,
    guarded,
    is_gone,
    is_named,
    knows_type,
    reaches_anyone,
)
from ..context import Gateway
from ..keys import ApiKey
from ..reach import check_activity, check_audience
from . import answers, words
from .translate import MAX_EXTERNAL_IDS, Asked, read_start, read_update

MAX_BYTES = 4_194_304
"""Braze, OpenAPI of the update endpoint: a request has at most 4 MB."""

Do = Callable[[Gateway, ApiKey, Mapping[str, Any]], Awaitable[Response]]


def routes(gateway: Gateway) -> APIRouter:
    """Return the routes of the dialect."""
    router = APIRouter()
    for path, scope, do in (
        ("/messages/live_activity/start", "activities:start", _start),
        ("/messages/live_activity/update", "activities:update", _update),
    ):
        router.add_route(path, _endpoint(gateway, scope, do), methods=["POST"])
    return router


def _endpoint(gateway: Gateway, scope: str, do: Do) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        key: ApiKey | None = None

        async def respond(request: Request) -> Response:
            nonlocal key
            key = await find_caller(gateway, request, "braze")
            return await _respond(gateway, request, key, scope, do)

        response = await guarded(gateway, respond, answers.refuse)(request)
        if key is not None:
            _say_limit(gateway, key, response)
        return response

    return endpoint


async def _respond(
    gateway: Gateway, request: Request, key: ApiKey | None, scope: str, do: Do
) -> Response:
    if key is None:
        raise NotAllowed(
            "Give a REST key of this gateway as Authorization: Bearer KEY "
            "(apns-live keys create --dialect braze).",
            status=401,
        )
    with gateway.limits.enter(key):
        if not key.may(scope):
            raise NotAllowed(f"The key lacks the scope {scope}.", missing=scope)
        body = await read_object(
            request,
            limit_bytes=max(MAX_BYTES, gateway.settings.body_bytes),
            max_depth=gateway.settings.depth,
        )
        return await do(gateway, key, body)


async def _start(gateway: Gateway, key: ApiKey, body: Mapping[str, Any]) -> Response:
    app = key.app
    most = app.settings.get("braze_max_external_ids", MAX_EXTERNAL_IDS)
    asked = read_start(body, now=gateway.clock.time(), max_ids=most)
    request = asked.request
    _check_app(key, asked)
    check_audience(key, request.audience)
    await check_id(gateway, key, request.id)
    minor = []
    if not await reaches_anyone(gateway, app, request.audience, request.attributes_type):
        known = await knows_type(gateway, app, request.attributes_type)
        text = words.NOBODY if known else words.UNKNOWN_TYPE
        minor.append(text.format(name=request.attributes_type))
    await gateway.service.activities.start(app, request, again=True)
    return answers.accepted(minor)


async def _update(gateway: Gateway, key: ApiKey, body: Mapping[str, Any]) -> Response:
    asked = read_update(body, now=gateway.clock.time())
    _check_app(key, asked)
    request = asked.request
    activities = gateway.service.activities
    minor = []
    try:
        await check_activity(gateway, key, request.id)
        if isinstance(request, End):
            done = await activities.end(key.app, request)
        else:
            done = await activities.update(key.app, request)
        answer = done.answer
        reached = answer.devices + answer.queued
        if (
            answer.status == "accepted"
            and not reached
            and await is_gone(gateway, key.app, request.id)
        ):
            minor.append(words.NOBODY_LEFT.format(activity=request.id))
    except NotFound:
        # Braze accepts what it cannot deliver, and says so in its dashboard only.
        minor.append(words.UNKNOWN_ACTIVITY.format(activity=request.id))
    except ActivityEnded:
        minor.append(words.ENDED_ACTIVITY.format(activity=request.id))
    return answers.accepted(minor)


def _check_app(key: ApiKey, asked: Asked[Any]) -> None:
    if not is_named(key.app, asked.app_id, "braze_app_id"):
        raise InvalidInput(
            "is not the app of this key",
            field="app_id",
            remedy="Give the app's id here, or set braze_app_id of the app to your id.",
        )


def _say_limit(gateway: Gateway, key: ApiKey, response: Response) -> None:
    limit, left, seconds = gateway.limits.remaining(key)
    if limit is None or left is None:
        return
    response.headers["x-ratelimit-limit"] = str(limit)
    response.headers["x-ratelimit-remaining"] = str(left)
    response.headers["x-ratelimit-reset"] = str(int(gateway.clock.time() + seconds))
