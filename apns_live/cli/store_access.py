"""Opens the database for commands of the service, and reports why it cannot be used."""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..errors import InvalidSetting, StoreError
from ..settings import DEFAULT_FILE, read
from ..settings.table import STORE as STORE_TABLE
from .options import Shared, command
from .output import ExitCode, MissingPart, Screen

if TYPE_CHECKING:
    from ..activities.apps import Apps
    from ..activities.store.database import Database
    from ..activities.store.sealing import Sealer

VARIABLE = "APNS_LIVE_STORE"
DEFAULT_DIRECTORY = Path("apns-live-data")
DATABASE_FILE = "live.db"
KEY_FILE = "store.key"
"""The sealing key's name beside an SQLite database."""

Need = Literal["current", "there", "nothing"]
STORE = f"""
--database --store URL: Database: a file's path, sqlite:///PATH or postgresql://USER@HOST/NAME.
    [{VARIABLE}]
"""
APP = "--app ID: Id of the app."
PAGE = """
--after ROW [0..]: Continue after this row.
--limit N [1..1000]: Maximum of rows.
"""


def dated(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of the store with its times as text, ISO 8601 in UTC."""
    from ..activities.times import to_text

    return {name: to_text(value) if name.endswith("_at") else value for name, value in row.items()}


def address(given: str | None) -> str:
    """Return the database's address. Raises `InvalidSetting` when nothing names one."""
    if (found := named_address(given)) is not None:
        return found
    raise InvalidSetting(
        "is missing",
        field="database",
        remedy=f"Set --database, {VARIABLE}, or url in [store] of {DEFAULT_FILE}: a file's path or "
        "an URL.",
    )


def named_address(given: str | None) -> str | None:
    """Return the database's address as `configured_address`, or a gateway's own in its usual place."""
    if (found := configured_address(given)) is not None:
        return found
    file = DEFAULT_DIRECTORY / DATABASE_FILE
    return str(file) if file.is_file() else None


def configured_address(given: str | None) -> str | None:
    """Return what names the database: option over variable over the settings file; None without."""
    found: str | None = read(STORE_TABLE, {"store.url": given}).values.get("store.url")
    return found


def key_file(given: str | None) -> Path | None:
    """Return where the sealing key of a database is looked for, if nothing in the environment says.

    The settings file names it, or it lies beside the database's own file.
    """
    if named := read(STORE_TABLE).values.get("store.key_file"):
        return Path(named)
    url = named_address(given) or ""
    scheme, found, place = url.partition("://")
    if found and scheme.partition("+")[0] != "sqlite":
        return None
    # sqlite:///PATH: the third stroke belongs to the address.
    return Path(place.removeprefix("/") if found else url).parent / KEY_FILE


def sealing_key() -> str | None:
    """Return the sealing key itself, where the settings hold it."""
    found: str | None = read(STORE_TABLE).values.get("store.key")
    return found


def sealer(given: str | None = None) -> Sealer:
    """Return the sealer of a database's provider keys. Raises `InvalidSetting` when there is none."""
    from ..activities.store.sealing import FILE_VARIABLE, Sealer

    if key := sealing_key():
        return Sealer(key)
    environment = dict(os.environ)
    if not environment.get(FILE_VARIABLE):
        file = key_file(given)
        if file is not None and file.is_file():
            environment[FILE_VARIABLE] = str(file)
    return Sealer.from_environment(environment)


def sealer_of(database: Database) -> Sealer:
    """Return the sealer of an opened database, as `sealer`."""
    return sealer(database.url.database if database.is_sqlite else shown_address(database))


def new_id() -> str:
    """Return the id of something that is made here."""
    return secrets.token_hex(8)


def apps_of(database: Database, *, sealed: bool = False) -> Apps:
    """Return the apps of a database. ``sealed``: their keys will be written or opened."""
    from ..activities.apps import Apps
    from ..activities.store.sealing import Sealer, new_key
    from ..clock import SystemClock

    # A key of this moment opens nothing, and nothing is to be opened.
    sealing = sealer_of(database) if sealed else Sealer(new_key())
    return Apps(database, sealing, SystemClock(), new_id)


@asynccontextmanager
async def opened(given: str | None, *, need: Need = "current") -> AsyncIterator[Database]:
    """Open the database, which must be of this release's version, or be there, or may be new.

    Raises `InvalidSetting` and `StoreError`, with what to do.
    """
    from ..activities.store.database import Database
    from ..activities.store.upgrade import check

    database = Database.open(address(given))
    file = Path(database.url.database or "") if database.is_sqlite else None
    if file is not None and need != "nothing" and not file.is_file():
        raise StoreError(f"there is no database {str(file)!r}: run `apns-live store upgrade`")
    async with database:
        with _usable(database):
            if need == "current":
                await check(database)
            yield database


def stored(*given: str, need: Need = "current") -> Callable[..., Callable[..., int]]:
    """Give a coroutine function its options (see `command`), ``--store``, and the opened ``database``.

    One that asks for ``one`` gets the app of that id: of ``--app``, or of an argument ``APP`` in the table.
    What it returns is the exit code, None for success. Raises `NotFound` for an unknown app.
    """
    table = "\n".join(given)

    def wrap(work: Callable[..., Awaitable[int | None]]) -> Callable[..., int]:
        names = {"Database": Any, "App": Any}
        signature = inspect.signature(work, eval_str=True, locals=names)
        shared, *own = (
            one for one in signature.parameters.values() if one.name not in ("database", "one")
        )
        of_app = "one" in signature.parameters
        keyword = inspect.Parameter.KEYWORD_ONLY
        app = [inspect.Parameter("app", keyword, annotation=str)] if of_app else []
        store = inspect.Parameter("store", keyword, default=None, annotation=str | None)

        def started(shared: Shared, *, store: str | None, app: str = "", **more: Any) -> int:
            async def inside() -> int | None:
                async with opened(store, need=need) as database:
                    if of_app:
                        more["one"] = await apps_of(database).get(app)
                    return await work(shared, database=database, **more)

            with installed():
                return asyncio.run(inside()) or ExitCode.OK

        functools.update_wrapper(started, work)
        started.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=[shared, *app, *(one.replace(kind=keyword) for one in own), store]
        )
        has_argument = any(line.strip().startswith("APP:") for line in table.splitlines())
        options = (table, STORE) if has_argument else (table, APP, STORE)
        return command(*options)(started)

    return wrap


def shown_address(database: Database) -> str:
    """Return a database's address for people: no password, no driver."""
    shown = database.url.render_as_string(hide_password=True)
    return shown.replace("+aiosqlite", "").replace("+asyncpg", "")


def say_page(
    screen: Screen, key: str, found: Sequence[Mapping[str, Any]], columns: Sequence[str], limit: int
) -> None:
    """Print a page of rows, and where the next one begins."""
    found = [dated(row) for row in found]
    last = found[-1]["row"] if len(found) == limit else None
    names = [name.removesuffix("_at").removeprefix("attributes_") for name in columns]
    rows = [["" if row[name] is None else row[name] for name in columns] for row in found]
    screen.rows({key: found, "after": last}, names, rows)
    if last is not None and not screen.json_mode:
        screen.note(f"there may be more: --after {last}")


def say_facts(screen: Screen, row: Mapping[str, Any]) -> None:
    """Print what is known of one thing, without what is empty."""
    facts = dated(row)
    lines = [
        f"{name.replace('_', ' ')}: {value}"
        for name, value in facts.items()
        if value not in (None, "", [], {}) and name != "row"
    ]
    screen.answer(facts, "\n".join(lines))


@contextmanager
def installed() -> Iterator[None]:
    """Say which extra is missing instead of which module."""
    try:
        yield
    except ModuleNotFoundError as error:
        extra = "postgres" if (error.name or "").startswith("asyncpg") else "service"
        raise MissingPart(extra, error.name) from error


@contextmanager
def _usable(database: Database) -> Iterator[None]:
    """Say in one line that a database cannot be used: no password of it, no statement."""
    from sqlalchemy.exc import DBAPIError

    try:
        yield
    except Exception as error:
        if isinstance(error, DBAPIError):
            reason: BaseException = error.orig or error
        elif type(error).__module__.startswith("asyncpg"):
            reason = error
        else:
            raise
        first = str(reason).splitlines()[0] if str(reason) else type(reason).__name__
        raise StoreError(f"{database!r} cannot be used: {first}") from error
