"""Users with aliases, tags and custom attributes of users and devices, and groups."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from ...clock import Clock
from ...errors import InvalidInput, NotFound
from .. import checks
from ..apps import App
from ..finding import find_id, named, row_ids
from ..store import schema
from ..store.database import Database
from ..store.statements import chunks, insert_into, with_rows
from ..times import milliseconds
from .records import StoredValue, store_attribute, store_tags

Subject = Literal["user", "device"]
_SUBJECTS = {"user": schema.users, "device": schema.devices}
ALIASES_PER_USER = 20


async def rows_of_users(
    connection: AsyncConnection, app: App, external_ids: Iterable[str], now: int
) -> dict[str, int]:
    """Return the row ids of users by external id, adding those that are new."""
    return await row_ids(
        connection,
        app,
        schema.users,
        external_ids,
        lambda name: {"public_id": public_id_of(app, name), "created_at": now},
    )


def public_id_of(app: App, external_id: str) -> str:
    """Return a user's own id: a UUID drawn from app and external id, the same on every machine."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"apns-live:{app.id}:{external_id}"))


Values = dict[tuple[int, str, str], Sequence[StoredValue]]
"""The values of a tag or attribute by its owner's row, namespace (tag, custom) and name; none takes it away."""


_SET = """
INSERT INTO attributes AS known
    (app_id, OWNER, namespace, name, position, kind, text, number, updated_at)
SELECT :app, given.owner, given.namespace, given.name, given.position, given.kind, given.text,
    given.number, :now
FROM {owner, namespace TEXT, name TEXT, position, kind TEXT, text TEXT, number DOUBLE PRECISION}
WHERE true
ON CONFLICT (OWNER, namespace, name, position) DO UPDATE SET kind = excluded.kind,
    text = excluded.text, number = excluded.number, updated_at = excluded.updated_at
WHERE (known.kind, COALESCE(known.text, ''), COALESCE(known.number, 0), known.text IS NULL)
    <> (excluded.kind, COALESCE(excluded.text, ''), COALESCE(excluded.number, 0), excluded.text IS NULL)
"""
_SHORTEN = """
DELETE FROM attributes WHERE id IN (
    SELECT known.id FROM {owner, namespace TEXT, name TEXT, length} JOIN attributes AS known
        ON known.OWNER = given.owner AND known.namespace = given.namespace
            AND known.name = given.name AND known.position >= given.length)
"""


async def set_values(
    connection: AsyncConnection, app: App, subject: Subject, given: Values, now: int
) -> None:
    """Set tags and attributes of users or devices. What is as it was is not written again."""
    owner = f"{subject}_id"
    for some in chunks(given.items()):
        rows = [
            (row, namespace, name, position, entry.kind, entry.text, entry.number)
            for (row, namespace, name), entries in some
            for position, entry in enumerate(entries)
        ]
        for part in chunks(rows):
            named = {"app": app.row, "now": now}
            await with_rows(connection, _SET.replace("OWNER", owner), part, **named)
        # What was a longer list, or is taken away. A tag is never a list.
        shorter = [
            (row, namespace, name, len(entries))
            for (row, namespace, name), entries in some
            if namespace == "custom" or not entries
        ]
        if shorter:
            await with_rows(connection, _SHORTEN.replace("OWNER", owner), shorter)


async def set_aliases(
    connection: AsyncConnection, app: App, aliases: Mapping[tuple[str, str], int]
) -> None:
    """Let aliases (label and value) name users by row, whomever they named before."""
    table = schema.user_aliases
    statement = insert_into(connection, table)
    statement = statement.on_conflict_do_update(
        index_elements=["app_id", "label", "value"],
        set_={"user_id": statement.excluded.user_id},
        where=table.c.user_id != statement.excluded.user_id,
    )
    for part in chunks(aliases.items()):
        await connection.execute(
            statement,
            [
                {"app_id": app.row, "user_id": row, "label": label, "value": value}
                for (label, value), row in part
            ],
        )


def checked_aliases(
    aliases: Mapping[str, object], name: Callable[[str], str] = "aliases.{}".format
) -> dict[str, str]:
    """Return a user's aliases, checked; ``name`` makes a field's name of a label. Raises `InvalidInput`."""
    if len(aliases) > ALIASES_PER_USER or {"external_id", "onesignal_id"} & aliases.keys():
        raise InvalidInput(
            "holds a reserved label or more than 20 aliases",
            field="aliases",
            remedy="external_id and onesignal_id are kept for the user's own ids.",
        )
    return {
        checks.identifier(label, name(label), limit=128): checks.identifier(value, name(label))
        for label, value in aliases.items()
    }


class People:
    """Users, tags, custom attributes and groups of each app."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def add_user(
        self, app: App, external_id: str, *, aliases: Mapping[str, str] | None = None
    ) -> str:
        """Add a user, or add aliases to an existing one; return the user's public id.

        An alias of another user moves to this one. Raises `InvalidInput`.
        """
        checks.identifier(external_id, "external_id")
        pairs = checked_aliases(aliases or {})
        now = milliseconds(self._clock)
        async with self._database.write() as connection:
            row = (await rows_of_users(connection, app, [external_id], now))[external_id]
            await set_aliases(connection, app, dict.fromkeys(pairs.items(), row))
        return public_id_of(app, external_id)

    async def set_tags(
        self, app: App, subject: Subject, public_id: str, tags: Mapping[str, object]
    ) -> None:
        """Set tags; an empty text or None removes one. Raises `InvalidInput` or `NotFound`."""
        rows = {
            name: [value] if value is not None else []
            for name, value in store_tags(tags, "tags").items()
        }
        await self._set(app, subject, public_id, "tag", rows)

    async def set_attributes(
        self, app: App, subject: Subject, public_id: str, attributes: Mapping[str, object]
    ) -> None:
        """Set custom attributes; None removes one. Raises `InvalidInput` or `NotFound`."""
        rows: dict[str, list[StoredValue]] = {}
        for name, value in attributes.items():
            field = f"attributes.{name}"
            checks.identifier(name, field, limit=128)
            rows[name] = [] if value is None else store_attribute(value, field)
        await self._set(app, subject, public_id, "custom", rows)

    async def _set(
        self,
        app: App,
        subject: Subject,
        public_id: str,
        namespace: str,
        rows: Mapping[str, Sequence[StoredValue]],
    ) -> None:
        if not rows:
            return
        async with self._database.write() as connection:
            owner = await find_id(connection, app, _SUBJECTS[subject], public_id)
            values: Values = {(owner, namespace, name): row for name, row in rows.items()}
            await set_values(connection, app, subject, values, milliseconds(self._clock))

    async def forget_user(self, app: App, external_id: str) -> None:
        """Delete a user with aliases, tags and attributes; devices stay, without a user.

        Raises `NotFound`.
        """
        table = schema.users
        if not await self._database.change(delete(table).where(named(app, table, external_id))):
            raise NotFound(f"the app {app.id!r} has no user {external_id!r}")

    async def add_group(self, app: App, slug: str, *, name: str | None = None) -> None:
        """Add a group, or rename it. Raises `InvalidInput`."""
        checks.slug(slug, "slug")
        title = slug if name is None else checks.identifier(name, "name", limit=200)
        table = schema.groups
        async with self._database.write() as connection:
            added = insert_into(connection, table).values(
                app_id=app.row, slug=slug, name=title, created_at=milliseconds(self._clock)
            )
            place, named = ["app_id", "slug"], {"name": title}
            await connection.execute(
                added.on_conflict_do_nothing()
                if name is None
                else added.on_conflict_do_update(index_elements=place, set_=named)
            )

    async def groups(self, app: App) -> list[dict[str, Any]]:
        """Return the groups of an app by slug."""
        table = schema.groups
        query = select(table.c.slug, table.c.name).where(table.c.app_id == app.row)
        rows = await self._database.rows(query.order_by(table.c.slug))
        return [{"slug": row.slug, "name": row.name} for row in rows]

    async def remove_group(self, app: App, slug: str) -> None:
        """Delete a group; its devices and users stay. Raises `NotFound`."""
        table = schema.groups
        if not await self._database.change(delete(table).where(named(app, table, slug))):
            raise NotFound(f"the app {app.id!r} has no group {slug!r}")

    async def join_group(self, app: App, slug: str, subject: Subject, public_id: str) -> None:
        """Add a device, or a user with all devices, to a group. Raises `NotFound`."""
        await self._membership(app, slug, subject, public_id, join=True)

    async def leave_group(self, app: App, slug: str, subject: Subject, public_id: str) -> None:
        """Remove a device or user from a group; succeeds also if it was not a member. Raises `NotFound`."""
        await self._membership(app, slug, subject, public_id, join=False)

    async def _membership(
        self, app: App, slug: str, subject: Subject, public_id: str, *, join: bool
    ) -> None:
        table = schema.group_members
        async with self._database.write() as connection:
            group = await find_id(connection, app, schema.groups, slug)
            owner = await find_id(connection, app, _SUBJECTS[subject], public_id)
            place = {"group_id": group, f"{subject}_id": owner}
            await connection.execute(
                insert_into(connection, table).values(place).on_conflict_do_nothing()
                if join
                else delete(table).where(*(table.c[name] == at for name, at in place.items()))
            )

    async def move_devices(self, app: App, devices: Sequence[str], user: str | None) -> int:
        """Assign devices to a user, or to none; return how many there were.

        Raises `InvalidInput`.
        """
        if user is not None:
            checks.identifier(user, "user")
        table = schema.devices
        now = milliseconds(self._clock)
        moved = 0
        async with self._database.write() as connection:
            owner = None
            if user is not None:
                owner = (await rows_of_users(connection, app, [user], now))[user]
            for part in chunks(devices):
                result = await connection.execute(
                    update(table)
                    .where(table.c.app_id == app.row, table.c.public_id.in_(part))
                    .values(user_id=owner, updated_at=now)
                )
                moved += result.rowcount
        return moved
