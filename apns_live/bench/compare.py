"""Compares results: a ratio of rates with its 95 % confidence interval."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from ..errors import InvalidInput
from .results import Result, Run

T_95 = (12.71, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160)
"""Student's t for 1 to 13 degrees of freedom, two-sided 95 %."""
SHARE_OF_NORMAL = 1.96


@dataclass(frozen=True, slots=True)
class Comparison:
    """How many times the first's rate the second has; ``low`` and ``high`` are infinite for one round."""

    name: str
    before: float
    after: float
    ratio: float
    low: float
    high: float
    rounds: int
    alternating: bool

    @property
    def verdict(self) -> str:
        """Say whether a difference is shown."""
        if self.low > 1:
            return "faster"
        return "slower" if self.high < 1 else "no difference shown"


def compare(first: Result, second: Result) -> list[Comparison]:
    """Compare each contender of both results. Raises InvalidInput when they share none."""
    ours, theirs = first.named(), second.named()
    found = [
        _compared(name, ours[name], theirs[name])
        for name in ours
        if name in theirs and all(run.rate for run in ours[name] + theirs[name])
    ]
    if not found or first.measure != second.measure:
        raise InvalidInput(
            f"{first.measure} and {second.measure} share no contender with a rate",
            field="files",
            remedy="Give two results of one measure.",
        )
    return found


def compare_contenders(result: Result) -> list[Comparison]:
    """Compare the other contenders of one result with its first."""
    (name, runs), *others = result.named().items()
    return [_compared(f"{other} / {name}", runs, theirs) for other, theirs in others]


def _compared(name: str, first: Sequence[Run], second: Sequence[Run]) -> Comparison:
    first, second = (sorted(runs, key=lambda run: run.at) for runs in (first, second))
    before, after = ([math.log(run.rate) for run in runs] for runs in (first, second))
    alternating = _alternate(first, second)
    if alternating:
        differences = [b - a for a, b in zip(before, after, strict=True)]
        middle = statistics.mean(differences)
        error, freedom = _error(differences), len(differences) - 1.0
    else:
        # Welch: two groups with a spread of their own.
        middle = statistics.mean(after) - statistics.mean(before)
        parts = [_error(before) ** 2, _error(after) ** 2]
        error = math.sqrt(sum(parts))
        below = sum(
            part**2 / max(1, len(group) - 1)
            for part, group in zip(parts, (before, after), strict=True)
        )
        freedom = error**4 / below if below else 1.0
    spread = _t(freedom) * error if min(len(before), len(after)) > 1 else math.inf
    return Comparison(
        name=name,
        before=math.exp(statistics.mean(before)),
        after=math.exp(statistics.mean(after)),
        ratio=math.exp(middle),
        low=math.exp(middle - spread),
        high=math.exp(min(middle + spread, 700.0)),
        rounds=min(len(before), len(after)),
        alternating=alternating,
    )


def _alternate(first: Sequence[Run], second: Sequence[Run]) -> bool:
    """Whether both took turns: each pair of rounds was over before the next began."""
    if len(first) != len(second):
        return False
    pairs = [sorted((a.at, b.at)) for a, b in zip(first, second, strict=True)]
    return all(before[1] <= after[0] for before, after in pairwise(pairs))


def _error(values: Sequence[float]) -> float:
    return statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0


def _t(freedom: float) -> float:
    place = math.floor(freedom)
    return T_95[max(1, place) - 1] if place <= len(T_95) else SHARE_OF_NORMAL + 2.4 / freedom
