"""``apns-live gateway``: the HTTP API as a program, and with a fake APNs beside it to try things."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InvalidSetting
from .gateway_settings import Tuned, tunable
from .options import Shared, command
from .output import MissingPart

if TYPE_CHECKING:
    from ..activities import ServiceSettings
    from ..activities.store.sealing import Sealer
    from ..gateway import GatewaySettings

DEFAULT_DIRECTORY = Path("apns-live-data")
DATABASE_FILE = "live.db"
KEY_FILE = "store.key"


@command()
@tunable
def gateway(
    shared: Shared,
    database: Annotated[
        str | None,
        typer.Option(
            "--database",
            metavar="URL",
            help="A file's path, sqlite:///PATH or postgresql://USER@HOST/NAME; "
            "a file in the directory if absent.",
        ),
    ] = None,
    directory: Annotated[
        Path | None,
        typer.Option(
            "--dir",
            metavar="DIR",
            help=f"Where the database and the sealing key are made. [{DEFAULT_DIRECTORY}]",
        ),
    ] = None,
    host: Annotated[
        str, typer.Option("--host", metavar="HOST", help="Address to listen on.")
    ] = "localhost",
    port: Annotated[
        int, typer.Option("--port", metavar="PORT", help="Port; 0 takes a free one.")
    ] = 8080,
    certificate: Annotated[
        Path | None,
        typer.Option("--certificate", metavar="FILE", help="TLS certificate chain (PEM)."),
    ] = None,
    private_key: Annotated[
        Path | None, typer.Option("--private-key", metavar="FILE", help="Its private key (PEM).")
    ] = None,
    with_fake: Annotated[
        bool,
        typer.Option(
            "--with-fake",
            help="Beside a fake APNs with five phones and an inspector, to try every API at once.",
        ),
    ] = False,
    *,
    tuned: Tuned,
) -> int:
    """Serve the native API and the vendors' APIs until SIGTERM or SIGINT.

    Prints where it is when it is ready; with --json as one JSON line.
    """
    if not 0 <= port < 65_536:
        raise InvalidSetting(f"{port} is no TCP port", field="--port", remedy="Use 0 to 65535.")
    if (certificate is None) != (private_key is None):
        raise InvalidSetting(
            "needs the other one too", field="--certificate, --private-key", remedy="Give both."
        )
    try:
        import apns_live.gateway  # noqa: F401 - to say at once which part is missing
    except ImportError as error:
        raise MissingPart("gateway", error.name) from error

    def ready(facts: dict[str, Any]) -> None:
        lines = [f"{name.replace('_', ' ')}: {value}" for name, value in facts.items()]
        shared.screen.answer(facts, "\n".join(lines))

    options = _Options(
        database,
        directory,
        host,
        port,
        certificate,
        private_key,
        settings=tuned.gateway(),
        service=tuned.service(),
    )
    asyncio.run(_with_fake(options, ready) if with_fake else _alone(options, ready))
    return 0


class _Options:
    """Where to serve, and over what."""

    def __init__(
        self,
        database: str | None,
        directory: Path | None,
        host: str,
        port: int,
        certificate: Path | None,
        private_key: Path | None,
        *,
        settings: GatewaySettings,
        service: ServiceSettings,
    ) -> None:
        self.database = database
        self.directory = directory
        self.host = host
        self.port = port
        self.certificate = certificate
        self.private_key = private_key
        self.settings = settings
        self.service = service


async def _alone(options: _Options, ready: Any) -> None:
    from ..activities import Service
    from ..gateway import create_app
    from ..gateway.serving import calm_collector, serving

    directory = options.directory or DEFAULT_DIRECTORY
    if options.database is None or options.directory is not None:
        make_directory(directory)
    address = await embedded_database(options.database, directory)
    async with (
        Service.open(
            address, sealing=embedded_sealer(directory), settings=options.service
        ) as service,
        stopping() as stop,
        serving(
            create_app(service, settings=options.settings),
            host=options.host,
            port=options.port,
            certificate=options.certificate,
            key=options.private_key,
        ) as url,
    ):
        facts = {
            "url": url,
            "database": repr(service.database).removeprefix("Database(").rstrip(")").strip("'"),
            "apps": [one.id for one in await service.apps.list()],
        }
        with calm_collector():
            ready(facts)
            await stop.wait()


async def _with_fake(options: _Options, ready: Any) -> None:
    import tempfile

    try:
        from .with_fake import Place, trying
    except ImportError as error:
        raise MissingPart("fake", error.name) from error

    with contextlib.ExitStack() as stack:
        directory = options.directory
        if directory is None:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="apns-live-")))
        make_directory(directory)
        place = Place(
            directory=directory,
            database=options.database,
            host=options.host,
            port=options.port,
            certificate=options.certificate,
            private_key=options.private_key,
            settings=options.settings,
            service=options.service,
        )
        async with trying(place) as facts, stopping() as stop:
            ready(facts)
            await stop.wait()


def make_directory(directory: Path) -> None:
    """Make a directory that only its owner can read."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)


async def embedded_database(
    given: str | None, directory: Path, *, file: str = DATABASE_FILE
) -> str:
    """Return the database's address. The one in the directory is set up or upgraded by itself."""
    from ..activities.store.database import Database
    from ..activities.store.upgrade import upgrade

    if given is not None:
        return given
    path = directory / file
    if not path.exists():
        path.touch(mode=0o600)
    async with Database.open(path) as database:
        await upgrade(database)
    return str(path)


def embedded_sealer(directory: Path) -> Sealer:
    """Return the sealer: of the environment if it names a key, else of a file that is made here."""
    from ..activities.store.sealing import FILE_VARIABLE, VARIABLE, Sealer, new_key

    if os.environ.get(VARIABLE) or os.environ.get(FILE_VARIABLE):
        return Sealer.from_environment()
    path = directory / KEY_FILE
    make_directory(directory)
    with contextlib.suppress(FileExistsError):
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with os.fdopen(os.open(path, flags, 0o600), "w", encoding="ascii") as file:
            file.write(new_key() + "\n")
    return Sealer(path.read_text(encoding="ascii"))


@contextlib.asynccontextmanager
async def stopping() -> AsyncIterator[asyncio.Event]:
    """Yield an event that SIGTERM and SIGINT set."""
    stop = asyncio.Event()
    with _handlers(stop):
        yield stop


@contextlib.contextmanager
def _handlers(stop: asyncio.Event) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    handled = []
    for number in (signal.SIGTERM, signal.SIGINT):
        # Only the main thread may; elsewhere the block's end is the way.
        with contextlib.suppress(ValueError, RuntimeError, NotImplementedError):
            loop.add_signal_handler(number, stop.set)
            handled.append(number)
    try:
        yield
    finally:
        for number in handled:
            loop.remove_signal_handler(number)
