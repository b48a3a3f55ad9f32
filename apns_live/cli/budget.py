"""``apns-live budget simulate``: how a day's updates use a phone's budget."""

from .options import Shared, command, group

app = group("Plan priorities: what a phone's budget allows.")


@app.command("simulate")
@command(
    """
    --updates FILE: JSON Lines or CSV with `at` (seconds from the start), urgency, alert, end.
    --budget TEXT: default, frequent, observed, observed-frequent, or a number of pushes per hour.
    --reserve N: With a number: pushes reserved for alerts and the end.
    --burst N: With a number: normal updates in a row at priority 10.
    --minimum-interval SECONDS: Seconds between silent updates.
    --phone-capacity N: Pushes per hour that the simulated phone allows.
    --phone-law clock-hour|rolling: How the simulated phone counts its hour.
    --plot FILE: Write a chart as .png or .svg.
    """
)
def simulate(
    shared: Shared,
    updates: str,
    budget: str = "default",
    reserve: int = 4,
    burst: int = 3,
    minimum_interval: float = 0.0,
    phone_capacity: int = 15,
    phone_law: str = "clock-hour",
    plot: str | None = None,
) -> None:
    """Simulate at which priority updates are sent, and what a phone would show."""
    from ..delivery.budget import Budget
    from . import budget_simulation as simulation

    own = Budget(per_hour=int(budget), reserve=reserve, burst=burst) if budget.isdigit() else None
    got = simulation.simulate(
        simulation.read_plan(updates),
        budget=own or budget,
        minimum_interval=minimum_interval,
        capacity=phone_capacity,
        law="rolling" if phone_law == "rolling" else "clock hour",
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
        f"a phone with {phone_capacity} an hour: {got.alerts_shown_at_once} of {got.alerts} alerts shown at once, "
        f"{values['throttled']} pushes not shown because its budget was spent",
        f"age of what it showed: median {got.median_age:.0f} s, worst {got.worst_age:.0f} s",
    ]
    if plot is not None:
        lines.append(f"plot: {plot}")
    shared.answer(values, *lines)
