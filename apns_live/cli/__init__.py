"""The command ``apns-live``: reads arguments, calls the layers below, prints results."""

import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn, cast

_TYPER_INTERRUPTED = 130
"""What newer typers make of KeyboardInterrupt; older ones raise Abort."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command and exit with its code (docs/cli.md has the table)."""
    sys.exit(run(list(sys.argv[1:] if arguments is None else arguments)))


def run(arguments: list[str]) -> int:
    """Run the command and return its exit code. Never a traceback, unless APNS_LIVE_DEBUG is set."""
    from . import output

    name, result = "apns-live", None
    try:
        from .app import NAME, load

        command = below = load()
        name = NAME
        # The head of an error has the words that name the command.
        for word in arguments:
            if (below := getattr(below, "commands", {}).get(word)) is None:
                break
            name += f" {word}"
        result = command.main(args=arguments, prog_name=NAME, standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader of our output has closed the pipe (| head).
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return output.ExitCode.NOT_ACCEPTED
    except KeyboardInterrupt:
        result = _TYPER_INTERRUPTED
    except SystemExit as stop:
        if isinstance(stop.code, int):
            return stop.code
        result = _TYPER_INTERRUPTED
    except Exception as error:
        kind = type(error).__name__
        if kind == "NoArgsIsHelpError":
            cast("Any", error).format_message()  # shows the help
        elif kind == "Abort":
            result = _TYPER_INTERRUPTED
        elif os.environ.get("APNS_LIVE_DEBUG"):
            raise
        else:
            return output.report_error(error, command=name, json_mode="--json" in arguments)
    if result == _TYPER_INTERRUPTED:
        sys.stderr.write(f"{name}: interrupted\n")
        return output.ExitCode.INTERRUPTED
    return int(result) if isinstance(result, int) else 0
