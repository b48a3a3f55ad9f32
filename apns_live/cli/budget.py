"""``apns-live budget simulate``: what a day's updates would do to a phone's budget."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from .options import Shared, command, option
from .output import ExitCode

app = typer.Typer(no_args_is_help=True, help="Plan priorities: what a phone's budget allows.")


class Law(StrEnum):
    """How the simulated phone counts."""

    CLOCK_HOUR = "clock-hour"
    ROLLING = "rolling"


@app.command("simulate")
@command()
def simulate(
    shared: Shared,
    updates: Annotated[
        str,
        option(
            "JSON Lines or CSV with `at` (seconds from the start), urgency, alert, end.",
            "--updates",
            "FILE",
        ),
    ],
    budget: Annotated[str, option("default, frequent, or pushes an hour.", "--budget")] = "default",
    reserve: Annotated[
        int, option("Of a budget in numbers: kept for alerts and end.", "--reserve")
    ] = 4,
    burst: Annotated[
        int, option("Of a budget in numbers: normal updates in a row.", "--burst")
    ] = 3,
    minimum_interval: Annotated[
        float, option("Seconds between silent updates.", "--minimum-interval")
    ] = 0.0,
    capacity: Annotated[
        int, option("What the phone really has, an hour.", "--phone-capacity")
    ] = 15,
    law: Annotated[Law, option("How the phone counts its hour.", "--phone-law")] = Law.CLOCK_HOUR,
    plot: Annotated[str | None, option("Draw it: a .png or .svg.", "--plot", "FILE")] = None,
) -> int:
    """Show what would be sent at which priority, and what a phone would have shown."""
    from ..delivery.budget import Budget
    from . import budget_simulation as simulation

    allowance: Budget | str = (
        Budget(per_hour=int(budget), reserve=reserve, burst=burst) if budget.isdigit() else budget
    )
    got = simulation.simulate(
        simulation.read_plan(updates),
        budget=allowance,
        minimum_interval=minimum_interval,
        capacity=capacity,
        law="rolling" if law is Law.ROLLING else "clock hour",
    )
    if plot is not None:
        simulation.plot(got, plot)
    values = got.as_json()
    verified = "" if got.budget["verified"] else " (unverified: Apple does not publish the size)"
    lines = [
        f"{values['updates']} updates, {len(got.sent)} sent, {got.superseded} superseded",
        f"priority 10: {values['sent_at_10']} ({values['over_budget']} over budget); "
        f"priority 5: {values['sent_at_5']} ({values['demoted']} demoted)",
        f"budget {got.budget['name']}: {got.budget['per_hour']} an hour, {got.budget['reserve']} in reserve{verified}",
        f"a phone with {capacity} an hour: {got.alerts_shown_at_once} of {got.alerts} alerts shown at once, "
        f"{values['throttled']} pushes not shown because its budget was spent",
        f"age of what it showed: median {got.median_age:.0f} s, worst {got.worst_age:.0f} s",
    ]
    if plot is not None:
        lines.append(f"plot: {plot}")
    shared.screen.answer(values, "\n".join(lines))
    return ExitCode.OK
