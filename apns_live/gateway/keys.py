"""API keys. Only a digest of the secret is stored.

A secret is 256 random bits. It cannot be guessed, so SHA-256 is enough. Slow hashes (bcrypt,
Argon2) protect passwords that people choose, and would cost tens of milliseconds per request.
A secret's text is ``HEAD_LOOKUP_SECRET``; LOOKUP finds the row by an index, and the digest is then
compared in constant time, so that the response time reveals nothing about a secret. The secret of
an ``fcm`` key is the file of a service account, with which Google's SDKs sign in. Only the file has
its private key; the row has the public one in place of the digest.
"""

import asyncio
import hashlib
import hmac
import json
import secrets
from collections.abc import Callable, Iterable
from typing import Any, TypedDict

import msgspec
from cryptography.hazmat.primitives import serialization as form
from cryptography.hazmat.primitives.asymmetric import rsa
from sqlalchemy import Row, bindparam, insert, or_, select, update

from ..activities import checks
from ..activities.apps import App
from ..activities.store import schema
from ..activities.store.database import Database
from ..activities.store.statements import view_of
from ..activities.times import milliseconds
from ..clock import Clock
from ..errors import Conflict, InvalidInput, NotFound
from .admission import Known, Slots
from .scopes import Dialect, check_dialect, check_scopes

HEADS: dict[str, str] = {
    "native": "apnslive",
    "activitysmith": "ask",
    "braze": "braze",
    "onesignal": "os_v2_app",
    "fcm": "fcm",
}
"""How a secret begins, so that a person, or a scanner of leaked secrets, sees what it is."""
PROJECT_SETTING = "fcm_project_id"
_REMEMBERED = 10_000
_USED_EVERY_SECONDS = 60.0
_NOBODY = bytes(32)
_LOOKUP = 32


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """A valid API key, without its secret.

    ``caller`` identifies it for idempotency keys and limits, and stays the same after a rotation.
    ``groups`` are the slugs that it is restricted to; None for no restriction.
    """

    id: str
    app: App
    dialect: Dialect
    scopes: frozenset[str]
    name: str
    caller: str
    groups: frozenset[str] | None = None
    per_minute: int | None = None
    concurrent: int | None = None
    expires_at: int | None = None

    def may(self, scope: str) -> bool:
        """Whether the key has a scope."""
        return scope in self.scopes


class KeyView(TypedDict):
    """An API key without its secret; ``begins`` has the secret's first characters."""

    row: int
    id: str
    name: str
    dialect: str
    scopes: list[str]
    groups: list[str] | None
    per_minute: int | None
    concurrent: int | None
    begins: str
    created_at: int
    last_used_at: int | None
    expires_at: int | None
    revoked_at: int | None
    replaced_by: str | None


class Keys:
    """Creates, finds, rotates and revokes API keys.

    A found key is cached for five seconds. A revoked key is refused at once by the process that
    revokes it, and within five seconds by others.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        new_id: Callable[[], str],
        strangers: Slots | None = None,
    ) -> None:
        self._database = database
        self._clock = clock
        self._new_id = new_id
        self._known = Known(self._load, clock, _REMEMBERED, strangers)
        self._used: dict[str, int] = {}
        self._used_written = clock.monotonic()

    async def create(
        self,
        app: App,
        *,
        dialect: str = "native",
        scopes: Iterable[str],
        groups: Iterable[str] | None = None,
        name: str,
        per_minute: int | None = None,
        concurrent: int | None = None,
    ) -> tuple[ApiKey, str]:
        """Create a key; return it and its secret, which is not stored. Raises `InvalidInput`."""
        for field, value in (("per_minute", per_minute), ("concurrent", concurrent)):
            if value is not None and not 1 <= value < 2**31:
                raise InvalidInput(f"{value} is not a valid limit", field, "Give 1 or more.")
        public_id = self._new_id()
        key = ApiKey(
            id=public_id,
            app=app,
            dialect=check_dialect(dialect),
            scopes=check_scopes(scopes),
            groups=None if groups is None else frozenset(checks.slug(n, "groups") for n in groups),
            name=checks.identifier(name, "name", limit=200),
            caller=public_id,
            per_minute=per_minute,
            concurrent=concurrent,
        )
        values, secret = await self._row(key)
        await self._database.change(insert(schema.api_keys), values)
        return key, secret

    async def _row(self, key: ApiKey) -> tuple[dict[str, Any], str]:
        lookup = secrets.token_hex(6)
        if key.dialect == "fcm":
            # Generating an RSA key takes a tenth of a second or more.
            secret, proof = await asyncio.to_thread(new_account, project_of(key.app), lookup)
        else:
            secret = f"{HEADS[key.dialect]}_{lookup}_{secrets.token_hex(32)}"
            proof = _digest(secret)
        return {
            "app_id": key.app.row,
            "public_id": key.id,
            "family": key.caller,
            "name": key.name,
            "dialect": key.dialect,
            "lookup": lookup,
            "secret_hash": proof,
            "scopes": json.dumps(sorted(key.scopes)),
            "groups": None if key.groups is None else json.dumps(sorted(key.groups)),
            "per_minute": key.per_minute,
            "concurrent": key.concurrent,
            "created_at": milliseconds(self._clock),
        }, secret

    async def find(self, secret: str) -> ApiKey | None:
        """Return the key of a secret, or None if there is none, or it is revoked or expired."""
        if not secret:
            return None
        parts = secret.rsplit("_", 2)
        usual = len(parts) == 3 and len(parts[1]) == 12 and len(secret) < 128
        known = await self._known.get(parts[1] if usual else "")
        # Compared in any case: an unknown key takes as long as a wrong secret.
        right = hmac.compare_digest(_digest(secret), _NOBODY if known is None else known[1])
        return self._in_use(known[0]) if known is not None and right else None

    async def with_proof(self, lookup: str) -> tuple[ApiKey, bytes] | None:
        """Return a service account's key and its public key (DER), or None as `find`."""
        known = await self._known.get(lookup)
        if known is None or known[0].dialect != "fcm" or self._in_use(known[0]) is None:
            return None
        return known

    def _in_use(self, key: ApiKey) -> ApiKey | None:
        """Note that a key is used, and return it. Return None if it has expired."""
        now = milliseconds(self._clock)
        if key.expires_at is not None and key.expires_at <= now:
            return None
        self._used[key.id] = now
        return key

    async def _load(self, lookup: str) -> tuple[ApiKey, bytes] | None:
        if not 0 < len(lookup) <= _LOOKUP or not lookup.isalnum():
            return None
        table, apps = schema.api_keys, schema.apps
        query = select(table).where(table.c.lookup == lookup, table.c.revoked_at.is_(None))
        row = await self._database.row(query)
        app = row and await self._database.row(select(apps).where(apps.c.id == row.app_id))
        if row is None or app is None:
            return None
        return _key(row, App.from_row(app)), bytes(row.secret_hash)

    async def get(self, app: App, key_id: str) -> KeyView:
        """Return a key without its secret. Raises `NotFound`."""
        return _shown(await self._stored(app, key_id))

    async def page(self, app: App, *, after: int = 0, limit: int = 100) -> list[KeyView]:
        """Return a page of an app's keys, oldest first; ``after`` is the ``row`` of the last one."""
        table = schema.api_keys
        query = select(table).where(table.c.app_id == app.row, table.c.id > after)
        query = query.order_by(table.c.id).limit(min(limit, 1_000))
        return [_shown(row) for row in await self._database.rows(query)]

    async def rotate(
        self, app: App, key_id: str, *, overlap: float = 86_400.0
    ) -> tuple[ApiKey, str]:
        """Create a new secret for a key; the old one works for ``overlap`` more seconds.

        The new key has an id of its own and the same caller. Raises `NotFound`, and `Conflict` for
        a key that was revoked or rotated before.
        """
        if not 0 <= overlap <= 90 * 86_400:
            text = f"{overlap} is out of range"
            raise InvalidInput(text, "overlap", "Give 0 to 7776000 seconds.")
        row = await self._stored(app, key_id)
        if row.revoked_at is not None or row.replaced_by is not None:
            raise Conflict(f"the key {key_id!r} was revoked or rotated before: create a new one")
        table, ends = schema.api_keys, milliseconds(self._clock) + int(overlap * 1000)
        key = msgspec.structs.replace(_key(row, app), id=self._new_id(), expires_at=None)
        values, secret = await self._row(key)
        free = (table.c.replaced_by.is_(None), table.c.revoked_at.is_(None))
        replaced = update(table).where(table.c.id == row.id, *free)
        async with self._database.write() as connection:
            changed = await connection.execute(replaced.values(expires_at=ends, replaced_by=key.id))
            if not changed.rowcount:
                raise Conflict(f"the key {key_id!r} was rotated at this moment by someone else")
            await connection.execute(insert(table), values)
        self._known.entries.pop(row.lookup, None)
        return key, secret

    async def revoke(self, app: App, key_id: str) -> None:
        """Revoke a key permanently. Raises `NotFound`."""
        row = await self._stored(app, key_id)
        table, now = schema.api_keys, milliseconds(self._clock)
        valid = update(table).where(table.c.id == row.id, table.c.revoked_at.is_(None))
        await self._database.change(valid.values(revoked_at=now))
        self._known.entries.pop(row.lookup, None)

    async def _stored(self, app: App, key_id: str) -> Row[Any]:
        table = schema.api_keys
        query = select(table).where(table.c.app_id == app.row, table.c.public_id == key_id)
        if (row := await self._database.row(query)) is None:
            raise NotFound(f"the app {app.id!r} has no API key {key_id!r:.80}")
        return row

    def forget(self) -> None:
        """Clear the cache, because settings of an app have changed."""
        self._known.entries.clear()

    def usage_is_due(self) -> bool:
        """Whether times of last use should be stored now: at most once a minute for all keys."""
        since = self._clock.monotonic() - self._used_written
        return bool(self._used) and since >= _USED_EVERY_SECONDS

    async def write_usage(self) -> None:
        """Store when each key was last used. Called in the background, and at shutdown."""
        used, self._used = self._used, {}
        self._used_written = self._clock.monotonic()
        if not used:
            return
        table, last = schema.api_keys, schema.api_keys.c.last_used_at
        moment: Any = bindparam("the_time")
        keys = update(table).where(table.c.public_id == bindparam("the_key"))
        await self._database.change(
            keys.where(or_(last.is_(None), last < moment)).values(last_used_at=moment),
            [{"the_key": key, "the_time": time} for key, time in used.items()],
        )


def project_of(app: App) -> str:
    """Return the project id that an app's service accounts name."""
    named = app.settings.get(PROJECT_SETTING)
    first = named[0] if isinstance(named, list) and named else named
    return first if isinstance(first, str) and first else app.id


def new_account(project: str, lookup: str) -> tuple[str, bytes]:
    """Return a service account's file, without its ``token_uri``, and the public key (DER)."""
    private = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
    plain, kind = form.NoEncryption(), form.PublicFormat.SubjectPublicKeyInfo
    pem = private.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, plain)
    public = private.public_key().public_bytes(form.Encoding.DER, kind)
    facts = {
        "type": "service_account",
        "project_id": project,
        "private_key_id": hashlib.sha1(public, usedforsecurity=False).hexdigest(),
        "private_key": pem.decode(),
        "client_email": f"{lookup}@{project}.iam.gserviceaccount.com",
        "client_id": str(int(lookup, 16)),
        "token_uri": "",
        "universe_domain": "googleapis.com",
    }
    return json.dumps(facts, indent=2), public


def with_token_uri(account: str, url: str) -> str:
    """Return a service account's file whose tokens come from ``url`` (the gateway's address)."""
    return json.dumps({**json.loads(account), "token_uri": f"{url.rstrip('/')}/token"}, indent=2)


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "replace")).digest()


def _key(row: Row[Any], app: App) -> ApiKey:
    scopes = frozenset(json.loads(row.scopes))
    groups = None if row.groups is None else frozenset(json.loads(row.groups))
    return view_of(ApiKey, row, app=app, caller=row.family, scopes=scopes, groups=groups)


def _shown(row: Row[Any]) -> KeyView:
    return view_of(KeyView, row, begins=f"{HEADS[row.dialect]}_{row.lookup}")
