"""Apple's broadcast channels: one push reaches every card that follows."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from ...activities.accept.broadcast_channels import ChannelView, CreateChannel
from ...activities.times import to_text
from .activities import REPLAYED
from .answers import Time
from .api import Answer, Call, Routes
from .shapes import Environment, Strict

routes = Routes("channels")


class ChannelBody(Strict, frozen=True, kw_only=True):
    """A new channel. Policy 1 keeps the newest message for phones that are off, 0 keeps nothing."""

    storage_policy: Literal[0, 1] = 1
    environment: Environment | None = None
    name: Annotated[str, Meta(min_length=1, max_length=200)] | None = None


class ChannelAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A channel. ``storage_policy`` is null where only the id is known."""

    id: str
    environment: str
    storage_policy: int | None
    name: str | None
    created_at: Time


class ChannelsPageAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A page of channels by id; ``next`` goes into ``after``."""

    items: list[ChannelAnswer]
    next: str | None


class ComparedAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What a comparison with Apple's list found."""

    channels: int
    added: list[str]
    removed: list[str]


class ChannelsPage(Strict, frozen=True, kw_only=True):
    """Where to read on, and how much."""

    environment: Environment | None = None
    after: str = ""
    limit: Annotated[int, Meta(ge=1, le=1_000)] = 100


class Where(Strict, frozen=True, kw_only=True):
    """Which APNs; the app's own if absent."""

    environment: Environment | None = None


_APPLE = frozenset({409})


@routes(
    "POST",
    "/v1/channels",
    "Create a broadcast channel",
    scope="channels:write",
    body=ChannelBody,
    body_required=False,
    answers={201: ChannelAnswer},
    idempotent=True,
    examples={"match": {"storage_policy": 1, "name": "match-42"}},
    refusals=_APPLE,
)
async def create_channel(call: Call) -> Answer:
    """At Apple's, who allow 10,000 for an app. Start an activity with ``channel`` to follow it."""
    body: ChannelBody = call.body or ChannelBody()
    request = CreateChannel(
        storage_policy=body.storage_policy, environment=body.environment, name=body.name
    )
    done = await call.service.channels.create(call.app, request, key=call.once())
    await call.note("channel.create", done.answer.id)
    return Answer(body=_shown(done.answer), headers=REPLAYED if done.replayed else {})


@routes(
    "GET",
    "/v1/channels",
    "List broadcast channels",
    scope="channels:write",
    query=ChannelsPage,
    answers={200: ChannelsPageAnswer},
)
async def list_channels(call: Call) -> dict[str, Any]:
    """Those that are known here, by id. Apple is not asked."""
    query: ChannelsPage = call.query
    found = await call.service.channels.list(
        call.app, environment=query.environment, after=query.after, limit=query.limit
    )
    full = len(found) == query.limit
    return {"items": [_shown(one) for one in found], "next": found[-1].id if full else None}


@routes(
    "POST",
    "/v1/channels/compare",
    "Compare with Apple's list",
    scope="channels:write",
    query=Where,
    answers={200: ComparedAnswer},
    refusals=_APPLE,
)
async def compare_channels(call: Call) -> Any:
    """Takes over what is new there, and forgets what is gone."""
    query: Where = call.query
    return await call.service.channels.reconcile(call.app, environment=query.environment)


@routes(
    "GET",
    "/v1/channels/{channel:path}",
    "Get a broadcast channel",
    scope="channels:write",
    query=Where,
    answers={200: ChannelAnswer},
    refusals=_APPLE | {404},
)
async def get_channel(call: Call) -> dict[str, Any]:
    """One that is not known here is looked up at Apple's."""
    query: Where = call.query
    return _shown(
        await call.service.channels.get(
            call.app, call.part("channel"), environment=query.environment
        )
    )


@routes(
    "DELETE",
    "/v1/channels/{channel:path}",
    "Delete a broadcast channel",
    scope="channels:write",
    query=Where,
    answers={204: None},
    refusals=_APPLE | {404},
)
async def delete_channel(call: Call) -> Answer:
    """For good: cards that follow it get nothing more."""
    query: Where = call.query
    channel = call.part("channel")
    await call.service.channels.delete(call.app, channel, environment=query.environment)
    await call.note("channel.delete", channel)
    return Answer(status=204)


def _shown(channel: ChannelView) -> dict[str, Any]:
    return {**msgspec.structs.asdict(channel), "created_at": to_text(channel.created_at)}
