"""What happens in one simulated world, as data: it can be printed and shortened."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class Action:
    """``what`` happens ``at`` seconds after the beginning; ``given`` are its details."""

    at: float
    what: str
    given: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        details = ", ".join(f"{name}={value!r}" for name, value in self.given.items())
        return f"{self.at:9.3f} s  {self.what}({details})"


@dataclass(frozen=True)
class Plan:
    """One world. ``settings`` are those of client, delivery, fake and network."""

    seed: int
    settings: dict[str, Any]
    actions: tuple[Action, ...]

    def without(self, left_out: set[int]) -> Plan:
        """Return the same world without some actions, by their position."""
        kept = tuple(each for index, each in enumerate(self.actions) if index not in left_out)
        return replace(self, actions=kept)

    def __str__(self) -> str:
        lines = [f"world {self.seed}: {self.settings}"]
        return "\n".join(
            [*lines, *(f"  {index:3d} {each}" for index, each in enumerate(self.actions))]
        )
