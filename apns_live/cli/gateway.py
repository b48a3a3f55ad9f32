"""``apns-live gateway``: the HTTP API as a program, and with a fake APNs beside it to try things."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from ..errors import InvalidSetting
from .gateway_settings import Tuned, tunable
from .options import Shared, command
from .output import MissingPart
from .store_access import (
    DATABASE_FILE,
    DEFAULT_DIRECTORY,
    KEY_FILE,
    KEY_VARIABLES,
    VARIABLE,
    configured_address,
    key_file,
    shown_address,
)

if TYPE_CHECKING:
    from ..activities import ServiceSettings
    from ..activities.store.sealing import Sealer
    from ..gateway import GatewaySettings
    from ..gateway.wire.certificates import Certificates
    from ..pool.endpoint import Endpoint


@command()
@tunable
def gateway(
    shared: Shared,
    database: Annotated[
        str | None,
        typer.Option(
            "--database",
            "--store",
            metavar="URL",
            help="A file's path, sqlite:///PATH or postgresql://USER@HOST/NAME; "
            f"a file in the directory if absent. [{VARIABLE}]",
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
    hostname: Annotated[
        list[str] | None,
        typer.Option(
            "--hostname",
            metavar="NAME",
            help="Serve TLS with a certificate of an own authority for this name and localhost, for "
            "SDKs that have a host built in; may be repeated.",
        ),
    ] = None,
    proxy_port: Annotated[
        int | None,
        typer.Option(
            "--proxy-port",
            metavar="PORT",
            help="With --hostname: a CONNECT proxy on localhost that leads here, whatever host is asked "
            "for; 0 takes a free port.",
        ),
    ] = None,
    with_fake: Annotated[
        bool,
        typer.Option(
            "--with-fake",
            help="Beside a fake APNs with five phones and an inspector, to try every API at once.",
        ),
    ] = False,
    contract: Annotated[
        list[Path] | None,
        typer.Option(
            "--contract",
            metavar="FILE",
            help="With --with-fake: Swift file of your app, by which states are held; repeat.",
        ),
    ] = None,
    send: Annotated[
        bool,
        typer.Option(
            "--send/--no-send",
            help="Send what is accepted, or leave that to other gateways and workers.",
        ),
    ] = True,
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
    if hostname and certificate is not None:
        raise InvalidSetting(
            "stands beside --certificate", field="--hostname", remedy="Give one of the two."
        )
    if proxy_port is not None and not (hostname or certificate):
        raise InvalidSetting(
            "leads to a port without TLS", field="--proxy-port", remedy="Give --hostname too."
        )
    try:
        from ..gateway.serving import raise_descriptor_limit
        from ..gateway.wire.certificates import Certificates
    except ImportError as error:
        raise MissingPart("gateway", error.name) from error

    ready = shared.screen.facts
    if contract and not with_fake:
        raise InvalidSetting(
            "means something with --with-fake only",
            field="--contract",
            remedy="Store it for an app: apns-live apps contract APP FILE.",
        )
    endpoints = tuned.endpoints()
    if with_fake and endpoints:
        raise InvalidSetting(
            "and --apns name two", field="--with-fake", remedy="Leave one of them out."
        )
    options = _Options(
        # What is tried, or named by --dir, has a database of its own, whatever the settings say.
        database=database if with_fake or directory else configured_address(database),
        directory=directory,
        host=host,
        port=port,
        certificates=None if certificate is None else Certificates(certificate, private_key),
        hostnames=tuple(hostname or ()),
        proxy_port=proxy_port,
        settings=tuned.gateway(),
        service=tuned.service(),
        endpoints=endpoints,
        contract=tuple(contract or ()),
        send=send,
    )
    tuned.configure_logs()
    raise_descriptor_limit()
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_with_fake(options, ready) if with_fake else _alone(options, ready))
    return 0


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return uvloop's; it is not there on every system."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


@dataclass(slots=True, kw_only=True)
class _Options:
    """Where to serve, and over what. ``facts`` is what the ready line says of TLS."""

    database: str | None
    directory: Path | None
    host: str
    port: int
    certificates: Certificates | None
    hostnames: tuple[str, ...]
    proxy_port: int | None
    settings: GatewaySettings
    service: ServiceSettings
    endpoints: Mapping[str, Endpoint]
    contract: tuple[Path, ...]
    send: bool
    facts: dict[str, str] = field(default_factory=dict)

    def make_certificates(self, directory: Path) -> None:
        """Make certificates for the names that were asked for, in a folder of the directory."""
        if not self.hostnames:
            return
        from ..gateway.wire.certificates import Certificates
        from ..testing.certificates import LOCAL_NAMES, certificates_in

        make_directory(directory / "tls")
        made = certificates_in(directory / "tls", (*LOCAL_NAMES, *self.hostnames))
        self.certificates = Certificates(made.certificate_file, made.key_file)
        self.facts["ca_file"] = str(made.ca_file)

    @contextlib.asynccontextmanager
    async def proxy(self, url: str) -> AsyncIterator[None]:
        """Run the CONNECT proxy, if it was asked for."""
        if self.proxy_port is None:
            yield
            return
        from .connect_proxy import connect_proxy

        parts = urlsplit(url)
        async with connect_proxy(
            self.proxy_port, (parts.hostname or "localhost", parts.port or 443)
        ) as address:
            self.facts["proxy"] = address
            yield


async def _alone(options: _Options, ready: Any) -> None:
    from ..activities import Service
    from ..gateway import create_app
    from ..gateway.serving import calm_collector, serving

    directory = options.directory or DEFAULT_DIRECTORY
    if options.database is None or options.directory is not None or options.hostnames:
        make_directory(directory)
    options.make_certificates(directory)
    address = await embedded_database(options.database, directory)
    beside = key_file(address) if options.directory is None else None
    sealing = embedded_sealer(directory if beside is None else beside.parent, beside)
    async with (
        Service.open(
            address,
            sealing=sealing,
            settings=options.service,
            endpoints=options.endpoints,
            send=options.send,
        ) as service,
        stopping(options.certificates) as stop,
        serving(
            app := create_app(service, settings=options.settings),
            gateway=app.state.gateway,
            host=options.host,
            port=options.port,
            certificates=options.certificates,
        ) as url,
        options.proxy(url),
    ):
        facts = {
            "url": url,
            "database": shown_address(service.database),
            "apps": [one.id for one in await service.apps.list()],
            **options.facts,
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
        options.make_certificates(directory)
        place = Place(
            directory=directory,
            database=options.database,
            host=options.host,
            port=options.port,
            certificates=options.certificates,
            settings=options.settings,
            service=options.service,
            contract=options.contract,
        )
        async with (
            trying(place) as facts,
            stopping(options.certificates) as stop,
            options.proxy(facts["url"]),
        ):
            ready({**facts, **options.facts})
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


def embedded_sealer(directory: Path, file: Path | None = None) -> Sealer:
    """Return the sealer: of the environment if it names a key, else of a file that is made here."""
    from ..activities.store.sealing import Sealer, new_key

    if any(os.environ.get(name) for name in KEY_VARIABLES):
        return Sealer.from_environment()
    path = file or directory / KEY_FILE
    make_directory(path.parent)
    with contextlib.suppress(FileExistsError):
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with os.fdopen(os.open(path, flags, 0o600), "w", encoding="ascii") as made:
            made.write(new_key() + "\n")
    return Sealer(path.read_text(encoding="ascii"))


@contextlib.asynccontextmanager
async def stopping(certificates: Certificates | None = None) -> AsyncIterator[asyncio.Event]:
    """Yield an event that SIGTERM and SIGINT set. SIGHUP reads the certificates again."""
    stop = asyncio.Event()
    actions: dict[int, Callable[[], None]] = dict.fromkeys(
        (signal.SIGTERM, signal.SIGINT), stop.set
    )
    if certificates is not None:
        actions[signal.SIGHUP] = certificates.reload
    loop = asyncio.get_running_loop()
    with contextlib.ExitStack() as stack:
        for number, action in actions.items():
            # Only the main thread may; elsewhere the block's end is the way.
            with contextlib.suppress(ValueError, RuntimeError, NotImplementedError):
                loop.add_signal_handler(number, action)
                stack.callback(loop.remove_signal_handler, number)
        yield stop
