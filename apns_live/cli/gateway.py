"""``apns-live gateway`` and ``worker``: the HTTP API, optionally with a fake APNs, and its senders."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from ..activities.settings import ServiceSettings
from ..errors import InvalidSetting
from ..gateway.scopes import DIALECTS
from ..gateway.settings import DIALECT_LIMITS, GatewaySettings, Limit
from ..settings import Setting, read
from ..settings.table import APNS, GATEWAY, LOG, SERVICE
from .options import SENDING, SERVING, Shared, command
from .store_access import (
    DEFAULT_DIRECTORY,
    KEY_FILE,
    STORE,
    Place,
    address,
    configured_address,
    embedded_database,
    key_file,
    make_directory,
    sealer,
    shown_address,
)

if TYPE_CHECKING:
    from ..gateway.wire.certificates import Certificates
    from ..pool.endpoint import Endpoint


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
    from ..gateway.serving import raise_descriptor_limit
    from ..gateway.wire.certificates import Certificates

    tuned = Tuned(shared.arguments)
    endpoints = tuned.endpoints()
    one_certificate = (certificate is None) != (private_key is None)
    lonely_proxy = proxy_port is not None and not (hostname or certificate)
    store_it = "Store it for an app: apns-live apps contract APP FILE."
    for wrong, option, problem, remedy in (
        (not 0 <= port < 65_536, "--port", f"{port} is not a valid TCP port", "Use 0 to 65535."),
        (one_certificate, "--certificate, --private-key", "must be given together", "Give both."),
        (
            hostname and certificate,
            "--hostname",
            "cannot go with --certificate",
            "Give one of them.",
        ),
        (lonely_proxy, "--proxy-port", "has no effect without TLS", "Give --hostname too."),
        (contract and not with_fake, "--contract", "has no effect without --with-fake", store_it),
        (with_fake and endpoints, "--with-fake", "cannot go with --apns", "Give one of them."),
    ):
        if wrong:
            raise InvalidSetting(problem, option, remedy)
    place = Place(
        # --with-fake and --dir use their own database, so the settings do not apply.
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
    from ..gateway.serving import calm_collector

    directory = place.directory or DEFAULT_DIRECTORY
    if place.database is None or place.directory is not None or place.hostnames:
        make_directory(directory)
    place.make_certificates(directory)
    database = await embedded_database(place.database, directory)
    beside = key_file(database) if place.directory is None else None
    sealing = sealer(beside or directory / KEY_FILE, create=True)
    async with (
        Service.open(
            database,
            sealing=sealing,
            settings=place.service,
            endpoints=place.endpoints,
            send=place.send,
        ) as service,
        stopping(place.certificates) as stop,
        place.serving(
            app := create_app(service, settings=place.settings), app.state.gateway
        ) as url,
        place.proxy(url),
    ):
        apps = [one.id for one in await service.apps.list()]
        facts = {"url": url, "database": shown_address(service.database), "apps": apps}
        with calm_collector():
            ready(facts | place.facts)
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
    """A stop event. SIGTERM sets it; SIGINT or a second SIGTERM requests an immediate stop."""

    def __init__(self) -> None:
        super().__init__()
        self.at_once = asyncio.Event()

    def ask(self, *, at_once: bool = False) -> None:
        """Handle a signal."""
        if at_once or self.is_set():
            self.at_once.set()
        self.set()


@contextlib.asynccontextmanager
async def stopping(certificates: Certificates | None = None) -> AsyncIterator[Stop]:
    """Yield an event that SIGTERM and SIGINT set. SIGHUP reads the certificates again."""
    stop = Stop()
    actions: dict[int, Callable[[], None]] = {signal.SIGTERM: stop.ask}
    actions[signal.SIGINT] = partial(stop.ask, at_once=True)
    if certificates is not None:
        actions[signal.SIGHUP] = certificates.reload
    loop = asyncio.get_running_loop()
    with contextlib.ExitStack() as stack:
        for number, action in actions.items():
            # Only the main thread may handle signals. On other threads the caller ends the block.
            with contextlib.suppress(ValueError, RuntimeError, NotImplementedError):
                loop.add_signal_handler(number, action)
                stack.callback(loop.remove_signal_handler, number)
        yield stop


@command(STORE, SENDING)
def worker(shared: Shared) -> None:
    """Send what gateways accepted, until SIGTERM or SIGINT.

    Over PostgreSQL several workers share the work. Prints the database and the apps when it is ready.
    """
    from ..activities import Service

    tuned = Tuned(shared.arguments)
    tuned.configure_logs()

    async def work() -> None:
        async with (
            Service.open(
                address(shared.others["store"]),
                sealing=sealer(key_file(None)),
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


# --- settings

Made = TypeVar("Made")


class Tuned:
    """The settings of a gateway or worker; ``found`` has the values and their sources."""

    def __init__(
        self, arguments: Mapping[str, Any], environ: Mapping[str, str] | None = None
    ) -> None:
        """Read settings: options override variables, and these the file. Raises `InvalidSetting`."""
        self.found = read((*GATEWAY, *SERVICE), arguments, environ=environ)
        values = self.found.values
        for name in ("gateway.webhook_hosts", "gateway.trusted_proxies"):
            if name in values:
                values[name] = frozenset(values[name])
        if "gateway.limits" in values:
            values["gateway.limits"] = self._limits()
        if ends := values.get("service.device_limit_ends"):
            values["service.device_limit_ends"] = ends.replace("-", " ")
        if "service.audit_days" in values:
            values["gateway.audit_days"] = values["service.audit_days"]

    def gateway(self) -> GatewaySettings:
        """Return the settings of the HTTP API. Raises `InvalidSetting`."""
        return self._made("gateway", GatewaySettings, without=APNS)

    def service(self) -> ServiceSettings:
        """Return the settings of the service. Raises `InvalidSetting`."""
        return self._made("service", ServiceSettings, without=LOG)

    def _made(self, part: str, kind: Callable[..., Made], without: Sequence[Setting]) -> Made:
        others = {one.name for one in without}
        values = {
            name.removeprefix(f"{part}."): value
            for name, value in self.found.values.items()
            if name.startswith(f"{part}.") and name not in others
        }
        try:
            return kind(**values)
        except InvalidSetting as error:
            # Name the option, the variable or the place in the file.
            place = self.found.sources.get(f"{part}.{error.field}", error.field)
            raise InvalidSetting(error.problem, place, error.remedy) from None

    def endpoints(self) -> dict[str, Endpoint]:
        """Return the endpoint that replaces Apple's, or nothing without ``apns``. Raises `InvalidSetting`."""
        from ..pool.endpoint import Endpoint

        sources = self.found.sources
        if not (given := [one.name for one in APNS if one.name in sources]):
            return {}
        if "gateway.apns" not in given:
            remedy = "Give the URL of that APNs too."
            raise InvalidSetting("has no effect without --apns", sources[given[0]], remedy)
        host, port = self._host("gateway.apns")
        managed = "gateway.apns_manage" in given
        manage = self._host("gateway.apns_manage") if managed else (None, None)
        more: dict[str, Any] = {"manage_host": manage[0], "manage_port": manage[1]}
        try:
            ca_file = self.found.values.get("gateway.apns_ca")
            endpoint = Endpoint(host, port or 443, ca_file=ca_file, **more)
        except InvalidSetting as error:
            place = sources["gateway.apns_ca" if error.field == "ca_file" else "gateway.apns"]
            raise InvalidSetting(error.problem, place, error.remedy) from None
        return {"production": endpoint, "sandbox": endpoint}

    def _host(self, name: str) -> tuple[str, int | None]:
        """Return host and port of a URL that has no other part. Raises `InvalidSetting`."""
        text = str(self.found.values[name])
        try:
            url = urlsplit(text)
            host, port = url.hostname, url.port
        except ValueError:
            host, port = None, None
        if not host or text.rstrip("/") != f"https://{url.netloc}" or "@" in url.netloc:
            problem = f"{text!r:.80} is not the address of an APNs"
            raise InvalidSetting(problem, self.found.sources[name], "Write https://HOST:PORT.")
        return host, port

    def configure_logs(self) -> None:
        """Set up logging from ``--log-format``, ``--log-level`` and ``--access-log``."""
        from ..activities.logs import configure

        said = self.found.values
        form, level = said.get("service.log_format", "text"), said.get("service.log_level", "info")
        configure(form, level, access=said.get("service.access_log", False))

    def _limits(self) -> dict[str, Any]:
        """Return the limits of each API; an API that is not named keeps its default."""
        limits: dict[str, Any] = dict(DIALECT_LIMITS)
        for one in self.found.values["gateway.limits"]:
            said = re.fullmatch(r"(\w+)=(\d{1,9})(?:/(\d{1,9}))?", one, re.ASCII)
            if said is None or said[1] not in DIALECTS:
                remedy = f"Write braze=4166 or braze=4166/4; APIs: {', '.join(DIALECTS)}."
                place = self.found.sources["gateway.limits"]
                raise InvalidSetting(f"{one!r:.60} is not a valid limit", place, remedy)
            per_minute, concurrent = int(said[2]) or None, int(said[3] or 0) or None
            limits[said[1]] = Limit(per_minute=per_minute, concurrent=concurrent)
        return limits
