"""Draws a result: rates, rate over time, percentile curves, and the conditions."""

import textwrap
from itertools import pairwise
from pathlib import Path
from typing import Any

from ..errors import InvalidInput
from .results import Result, Run, median


def draw(result: Result, path: str | Path) -> None:
    """Write the picture (PNG, or what the file's name ends with). Needs matplotlib."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = [_bars] if any(run.rate for run in result.runs) else []
    panels += [_over_time] if any(len(run.timeline) > 1 for run in result.runs) else []
    panels += [_percentiles] if any(run.quantiles for run in result.runs) else []
    if not panels:
        raise InvalidInput("holds nothing to draw", "result", "Measure a rate.")
    pairs = {**result.conditions, **result.settings}
    lines = [f"{key}: {value}" for key, value in pairs.items()] + result.notes
    width = round(len(panels) * 100)
    below = "\n".join(piece for line in lines for piece in textwrap.wrap(line, width))
    height = 4.6 + 0.17 * (below.count("\n") + 1)
    # Each panel is 7.5 inches wide.
    figure = Figure(figsize=(7.5 * len(panels), height), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(result.title, fontweight="bold")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for panel, one in zip(panels, axes, strict=True):
        panel(one, result.named())
    figure.supxlabel(below, fontsize=8, ha="left", x=0.01, family="monospace")
    figure.savefig(path, dpi=110)


def _bars(axes: Any, named: dict[str, list[Run]]) -> None:
    names = [name for name, runs in named.items() if any(run.rate for run in runs)]
    rates = [[run.rate for run in named[name]] for name in names]
    middle = [median(each) for each in rates]
    pairs = zip(middle, rates, strict=True)
    spans = [(value - min(each), max(each) - value) for value, each in pairs]
    spread = list(zip(*spans, strict=True))
    bars = axes.barh(names, middle, xerr=spread, color=[f"C{n}" for n in range(len(names))])
    labels = []
    for name, value in zip(names, middle, strict=True):
        busy = median(run.sink_busy for run in named[name])
        labels.append(f" {value:,.0f}/s" + (f", sink {busy:.0%} busy" if busy else ""))
    axes.bar_label(bars, labels, fontsize=8)
    axes.margins(x=0.35)
    axes.invert_yaxis()
    axes.set_title("Rate: median of the rounds, line from worst to best", fontsize=10)
    axes.set_xlabel("a second")


def _over_time(axes: Any, named: dict[str, list[Run]]) -> None:
    for number, (name, runs) in enumerate(named.items()):
        for run in runs:
            points = [(0.0, 0), *run.timeline]
            steps = [pair for pair in pairwise(points) if pair[1][0] - pair[0][0] > 0.01]
            axes.plot(
                [after[0] for _, after in steps],
                [(after[1] - before[1]) / (after[0] - before[0]) for before, after in steps],
                color=f"C{number}",
                alpha=0.4 if run is not runs[-1] else 1.0,
                label=name if run is runs[-1] else None,
            )
    axes.set_ylim(bottom=0)
    axes.set_title("Rate over time, every round", fontsize=10)
    axes.set_xlabel("seconds")
    axes.set_ylabel("a second")
    axes.legend(fontsize=8)


def _percentiles(axes: Any, named: dict[str, list[Run]]) -> None:
    ticks: set[float] = set()
    for number, (name, runs) in enumerate(named.items()):
        if not (shares := [share for share in runs[-1].quantiles if float(share) < 1]):
            continue
        # Show shares as "1 in n", which gives the tail more room.
        places = [1 / (1 - float(share)) for share in shares]
        ticks |= {place for place in places if place > 1.9}
        kept = [run.quantiles for run in runs if run.quantiles]
        times = [median(each[share] for each in kept) * 1e3 for share in shares]
        axes.plot(places, times, marker=".", color=f"C{number}", label=name)
    axes.set_xscale("log")
    axes.set_yscale("log")
    labels = [f"{100 - 100 / tick:.4g}" for tick in sorted(ticks)]
    axes.set_xticks(sorted(ticks), labels, fontsize=8)
    axes.minorticks_off()
    axes.grid(visible=True, alpha=0.3)
    axes.set_title("Within how many ms that percentage was answered", fontsize=10)
    axes.set_xlabel("percent of the answers")
    axes.set_ylabel("ms")
    axes.legend(fontsize=8)
