"""A fake APNs on its own thread, for tests."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any, Generic, TypeVar, cast

from apns_live.testing.channels import Channel
from apns_live.testing.fake import FakeApns
from apns_live.testing.faults import ActiveFault
from apns_live.testing.phones import PhoneSettings
from apns_live.testing.threaded import ThreadedFakeApns

from .devices import DeviceBook
from .pushes import PushBook

T = TypeVar("T")


class FaultBook:
    """The faults in force."""

    def __init__(self, running: ThreadedFakeApns) -> None:
        self._running = running

    def add(self, action: str, **values: Any) -> int:
        """Add a fault (see ``apns_live.testing.Fault``) and return its id."""
        return self._running.call(lambda fake: fake.faults.add(action=action, **values))

    def remove(self, fault_id: int) -> bool:
        """End a fault."""
        return self._running.call(lambda fake: fake.faults.remove(fault_id))

    def clear(self) -> None:
        """End every fault."""
        self._running.call(lambda fake: fake.faults.clear())

    def go_away(self, reason: str | None = "Shutdown") -> int:
        """Send GOAWAY on every connection; return their number."""
        return self._running.call(lambda fake: fake.go_away(reason))

    def __iter__(self) -> Iterator[ActiveFault]:
        return iter(self._running.call(lambda fake: list(fake.faults)))

    def __len__(self) -> int:
        return self._running.call(lambda fake: len(fake.faults))


class ClockHandle:
    """The fake's clock: the machine's time plus an offset that `advance` adds to."""

    def __init__(self, running: ThreadedFakeApns) -> None:
        self._running = running

    def time(self) -> float:
        """Return seconds since 1970."""
        return self._running.call(lambda fake: fake.clock.time())

    def advance(self, seconds: float, *, tokens: bool = False) -> None:
        """Move forward and do all that is due, in order. ``tokens`` ages provider tokens too."""
        self._running.call(cast("Any", lambda fake: fake.advance(seconds, tokens=tokens)))


class _Told(Generic[T]):
    """An attribute that is read from the fake, on the fake's thread while it runs."""

    def __init__(self, read: Callable[[FakeApns], T]) -> None:
        self._read = read

    def __get__(self, running: ThreadedFakeApns | None, _kind: type[object]) -> T:
        if running is None:
            return self  # type: ignore[return-value]  # asked of the class
        return running.call(self._read) if running.runs else self._read(running.fake)


class RunningFake(ThreadedFakeApns):
    """A fake APNs on its own thread. Takes the arguments of ``FakeApns``.

    Unless ``phone_settings`` or a ``scenario`` says otherwise, activity tokens arrive at once, and of
    two pushes with the same timestamp the later one wins: a test sends in one second what an app
    sends in an hour, and timestamps have whole seconds.
    """

    def __init__(self, **options: Any) -> None:
        if not {"phones", "phone_settings", "scenario"} & set(options):
            options["phone_settings"] = PhoneSettings(
                seed=options.get("seed") or 0,
                token_delay=(0.0, 0.0),
                equal_timestamp="accept",
                schemas=options.pop("schemas", None) or {},
            )
        super().__init__(**options)
        self._inspector = ""
        self._open_books()

    def _open_books(self) -> None:
        self.pushes = PushBook(self)
        self.refused = PushBook(self, refused=True)
        self.devices = DeviceBook(self)
        self.faults = FaultBook(self)
        self.clock = ClockHandle(self)

    def close(self) -> None:
        """Stop the fake and its thread."""
        self._inspector = ""
        super().close()

    def run(self, function: Callable[[FakeApns], Coroutine[Any, Any, T]]) -> T:
        """Call ``function`` with the ``FakeApns`` on its thread, and await the result."""
        result: T = self.call(cast("Any", function))
        return result

    endpoint = _Told(lambda fake: fake.endpoint)
    """The arguments of ``apns_live.Endpoint``."""
    host = _Told(lambda fake: fake.endpoint.host)
    """The name to connect to; the certificate is for it."""
    port = _Told(lambda fake: fake.port)
    """The port of pushes and broadcasts."""
    manage_port = _Told(lambda fake: fake.manage_port)
    """The port of channel management."""
    url = _Told(lambda fake: fake.url)
    """``https://`` host and port of pushes and broadcasts."""
    manage_url = _Told(lambda fake: fake.manage_url)
    """``https://`` host and port of channel management."""
    ca_file = _Told(lambda fake: fake.ca_file)
    """The authority that your client must trust, PEM."""
    key_file = _Told(lambda fake: fake.key_file)
    """The provider key that the fake accepts, a ``.p8`` file."""
    key_id = _Told(lambda fake: fake.key_id)
    """The key's id."""
    team_id = _Told(lambda fake: fake.team_id)
    """The team's id."""
    bundle_id = _Told(lambda fake: fake.bundle_id)
    """The app's bundle id, without any suffix."""
    connections = _Told(lambda fake: fake.connections)
    """The connections."""
    log = _Told(lambda fake: list(fake.log.entries))
    """The results of the pushes, in the terms of Apple's delivery log."""

    @property
    def inspector(self) -> str:
        """URL of the inspector and the control API, which start at first use."""
        if not self._inspector:
            # Starlette and hypercorn belong to the extra ``fake``.
            from apns_live.testing.control import serve_control  # noqa: PLC0415

            self._inspector = self.enter(serve_control(self.fake))
        return self._inspector

    def namespace(self, name: str | None = None) -> RunningNamespace:
        """Create a part of this fake with its own phones, tokens, channels, faults, pushes and time.

        Use it as a context manager, or ``close`` it, to delete all of that. Raises ``FakeError`` for a
        name that is taken.
        """
        return RunningNamespace(self, self.call(lambda fake: fake.namespaces.add(name).name))

    def add_channel(self, storage_policy: int = 0) -> Channel:
        """Create a broadcast channel."""
        return self.call(lambda fake: fake.add_channel(storage_policy))

    def reset(self) -> None:
        """Forget pushes, phones and faults."""
        self.call(lambda fake: fake.reset())

    def __repr__(self) -> str:
        return f"<fake APNs at {self.url}>"


class RunningNamespace(RunningFake):
    """A namespace of a running fake: the same handles over its own phones, pushes and faults.

    Endpoint, certificate and keys are those of the fake.
    """

    def __init__(self, running: RunningFake, name: str) -> None:
        self._running = running
        self.name = name
        self._open_books()

    def start(self) -> None:
        """Do nothing: a namespace runs with its fake."""

    def close(self) -> None:
        """Forget its phones, tokens, channels, faults and pushes."""
        self._running.call(lambda fake: fake.namespaces.remove(self.name))

    @property
    def fake(self) -> FakeApns:
        """The namespace itself. It has the same parts as a ``FakeApns``."""
        return cast("FakeApns", self._running.fake.namespaces[self.name])

    @property
    def runs(self) -> bool:
        """Whether its fake runs."""
        return self._running.runs

    def call(
        self, function: Callable[[FakeApns], Awaitable[T] | T], *, timeout: float | None = 30.0
    ) -> T:
        """Call ``function`` with the namespace on the fake's thread; see ``ThreadedFakeApns.call``."""
        return self._running.call(lambda _fake: function(self.fake), timeout=timeout)

    @property
    def inspector(self) -> str:
        """Base URL of the control API of this namespace."""
        return f"{self._running.inspector}/namespaces/{self.name}"

    def __repr__(self) -> str:
        return f"<namespace {self.name} of {self._running!r}>"
