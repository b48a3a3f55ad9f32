"""``apns-live import``: devices, users and tokens from CSV or JSON Lines into the service's database."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from ..errors import InvalidInput
from .options import group
from .output import Bar, ExitCode
from .store_access import Stored, stored

if TYPE_CHECKING:
    from ..activities.people.imports import Progress, Report
    from ..activities.people.imports.fields import Kind
    from ..activities.people.imports.reading import Form

app = group(
    "Import devices, users and tokens from CSV or JSON Lines. A second import changes nothing."
)

SHOWN = 10
"""Maximum of refused lines on stderr."""

_TABLE = """
FILE: CSV or JSON Lines, also as .gz; - reads stdin.
--format auto|csv|jsonl: Format of the file.
--from onesignal|braze: The file is an export of this vendor.
--column NAME=COLUMN: Column of a field; =COLUMN ignores a column.
--set NAME=VALUE: Value of a field in lines that do not have it.
--ignore-others: Ignore unknown columns.
--registered-at WHEN: Time of tokens without one; otherwise they count as older than any other.
--rejects FILE: Write refused lines to this file, to correct and import.
--dry-run: Check every line, store nothing.
--batch N [1..10000]: Lines per transaction.
"""


def _command(kind: Kind, text: str) -> None:
    async def imported(
        shared: Stored,
        file: str,
        format_: str = "auto",
        from_: str | None = None,
        column: list[str] | None = None,
        set_: list[str] | None = None,
        ignore_others: bool = False,
        registered_at: str | None = None,
        rejects: str | None = None,
        dry_run: bool = False,
        batch: int = 1_000,
    ) -> int:
        from ..activities.people.imports import Imports, Layout
        from ..activities.people.records import OLDEST, moment
        from ..clock import SystemClock

        pairs = [_pair(text, "--column") for text in column or []]
        at = OLDEST if registered_at is None else moment(registered_at, "--registered-at")
        layout = Layout(
            form=cast("Form", format_),
            vendor=from_,
            columns={theirs: ours for ours, theirs in pairs},
            defaults=dict(_pair(text, "--set") for text in set_ or []),
            ignore_unknown=ignore_others,
            registered_at=at,
        )
        with contextlib.ExitStack() as stack:
            report = await Imports(shared.database, SystemClock()).run(
                shared.app,
                kind,
                file,
                layout=layout,
                dry_run=dry_run,
                batch=batch,
                rejects=rejects,
                telling=_watch(stack, f"import {kind}"),
            )
        return _said(shared, report, rejects)

    imported.__doc__ = text
    app.command(kind)(stored(_TABLE)(imported))


_command("devices", "Import devices with their tags, attributes, groups and tokens.")
_command("users", "Import users with their aliases, tags, attributes and groups.")
_command("tokens", "Import push-to-start tokens and device tokens.")


def _watch(stack: contextlib.ExitStack, title: str) -> Callable[[Progress], None]:
    """Return the progress display: by bytes if the file has a size, else by lines."""
    bar: Bar | None = None

    def show(progress: Progress) -> None:
        nonlocal bar
        if bar is None:
            shown = sys.stderr.isatty()
            bar = stack.enter_context(Bar(title, total=progress.size, shown=shown))
        note = f"{progress.accepted:,} lines stored"
        if progress.refused:
            note += f", {progress.refused:,} refused"
        bar.at(progress.bytes_read, note)

    return show


def _pair(text: str, option: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not sign or not value:
        raise InvalidInput(
            f"{text[:40]!r} is not a valid pair", option, "Write NAME=VALUE, ours first."
        )
    return name, value


def _said(shared: Stored, report: Report, rejects: str | None) -> int:
    import msgspec

    facts = msgspec.to_builtins(report)
    counts = [
        f"{getattr(report, name):,} {name}"
        for name in ("devices", "users", "tokens")
        if getattr(report, name)
    ]
    done = "would be stored" if report.dry_run else "stored"
    text = f"{report.accepted:,} of {report.lines:,} lines {done}"
    text += f" ({', '.join(counts)})" if counts else ""
    text += f" in {report.seconds:.1f} s"
    for name in ("refused", "skipped"):
        if count := getattr(report, name):
            text += f"; {count:,} {name}"
    if report.ignored:
        text += f"; left out: {', '.join(report.ignored)}"
    if not shared.json_mode:
        for error in report.errors[:SHOWN]:
            shared.note(str(error))
        if report.refused > SHOWN:
            shared.note(f"and {report.refused - SHOWN:,} more lines")
    if rejects is not None and report.refused:
        text += f"; see {rejects}"
        facts["rejects"] = rejects
    shared.answer(facts, text)
    return ExitCode.NOT_ACCEPTED if report.refused else ExitCode.OK
