"""The apps of one installation, and their provider keys."""

from __future__ import annotations

import difflib
import json
import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypedDict

import msgspec
from msgspec import Meta
from sqlalchemy import Row, delete, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from ..clock import Clock
from ..credentials import ProviderKey
from ..errors import ActivitiesError, InvalidInput, NotFound, StoreError
from ..payload import check_bundle_id
from . import checks
from .decodes import checked_contract
from .store import schema
from .store.database import Database
from .store.sealing import Sealer
from .store.statements import change_row, view_of
from .times import milliseconds

_OPENED_KEPT = 10_000
_TRUSTED = 60.0
"""Seconds for which a decrypted key is trusted without another check."""
logger = logging.getLogger("apns_live.activities")

ANY_ENVIRONMENT = "any"


class App(msgspec.Struct, frozen=True, kw_only=True):
    """One app. ``row`` is its internal id in the database, ``id`` the one that callers use."""

    row: int
    id: str
    name: str
    bundle_id: str
    environment: str
    settings: dict[str, Any]
    created_at: int

    @classmethod
    def from_row(cls, row: Row[Any]) -> App:
        """Return the app of a row of the table ``apps``. Settings that cannot be read are empty."""
        settings = {}
        try:
            settings = dict(json.loads(row.settings))
        except (ValueError, TypeError):
            logger.exception("the settings of the app %r cannot be read", row.public_id)
        return view_of(cls, row, settings=settings)


class ProviderKeyView(TypedDict):
    """A provider key without the private key."""

    key_id: str
    team_id: str
    environment: str
    active: bool
    created_at: int


async def apps_of(connection: AsyncConnection, ids: Iterable[int]) -> dict[int, App]:
    """Return apps by their row ids."""
    if not (wanted := set(ids)):
        return {}
    found = await connection.execute(select(schema.apps).where(schema.apps.c.id.in_(wanted)))
    return {row.id: App.from_row(row) for row in found}


@dataclass(eq=False, repr=False)
class Apps:
    """Creates and finds apps, and decrypts their keys with the sealer.

    ``key_added`` is called after a key was stored, so that pushes use it.
    """

    database: Database
    sealer: Sealer
    clock: Clock
    new_id: Callable[[], str]
    key_added: Callable[[App], object] = lambda app: None

    def __post_init__(self) -> None:
        self._opened: dict[tuple[int, str], float] = {}

    async def create(
        self,
        *,
        name: str,
        bundle_id: str,
        environment: str = "production",
        id: str | None = None,  # noqa: A002 - the name that callers know
        settings: Mapping[str, Any] | None = None,
    ) -> App:
        """Add an app; ``settings`` as `configure` takes them.

        Raises `InvalidInput`, also when the id is taken.
        """
        public_id = self.new_id() if id is None else checks.identifier(id, "id", limit=64)
        check_settings(settings or {})
        values = {
            "public_id": public_id,
            "name": checks.identifier(name, "name", limit=200),
            "bundle_id": check_bundle_id(bundle_id),
            "environment": checks.environment(environment),
            "settings": json.dumps(dict(settings or {})),
            "created_at": milliseconds(self.clock),
        }
        try:
            await self.database.change(insert(schema.apps), values)
        except IntegrityError:
            raise InvalidInput(f"{public_id!r} is taken", "id", "Choose another id.") from None
        return await self.get(public_id)

    async def get(self, public_id: str) -> App:
        """Return the app. Raises `NotFound`."""
        query = select(schema.apps).where(schema.apps.c.public_id == public_id)
        if (row := await self.database.row(query)) is None:
            raise NotFound(f"there is no app {public_id!r}: create it first")
        return App.from_row(row)

    async def list(self) -> list[App]:
        """Return every app, oldest first."""
        rows = await self.database.rows(select(schema.apps).order_by(schema.apps.c.id))
        return [App.from_row(row) for row in rows]

    async def configure(self, app: App, settings: Mapping[str, Any]) -> App:
        """Merge settings into those of the app; a value of None removes one.

        The service reads ``budget`` (a preset's name), ``channel_devices`` (ios18 or all),
        ``channel_from`` (devices from which on an activity gets a channel, or an object of them by
        attributes type), ``device_limit`` (living activities on one device), ``device_limit_ends``
        (oldest or least relevant), ``hand_over_after`` (seconds, as of `Start`), ``suspect_tokens``
        (use, last or skip; see `activities.people.suspects`), ``language`` (of broadcasts, where an
        alert has several) and ``contract`` (see `activities.decodes`); docs/vendors has those of
        the gateway's dialects. Names of your own begin with ``x_``. Raises `InvalidInput`, also for
        unknown names.
        """
        check_settings(settings)
        table = schema.apps
        query = select(table.c.settings).where(table.c.id == app.row).with_for_update()
        async with self.database.write() as connection:
            stored = (await connection.scalars(query)).one()
            merged = {**json.loads(stored), **settings}
            kept = {key: value for key, value in merged.items() if value is not None}
            await change_row(connection, table, app.row, settings=json.dumps(kept))
        return await self.get(app.id)

    async def add_key(
        self, app: App, pem: str, *, key_id: str, team_id: str, environment: str
    ) -> None:
        """Encrypt and store a provider key. It replaces the active key of ``environment``.

        ``environment`` is production, sandbox or any (for both). Raises `InvalidKey` if the PEM is
        not a key for APNs.
        """
        if environment != ANY_ENVIRONMENT:
            checks.environment(environment)
        key = ProviderKey.from_pem(pem, key_id=key_id, team_id=team_id)
        table = schema.credentials
        place = (table.c.app_id == app.row, table.c.environment == environment)
        values = {
            "team_id": key.team_id,
            "sealed_key": self.sealer.seal(pem, app=app.id, key_id=key.key_id),
            "active": True,
            "created_at": milliseconds(self.clock),
        }
        async with self.database.write() as connection:
            await connection.execute(update(table).where(*place).values(active=False))
            again = update(table).where(*place, table.c.key_id == key.key_id).values(values)
            if not (await connection.execute(again)).rowcount:
                new = {"app_id": app.row, "environment": environment, "key_id": key.key_id}
                await connection.execute(insert(table).values(new | values))
        self.key_added(app)

    async def seal_anew(self, sealer: Sealer) -> int:
        """Encrypt every provider key with another sealing key, in one transaction; return how many.

        Raises `StoreError`, and changes nothing, if a key cannot be decrypted.
        """
        table = schema.credentials
        async with self.database.write() as connection:
            query = select(table, schema.apps.c.public_id.label("app")).join(schema.apps)
            rows = (await connection.execute(query)).all()
            for row in rows:
                place = {"app": row.app, "key_id": row.key_id}
                sealed = sealer.seal(self.sealer.open(row.sealed_key, **place), **place)
                await change_row(connection, table, row.id, sealed_key=sealed)
        self.sealer = sealer
        return len(rows)

    async def key(self, app: App, environment: str) -> ProviderKey:
        """Return the key that pushes to ``environment``.

        Raises `ActivitiesError` if there is none, `StoreError` if it cannot be decrypted.
        """
        table = schema.credentials
        either = table.c.environment.in_([environment, ANY_ENVIRONMENT])
        query = select(table).where(table.c.app_id == app.row, table.c.active, either)
        if not (rows := await self.database.rows(query)):
            raise ActivitiesError(
                f"the app {app.id!r} has no provider key for {environment}: "
                "add one with `apns-live apps add-key`"
            )
        row = next((row for row in rows if row.environment == environment), rows[0])
        return self._unsealed(app, row)

    def _unsealed(self, app: App, row: Row[Any]) -> ProviderKey:
        pem = self.sealer.open(row.sealed_key, app=app.id, key_id=row.key_id)
        return ProviderKey.from_pem(pem, key_id=row.key_id, team_id=row.team_id)

    async def check_key(self, app: App, environment: str) -> None:
        """Raise `StoreError` if the key for ``environment`` exists and cannot be decrypted.

        Otherwise a call could be accepted and never sent. A key that was decrypted is trusted for a
        minute.
        """
        place, now = (app.row, environment), self.clock.monotonic()
        if self._opened.get(place, -math.inf) > now:
            return
        try:
            await self.key(app, environment)
        except StoreError:
            raise
        except ActivitiesError:
            return  # none yet: it is sent when one is added
        if len(self._opened) >= _OPENED_KEPT:
            self._opened.clear()
        self._opened[place] = now + _TRUSTED

    async def keys(self, app: App) -> Sequence[ProviderKeyView]:
        """Return an app's keys without the private keys, oldest first."""
        table = schema.credentials
        query = select(table).where(table.c.app_id == app.row).order_by(table.c.id)
        return [view_of(ProviderKeyView, row) for row in await self.database.rows(query)]

    async def open_key(self, app: App, key_id: str, environment: str) -> ProviderKey:
        """Return one stored key, in use or replaced. Raises `NotFound` or `StoreError`."""
        table = schema.credentials
        named = (table.c.key_id == key_id, table.c.environment == environment)
        query = select(table).where(table.c.app_id == app.row, *named)
        if (row := await self.database.row(query)) is None:
            raise NotFound(f"the app {app.id!r} has no key {key_id!r} for {environment}")
        return self._unsealed(app, row)

    async def remove_key(self, app: App, key_id: str, *, environment: str | None = None) -> int:
        """Delete a key, everywhere or for one environment; return how many rows there were."""
        table = schema.credentials
        place = [table.c.app_id == app.row, table.c.key_id == key_id]
        if environment is not None:
            place.append(table.c.environment == environment)
        return await self.database.change(delete(table).where(*place))


OWN = "x_"
"""The prefix of the caller's own names. The service stores them and does not read them."""
_Rule = tuple[Any, str, str]
_Text = Annotated[str, Meta(min_length=1)]
_Count = Annotated[int, Meta(ge=0)]


def _one_of(*names: str) -> _Rule:
    return Literal[names], "is not a valid value", f"Give {' or '.join(names)}."


_ID: _Rule = (
    _Text | Annotated[list[_Text], Meta(min_length=1)],
    "is not an id",
    "Give a text, or a list of texts.",
)
_LIMIT: _Rule = (Annotated[int, Meta(ge=1)], "is not a limit", "Give 1 or more, or null for none.")
_RULES: dict[str, _Rule] = {
    "activitysmith": (dict[str, Any], "is not an object", "Give a JSON object."),
    "braze_app_id": _ID,
    "braze_max_external_ids": _LIMIT,
    "budget": _one_of("default", "frequent", "observed", "observed-frequent"),
    "channel_devices": _one_of("ios18", "all"),
    "channel_from": (
        _Count | dict[str, _Count],
        "is not a number of devices",
        "Give 0 for never or more, or an object of such numbers by attributes type.",
    ),
    "device_limit": _LIMIT,
    "device_limit_ends": _one_of("oldest", "least relevant"),
    "fcm_project_id": _ID,
    "fcm_unregistered": (bool, "is not a boolean", "Give true or false."),
    "onesignal_app_id": _ID,
    "onesignal_device_calls": _one_of("off", "signed", "open", "demo"),
    "suspect_tokens": _one_of("use", "last", "skip"),
}
"""For each setting: the type of its values, what is wrong with invalid ones, and the remedy."""
_CHECKS: dict[str, Callable[[Any, str], object]] = {
    "contract": lambda value, _: checked_contract(value),
    "hand_over_after": checks.hand_over_after,
    "language": checks.language,
}
_KNOWN = sorted((*_RULES, *_CHECKS))


def check_settings(settings: Mapping[str, Any]) -> None:
    """Raise `InvalidInput` for an unknown name or an invalid value."""
    for name, value in settings.items():
        field = f"settings.{name}"[:80]
        if name not in _KNOWN and not name.startswith(OWN):
            remedy = f"Known: {', '.join(_KNOWN)}; names of your own begin with {OWN}."
            for near in difflib.get_close_matches(name, _KNOWN, n=1, cutoff=0.6):
                remedy = f"Did you mean {near}?"
            raise InvalidInput("is not a setting of an app", field, remedy)
        if value is None:
            continue
        if name in _CHECKS:
            _CHECKS[name](value, field)
        elif name in _RULES:
            kind, problem, remedy = _RULES[name]
            try:
                msgspec.convert(value, kind)
            except msgspec.ValidationError:
                raise InvalidInput(f"{value!r:.40} {problem}", field, remedy) from None
