"""``apns-live gateway`` and ``worker``: the HTTP API, optionally with a fake APNs, and its senders."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import tempfile
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InvalidSetting
from .embedded import Place, embedded_database, embedded_sealer, make_directory
from .gateway_settings import Tuned
from .options import SENDING, SERVING, Shared, command
from .store_access import (
    DEFAULT_DIRECTORY,
    STORE,
    address,
    configured_address,
    key_file,
    sealer,
    shown_address,
)

if TYPE_CHECKING:
    from ..gateway.wire.certificates import Certificates


@command(
    """
    --database --store URL: A file's path, sqlite:///PATH or postgresql://USER@HOST/NAME. Default: a file in
        --dir. [APNS_LIVE_STORE]
    --dir DIR: Directory for the database and the sealing key. [apns-live-data]
    --host HOST: Address to listen on.
    --port PORT: Port; 0 picks a free one.
    --certificate FILE: TLS certificate chain (PEM).
    --private-key FILE: Its private key (PEM).
    --hostname NAME: Serve TLS with a self-made certificate for this name and localhost, for SDKs with a
        hard-coded host; repeatable.
    --proxy-port PORT: With --hostname: a CONNECT proxy on localhost that connects every host to this
        gateway; 0 picks a free port.
    --with-fake: Also run a fake APNs with five phones and an inspector, to try every API.
    --contract FILE: With --with-fake: Swift file of your app, to check states against; repeatable.
    --send/--no-send: Send accepted calls, or leave that to other gateways and workers.
    """,
    SERVING,
)
def gateway(
    shared: Shared,
    database: str | None = None,
    dir_: Path | None = None,
    host: str = "localhost",
    port: int = 8080,
    certificate: Path | None = None,
    private_key: Path | None = None,
    hostname: list[str] | None = None,
    proxy_port: int | None = None,
    with_fake: bool = False,
    contract: list[Path] | None = None,
    send: bool = True,
) -> None:
    """Serve the native API and the vendors' APIs until SIGTERM or SIGINT.

    Prints its address when it is ready; with --json as one JSON line.
    """
    if not 0 <= port < 65_536:
        raise InvalidSetting(
            f"{port} is not a valid TCP port", field="--port", remedy="Use 0 to 65535."
        )
    if (certificate is None) != (private_key is None):
        raise InvalidSetting(
            "must be given together", field="--certificate, --private-key", remedy="Give both."
        )
    if hostname and certificate is not None:
        raise InvalidSetting(
            "cannot be combined with --certificate",
            field="--hostname",
            remedy="Give one of the two.",
        )
    if proxy_port is not None and not (hostname or certificate):
        raise InvalidSetting(
            "has no effect without TLS", field="--proxy-port", remedy="Give --hostname too."
        )
    from ..gateway.serving import raise_descriptor_limit
    from ..gateway.wire.certificates import Certificates

    if contract and not with_fake:
        raise InvalidSetting(
            "has no effect without --with-fake",
            field="--contract",
            remedy="Store it for an app: apns-live apps contract APP FILE.",
        )
    tuned = Tuned(shared.arguments)
    endpoints = tuned.endpoints()
    if with_fake and endpoints:
        raise InvalidSetting(
            "cannot be combined with --apns", field="--with-fake", remedy="Leave one of them out."
        )
    place = Place(
        # --with-fake and --dir have a database of their own; the settings do not apply.
        database=database if with_fake or dir_ else configured_address(database),
        directory=dir_,
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
        runner.run((_with_fake if with_fake else _alone)(place, shared.facts))


Ready = Callable[[dict[str, Any]], None]
"""Called with the facts of the ready line."""


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return uvloop's event loop, or None where uvloop is not installed."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


async def _alone(place: Place, ready: Ready) -> None:
    from ..activities import Service
    from ..gateway import create_app
    from ..gateway.serving import calm_collector, serving

    directory = place.directory or DEFAULT_DIRECTORY
    if place.database is None or place.directory is not None or place.hostnames:
        make_directory(directory)
    place.make_certificates(directory)
    database = await embedded_database(place.database, directory)
    beside = key_file(database) if place.directory is None else None
    sealing = embedded_sealer(directory if beside is None else beside.parent, beside)
    async with (
        Service.open(
            database,
            sealing=sealing,
            settings=place.service,
            endpoints=place.endpoints,
            send=place.send,
        ) as service,
        stopping(place.certificates) as stop,
        serving(
            app := create_app(service, settings=place.settings),
            gateway=app.state.gateway,
            host=place.host,
            port=place.port,
            certificates=place.certificates,
        ) as url,
        place.proxy(url),
    ):
        facts = {
            "url": url,
            "database": shown_address(service.database),
            "apps": [one.id for one in await service.apps.list()],
            **place.facts,
        }
        with calm_collector():
            ready(facts)
            await stop.wait()
            app.state.gateway.leaving = True
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.at_once.wait(), app.state.gateway.settings.stop_delay)


async def _with_fake(place: Place, ready: Ready) -> None:
    from .with_fake import trying

    with contextlib.ExitStack() as stack:
        if place.directory is None:
            made = stack.enter_context(tempfile.TemporaryDirectory(prefix="apns-live-"))
            place.directory = Path(made)
        make_directory(place.directory)
        place.make_certificates(place.directory)
        async with (
            trying(place) as facts,
            stopping(place.certificates) as stop,
            place.proxy(facts["url"]),
        ):
            ready({**facts, **place.facts})
            await stop.wait()


class Stop(asyncio.Event):
    """Set by SIGTERM. SIGINT, or a second SIGTERM, asks to stop at once."""

    def __init__(self) -> None:
        super().__init__()
        self.at_once = asyncio.Event()

    def ask(self, *, at_once: bool = False) -> None:
        """Take a signal."""
        if at_once or self.is_set():
            self.at_once.set()
        self.set()


@contextlib.asynccontextmanager
async def stopping(certificates: Certificates | None = None) -> AsyncIterator[Stop]:
    """Yield an event that SIGTERM and SIGINT set. SIGHUP reads the certificates again."""
    stop = Stop()
    actions: dict[int, Callable[[], None]] = {
        signal.SIGTERM: stop.ask,
        signal.SIGINT: partial(stop.ask, at_once=True),
    }
    if certificates is not None:
        actions[signal.SIGHUP] = certificates.reload
    loop = asyncio.get_running_loop()
    with contextlib.ExitStack() as stack:
        for number, action in actions.items():
            # Only the main thread may handle signals; elsewhere the caller ends the block.
            with contextlib.suppress(ValueError, RuntimeError, NotImplementedError):
                loop.add_signal_handler(number, action)
                stack.callback(loop.remove_signal_handler, number)
        yield stop


@command(STORE, SENDING)
def worker(shared: Shared, store: str | None = None) -> None:
    """Send what gateways accepted, until SIGTERM or SIGINT.

    Over PostgreSQL several workers share the work. Prints the database and the apps when it is ready.
    """
    from ..activities import Service

    tuned = Tuned(shared.arguments)
    tuned.configure_logs()

    async def work() -> None:
        async with (
            Service.open(
                address(store),
                sealing=sealer(),
                settings=tuned.service(),
                endpoints=tuned.endpoints(),
            ) as service,
            stopping() as stop,
        ):
            apps = [one.id for one in await service.apps.list()]
            shared.facts({"database": shown_address(service.database), "apps": apps})
            await stop.wait()

    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(work())
