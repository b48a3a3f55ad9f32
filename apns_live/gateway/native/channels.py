"""Apple's broadcast channels."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta
from msgspec.structs import asdict

from ...activities.accept.broadcast_channels import ChannelView, CreateChannel, Reconciled
from ..calls import Call
from .answers import TextPageAnswer, shown_times, text_page
from .face import Routes
from .shapes import Environment, Strict, TextPage

routes = Routes("channels", scope="channels:write")


class ChannelBody(Strict, frozen=True, kw_only=True):
    """A new channel. With policy 1 APNs stores the newest message for offline phones, with 0 nothing."""

    storage_policy: Literal[0, 1] = 1
    environment: Environment | None = None
    name: Annotated[str, Meta(min_length=1, max_length=200)] | None = None


class ChannelsPage(TextPage, frozen=True, kw_only=True):
    """Where to read on, and how much."""

    environment: Environment | None = None


class Where(Strict, frozen=True, kw_only=True):
    """The environment; by default the app's."""

    environment: Environment | None = None


_APPLE = frozenset({409})


@routes(
    "POST /v1/channels", "Create a broadcast channel", status=201, idempotent=True, refusals=_APPLE
)
async def create_channel(call: Call, body: ChannelBody | None) -> ChannelView:
    """Creates it at Apple, which allows 10,000 for an app. Start an activity with its id as ``channel``."""
    body = body or ChannelBody()
    request = CreateChannel(**asdict(body))
    done = await call.service.channels.create(call.app, request, key=call.once())
    await call.note("channel.create", done.answer.id)
    return shown_times(call.told(done))


@routes("GET /v1/channels", "List broadcast channels")
async def list_channels(call: Call, query: ChannelsPage) -> TextPageAnswer[ChannelView]:
    """The channels stored in the gateway, by id. Does not ask Apple."""
    found = await call.service.channels.list(call.app, **asdict(query))
    full = len(found) == query.limit
    return text_page((found, found[-1].id if full else None))


@routes("POST /v1/channels/compare", "Compare with Apple's list", refusals=_APPLE)
async def compare_channels(call: Call, query: Where) -> Reconciled:
    """Compares with Apple's list: adds new channels, and removes those that no longer exist."""
    return await call.service.channels.reconcile(call.app, environment=query.environment)


@routes("GET /v1/channels/{channel:path}", "Get a broadcast channel", refusals=_APPLE)
async def get_channel(call: Call, channel: str, query: Where) -> ChannelView:
    """An unknown channel is read from Apple."""
    environment = query.environment
    return shown_times(await call.service.channels.get(call.app, channel, environment=environment))


@routes("DELETE /v1/channels/{channel:path}", "Delete a broadcast channel", refusals=_APPLE)
async def delete_channel(call: Call, channel: str, query: Where) -> None:
    """Permanent. Cards that follow the channel get no more updates."""
    await call.service.channels.delete(call.app, channel, environment=query.environment)
    await call.note("channel.delete", channel)
