"""When a phone can be reached: networks and power saving."""

from __future__ import annotations

from .draws import draw
from .model import Device
from .settings import PhoneSettings


def away_until(device: Device, settings: PhoneSettings, now: float) -> float:
    """Return until when a phone has no network: 0 when it has one, infinite when nobody knows.

    The stretches of ``settings.offline`` follow from the seed, the phone and the time alone.
    """
    until = device.offline_until
    if until is not None:
        if now < until:
            return until
        device.offline_until = None
    share = settings.offline
    if share <= 0:
        return 0.0
    cycle = settings.offline_cycle
    shift = cycle * draw(settings.seed, "offline", device.id)
    start = ((now - shift) // cycle) * cycle + shift
    end = start + cycle * share
    return end if now < end else 0.0


def is_held(device: Device, settings: PhoneSettings, priority: int) -> bool:
    """Whether a push of this priority waits for the next burst."""
    if priority >= 10:
        return False
    law = settings.priority_5
    return law == "bursts" or (law == "awake" and not device.awake)


def next_burst(device: Device, settings: PhoneSettings, now: float) -> float:
    """Return when a phone that saves power next takes what waits for it."""
    interval = settings.burst_interval
    shift = interval * draw(settings.seed, "burst", device.id)
    return ((now - shift) // interval + 1) * interval + shift
