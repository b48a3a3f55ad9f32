"""Namespaces: independent parts of one fake, for parallel tests.

Each has its own phones, tokens, channels, faults, delivery log and, unless the fake was given a clock,
clock. They share ports, certificates, keys, apps and connections. A push belongs to the namespace whose
phone has its token, a broadcast to the one that has its channel. Everything else belongs to the fake
itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import blake2b
from typing import Any

import msgspec

from apns_live.errors import FakeError

from .channels import Channel
from .clock import FakeClock, RealClock
from .engine import Engine
from .faults import CONNECTION_ACTIONS, Action, Fault, Faults
from .log import DeliveryLog, Recorder, Refusal
from .phones import Activity, SimulatedPhones, Token
from .rules import normal_token
from .state import LIVE, ApnsState, Push, TokenStatus

MOST = 1000
"""Namespaces of one fake."""
_is_name = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}").fullmatch


class Part:
    """What a fake and each of its namespaces do not share: phones, a log, faults and a clock."""

    seed: int
    clock: FakeClock
    faults: Faults
    simulated_phones: SimulatedPhones | None
    state: ApnsState
    engine: Engine
    recorder: Recorder
    bundle_id: str
    namespaces: Namespaces

    @property
    def devices(self) -> SimulatedPhones:
        """The simulated phones. Raises FakeError when other ``phones`` were given."""
        if self.simulated_phones is None:
            raise FakeError("this fake APNs was given phones of its own: see ``phones``")
        return self.simulated_phones

    @property
    def log(self) -> DeliveryLog:
        """The delivery log: each change of a push's state, in the terms of Apple's log."""
        return self.devices.log

    def fault(self, action: Action, **values: Any) -> int:
        """Add a fault (see ``Fault``) and return its id for ``faults.remove``."""
        return self.faults.add(Fault.from_mapping({"action": action, **values}))

    def add_channel(self, storage_policy: int = 0, *, bundle_id: str | None = None) -> Channel:
        """Create a broadcast channel. Raises FakeError when the app has its 10,000."""
        channel = self.state.channels.create(
            bundle_id or self.bundle_id, storage_policy, now=self.clock.time()
        )
        if channel is None:
            raise FakeError("the app has its 10,000 channels")
        return channel

    def reset(self, *, devices: bool = True, pushes: bool = True, faults: bool = True) -> None:
        """Forget phones, pushes and faults, or some of them."""
        if faults:
            self.faults.clear()
        phones = self.simulated_phones
        if phones is not None and devices:
            phones.clear()
        if phones is not None and pushes:
            phones.log.clear()


class Namespace(Part):
    """One part of a fake. Endpoint, keys and connections are the fake's.

    Its tokens are derived from the fake's seed and its name, so no two namespaces share one.
    """

    def __init__(self, fake: Part, name: str) -> None:
        self._fake = fake
        self.name = name
        digest = blake2b(f"{fake.seed}|{name}".encode(), digest_size=6).digest()
        self.seed = int.from_bytes(digest, "big")
        self.clock: FakeClock = fake.clock
        if isinstance(fake.clock, RealClock):
            self.clock = RealClock()
            self.clock.advance_sync(fake.clock.offset)
        known = fake.devices
        phones = SimulatedPhones(
            replace(known.settings, seed=self.seed),
            clock=self.clock,
            log=DeliveryLog(pushes=known.log.pushes.limit, entries=known.log.entries.limit),
            bundle_id=known.bundle_id,
        )
        phones.schemas.contracts = known.schemas.contracts
        phones.channel_exists = known.channel_exists
        self.simulated_phones = phones
        self.faults = Faults(
            seed=self.seed,
            monotonic=self.clock.monotonic,
            possible=fake.faults.possible - CONNECTION_ACTIONS,
        )

    def __getattr__(self, name: str) -> Any:
        return getattr(self._fake, name)

    def add_channel(self, storage_policy: int = 0, *, bundle_id: str | None = None) -> Channel:
        """Create a broadcast channel of this namespace."""
        channel = self._fake.add_channel(storage_policy, bundle_id=bundle_id)
        self._fake.namespaces.channels[channel.channel_id] = self
        return channel

    async def advance(self, seconds: float, *, tokens: bool = False) -> None:
        """Move this namespace's clock. Raises `FakeError` if it is shared, and for ``tokens``."""
        if self.clock is self._fake.clock or not isinstance(self.clock, RealClock):
            raise FakeError(
                "this fake was given a clock that all namespaces share: advance that one"
            )
        if tokens:
            raise FakeError("provider tokens belong to no namespace: advance the fake's own clock")
        await self.clock.advance(seconds)


class Namespaces:
    """The namespaces of one fake by name, and the phones behind all of them.

    Implements ``apns_live.testing.state.Phones``. ``channels`` maps a channel to its namespace: the one
    that created it, or whose phone followed it first.
    """

    def __init__(self, fake: Part) -> None:
        self._fake = fake
        self._by_name: dict[str, Namespace] = {}
        self._made = 0
        self.channels: dict[str, Namespace] = {}

    def __getitem__(self, name: str) -> Namespace:
        """Return a namespace. Raises `FakeError` if the name is unknown."""
        if (found := self._by_name.get(name)) is None:
            raise FakeError(f"there is no namespace {name!r:.80}: make it first")
        return found

    def __iter__(self) -> Iterator[Namespace]:
        return iter(list(self._by_name.values()))

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def add(self, name: str | None = None) -> Namespace:
        """Create a namespace. Without a name it gets one that was never used.

        Raises `FakeError` for a name that is invalid or taken, and if the caller replaced the fake's
        phones.
        """
        fake, known = self._fake, self._by_name
        while name is None:
            self._made += 1
            name = None if f"test-{self._made}" in known else f"test-{self._made}"
        if not _is_name(name):
            raise FakeError(
                f"{name!r:.80} is not a name: give 1 to 64 letters, digits, dots, dashes, underscores"
            )
        if name in known:
            raise FakeError(f"there is a namespace {name!r} already: choose another name")
        if len(known) >= MOST:
            raise FakeError(f"there are {MOST:,} namespaces: remove those that are not used")
        made = Namespace(fake, name)
        if fake.state.phones is not self:
            fake.state.phones = self
            fake.engine.faults_of = self._faults_of
            fake.recorder.on_refusal = self._refused
        self._note_followers(made)
        known[name] = made
        return made

    def remove(self, name: str) -> None:
        """Delete a namespace with all of its phones, tokens, channels, faults and pushes."""
        gone = self[name]
        del self._by_name[name]
        gone.reset()
        if isinstance(gone.clock, RealClock) and gone.clock is not self._fake.clock:
            gone.clock.close()
        state = self._fake.state
        for channel_id in [each for each, owner in self.channels.items() if owner is gone]:
            del self.channels[channel_id]
            for bundle_id in state.apps:
                state.channels.delete(bundle_id, channel_id)

    def adopt(self, where: Part, text: str) -> Token:
        """Create a phone for a token that was not issued here. Pushes to it then belong to ``where``.

        Raises `FakeError` for an invalid token, and for one of a phone in another namespace.
        """
        if not (token := normal_token(text.encode("utf-8", "replace"))):
            raise FakeError(
                "this is not a device token: give an even number of hex digits, at least 64"
            )
        owner = self._of_token(token) or self._fake
        if owner is not where and token in owner.devices.registry.tokens:
            raise FakeError("a phone of another namespace has this token: use it in one test only")
        return where.devices.mark(token, LIVE)

    # Calls from APNs.

    def token_status(self, token: str, topic: str) -> TokenStatus:
        """Return the status of a token for a topic, as APNs sees it."""
        return (self._of_token(token) or self._fake).devices.token_status(token, topic)

    def receive(self, push: Push) -> None:
        """Receive a device push that was answered with 200."""
        self._hand(self._of_token(push.token), push, SimulatedPhones.receive)

    def receive_broadcast(self, push: Push) -> None:
        """Receive a broadcast that was answered with 200."""
        owner = self.channels.get(push.channel_id or "")
        self._hand(owner, push, SimulatedPhones.receive_broadcast)

    def _hand(
        self, owner: Namespace | None, push: Push, take: Callable[[SimulatedPhones, Push], None]
    ) -> None:
        if owner is None:
            take(self._fake.devices, push)
        else:
            take(owner.devices, msgspec.structs.replace(push, received_at=owner.clock.time()))

    def _refused(self, refusal: Refusal) -> None:
        owner = self._of_token(refusal.token) or self.channels.get(refusal.channel_id)
        (owner or self._fake).log.refusal(refusal)

    def _faults_of(self, key: str) -> Faults:
        """Return the faults for a request to a token or channel."""
        return (self._of_token(key) or self.channels.get(key) or self._fake).faults

    def _of_token(self, token: str) -> Namespace | None:
        """Return the namespace whose phone has a token (lower-case hex), if any."""
        for each in self._by_name.values():
            if token in each.devices.registry.tokens:
                return each
        return None

    def _note_followers(self, owner: Namespace) -> None:
        """Assign a channel to the namespace whose phone follows it first."""
        of_fake = self._fake.devices.feeds

        def follow(activity: Activity) -> None:
            channel_id = activity.channel or ""
            if not of_fake.of(activity.bundle_id, channel_id).activities:
                self.channels.setdefault(channel_id, owner)

        owner.devices.on_join = follow
