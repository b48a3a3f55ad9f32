"""Device credentials: signed tokens with which a phone calls the gateway.

An API key must never be in an app, because anyone could extract it. Instead the server, which knows the
logged-in user, requests a credential for one device and gives it to the phone. It is signed, valid for
an hour by default, and only for that device's calls.

``apnsdev1.PAYLOAD.MAC``: the payload is JSON in base64url (app, device, expiry, activities), the
MAC is HMAC-SHA-256 under a key derived from the sealing key and the device's random value
(``devices.secret_hash``). A new random value revokes all earlier credentials of the device.
"""

import base64
import binascii
import hashlib
import hmac
import secrets

import msgspec
from sqlalchemy import select, update

from ..activities import checks
from ..activities.apps import App
from ..activities.finding import named
from ..activities.store import schema
from ..activities.store.database import Database
from ..activities.store.sealing import Sealer
from ..activities.store.statements import insert_into
from ..activities.times import milliseconds
from ..clock import Clock
from ..errors import InvalidInput, NotAllowed
from .admission import Known, Slots

HEAD = "apnsdev1"
_MAX_LENGTH = 4_096
_REMEMBERED = 50_000
MAX_SECONDS = 7 * 86_400.0
MAX_ACTIVITIES = 20


class Claims(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The claims of a credential. ``expires_at`` is seconds since 1970.

    ``activities`` None lets the device join any activity whose id it knows; a list only these.
    """

    app: str
    device: str
    expires_at: int
    activities: tuple[str, ...] | None = None

    def may_join(self, activity: str) -> bool:
        """Whether the device may register a token for an activity."""
        return self.activities is None or activity in self.activities


class Phone(msgspec.Struct, frozen=True, kw_only=True):
    """A device that called with a valid credential."""

    app: App
    device: str
    claims: Claims


class DeviceCredentials:
    """Mints, checks and revokes credentials of devices."""

    def __init__(
        self, database: Database, clock: Clock, sealer: Sealer, strangers: Slots | None = None
    ) -> None:
        self._database = database
        self._clock = clock
        self._key = sealer.derive("device credentials")
        self._known = Known(self._load, clock, _REMEMBERED, strangers)

    async def mint(
        self, app: App, device: str, *, seconds: float, activities: tuple[str, ...] | None = None
    ) -> tuple[str, int]:
        """Return a credential and its expiry (seconds since 1970). Adds the device if it is new.

        Raises `InvalidInput`.
        """
        checks.identifier(device, "device", limit=64)
        if not 1 <= seconds <= MAX_SECONDS:
            text, remedy = f"{seconds} is out of range", f"Give 1 to {MAX_SECONDS:.0f}."
            raise InvalidInput(text, "seconds", remedy)
        count = len(activities or ())
        checks.at_most(count, MAX_ACTIVITIES, "ids", "activities", more=", or leave it out")
        table, place = schema.devices, named(app, schema.devices, device)
        at = milliseconds(self._clock)
        async with self._database.write() as connection:
            new = {"app_id": app.row, "public_id": device, "created_at": at, "updated_at": at}
            added = insert_into(connection, table).values(new)
            await connection.execute(added.on_conflict_do_nothing())
            empty = update(table).where(place, table.c.secret_hash.is_(None))
            await connection.execute(empty.values(secret_hash=secrets.token_bytes(32)))
            value = bytes(
                (await connection.scalars(select(table.c.secret_hash).where(place))).one()
            )
        ends = int(self._clock.time() + seconds)
        claims = Claims(app=app.id, device=device, expires_at=ends, activities=activities)
        payload = _encode(msgspec.json.encode(claims))
        credential = f"{HEAD}.{payload}.{_encode(self._mac(payload, value))}"
        if len(credential) > _MAX_LENGTH:
            raise InvalidInput("are too long together", "activities", "Name fewer activities.")
        return credential, claims.expires_at

    async def check(self, credential: str) -> Phone | None:
        """Return the phone of a credential, or None if it is not valid.

        Raises `NotAllowed` (401) for one that was valid and has expired.
        """
        parts = credential.split(".")
        if len(credential) > _MAX_LENGTH or len(parts) != 3 or parts[0] != HEAD:
            return None
        _, payload, mac = parts
        try:
            claims = msgspec.json.decode(_decode(payload), type=Claims)
            given = _decode(mac)
        except (msgspec.DecodeError, binascii.Error, ValueError):
            return None
        known = await self._known.get(f"{claims.app}\n{claims.device}")
        value = bytes(32) if known is None else known[1]
        if not hmac.compare_digest(self._mac(payload, value), given) or known is None:
            return None
        if claims.expires_at <= self._clock.time():
            raise NotAllowed(
                "the device credential has ended: ask your server for another", status=401
            )
        return Phone(app=known[0], device=claims.device, claims=claims)

    async def revoke(self, app: App, device: str) -> bool:
        """Revoke every credential of a device; return whether it had any."""
        table = schema.devices
        place = (named(app, table, device), table.c.secret_hash.is_not(None))
        had = await self._database.change(update(table).where(*place).values(secret_hash=None))
        self.forget(app, device)
        return bool(had)

    def forget(self, app: App, device: str) -> None:
        """Remove a device from the cache."""
        self._known.entries.pop(f"{app.id}\n{device}", None)

    async def _load(self, name: str) -> tuple[App, bytes] | None:
        table, apps = schema.devices, schema.apps
        app, _, device = name.partition("\n")
        query = select(apps, table.c.secret_hash).join(table, table.c.app_id == apps.c.id)
        query = query.where(apps.c.public_id == app, table.c.public_id == device)
        row = await self._database.row(query.where(table.c.secret_hash.is_not(None)))
        return None if row is None else (App.from_row(row), bytes(row.secret_hash))

    def _mac(self, payload: str, value: bytes) -> bytes:
        key = hmac.digest(self._key, value, hashlib.sha256)
        return hmac.digest(key, f"{HEAD}.{payload}".encode(), hashlib.sha256)


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
