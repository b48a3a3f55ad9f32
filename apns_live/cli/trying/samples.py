"""One activity from start to end in each API's own words, as a team's server would say it.

``samples.json`` holds the requests; what stands in braces there is filled in.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ...contracts import Contract

STEPS = ("start", "update", "end")
_SAMPLES: dict[str, Any] = json.loads(Path(__file__).with_name("samples.json").read_text("utf-8"))
NAMES: dict[str, str] = {vendor: each["name"] for vendor, each in _SAMPLES.items()}
_STATES = {
    "start": {"title": "Order 1042", "status": "Being packed", "progress": 0.2},
    "update": {"title": "Order 1042", "status": "On its way", "progress": 0.7},
    "end": {"title": "Order 1042", "status": "At your door", "progress": 1.0},
}


@dataclass(frozen=True, slots=True)
class Sample:
    """A POST as it goes over the wire; ``authorization`` is the scheme before the key."""

    path: str
    body: dict[str, Any]
    authorization: str


class Demo:
    """What is shown: our order, or with a contract states that the app itself decodes."""

    def __init__(self, contract: Contract | None = None) -> None:
        self.attributes_type = "DemoAttributes"
        self.states: dict[str, Any] = _STATES
        self.attributes: Any = {}
        if contract is not None and contract.names:
            from ...contracts.examples import example

            chance = random.Random(1)  # noqa: S311 - the same states each time
            self.attributes_type = contract.names[0]
            found = contract.types[self.attributes_type]
            self.states = {step: example(found.state.shape, chance) for step in STEPS}
            self.attributes = example(found.attributes.shape, chance)

    def sample(self, vendor: str, step: str, *, app: str, segment: str, activity: str) -> Sample:
        """Return a step's request. Raises KeyError for what is not there."""
        values = {
            "{app}": app,
            "{segment}": segment,
            "{activity}": activity,
            "{type}": self.attributes_type,
            "{attributes}": self.attributes,
            "{state}": self.states[step],
        }
        api = _SAMPLES[vendor]
        filled = _filled(api[step], values)
        return Sample(filled["path"], filled["body"], api.get("authorization", "Bearer"))


def _filled(part: Any, values: dict[str, Any]) -> Any:
    if isinstance(part, dict):
        return {name: _filled(each, values) for name, each in part.items()}
    if isinstance(part, str) and part not in values:
        for name, value in values.items():
            part = part.replace(name, value) if isinstance(value, str) else part
        return part
    return values.get(part, part) if isinstance(part, str) else part
