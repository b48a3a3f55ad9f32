"""``apns-live import``: devices, users and tokens from CSV or JSON Lines into the service's database."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from ..errors import InvalidInput
from .options import Shared, command, group, option
from .output import ExitCode
from .progress import Bar
from .store_access import AppOption, StoreOption, run_for_app

if TYPE_CHECKING:
    from ..activities.apps import App
    from ..activities.people.imports import Layout, Progress, Report
    from ..activities.people.imports.fields import Kind
    from ..activities.people.imports.reading import Form
    from ..activities.store.database import Database

app = group(
    "Import devices, users and tokens from CSV or JSON Lines. Fed twice, a file changes nothing."
)

SHOWN = 10
"""Refused lines that are shown where a person reads."""

File = Annotated[
    str, typer.Argument(metavar="FILE", help="CSV or JSON Lines, also as .gz; - reads stdin.")
]
Format = Annotated[str, option("How the file is written.", "--format", "auto|csv|jsonl")]
Vendor = Annotated[
    str | None, option("The file is this vendor's own export.", "--from", "onesignal|braze")
]
Columns = Annotated[
    list[str] | None,
    option("Where a field stands; =COLUMN leaves one out.", "--column", "NAME=COLUMN"),
]
Defaults = Annotated[
    list[str] | None, option("For lines that do not say it.", "--set", "NAME=VALUE")
]
IgnoreOthers = Annotated[
    bool, option("Leave out columns that have no meaning here.", "--ignore-others")
]
RegisteredAt = Annotated[
    str | None,
    option(
        "For tokens without a time; without it they replace none that has one.",
        "--registered-at",
        "WHEN",
    ),
]
Rejects = Annotated[
    str | None, option("Write refused lines there, to correct and feed again.", "--rejects", "FILE")
]
DryRun = Annotated[bool, option("Check every line, store nothing.", "--dry-run")]
Batch = Annotated[int, option("Lines a transaction.", "--batch", "N", min=1, max=10_000)]


def _command(kind: Kind, text: str) -> Callable[..., int]:
    @command()
    def imported(
        shared: Shared,
        file: File,
        app_id: AppOption,
        form: Format = "auto",
        vendor: Vendor = None,
        column: Columns = None,
        default: Defaults = None,
        ignore_others: IgnoreOthers = False,
        registered_at: RegisteredAt = None,
        rejects: Rejects = None,
        dry_run: DryRun = False,
        batch: Batch = 1_000,
        store: StoreOption = None,
    ) -> int:
        async def work(database: Database, one: App) -> Report:
            from ..activities.people.imports import Imports
            from ..clock import SystemClock

            layout = _layout(form, vendor, column, default, ignore_others, registered_at)
            with _Watch(shared, f"import {kind}") as watch:
                return await Imports(database, SystemClock()).run(
                    one,
                    kind,
                    file,
                    layout=layout,
                    dry_run=dry_run,
                    batch=batch,
                    rejects=rejects,
                    telling=watch,
                )

        return _said(shared, run_for_app(store, app_id, work), rejects)

    imported.__doc__ = text
    return imported


app.command("devices")(
    _command("devices", "Import devices with their tags, attributes, groups and tokens.")
)
app.command("users")(
    _command("users", "Import users with their aliases, tags, attributes and groups.")
)
app.command("tokens")(_command("tokens", "Import push-to-start tokens and device tokens."))


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
            self._bar.__exit__(None, None, None)

    def __call__(self, progress: Progress) -> None:
        if self._bar is None:
            self._bar = Bar(self._title, total=progress.size, shown=self._shown).__enter__()
        note = f"{progress.accepted:,} lines stored"
        if progress.refused:
            note += f", {progress.refused:,} refused"
        self._bar.at(progress.bytes_read, note)


def _layout(
    form: str,
    vendor: str | None,
    columns: list[str] | None,
    defaults: list[str] | None,
    ignore_others: bool,
    registered_at: str | None,
) -> Layout:
    from ..activities.people.imports import Layout
    from ..activities.people.imports.fields import OLDEST, moment

    pairs = [_pair(text, "--column") for text in columns or []]
    return Layout(
        form=cast("Form", form),  # checked by the reader
        vendor=vendor,
        columns={theirs: ours for ours, theirs in pairs},
        defaults=dict(_pair(text, "--set") for text in defaults or []),
        ignore_unknown=ignore_others,
        registered_at=OLDEST if registered_at is None else moment(registered_at, "--registered-at"),
    )


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
