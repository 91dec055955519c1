"""The plots of docs/performance.md, drawn from its tables: ``python -m benchmarks.plots`` draws them without measuring."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from benchmarks.drawing import pyplot, save

PAGE = Path(__file__).parent.parent / "docs" / "performance.md"

Rows: TypeAlias = Mapping[str, Mapping[str, str]]
"""The cells of a table, by the names of its row and of its column."""

OURS, FLOOR, OTHERS, INK = "#1f6fb4", "#c9c9c9", "#8d8d8d", "#333333"


def tables(page: str) -> dict[str, Rows]:
    """Return the tables of *page* by their titles."""
    found: dict[str, Rows] = {}
    for title, body in re.findall(r"^## (.+)\n\n((?:\|.*\n?)+)", page, re.MULTILINE):
        (_, *columns), _, *rows = ([cell.strip() for cell in line.split("|")[1:-1]] for line in body.splitlines())
        found[title] = {name: dict(zip(columns, cells, strict=True)) for name, *cells in rows}
    return found


def number(cell: str) -> float:
    """Return the number in *cell*."""
    return float(cell.replace(",", ""))


@dataclass(frozen=True)
class Bar:
    """One bar of a panel: its length, and what is written at its end."""

    name: str
    value: float
    label: str


@dataclass(frozen=True)
class Panel:
    """Bars below a title; *mark* is the value of what the others are compared with."""

    title: str
    bars: Sequence[Bar]
    mark: float | None = None


def panel(title: str, rows: Rows, column: str, names: Sequence[str], mark: float | None = None) -> Panel:
    """Return the panel of a *column*, of those *names* that the table has."""
    bars = [Bar(name, number(rows[name][column]), rows[name][column]) for name in names if name in rows]
    return Panel(title, bars, mark)


# --- what is drawn --------------------------------------------------------------------------------


def calls(found: Mapping[str, Rows]) -> list[Panel]:
    """Blocking calls, compared with django-redis."""
    names = ("floor", "fleetcache", "django-vcache", "django-valkey", "django-redis", "Django")
    return [
        panel(call, found[f"Blocking: {call}"], "wall / django-redis", names, 1)
        for call in ("get", "set", "get_many(100)", "set_many(100)")
    ]


def nearby(found: Mapping[str, Rows]) -> list[Panel]:
    """Reads that process memory answers, compared with LocMemCache."""
    names = ("floor", "fleetcache", "django-vcache", "LocMemCache", "redis-py")
    return [
        panel(call, found[f"Near hit: {call}"], "/ LocMemCache", names, 1)
        for call in ("get, str", "get, small dict", "get_many(100), small dicts", "has_key")
    ]


def cold(found: Mapping[str, Rows]) -> list[Panel]:
    """How long the callers of a cold key wait, and how often it is loaded."""
    panels = []
    for callers in ("threads", "tasks"):
        rows = found[f"Loading: a cold key, 4 processes of 50 {callers}"]
        column = "last caller done, ms"
        bars = [
            Bar(
                name,
                number(row[column]) / 1000,
                f"{number(row[column]) / 1000:.2f} s, {row['loads, median']} load{'s' * (row['loads, median'] != '1')}",
            )
            for name, row in rows.items()
        ]
        panels.append(Panel(f"200 {callers} ask for a cold key: the last is answered after", bars))
    return panels


def hot(found: Mapping[str, Rows]) -> list[Panel]:
    """How many callers wait when a hot key expires, again and again."""
    panels = []
    for callers in ("threads", "tasks"):
        rows = found[f"Loading: a hot key that expires every second, 4 processes of 10 {callers}"]
        column = "callers who waited"
        bars = [Bar(name, number(row[column]), row[column]) for name, row in rows.items()]
        panels.append(Panel(f"40 {callers} read a key that expires 30 times: callers who waited", bars))
    return panels


TASKS = "Awaiting: thousand aget per second"


def labels(found: Mapping[str, Rows]) -> dict[str, list[str]]:
    """Return what is written at the bars or lines of each plot."""
    ends = {name: list(row.values())[-1] for name, row in found[TASKS].items() if name != "fleetcache.Cache"}
    return {
        "performance-aget": [f"{name} {end}" for name, end in ends.items()],
        **{name: [bar.label for shown in plot.panels(found) for bar in shown.bars] for name, plot in BARS.items()},
    }


# --- how it is drawn ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bars:
    """A plot of several panels of bars."""

    panels: Callable[[Mapping[str, Rows]], list[Panel]]
    about: str
    log: bool = False
    columns: int = 2


BARS = {
    "performance-calls": Bars(calls, "time of a call / time of django-redis"),
    "performance-near": Bars(nearby, "time of a call / time of LocMemCache, on a logarithmic scale", log=True),
    "performance-cold": Bars(cold, "seconds; a load takes 0.5 s", columns=1),
    "performance-hot": Bars(hot, "callers who waited more than half of a load's time", columns=1),
}


def color(name: str) -> str:
    """Return the color of a contender."""
    return OURS if name.startswith("fleetcache") else FLOOR if name == "floor" else OTHERS


def draw_bars(found: Mapping[str, Rows], plot: Bars, path: Path) -> None:
    """Draw each panel with its names at the left and its figures at the ends of the bars."""
    panels = plot.panels(found)
    rows = [panels[at : at + plot.columns] for at in range(0, len(panels), plot.columns)]
    heights = [0.21 * max(len(shown.bars) for shown in row) + 0.3 for row in rows]
    longest = max(bar.value for shown in panels for bar in shown.bars)
    plt = pyplot()
    figure, grid = plt.subplots(
        len(rows),
        plot.columns,
        figsize=(8, sum(heights) + 0.35),
        layout="constrained",
        squeeze=False,
        height_ratios=heights,
    )
    for axes, shown in zip(grid.flat, panels, strict=True):
        for at, bar in enumerate(shown.bars):
            # A logarithmic scale has no zero to begin at.
            axes.barh(at, max(bar.value, longest / 400 * (not plot.log)), color=color(bar.name), height=0.72)
            axes.annotate(
                bar.label, (bar.value, at), (4, 0), textcoords="offset points", va="center", fontsize=8, color=INK
            )
        axes.set_yticks(range(len(shown.bars)), [bar.name for bar in shown.bars])
        axes.invert_yaxis()
        axes.set_title(shown.title, fontsize=9.5, loc="left")
        if plot.log:
            axes.set_xscale("log")
            axes.set_xlim(0.02, longest * 4)
        else:
            axes.set_xlim(0, longest * 1.25)
        if shown.mark is not None:
            axes.axvline(shown.mark, color=INK, linewidth=0.7, linestyle=":", zorder=0)
        axes.tick_params(length=0)
        axes.set_xticks([])
        axes.minorticks_off()
        axes.spines[:].set_visible(False)
    figure.supxlabel(plot.about, fontsize=8.5)
    save(figure, path)
    plt.close(figure)


def draw_tasks(found: Mapping[str, Rows], path: Path) -> None:
    """Draw a line for each contender over the number of tasks, with its name at the right end."""
    plt = pyplot()
    figure, axes = plt.subplots(figsize=(8, 3.6), layout="constrained")
    rows = {name: row for name, row in found[TASKS].items() if name != "fleetcache.Cache"}
    counts = [column.removesuffix(" tasks").removesuffix(" task") for column in next(iter(rows.values()))]
    places = range(len(counts))
    ends: list[float] = []
    for name, row in sorted(rows.items(), key=lambda item: -number(list(item[1].values())[-1])):
        values = [number(cell) for cell in row.values()]
        axes.plot(
            places, values, "-o", color=color(name), linewidth=2.2 if name == "fleetcache" else 1.4, markersize=3.5
        )
        # Names of lines that end close together are moved apart, by factors: the scale is logarithmic.
        ends.append(min([values[-1], *(end / 1.27 for end in ends[-1:])]))
        axes.annotate(
            f"{name} {list(row.values())[-1]}", (places[-1], ends[-1]), (8, 0), textcoords="offset points", va="center",
            fontsize=8.5, color=INK if color(name) != OURS else OURS,
        )  # fmt: skip
    axes.set_yscale("log")
    axes.set_xlim(-0.2, len(counts) - 0.1)
    axes.set_xticks(places, counts)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()
    axes.set(xlabel="tasks that read at once")
    axes.set_title("Thousand aget per second, on a logarithmic scale", fontsize=9.5, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.3)
    save(figure, path)
    plt.close(figure)


SECTION = """\
## In pictures

Drawn from the tables below, by the same command, or without measuring by `python -m benchmarks.plots`.

How long a blocking call takes, where django-redis takes 1:

![Bars for get, set, get_many and set_many: fleetcache takes less than half of django-redis' time](performance-calls.svg)

How many values tasks on one event loop read in a second:

![Lines over 1 to 500 tasks: fleetcache reads some ten times as many values as django-valkey and redis.asyncio](performance-aget.svg)

Reads that process memory answers, where Django's LocMemCache takes 1:

![Bars for four reads: a hit of the near cache takes an eighth to half of LocMemCache's time](performance-near.svg)

200 callers ask at once for a key that nobody has, and a load takes half a second:

![Bars: fleetcache loads once, and everybody has the value after little more than a load's time](performance-cold.svg)

A key that everybody reads expires every second:

![Bars: with fleetcache nobody waits unless the caller itself renews; with django-redis hundreds do](performance-hot.svg)
"""


def draw(page: Path = PAGE) -> None:
    """Write the plots of *page* beside it."""
    found = tables(page.read_text(encoding="utf-8"))
    for name, plot in BARS.items():
        draw_bars(found, plot, page.with_name(f"{name}.svg"))
    draw_tasks(found, page.with_name("performance-aget.svg"))


if __name__ == "__main__":
    draw()
