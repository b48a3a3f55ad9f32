"""The gateway's context: the service, and the parts that protect it.

It is ``app.state.gateway``, and an attribute of every call.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..client.statistics import Histogram
from ..clock import Clock
from ..errors import Busy
from .admission import Admission
from .audit import Audit
from .credentials import DeviceCredentials
from .keys import Keys
from .limits import Limits
from .readiness import Readiness
from .settings import GatewaySettings
from .wire.door import DoorStatistics

if TYPE_CHECKING:
    from ..activities import Service
    from ..activities.cards.buttons import WebhookRelay


_Pair = tuple[str, str]
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Answers:
    """Answers by route, method and status, and their times (seconds) by route."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str, int]] = Counter()
        self.times: dict[str, Histogram] = {}

    def add(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count an answer. The numbers of routes and methods are bounded."""
        self.counts[route, method if method in _METHODS else "other", status] += 1
        if (times := self.times.get(route)) is None:
            times = self.times[route] = Histogram()
        times.add(seconds)


class Tally:
    """Sums the counts of sources that come and go. The counts of a removed source stay in the sum."""

    def __init__(self) -> None:
        self._gone: Counter[_Pair] = Counter()
        self._last: dict[_Pair, Counter[_Pair]] = {}

    def add(self, sources: Mapping[_Pair, Counter[_Pair]]) -> Counter[_Pair]:
        """Take the current counts of every source. Return the sums, which never decrease."""
        for place, before in self._last.items():
            now = sources.get(place)
            if now is None or any(now[name] < count for name, count in before.items()):
                self._gone.update(before)
        self._last = dict(sources)
        total = Counter(self._gone)
        for counts in sources.values():
            total.update(counts)
        return total


class Gateway:
    """The gateway's parts. ``clock`` is the service's.

    If the app opens its service in its lifespan, the parts exist only after start-up. So routes read
    them at each call (``gateway.service``).
    """

    service: Service
    keys: Keys
    limits: Limits
    audit: Audit
    credentials: DeviceCredentials
    readiness: Readiness
    clock: Clock

    def __init__(self, settings: GatewaySettings | None = None) -> None:
        self.settings = settings or GatewaySettings()
        self.is_open = False
        """False before start-up and after shutdown: calls get 503."""
        self.leaving = False
        """True before this process stops: /readyz reports it, and connections close after an answer."""
        self.address = ""
        """The URL at which this gateway listens; empty before it does."""
        self.answers = Answers()
        self.pushes = Tally()
        """The counts of the apps' clients, including closed ones."""
        self.relay: WebhookRelay | None = None
        """Calls the webhooks of buttons; created at first use."""
        self.followers: Counter[int] = Counter()
        self.importing: Counter[int] = Counter()
        self.admission = Admission(self.settings)
        self.door = DoorStatistics()

    def attach(self, service: Service) -> None:
        """Take an open service."""
        database, clock = service.database, service.clock
        self.service = service
        self.clock = clock
        self.keys = Keys(database, clock, service.new_id, self.admission.strangers)
        self.limits = Limits(self.settings, clock)
        self.audit = Audit(database, clock)
        self.credentials = DeviceCredentials(
            database, clock, service.apps.sealer, self.admission.strangers
        )
        self.readiness = Readiness(service)
        service.commits.limit(self.settings.waiting_writes)
        self.is_open = True

    @contextmanager
    def place(
        self, taken: Counter[int], app: int, most: int, share: int, what: str
    ) -> Iterator[None]:
        """Take one of ``most`` places for the app with this row until the block ends.

        Each app may use ``share`` of them, so that others have one too. Raises `Busy` at the limit.
        """
        if taken.total() >= most or taken[app] >= share:
            raise Busy(f"{taken.total()} {what}", retry_after=5.0)
        taken[app] += 1
        try:
            yield
        finally:
            taken[app] -= 1
            if not taken[app]:
                del taken[app]
