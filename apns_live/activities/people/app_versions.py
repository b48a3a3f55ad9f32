"""Which app versions the devices use, so that states are checked against their contracts.

A device uses the newest contract that is not newer than its version: 2.4.1 and 2.5 use the contract of 2.4 until
there is one for 2.5. A device older than all contracts uses the oldest. If no device of the app reports a version,
all contracts may be in use.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import pairwise
from typing import Any

from msgspec.structs import replace
from sqlalchemy import and_, exists, select

from .. import checks
from ..apps import App
from ..core import Core, Part
from ..decodes import has_contract
from ..store import schema

KEPT = 10.0
"""Seconds after which the devices' versions are read again."""
_APPS = 10_000


class AppVersions(Part):
    """Answers from memory for `KEPT` seconds."""

    def __init__(self, core: Core) -> None:
        super().__init__(core)
        self._kept: dict[tuple[int, frozenset[str]], tuple[float, Collection[str]]] = {}

    async def in_use(self, app: App) -> App:
        """Return the app with only the contracts that its devices use. Raises as `Database.read`."""
        setting: dict[str, Any] = app.settings.get("contract") or {}
        if not has_contract(app.settings) or len(setting["versions"]) < 2:
            return app
        place, now = (app.row, frozenset(setting["versions"])), self.clock.monotonic()
        until, names = self._kept.get(place, (now, ()))
        if until <= now:
            names = await self._told(app.row, setting["versions"])
            if len(self._kept) >= _APPS:
                self._kept.clear()
            self._kept[place] = now + KEPT, names
        versions = {name: setting["versions"][name] for name in names}
        return replace(
            app, settings={**app.settings, "contract": {**setting, "versions": versions}}
        )

    async def _told(self, app: int, configured: Collection[str]) -> Collection[str]:
        """Return the contract versions that count. Queries the devices once per contract."""
        table = schema.devices
        told = table.c.app_version_order
        orders = sorted({checks.version_order(name) for name in configured})
        asked = []
        for least, next_one in pairwise([None, *orders[1:], None]):
            within = [table.c.app_id == app, told.is_not(None)]
            within += [told >= least] if least is not None else []
            within += [told < next_one] if next_one is not None else []
            asked.append(exists().where(and_(*within)))
        row = await self.database.row(select(*asked))
        used = {order for order, found in zip(orders, row or (), strict=True) if found}
        return [name for name in configured if not used or checks.version_order(name) in used]
