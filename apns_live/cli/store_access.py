"""What commands of the service run with: database, sealing key, and a gateway's address and proxy."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast
from urllib.parse import urlsplit

from ..activities.settings import ServiceSettings
from ..clock import SystemClock
from ..errors import InvalidSetting, StoreError
from ..gateway.settings import GatewaySettings
from ..settings import DEFAULT_FILE, read
from ..settings.table import STORE as STORE_TABLE
from .files import make_private
from .options import Bundle, Function, Shared, command, option
from .output import Screen, spoken

if TYPE_CHECKING:
    from ..activities.apps import App, Apps
    from ..activities.store.database import Database
    from ..activities.store.sealing import Sealer
    from ..gateway.wire.certificates import Certificates
    from ..pool.endpoint import Endpoint

VARIABLE = "APNS_LIVE_STORE"
DEFAULT_DIRECTORY = Path("apns-live-data")
DATABASE_FILE = "live.db"
KEY_FILE = "store.key"
"""The sealing key's name beside an SQLite database."""

STORE = option(
    "--database --store URL: Database: a file's path, sqlite:///PATH or postgresql://USER@HOST/NAME. "
    f"[{VARIABLE}]",
    "store",
    str | None,
    None,
)
APP = option("--app ID: Id of the app.", "app", str)
APP_ARGUMENT = option("APP: Id of the app.", "app", str)
PAGE = """
--after ROW [0..]: Continue after this row.
--limit N [1..1000]: Maximum of rows.
"""


# --- where the database and its sealing key are


def address(given: str | None) -> str:
    """Return the database's address. Raises `InvalidSetting` if none is configured."""
    if (found := named_address(given)) is None:
        remedy = f"Set --database, {VARIABLE}, or url in [store] of {DEFAULT_FILE}: a file's path or an URL."
        raise InvalidSetting("is missing", "database", remedy)
    return found


def named_address(given: str | None) -> str | None:
    """Return the configured address, else that of a gateway's own database if there is one, else None."""
    file = DEFAULT_DIRECTORY / DATABASE_FILE
    return configured_address(given) or (str(file) if file.is_file() else None)


def configured_address(given: str | None) -> str | None:
    """Return the address from option, variable or settings file; None if none of them has it."""
    return read(STORE_TABLE, {"store.url": given}).values.get("store.url")


def key_file(given: str | None) -> Path | None:
    """Return the sealing key's file: that of the settings, else the one next to the database file.

    Returns None for PostgreSQL without a setting.
    """
    if named := read(STORE_TABLE).values.get("store.key_file"):
        return Path(named)
    url = named_address(given) or ""
    scheme, found, place = url.partition("://")
    if found and scheme.partition("+")[0] != "sqlite":
        return None
    # In sqlite:///PATH the third slash is not part of the path.
    return Path(place.removeprefix("/") if found else url).parent / KEY_FILE


def sealer(file: Path | None, *, create: bool = False) -> Sealer:
    """Return the sealer of the settings' key, else of the settings' or this key file.

    With ``create`` a missing ``file`` is created. Raises `InvalidSetting` when there is no key.
    """
    from ..activities.store.sealing import FILE_VARIABLE, Sealer, new_key

    if key := read(STORE_TABLE).values.get("store.key"):
        return Sealer(key)
    environment = dict(os.environ)
    if file is not None and not environment.get(FILE_VARIABLE):
        if create:
            make_directory(file.parent)
            make_private(file, new_key() + "\n")
        if file.is_file():
            environment[FILE_VARIABLE] = str(file)
    return Sealer.from_environment(environment)


def sealer_of(database: Database) -> Sealer:
    """Return the sealer of an opened database, as `sealer`."""
    file = database.url.database if database.is_sqlite else shown_address(database)
    return sealer(key_file(file))


def make_directory(directory: Path) -> None:
    """Make a directory that only its owner can read."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)


async def embedded_database(
    given: str | None, directory: Path, *, file: str = DATABASE_FILE
) -> str:
    """Return ``given``, or the address of the directory's own database, which is created or upgraded."""
    from ..activities.store.database import Database
    from ..activities.store.upgrade import upgrade

    if given is not None:
        return given
    if not (path := directory / file).exists():
        path.touch(mode=0o600)
    async with Database.open(path) as database:
        await upgrade(database)
    return str(path)


# --- commands on the database


@dataclass(frozen=True, slots=True)
class Stored(Screen):
    """The screen, the opened database, the app of ``--app`` or APP, and the values of the bundles.

    Commands that have neither must not read ``app``.
    """

    database: Database
    app: App
    others: Mapping[str, Any]


def stored(
    *given: str | Bundle,
    need: Literal["current", "there", "nothing"] = "current",
    app: Bundle = APP,
) -> Callable[[Callable[..., Awaitable[int | None]]], Function]:
    """Make a command of a coroutine function that gets `Stored`; ``given`` is as for `command`.

    ``app`` is how the command names its app: `APP`, `APP_ARGUMENT`, or () for none. ``need`` is as for
    `opened`. The command raises `NotFound` for an unknown app.
    """

    def wrap(work: Callable[..., Awaitable[int | None]]) -> Function:
        @functools.wraps(work)
        def started(shared: Shared, **more: Any) -> int | None:
            async def inside() -> int | None:
                async with opened(shared.others["store"], need=need) as database:
                    named = await apps_of(database).get(shared.others["app"]) if app else None
                    found = shared.json_mode, database, cast("App", named), shared.others
                    return await work(Stored(*found), **more)

            return asyncio.run(inside())

        return command(app, *given, STORE)(started)

    return wrap


@contextlib.asynccontextmanager
async def opened(given: str | None, *, need: str = "current") -> AsyncIterator[Database]:
    """Open the database.

    ``need`` is "current" (a version that this release works with), "there" (any version) or "nothing" (it
    may be new). Raises `InvalidSetting` without an address, `StoreError` if the database cannot be used.
    """
    from sqlalchemy.exc import DBAPIError

    from ..activities.store.database import Database
    from ..activities.store.upgrade import check

    database = Database.open(address(given))
    file = Path(database.url.database or "") if database.is_sqlite else None
    if file is not None and need != "nothing" and not file.is_file():
        raise StoreError(f"there is no database {str(file)!r}: run `apns-live store upgrade`")
    async with database:
        try:
            if need == "current":
                await check(database)
            yield database
        except Exception as error:
            # The driver's own message contains neither the password nor the statement.
            reason: BaseException = error
            if isinstance(error, DBAPIError):
                reason = error.orig or error
            elif not type(error).__module__.startswith("asyncpg"):
                raise
            first = str(reason).splitlines()[0] if str(reason) else type(reason).__name__
            raise StoreError(f"{database!r} cannot be used: {first}") from error


def apps_of(database: Database, *, sealed: bool = False) -> Apps:
    """Return the apps of a database. ``sealed``: their keys will be written or opened."""
    from ..activities.apps import Apps
    from ..activities.store.sealing import Sealer, new_key

    # Without ``sealed`` nothing is decrypted, so a new random key is enough.
    sealing = sealer_of(database) if sealed else Sealer(new_key())
    return Apps(database, sealing, SystemClock(), new_id)


def new_id() -> str:
    """Return a new random id."""
    return secrets.token_hex(8)


def shown_address(database: Database) -> str:
    """Return a database's address for people: no password, no driver."""
    shown = database.url.render_as_string(hide_password=True)
    return shown.replace("+aiosqlite", "").replace("+asyncpg", "")


def dated(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of the store with its times as text, ISO 8601 in UTC."""
    from ..activities.times import to_text

    return {name: to_text(value) if name.endswith("_at") else value for name, value in row.items()}


def say_page(
    shared: Screen, key: str, found: Sequence[Mapping[str, Any]], columns: Sequence[str], limit: int
) -> None:
    """Print a page of rows, and the option that continues it."""
    found = [dated(row) for row in found]
    last = found[-1]["row"] if len(found) == limit else None
    names = [name.removesuffix("_at").removeprefix("attributes_") for name in columns]
    rows = [["" if row[name] is None else row[name] for name in columns] for row in found]
    shared.rows({key: found, "after": last}, names, rows)
    if last is not None and not shared.json_mode:
        shared.note(f"there may be more: --after {last}")


def say_facts(shared: Screen, row: Mapping[str, Any]) -> None:
    """Print the columns of one row that are not empty."""
    facts = dated(row)
    empty = [name for name, value in facts.items() if value in (None, "", [], {})]
    shared.answer(facts, *spoken(facts, "row", *empty))


# --- where a gateway runs


@dataclass(slots=True, kw_only=True)
class Place:
    """A gateway's address and resources. ``facts`` are the TLS facts of the ready line."""

    directory: Path | None = None
    database: str | None = None
    host: str = "localhost"
    port: int = 0
    certificates: Certificates | None = None
    hostnames: tuple[str, ...] = ()
    proxy_port: int | None = None
    settings: GatewaySettings | None = None
    service: ServiceSettings | None = None
    endpoints: Mapping[str, Endpoint] = field(default_factory=dict)
    contract: tuple[Path, ...] = ()
    send: bool = True
    facts: dict[str, str] = field(default_factory=dict)

    def make_certificates(self, directory: Path) -> None:
        """Make certificates for ``hostnames`` in the directory's folder ``tls``."""
        if not self.hostnames:
            return
        from ..gateway.wire.certificates import Certificates
        from ..testing.certificates import LOCAL_NAMES, certificates_in

        make_directory(directory / "tls")
        made = certificates_in(directory / "tls", (*LOCAL_NAMES, *self.hostnames))
        self.certificates = Certificates(made.certificate_file, made.key_file)
        self.facts["ca_file"] = str(made.ca_file)

    def serving(self, app: Any, gateway: Any) -> contextlib.AbstractAsyncContextManager[str]:
        """Serve the app of a gateway; the context yields its URL."""
        from ..gateway.serving import serving

        return serving(
            app, host=self.host, port=self.port, certificates=self.certificates, gateway=gateway
        )

    @contextlib.asynccontextmanager
    async def proxy(self, url: str) -> AsyncIterator[None]:
        """Run a CONNECT proxy to the gateway's URL if ``proxy_port`` is given."""
        if self.proxy_port is None:
            yield
            return
        parts = urlsplit(url)
        target = parts.hostname or "localhost", parts.port or 443
        async with connect_proxy(self.proxy_port, target) as address:
            self.facts["proxy"] = address
            yield


@contextlib.asynccontextmanager
async def connect_proxy(port: int, target: tuple[str, int]) -> AsyncIterator[str]:
    """Run a CONNECT proxy (RFC 9110, 9.3.6) on localhost that connects every host to ``target``.

    Yields its URL; port 0 takes a free port. For SDKs with a hard-coded host that respect ``HTTPS_PROXY``.
    """

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError, ValueError):
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10.0)
            if not head.startswith(b"CONNECT "):
                writer.write(b"HTTP/1.1 405 Method Not Allowed\r\nAllow: CONNECT\r\n\r\n")
                return
            there, back = await asyncio.open_connection(*target)
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await asyncio.gather(_copy(reader, back), _copy(there, writer))
        writer.close()

    server = await asyncio.start_server(serve, "localhost", port)
    async with server:
        yield f"http://localhost:{server.sockets[0].getsockname()[1]}"


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    try:
        while part := await source.read(65_536):
            target.write(part)
            await target.drain()
    finally:
        target.close()
