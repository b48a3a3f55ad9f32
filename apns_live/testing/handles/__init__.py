"""A fake APNs on its own thread, for tests: copies that are safe from any thread.

This is what the pytest fixture ``fake_apns`` gives, and it works without pytest as well::

    with RunningFake() as fake:
        phone = fake.devices.add(attributes_types=["GameAttributes"])
        my_backend.start_match(phone.start_token())
        phone.assert_shows({"home": 0, "away": 0})

Returned objects are copies; call again for the current values. Failed assertions show the expected
value, the closest match, and why a phone ignored a push.
"""

from .devices import ActivityView, DeviceBook, DeviceView
from .pushes import PushBook, PushView
from .running import ClockHandle, FaultBook, RunningFake, RunningNamespace

__all__ = [
    "ActivityView",
    "ClockHandle",
    "DeviceBook",
    "DeviceView",
    "FaultBook",
    "PushBook",
    "PushView",
    "RunningFake",
    "RunningNamespace",
]
