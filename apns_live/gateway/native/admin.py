"""The app, its provider keys, API keys and broadcast channels, and the audit log."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta
from msgspec.structs import asdict

from ...activities.accept.broadcast_channels import ChannelView, CreateChannel, Reconciled
from ...activities.apps import App, ProviderKeyView
from ...errors import NotAllowed, NotFound
from ..audit import AuditView
from ..calls import Call
from ..keys import KeyView
from ..scopes import check_scopes
from . import shapes
from .face import Routes

routes = Routes("admin", scope="admin")
channels = Routes("channels", scope="channels:write", refusals={409})
Settings = Annotated[dict[str, Any], Meta(max_length=100)]


class AppAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """An app."""

    id: str
    name: str
    bundle_id: str
    environment: str
    settings: dict[str, Any]
    created_at: shapes.Time


class AppBody(shapes.Strict, frozen=True, kw_only=True):
    """Settings to merge into those of the app; null removes one."""

    settings: Settings


class ProviderKeyBody(shapes.Strict, frozen=True, kw_only=True):
    """A provider key: the text of the .p8 file."""

    pem: Annotated[str, Meta(min_length=1, max_length=10_000)]
    key_id: Annotated[str, Meta(min_length=10, max_length=10)]
    team_id: Annotated[str, Meta(min_length=10, max_length=10)]
    environment: Literal["production", "sandbox", "any"] = "any"


class KeyBody(shapes.Strict, frozen=True, kw_only=True):
    """A new API key. It cannot have more rights than the key that creates it."""

    name: Annotated[str, Meta(min_length=1, max_length=200)]
    scopes: Annotated[list[str], Meta(min_length=1, max_length=50)]
    dialect: Literal["native", "activitysmith", "braze", "onesignal", "fcm"] = "native"
    groups: Annotated[list[str], Meta(max_length=1_000)] | None = None
    per_minute: Annotated[int, Meta(ge=1, lt=2**31)] | None = None
    concurrent: Annotated[int, Meta(ge=1, lt=2**31)] | None = None


class RotateBody(shapes.Strict, frozen=True, kw_only=True):
    """``overlap``: seconds for which the old secret still works."""

    overlap: Annotated[float, Meta(ge=0, le=7_776_000)] = 86_400.0


class NewKeyAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A key and its secret, which is not shown again."""

    id: str
    secret: str


@routes("GET /v1/apps", "List apps", scope="")
async def list_apps(call: Call) -> shapes.PageAnswer[AppAnswer]:
    """Lists the app that the key belongs to."""
    return shapes.PageAnswer(items=[_shown_app(call.app)], next=None)


@routes("GET /v1/apps/{app}", "Get the app", scope="")
async def get_app(call: Call) -> AppAnswer:
    """A key can read only its own app."""
    return _shown_app(_own(call))


@routes("PATCH /v1/apps/{app}", "Change settings of the app")
async def configure_app(call: Call, body: AppBody) -> AppAnswer:
    """Bundle id and name can be set on the command line only."""
    app = await call.service.apps.configure(_own(call), body.settings)
    call.gateway.keys.forget()
    await call.note("app.configure", app.id, settings=sorted(body.settings))
    return _shown_app(app)


@routes("GET /v1/apps/{app}/provider-keys", "List provider keys")
async def list_provider_keys(call: Call) -> shapes.PageAnswer[ProviderKeyView]:
    """Without the private keys."""
    found = await call.service.apps.keys(_own(call))
    return shapes.PageAnswer(items=[shapes.shown_times(one) for one in found], next=None)


@routes("POST /v1/apps/{app}/provider-keys", "Add a provider key")
async def add_provider_key(call: Call, body: ProviderKeyBody) -> None:
    """The key is stored encrypted. It replaces the key of the same environment."""
    await call.service.apps.add_key(_own(call), **asdict(body))
    await call.note("provider_key.add", body.key_id, environment=body.environment)


@routes("GET /v1/keys", "List API keys")
async def list_keys(call: Call, query: shapes.Page) -> shapes.PageAnswer[KeyView]:
    """Oldest first, without secrets."""
    return await shapes.page(call.gateway.keys.page, call.app, query)


@routes("POST /v1/keys", "Make an API key", status=201)
async def create_key(call: Call, body: KeyBody) -> NewKeyAnswer:
    """Only this answer has the secret; it is not stored."""
    if missing := check_scopes(body.scopes) - call.key.scopes:
        raise NotAllowed(f"this key cannot give {', '.join(sorted(missing))}: it lacks them itself")
    key, secret = await call.gateway.keys.create(call.app, **asdict(body))
    await call.note("key.create", key.id, name=key.name, scopes=sorted(key.scopes))
    return NewKeyAnswer(id=key.id, secret=secret)


@routes("POST /v1/keys/{key}/rotate", "Give a key a new secret", status=201, refusals={409})
async def rotate_key(call: Call, key: str, body: RotateBody = RotateBody()) -> NewKeyAnswer:
    """The old secret works until the overlap ends."""
    keys = call.gateway.keys
    if frozenset((await keys.get(call.app, key))["scopes"]) - call.key.scopes:
        raise NotAllowed("this key cannot rotate one that may do more than itself")
    new, secret = await keys.rotate(call.app, key, overlap=body.overlap)
    await call.note("key.rotate", key, replaced_by=new.id)
    return NewKeyAnswer(id=new.id, secret=secret)


@routes("DELETE /v1/keys/{key}", "Revoke an API key")
async def revoke_key(call: Call, key: str) -> None:
    """Takes effect at once in this process, and within five seconds in others."""
    await call.gateway.keys.revoke(call.app, key)
    await call.note("key.revoke", key)


@routes("GET /v1/audit", "Read the audit log")
async def read_audit(call: Call, query: shapes.Page) -> shapes.PageAnswer[AuditView]:
    """Who changed keys, credentials and settings, or imported. Oldest first."""
    return await shapes.page(call.gateway.audit.page, call.app, query)


def _own(call: Call) -> App:
    if call.parts["app"] != call.app.id:
        raise NotFound(f"there is no app {call.parts['app']!r}")
    return call.app


def _shown_app(app: App) -> AppAnswer:
    return msgspec.convert(shapes.shown_times(app), AppAnswer)


class ChannelBody(shapes.Strict, frozen=True, kw_only=True):
    """A new channel. With policy 1 APNs stores the newest message for offline phones, with 0 nothing."""

    storage_policy: Literal[0, 1] = 1
    environment: shapes.Environment | None = None
    name: Annotated[str, Meta(min_length=1, max_length=200)] | None = None


class ChannelsPage(shapes.TextPage, frozen=True, kw_only=True):
    """Where to read on, and how much."""

    environment: shapes.Environment | None = None


class Where(shapes.Strict, frozen=True, kw_only=True):
    """The environment; by default the app's."""

    environment: shapes.Environment | None = None


@channels("POST /v1/channels", "Create a broadcast channel", status=201, idempotent=True)
async def create_channel(call: Call, body: ChannelBody = ChannelBody()) -> ChannelView:
    """Creates it at Apple, which allows 10,000 for an app. Start an activity with its id as ``channel``."""
    request = CreateChannel(**asdict(body))
    done = await call.service.channels.create(call.app, request, key=call.once())
    await call.note("channel.create", done.answer.id)
    return shapes.shown_times(call.told(done))


@channels("GET /v1/channels", "List broadcast channels", refusals=())
async def list_channels(call: Call, query: ChannelsPage) -> shapes.TextPageAnswer[ChannelView]:
    """The channels stored in the gateway, by id. Does not ask Apple."""
    found = await call.service.channels.list(call.app, **asdict(query))
    return shapes.text_page((found, found[-1].id if len(found) == query.limit else None))


@channels("POST /v1/channels/compare", "Compare with Apple's list")
async def compare_channels(call: Call, query: Where) -> Reconciled:
    """Compares with Apple's list: adds new channels, and removes those that no longer exist."""
    return await call.service.channels.reconcile(call.app, **asdict(query))


@channels("GET /v1/channels/{channel:path}", "Get a broadcast channel")
async def get_channel(call: Call, channel: str, query: Where) -> ChannelView:
    """An unknown channel is read from Apple."""
    return shapes.shown_times(await call.service.channels.get(call.app, channel, **asdict(query)))


@channels("DELETE /v1/channels/{channel:path}", "Delete a broadcast channel")
async def delete_channel(call: Call, channel: str, query: Where) -> None:
    """Permanent. Cards that follow the channel get no more updates."""
    await call.service.channels.delete(call.app, channel, **asdict(query))
    await call.note("channel.delete", channel)
