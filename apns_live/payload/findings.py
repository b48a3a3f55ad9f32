"""What the checks have to say without refusing: warnings, and the problems that `lint` lists."""

from __future__ import annotations

import msgspec


class Finding(msgspec.Struct, frozen=True, gc=False):
    """One remark about a payload."""

    code: str
    """A stable name in lower case, for programs."""
    field: str
    """The place, as a path."""
    message: str
    """What happens and what to do, for a person."""

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message


class PayloadWarning(Finding, frozen=True, gc=False):
    """Something that Apple silently ignores or changes. The push is still sent."""


class PayloadProblem(Finding, frozen=True, gc=False):
    """Something for which `encode` would refuse, found in a ready payload."""
