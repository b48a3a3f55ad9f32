"""``apns-live completion``: prints the completion script of a shell."""

from __future__ import annotations

import os
import subprocess
import sys

from ..errors import InvalidInput
from .options import Shared, command

SHELLS = ("bash", "zsh", "fish")


@command("SHELL: bash, zsh or fish.")
def completion(shared: Shared, shell: str) -> int:
    """Print the completion script for bash, zsh or fish."""
    if shell not in SHELLS:
        raise InvalidInput(
            f"{shell!r:.40} is not a shell that can complete",
            field="SHELL",
            remedy=f"Use {', '.join(SHELLS)}.",
        )
    # The documented way to the script, the same in every release of typer and click.
    environment = os.environ | {"_APNS_LIVE_COMPLETE": f"source_{shell}"}
    words = [sys.executable, "-m", "apns_live.cli"]
    script = subprocess.check_output(words, env=environment, text=True).strip()  # noqa: S603 - ourselves
    shared.screen.answer({"shell": shell, "script": script}, script)
    return 0
