"""A fake APNs on a thread of its own, with everything a test asks of it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar, cast

from apns_live.testing.channels import Channel
from apns_live.testing.fake import FakeApns, FakeEndpoint
from apns_live.testing.faults import ActiveFault
from apns_live.testing.log import LogEntry
from apns_live.testing.phones import PhoneSettings
from apns_live.testing.threaded import ThreadedFakeApns
from apns_live.testing.wire import ConnectionSnapshot

from .calling import Caller
from .devices import DeviceBook
from .pushes import PushBook

T = TypeVar("T")


class FaultBook:
    """The faults in force."""

    def __init__(self, running: Caller) -> None:
        self._running = running

    def add(self, action: str, **values: Any) -> int:
        """Put a fault in force (see ``apns_live.testing.Fault``) and return its id."""
        return self._running.call(lambda fake: fake.faults.add(action=action, **values))

    def remove(self, fault_id: int) -> bool:
        """End a fault."""
        return self._running.call(lambda fake: fake.faults.remove(fault_id))

    def clear(self) -> None:
        """End every fault."""
        self._running.call(lambda fake: fake.faults.clear())

    def go_away(self, reason: str | None = "Shutdown") -> int:
        """Send GOAWAY on every connection; return on how many."""
        return self._running.call(lambda fake: fake.go_away(reason))

    def __iter__(self) -> Iterator[ActiveFault]:
        return iter(self._running.call(lambda fake: list(fake.faults)))

    def __len__(self) -> int:
        return self._running.call(lambda fake: len(fake.faults))


class ClockHandle:
    """The fake's clock: the machine's time plus what it was advanced by."""

    def __init__(self, running: Caller) -> None:
        self._running = running

    def time(self) -> float:
        """Return seconds since 1970."""
        return self._running.call(lambda fake: fake.clock.time())

    def advance(self, seconds: float, *, tokens: bool = False) -> None:
        """Move forward; what falls due happens, in order, before this returns.

        ``tokens`` ages provider tokens too.
        """
        self._running.run(lambda fake: fake.advance(seconds, tokens=tokens))


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
        """Await what ``function`` makes of the ``FakeApns``, on its thread."""
        result: T = self.call(cast("Any", function))
        return result

    @property
    def endpoint(self) -> FakeEndpoint:
        """The arguments of ``apns_live.Endpoint``."""
        return self.fake.endpoint

    @property
    def host(self) -> str:
        """The name to connect to; the certificate is for it."""
        return self.endpoint.host

    @property
    def port(self) -> int:
        """The port of pushes and broadcasts."""
        return self.endpoint.port

    @property
    def manage_port(self) -> int:
        """The port of channel management."""
        return self.endpoint.manage_port

    @property
    def url(self) -> str:
        """``https://`` host and port of pushes and broadcasts."""
        return self.fake.url

    @property
    def manage_url(self) -> str:
        """``https://`` host and port of channel management."""
        return self.fake.manage_url

    @property
    def ca_file(self) -> Path:
        """The authority that your client must trust, PEM."""
        return self.fake.ca_file

    @property
    def key_file(self) -> Path:
        """The provider key that the fake accepts, a ``.p8`` file."""
        return self.fake.key_file

    @property
    def key_id(self) -> str:
        """The key's id."""
        return self.fake.key_id

    @property
    def team_id(self) -> str:
        """The team's id."""
        return self.fake.team_id

    @property
    def bundle_id(self) -> str:
        """The app's bundle id, without any suffix."""
        return self.fake.bundle_id

    @property
    def connections(self) -> list[ConnectionSnapshot]:
        """The connections."""
        found: list[ConnectionSnapshot] = self.call(lambda fake: fake.connections)
        return found

    @property
    def log(self) -> list[LogEntry]:
        """What became of the pushes, in the words of Apple's delivery log."""
        found: list[LogEntry] = self.call(lambda fake: list(fake.log.entries))
        return found

    @property
    def inspector(self) -> str:
        """URL of the inspector and the control API; they are started when first asked for."""
        if not self._inspector:
            # Starlette and hypercorn belong to the extra ``fake``.
            from apns_live.testing.control import serve_control  # noqa: PLC0415

            self._inspector = self.enter(serve_control(self.fake))
        return self._inspector

    def add_channel(self, storage_policy: int = 0) -> Channel:
        """Create a broadcast channel."""
        channel: Channel = self.call(lambda fake: fake.add_channel(storage_policy))
        return channel

    def reset(self) -> None:
        """Forget pushes, phones and faults."""
        self.call(lambda fake: fake.reset())

    def __repr__(self) -> str:
        return f"<fake APNs at {self.url}>"
