"""The plot of the hot key: who waits, and when it is loaded."""

from __future__ import annotations

from collections import Counter
from itertools import accumulate
from math import nan
from pathlib import Path

from benchmarks.drawing import pyplot, save
from benchmarks.loading.hot import TIMEOUT, Hot, Turn
from benchmarks.loading.peers import AWAITING, BLOCKING

PLOT = Path(__file__).parent.parent.parent / "docs" / "loading.svg"
SHOWN = 8.0
"""Seconds of the first turn that are drawn."""
STEP = 0.02
SHORTEST = 6
"""The shortest stroke, so that a single load is seen."""


def waiting(turn: Turn) -> tuple[list[float], list[int]]:
    """Return how many callers wait, as the steps of a line: the moments at which it changes, and the numbers from then on."""
    changes = Counter({0.0: 0, SHOWN: 0})
    for began, ended in turn.waits:
        changes[min(SHOWN, began // STEP * STEP)] += 1
        changes[min(SHOWN, ended // STEP * STEP)] -= 1
    moments = sorted(changes)
    return moments, list(accumulate(changes[moment] for moment in moments))


def ticks(turn: Turn) -> tuple[list[float], list[float]]:
    """Return a line of strokes that hang below zero, one for each moment with loads, as long as there were loads."""
    counts = Counter(load // STEP * STEP for load in turn.loads if load < SHOWN)
    xs, ys = [], []
    for moment, count in sorted(counts.items()):
        xs += [moment, moment, nan]
        ys += [-2, -2 - max(SHORTEST, count), nan]
    return xs, ys


def plot(found: Hot, path: Path = PLOT) -> None:
    """Draw one panel for each contender: callers who wait above zero, loads below."""
    plt = pyplot()
    names = [name for name in (*BLOCKING, *AWAITING) if name in found.turns]
    rows = (len(names) + 1) // 2
    figure, grid = plt.subplots(
        rows, 2, figsize=(9, 1.05 * rows + 0.6), sharex=True, sharey=True, layout="constrained", squeeze=False
    )
    panels = [axes for column in zip(*grid, strict=True) for axes in column]
    for axes in panels[len(names) :]:
        axes.axis("off")
    for axes, name in zip(panels, names, strict=False):
        turn = found.turns[name][0]
        moments, callers = waiting(turn)
        axes.fill_between(moments, callers, step="post", color="tab:red", alpha=0.6, linewidth=0)
        axes.plot(*ticks(turn), color="tab:blue", linewidth=1.2)
        title = f"{name}: {found.waited(name)} waited, {found.loads(name):.1f} loads / timeout"
        axes.set_title(title, fontsize=8.5, loc="left")
        axes.set(xlim=(0, SHOWN), ylim=(-44, 44), yticks=(-40, 0, 40), xticks=range(0, int(SHOWN) + 1, TIMEOUT))
        axes.set_yticklabels(["40", "0", "40"])
        axes.grid(alpha=0.3)
    figure.supylabel("loads begun (blue, down), callers waiting of 40 (red, up)", fontsize=9)
    figure.supxlabel("seconds", fontsize=9)
    save(figure, path)
