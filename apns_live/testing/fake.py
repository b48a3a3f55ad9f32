"""The fake APNs: rules, phones, faults, certificates and a face, on local ports."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from time import time as wall_time
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self
from uuid import UUID

from apns_live.contracts import Contract
from apns_live.errors import FakeError

from .certificates import (
    LOCAL_NAMES,
    Certificates,
    Folder,
    certificates_in,
    provider_key_in,
    untrusted_certificates,
)
from .channels import Channels
from .clock import FakeClock, RealClock, SimulatedClock
from .engine import Engine
from .faults import ACTIONS, Faults
from .jwt import Environment, RegisteredKey, TokenVerifier
from .listener import WireFace
from .log import DeliveryLog, Listener, Recorder, Refusal, Ring
from .namespaces import Namespaces, Part
from .phones import PhoneSettings, SimulatedPhones
from .scenario import Scenario
from .state import ApnsState, Phones, Push, Spelling
from .wire import ConnectionSnapshot, FaceOptions, WireConnection

if TYPE_CHECKING:
    import ssl

    from .asgi import AsgiFace

DEFAULT_BUNDLE_ID = "com.example.scores"
DEFAULT_TEAM_ID = "DEF123GHIJ"
DEFAULT_KEY_ID = "ABC123DEFG"


Source = Contract | str | Path | Sequence[str | Path]
"""An app's contract, or the Swift files to read it from."""


class FakeEndpoint(NamedTuple):
    """The fake's address. The fields are the arguments of ``apns_live.Endpoint``."""

    host: str
    port: int
    ca_file: str
    manage_host: str
    manage_port: int


class FakeApns(Part):
    """A local APNs over real TLS and HTTP/2.

    ::

        async with FakeApns() as fake:
            client = Client(ProviderKey.from_file(fake.key_file, team_id=fake.team_id), ...)

    ``face`` is ``wire`` (our own HTTP/2: fast, every fault) or ``asgi`` (hypercorn: an independent
    HTTP/2 stack). ``environment`` ``development`` adds apns-unique-id to device pushes. ``devices``
    ``auto`` accepts every well-formed token as a live device. ``strict`` refuses what Apple tolerates
    but does not document; ``spelling`` ``documented`` uses the reasons of the documentation where
    APNs differs from it. ``latency`` and ``spread`` are seconds. Accepted pushes go to simulated
    phones with ``phone_settings`` and JSON ``schemas`` of content states (a file or a schema for an
    attributes type), or to your own ``phones``. With ``contract`` (the app's Swift files, or a dict
    of them by app version) phones decode as the app does, and ``undecodable`` names the field.
    ``clock`` is the time of phones, faults and latency, and for the age of provider tokens. Without
    it the fake has a clock that you can move, and checks provider tokens by the machine's clock.
    ``hostnames`` are additional names in the certificate, for clients with hard-coded hosts.
    ``directory`` is for certificates and keys; by default a temporary one. ``scenario`` is a file,
    or a mapping of the same format (``apns_live.testing.scenario``); arguments override it.

    It runs on the event loop that calls ``start``. ``ThreadedFakeApns`` uses its own thread.
    """

    def __init__(
        self,
        *,
        host: str = "localhost",
        port: int = 0,
        manage_port: int = 0,
        directory: str | Path | None = None,
        face: Literal["wire", "asgi"] = "wire",
        environment: Environment | None = None,
        bundle_id: str = DEFAULT_BUNDLE_ID,
        bundle_ids: Iterable[str] = (),
        hostnames: Iterable[str] = (),
        team_id: str = DEFAULT_TEAM_ID,
        key_id: str = DEFAULT_KEY_ID,
        devices: Literal["auto", "strict"] | None = None,
        strict: bool | None = None,
        spelling: Spelling | None = None,
        seed: int | None = None,
        latency: float | None = None,
        spread: float | None = None,
        cut_streams: bool | None = None,
        error_limit: int | None = None,
        first_streams: int | None = None,
        max_streams: int | None = None,
        idle_timeout: float | None = None,
        clock: FakeClock | None = None,
        phones: Phones | None = None,
        phone_settings: PhoneSettings | None = None,
        schemas: Mapping[str, str | Path | Mapping[str, object]] | None = None,
        contract: Source | Mapping[str, Source] | None = None,
        scenario: str | Path | Mapping[str, Any] | None = None,
        record_limit: int = 10_000,
    ) -> None:
        plan = Scenario.load(scenario)
        self.scenario = plan
        self.host = host
        self.face_name = face
        self.bundle_id = bundle_id
        self.team_id = team_id
        self.key_id = key_id
        self.seed = plan.choose("seed", seed, 0)
        self.clock: FakeClock = clock if clock is not None else RealClock()
        self.recorder = Recorder(record_limit)
        self.faults = Faults(
            seed=self.seed, monotonic=self.clock.monotonic, possible=_possible(face)
        )
        strict_mode = plan.choose("strict", strict, False)
        played: Environment = plan.choose("environment", environment, "development")
        bits = random.Random(self.seed).getrandbits  # noqa: S311 - repeatable on purpose
        self.state = ApnsState(
            environment=played,
            channels=Channels(environment=played, seed=self.seed),
            verifier=TokenVerifier(strict=strict_mode),
            new_id=lambda: str(UUID(int=bits(128), version=4)),
            spelling=plan.choose("spelling", spelling, "wire"),
            strict=strict_mode,
            devices=plan.choose("devices", devices, "auto"),
            cut_streams=plan.choose("cut_streams", cut_streams, False),
            error_limit=plan.choose("error_limit", error_limit, 0),
        )
        self.namespaces = Namespaces(self)
        self.simulated_phones = None
        if phones is not None:
            self.state.phones = phones
        else:
            phones_of = self._populate(phone_settings or plan.phone_settings(self.seed, schemas))
            by_version = contract if isinstance(contract, Mapping) else {"": contract}
            phones_of.schemas.contracts = {
                version: _read(source) for version, source in by_version.items() if source
            }
        for each in (bundle_id, *bundle_ids):
            self.state.add_app(each, team_id)
        plan.apply(self.state)
        self.engine = Engine(
            self.state,
            self.clock,
            self.faults,
            self.recorder,
            wall=wall_time if clock is None else self.clock.time,
            latency=plan.choose("latency", latency, 0.0),
            spread=plan.choose("spread", spread, 0.0),
        )
        self._options = FaceOptions(
            first_streams=plan.choose("first_streams", first_streams, 1),
            max_streams=plan.choose("max_streams", max_streams, 1000),
            idle_timeout=plan.choose("idle_timeout", idle_timeout, None),
        )
        self._wanted_ports = (port, manage_port)
        own = () if self._name == "localhost" else (host,)
        self._folder = Folder(directory, (*LOCAL_NAMES, *own, *hostnames))
        self._faces: list[WireFace] | list[AsgiFace] = []

    # --- life ----------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.aclose()

    async def start(self) -> None:
        """Make certificates and listen. Raises FakeError if a port is taken."""
        if self._faces:
            raise FakeError("this fake APNs runs already")
        self._files()
        if self.face_name == "asgi":
            from .asgi import AsgiFace  # noqa: PLC0415 - hypercorn belongs to an extra

            faces: list[Any] = [
                AsgiFace(self.engine, kind, self.certificates, self._options)
                for kind in ("device", "manage")
            ]
        else:
            context = self.certificates.server_context()
            faces = [
                WireFace(
                    self.engine, kind, context, self._options, untrusted=self._untrusted_context
                )
                for kind in ("device", "manage")
            ]
        self._faces = faces
        try:
            for each, port in zip(faces, self._wanted_ports, strict=True):
                await each.start(self.host, port)
        except BaseException:
            await self.aclose()
            raise
        for fault in self.scenario.faults:
            self.faults.add(fault)

    async def aclose(self) -> None:
        """Break every connection, stop listening, remove namespaces and the temporary directory."""
        faces, self._faces = self._faces, []
        for face in faces:
            await face.close()
        for space in self.namespaces:
            self.namespaces.remove(space.name)
        if isinstance(self.clock, RealClock):
            self.clock.close()
        self._folder.close()

    # --- where it is ---------------------------------------------------------------------------

    @property
    def directory(self) -> Path:
        """The directory of certificates and keys."""
        self._files()
        return self._folder.path

    @property
    def certificates(self) -> Certificates:
        """The certificate authority, and the server's certificate."""
        return self._files()[0]

    @property
    def ca_file(self) -> Path:
        """The PEM file of the certificate authority to trust."""
        return self.certificates.ca_file

    @property
    def key_file(self) -> Path:
        """The provider key that this APNs accepts, a ``.p8`` file."""
        return self._files()[1]

    @property
    def port(self) -> int:
        """The port of device pushes and broadcasts."""
        return self._running()[0].port

    @property
    def manage_port(self) -> int:
        """The port of channel management."""
        return self._running()[1].port

    @property
    def url(self) -> str:
        """``https://`` host and port of device pushes and broadcasts."""
        return f"https://{_bracketed(self._name)}:{self.port}"

    @property
    def manage_url(self) -> str:
        """``https://`` host and port of channel management."""
        return f"https://{_bracketed(self._name)}:{self.manage_port}"

    @property
    def endpoint(self) -> FakeEndpoint:
        """The arguments of ``apns_live.Endpoint``: ``Endpoint(**fake.endpoint._asdict())``."""
        return FakeEndpoint(self._name, self.port, str(self.ca_file), self._name, self.manage_port)

    # --- what happened -------------------------------------------------------------------------

    @property
    def phones(self) -> Phones:
        """The phones behind the tokens."""
        return self.state.phones

    @property
    def pushes(self) -> Ring[Push]:
        """The newest accepted pushes, oldest first."""
        return self.recorder.pushes

    @property
    def refusals(self) -> Ring[Refusal]:
        """The newest refused requests, oldest first."""
        return self.recorder.refusals

    @property
    def connections(self) -> list[ConnectionSnapshot]:
        """Snapshots of the open connections and of the last closed ones, in order of opening."""
        found = [snapshot for face in self._faces for snapshot in face.snapshots()]
        return sorted(found, key=lambda each: each.connection_id)

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Call ``listener`` for each ``log.Happening``. Returns a function that removes it."""
        return self.recorder.listen(listener)

    def reset(self, *, devices: bool = True, pushes: bool = True, faults: bool = True) -> None:
        """Delete pushes, phones, faults, or some; connections, keys, channels, namespaces stay."""
        super().reset(devices=devices, pushes=pushes, faults=faults)
        if pushes:
            self.recorder.clear()
        for face in self._faces if devices and pushes and faults else ():
            face.forget_closed()

    # --- what Apple's portal would do ----------------------------------------------------------

    def add_app(
        self, bundle_id: str, *, team_id: str | None = None, broadcast: bool = True
    ) -> None:
        """Register an App ID, with ``broadcast`` False without the broadcast capability."""
        self.state.add_app(bundle_id, team_id or self.team_id, broadcast=broadcast)

    def add_key(
        self,
        key_id: str,
        *,
        team_id: str | None = None,
        environment: Environment | None = None,
        topics: Iterable[str] | None = None,
        related: Iterable[str] = (),
    ) -> Path:
        """Register another provider key and return its ``.p8`` file."""
        path, public_key = provider_key_in(self._folder.path, key_id)
        self.state.verifier.register(
            RegisteredKey(
                key_id,
                team_id or self.team_id,
                public_key,
                environment,
                None if topics is None else frozenset(topics),
                frozenset(related),
            )
        )
        return path

    def revoke_key(self, key_id: str) -> None:
        """Revoke a provider key."""
        self.state.verifier.revoke(key_id)

    async def advance(self, seconds: float, *, tokens: bool = False) -> None:
        """Move the clock; everything due happens, in order. With ``tokens`` provider tokens age too.

        With your own clock they always do. Raises FakeError for a clock that cannot move.
        """
        if not isinstance(self.clock, RealClock | SimulatedClock):
            raise FakeError("this fake's clock cannot be moved")
        if tokens and isinstance(self.clock, RealClock):
            self.engine.token_offset += seconds
        await self.clock.advance(seconds)

    # --- what goes wrong at once ---------------------------------------------------------------

    def go_away(
        self,
        reason: str | None = "Shutdown",
        *,
        connection_id: int | None = None,
        debug: str | None = None,
        code: int = 0,
        last: int | None = None,
        timestamp: int | None = None,
    ) -> int:
        """Send GOAWAY on one connection or all; return how many. Only with the face ``wire``."""
        return self._on_wire(
            connection_id,
            lambda each: each.go_away(
                reason, debug=debug, code=code, last=last, timestamp=timestamp
            ),
        )

    def change_settings(
        self, changes: Mapping[int, int], *, connection_id: int | None = None
    ) -> int:
        """Send SETTINGS on one connection or all; return how many. Only with the face ``wire``."""
        return self._on_wire(connection_id, lambda each: each.change_settings(changes))

    def disconnect(self, *, connection_id: int | None = None) -> int:
        """Drop one connection or all without GOAWAY; return how many. Only with the face ``wire``."""
        return self._on_wire(connection_id, WireConnection.abort)

    def silence(self, *, connection_id: int | None = None) -> int:
        """Stop answering on one connection or all; return how many. Only with the face ``wire``."""
        return self._on_wire(connection_id, WireConnection.silence)

    def stop_listening(self) -> None:
        """Refuse new connections; open ones stay. Only with the face ``wire``."""
        for face in self._wire_faces():
            face.stop_listening()

    def listen_again(self) -> None:
        """Accept connections again, on the same ports. Only with the face ``wire``."""
        for face in self._wire_faces():
            face.listen_again()

    # --- inside --------------------------------------------------------------------------------

    @property
    def _name(self) -> str:
        return "localhost" if self.host in ("localhost", "127.0.0.1", "::1") else self.host

    def _populate(self, settings: PhoneSettings) -> SimulatedPhones:
        limit = self.recorder.pushes.limit
        log = DeliveryLog(pushes=limit, entries=2 * limit)
        phones = SimulatedPhones(settings, clock=self.clock, log=log, bundle_id=self.bundle_id)
        get = self.state.channels.get
        phones.channel_exists = lambda app, channel_id: get(app, channel_id) is not None
        self.recorder.on_refusal = log.refusal
        self.state.phones = self.simulated_phones = phones
        return phones

    def _files(self) -> tuple[Certificates, Path]:
        folder = self._folder
        if folder.made is None:
            made = certificates_in(folder.path, folder.names)
            folder.made = made, self.add_key(self.key_id)
        return folder.made

    def _untrusted_context(self) -> ssl.SSLContext:
        return untrusted_certificates(self.directory).server_context()

    def _running(self) -> list[WireFace] | list[AsgiFace]:
        if not self._faces:
            raise FakeError("this fake APNs does not run: use it in an async with, or start it")
        return self._faces

    def _wire_faces(self) -> list[WireFace]:
        if not (found := [face for face in self._running() if isinstance(face, WireFace)]):
            raise FakeError("the asgi face cannot do this to a connection; use the wire face")
        return found

    def _on_wire(self, connection_id: int | None, act: Callable[[WireConnection], object]) -> int:
        found = [each for face in self._wire_faces() for each in face.connections.values()]
        chosen = [each for each in found if connection_id in {None, each.identity.connection_id}]
        for each in chosen:
            act(each)
        return len(chosen)


def _read(source: Source) -> Contract:
    if isinstance(source, Contract):
        return source
    return Contract.read(*([source] if isinstance(source, str | Path) else source))


def _possible(face: str) -> frozenset[str]:
    if face == "asgi":
        return frozenset({"answer", "throttle", "delay", "withhold", "stall"})
    if face != "wire":
        raise FakeError(f"there is no face {face!r}: use wire or asgi")
    return ACTIONS


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
