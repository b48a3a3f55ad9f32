"""The fake APNs: Apple's good days and bad days on a laptop, and what tests need around it.

::

    async with FakeApns() as fake:
        ...                                   # send to fake.endpoint with fake.key_file
        assert fake.pushes[-1].priority == 10

It shares no rule with the client that it tests: reasons, topics and decoding are its own, each with
its source beside it.
"""

from .clock import RealClock, SimulatedClock
from .fake import FakeApns, FakeEndpoint
from .faults import Fault
from .recorder import ConnectionChange, FaultStruck, Happening, Refusal
from .scenario import Scenario
from .state import (
    LIVE,
    UNKNOWN,
    Phones,
    Push,
    QuietPhones,
    TokenCondition,
    TokenStatus,
)
from .threaded import ThreadedFakeApns
from .wire import ConnectionSnapshot

__all__ = [
    "LIVE",
    "UNKNOWN",
    "ConnectionChange",
    "ConnectionSnapshot",
    "FakeApns",
    "FakeEndpoint",
    "Fault",
    "FaultStruck",
    "Happening",
    "Phones",
    "Push",
    "QuietPhones",
    "RealClock",
    "Refusal",
    "Scenario",
    "SimulatedClock",
    "ThreadedFakeApns",
    "TokenCondition",
    "TokenStatus",
]
