"""``apns-live fan-out``: sends one message to a file of tokens."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any

from .options import CONNECTION, MESSAGE, Shared, command
from .output import CREDENTIAL_VERDICTS, ExitCode, Screen
from .send import check_deadline, show_warnings

if TYPE_CHECKING:
    from ..client import Report


@command(
    MESSAGE,
    CONNECTION,
    """
    FILE: File of tokens: CSV, JSON Lines or one a line; - reads stdin.
    --deadline SECONDS: Seconds after which the fan-out stops.
    --workers N: Worker processes; at most one per core makes sense.
    --progress/--no-progress: Show a progress bar. [on a terminal]
    Files:
    --format FORMAT: auto, csv, jsonl or text.
    --column NAME: CSV column by name or by number from 1, or JSON key. [token]
    --retry-file FILE: Write tokens that were not accepted and may be sent again; use it as FILE later.
    --drop-file FILE: Write tokens to delete, with the reason (JSON Lines, or .csv).
    --unknown-file FILE: Write starts that may have been processed. [RETRY_FILE.unknown]
    --retry-unknown: Write those to the retry file too; some phones may then show two cards.
    """,
)
def fan_out(
    shared: Shared,
    tokens: str,
    format_: str = "auto",
    column: str | None = None,
    retry_file: str | None = None,
    drop_file: str | None = None,
    unknown_file: str | None = None,
    retry_unknown: bool = False,
    deadline: float | None = None,
    workers: int = 1,
    progress: bool | None = None,
) -> int:
    """Send one message to every token of a file, each token once.

    SIGINT stops reading, waits for the answers to what has left, and writes the files; a second
    one stops waiting.
    """
    from ..client.workers import check_workers
    from ..payload import encode
    from .files import OutcomeFiles
    from .messages import message_from
    from .tokens import TokenFile

    check_deadline(deadline)
    check_workers(workers)
    message = message_from(shared.message)
    encoded = encode(message, now=time.time())
    settings = shared.settings()
    # Wrong settings and a wrong key are found before a file is touched.
    settings.client_arguments()
    shows = shared.screen.shows_progress if progress is None else progress
    with contextlib.closing(TokenFile(tokens, form=format_, column=column)) as source:
        files = OutcomeFiles(
            retry=retry_file,
            drop=drop_file,
            unknown=unknown_file,
            replay_safe=encoded.replay_safe,
            retry_unknown=retry_unknown,
        )
        show_warnings(shared.screen, encoded)
        from .sender import Sender

        sender = Sender(
            source,
            files,
            deadline=deadline,
            workers=workers,
            shows_progress=shows,
            note=shared.screen.note,
        )
        report = asyncio.run(sender.run(settings, message))
    _say(shared.screen, sender, report)
    return _exit_code(sender, report)


def _say(screen: Screen, sender: Any, report: Report) -> None:
    summary = summary_of(report)
    summary |= {
        "repeated": sender.source.repeated,
        "not_read": sender.not_read,
        "unanswered": sender.unanswered,
        "interrupted": sender.interrupted,
        "files": sender.files_written(),
    }
    if sender.source_error is not None:
        summary["error"] = str(sender.source_error)
        screen.note(f"{sender.source_error} Nothing after it was read.")
    if screen.json_mode:
        screen.answer(summary, "")
        return
    screen.table(
        ("", "pushes"), [(name.replace("_", " "), n) for name, n in summary["verdicts"].items()]
    )
    if summary["reasons"]:
        screen.table(("reason", "pushes"), list(summary["reasons"].items()))
    screen.line(
        f"{report.settled:,} pushes in {report.elapsed:.1f} s ({report.rate:,.0f}/s) over "
        f"{report.connections} connections; answers after {report.p50 * 1000:.1f} ms (median), "
        f"{report.p95 * 1000:.1f} ms (p95), {report.p99 * 1000:.1f} ms (p99)"
    )
    if sender.source.repeated:
        screen.line(f"{sender.source.repeated:,} repeated tokens were left out")
    if sender.not_read:
        screen.line(f"{sender.not_read:,} tokens were not reached")
    for name, (path, count) in sender.files_written().items():
        screen.line(f"{name} file: {count:,} tokens in {path}")
    if report.reasons.get("BadDeviceToken"):
        screen.note(
            "BadDeviceToken: before you drop those tokens, check that they belong to this "
            "environment (a sandbox token on production, or the reverse)."
        )
    lost = sender.unknown_without_file
    if lost:
        screen.note(
            f"{lost:,} starts may have been processed; use --unknown-file to keep such tokens."
        )


def summary_of(report: Report) -> dict[str, Any]:
    """Return a report for JSON; times are seconds."""
    return {
        "read": report.read,
        "accepted": report.accepted,
        "verdicts": {verdict.value: count for verdict, count in report.verdicts.items()},
        "reasons": dict(report.reasons),
        "drops": report.drop_count,
        "deadline_passed": report.deadline_passed,
        "elapsed": round(report.elapsed, 3),
        "rate": round(report.rate, 1),
        "p50": round(report.p50, 6),
        "p95": round(report.p95, 6),
        "p99": round(report.p99, 6),
        "connections": report.connections,
    }


def _exit_code(sender: Any, report: Report) -> ExitCode:
    if sender.interrupted:
        return ExitCode.INTERRUPTED
    if sender.source_error is not None:
        return ExitCode.BAD_INPUT
    if report.accepted == report.settled and not sender.not_read:
        return ExitCode.OK
    answered = sum(report.reasons.values()) and report.rate > 0
    refused = any(verdict in CREDENTIAL_VERDICTS for verdict in report.verdicts)
    if report.accepted == 0 and (refused or not answered):
        return ExitCode.NO_WAY
    return ExitCode.NOT_ACCEPTED
