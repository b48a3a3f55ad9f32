"""The fake APNs: a local APNs server with simulated phones and faults, for tests.

::

    async with FakeApns() as fake:
        ...                                   # send to fake.endpoint with fake.key_file
        assert fake.pushes[-1].priority == 10

It shares no rules with the client: it has its own reasons, topics and decoding, each with its
source.
"""

from .clock import RealClock, SimulatedClock
from .fake import FakeApns, FakeEndpoint
from .faults import Fault
from .log import ConnectionChange, FaultStruck, Happening, Refusal
from .scenario import Scenario
from .state import LIVE, UNKNOWN, Phones, Push, QuietPhones, TokenCondition, TokenStatus
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
