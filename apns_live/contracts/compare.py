"""Which states of one version of an app go blank under another."""

from __future__ import annotations

import json
import random
import re

from .contract import Checker
from .examples import example

_TRIES = 600


def losses(old: Checker, new: Checker) -> list[str]:
    """Say what states that ``old`` decodes run into under ``new``, once for each place.

    Found by trying: many states that ``old`` decodes, made to hold every case and every absence.
    """
    chance = random.Random(0)  # noqa: S311 - the same states each time
    found: dict[str, None] = {}
    for _ in range(_TRIES):
        try:
            document = json.dumps(example(old.shape, chance))
        except LookupError as error:
            return [f"Cannot tell: {error.args[0]}."]
        verdict = new.check(document)
        if verdict.ok is not True:
            found[re.sub(r"\[\d+\]", "[]", verdict.message)] = None
    return list(found)
