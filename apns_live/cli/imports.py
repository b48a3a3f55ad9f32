"""``apns-live import``: devices, users and tokens from CSV or JSON Lines into the service's database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from ..errors import InvalidInput
from .options import Shared, group
from .output import ExitCode
from .progress import Bar
from .store_access import stored

if TYPE_CHECKING:
    from ..activities.apps import App
    from ..activities.people.imports import Progress, Report
    from ..activities.people.imports.fields import Kind
    from ..activities.people.imports.reading import Form
    from ..activities.store.database import Database

app = group(
    "Import devices, users and tokens from CSV or JSON Lines. A second import changes nothing."
)

SHOWN = 10
"""Refused lines that are shown where a person reads."""

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
        shared: Shared,
        database: Database,
        one: App,
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
        with _Watch(shared, f"import {kind}") as watch:
            report = await Imports(database, SystemClock()).run(
                one,
                kind,
                file,
                layout=layout,
                dry_run=dry_run,
                batch=batch,
                rejects=rejects,
                telling=watch,
            )
        return _said(shared, report, rejects)

    imported.__doc__ = text
    app.command(kind)(stored(_TABLE)(imported))


_command("devices", "Import devices with their tags, attributes, groups and tokens.")
_command("users", "Import users with their aliases, tags, attributes and groups.")
_command("tokens", "Import push-to-start tokens and device tokens.")


class _Watch:
    """Progress by bytes where the file has a size, else by lines."""

    def __init__(self, shared: Shared, title: str) -> None:
        self._title = title
        self._shown = shared.screen.shows_progress
        self._bar: Bar | None = None

    def __enter__(self) -> _Watch:
        return self

    def __exit__(self, *details: Any) -> None:
        if self._bar is not None:
            self._bar.__exit__()

    def __call__(self, progress: Progress) -> None:
        if self._bar is None:
            self._bar = Bar(self._title, total=progress.size, shown=self._shown).__enter__()
        note = f"{progress.accepted:,} lines stored"
        if progress.refused:
            note += f", {progress.refused:,} refused"
        self._bar.at(progress.bytes_read, note)


def _pair(text: str, option: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not sign or not value:
        raise InvalidInput(
            f"{text[:40]!r} is not a valid pair",
            field=option,
            remedy="Write NAME=VALUE, ours first.",
        )
    return name, value


def _said(shared: Shared, report: Report, rejects: str | None) -> int:
    import msgspec

    facts = msgspec.to_builtins(report)
    done = "would be stored" if report.dry_run else "stored"
    counts = [
        f"{getattr(report, name):,} {name}"
        for name in ("devices", "users", "tokens")
        if getattr(report, name)
    ]
    text = f"{report.accepted:,} of {report.lines:,} lines {done}"
    text += f" ({', '.join(counts)})" if counts else ""
    text += f" in {report.seconds:.1f} s"
    for name in ("refused", "skipped"):
        if count := getattr(report, name):
            text += f"; {count:,} {name}"
    if report.ignored:
        text += f"; left out: {', '.join(report.ignored)}"
    if not shared.screen.json_mode:
        for error in report.errors[:SHOWN]:
            shared.screen.note(str(error))
        if report.refused > SHOWN:
            shared.screen.note(f"and {report.refused - SHOWN:,} more lines")
    if rejects is not None and report.refused:
        text += f"; see {rejects}"
        facts["rejects"] = rejects
    shared.screen.answer(facts, text)
    return ExitCode.NOT_ACCEPTED if report.refused else ExitCode.OK
