"""Plots as SVG within the report: axes, units, and a label beside each series.

A plot has no colours of its own: its parts have classes, to which the style sheet gives colours, light or dark.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from math import ceil, floor, log10

Points = Sequence[tuple[float, float]]

LEFT, RIGHT, TOP, BOTTOM = 46, 14, 26, 38
TEXT = 12
"""The height of letters; a letter is about half as wide."""


@dataclass
class Series:
    """Points of one site; *kind* is the class that gives them their colour."""

    name: str
    kind: str
    points: Points


def ticks(most: float, count: int = 4) -> list[float]:
    """Return round numbers from 0 to *most* or just above, about *count* of them."""
    if most <= 0:
        return [0, 1]
    rough = most / count
    unit = 10.0 ** floor(log10(rough))
    step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= rough)
    return [round(step * place, 6) for place in range(ceil(most / step - 1e-9) + 1)]


def number(value: float) -> str:
    """Return *value* as an axis shows it."""
    return f"{value:,.0f}" if value == round(value) else f"{value:g}"


class Canvas:
    """A rectangle with two axes from zero, on which points are drawn."""

    def __init__(
        self,
        label: str,
        size: tuple[int, int],
        most: tuple[float, float],
        axes: tuple[str, str],
        *,
        right: int = RIGHT,
        top: int = TOP,
    ) -> None:
        self.label, (self.width, self.height), self.right, self.top = label, size, right, top
        self.parts: list[str] = []
        self.xs, self.ys = ticks(most[0], 6 if self.width > 700 else 5), ticks(most[1])
        self.most = most[0], self.ys[-1]
        self._axes(*axes)

    def x(self, value: float) -> float:
        """Return where *value* is on the horizontal axis."""
        return LEFT + (self.width - LEFT - self.right) * min(1, value / (self.most[0] or 1))

    def y(self, value: float) -> float:
        """Return where *value* is on the vertical axis."""
        return self.height - BOTTOM - (self.height - self.top - BOTTOM) * min(1, value / (self.most[1] or 1))

    def _axes(self, across: str, up: str) -> None:
        for value in self.ys:
            y = self.y(value)
            self.parts.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{self.width - self.right}"/>')
            self.text(LEFT - 7, y + 4, number(value), "tick end")
        for value in self.xs:
            if value <= self.most[0] * 1.001:
                self.text(self.x(value), self.height - BOTTOM + 17, number(value), "tick middle")
        self.text(LEFT - 40, 13, up, "axis")
        self.text(self.width - self.right, self.height - 5, across, "axis end")

    def text(self, x: float, y: float, text: str, kind: str = "") -> None:
        """Write *text*; *kind* says its colour, and whether it ends or is centred at *x*."""
        self.parts.append(f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>')

    def line(self, points: Points, kind: str, *, filled: bool = False) -> None:
        """Draw a line through *points*."""
        place = " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in points)
        if filled and points:
            foot = f"{self.x(points[-1][0]):.1f},{self.y(0):.1f} {self.x(points[0][0]):.1f},{self.y(0):.1f}"
            self.parts.append(f'<polygon class="area {kind}" points="{place} {foot}"/>')
        self.parts.append(f'<polyline class="line {kind}" points="{place}"/>')

    def dots(self, points: Points, kind: str, radius: float = 3.5) -> None:
        """Draw a dot at each of *points*."""
        self.parts += [
            f'<circle class="dot {kind}" cx="{self.x(x):.1f}" cy="{self.y(y):.1f}" r="{radius}"/>' for x, y in points
        ]

    def band(self, start: float, end: float, text: str) -> None:
        """Shade a stretch of time, and say what it was."""
        left, right = self.x(start), self.x(end)
        self.parts.append(
            f'<rect class="band" x="{left:.1f}" y="{TOP}" width="{right - left:.1f}" '
            f'height="{self.height - TOP - BOTTOM}"/>'
        )
        self.text((left + right) / 2, TOP - 8, text, "bandtext middle")

    def svg(self) -> str:
        """Return the picture."""
        return _picture(self.label, self.width, self.height, "".join(self.parts))


def _picture(label: str, width: float, height: float, inside: str) -> str:
    return (
        f'<svg role="img" aria-label="{escape(label)}" viewBox="0 0 {width:.0f} {height:.0f}">'
        f"<title>{escape(label)}</title>{inside}</svg>"
    )


def paired(label: str, series: Sequence[Series], chosen: int, up: str) -> str:
    """Return a plot of rounds: a dot for each round of a site; those of the *chosen* round are ringed, and named."""
    count = max(len(one.points) for one in series)
    most = max(y for one in series for _, y in one.points)
    canvas = Canvas(label, (520, 200), (count, most * 1.02), ("rounds", up), right=126)
    canvas.parts = [part for part in canvas.parts if 'class="tick middle"' not in part]
    for place in range(0, count, 1 if count < 12 else 2):
        canvas.text(canvas.x(place + 0.5), canvas.height - BOTTOM + 17, str(place + 1), "tick middle")
    levels = [one.points[chosen][1] for one in series]
    for one in series:
        canvas.line(one.points, one.kind)
        canvas.dots(one.points, one.kind, 3)
        canvas.dots([one.points[chosen]], f"{one.kind} ring", 5.5)
    places = apart([canvas.y(level) for level in levels], 34, TOP + 6, canvas.height - BOTTOM - 16)
    for one, level, y in zip(series, levels, places, strict=True):
        canvas.text(canvas.x(count) + 8, y, one.name, f"label {one.kind}")
        canvas.text(
            canvas.x(count) + 8, y + 15, f"{level:,.0f}" if level >= 100 else f"{level:.2f}", f"value {one.kind}"
        )
    return canvas.svg()


def apart(places: Sequence[float], gap: float, least: float, most: float) -> list[float]:
    """Return *places*, moved so far that no two are closer than *gap*, between *least* and *most* if that is possible."""
    order = sorted(range(len(places)), key=lambda place: places[place])
    found = [min(most, max(least, place)) for place in places]
    for above, below in pairwise(order):
        found[below] = max(found[below], found[above] + gap)
    over = max(found, default=0) - most
    return [place - max(0, over) for place in found]


def timeline(label: str, series: Sequence[Series], band: tuple[float, float, str], seconds: float, up: str) -> str:
    """Return a plot over time, with a stretch of it shaded, in which each series has its label."""
    most = max(y for one in series for _, y in one.points)
    canvas = Canvas(label, (1060, 230), (seconds, most * 1.05), ("seconds", up))
    canvas.band(*band)
    for one in series:
        canvas.line(one.points, one.kind, filled=True)
    end = canvas.x(band[1]) - 10
    places = []
    for one in series:
        under = [y for x, y in one.points if end - TEXT * 0.65 * len(one.name) <= canvas.x(x) <= end + 10]
        places.append(canvas.y(max(under, default=0)) - 9)
    for one, y in zip(series, apart(places, 18, TOP + 14, canvas.y(0) - 7), strict=True):
        canvas.text(end, y, one.name, f"label end halo {one.kind}")
    return canvas.svg()


@dataclass
class Panel:
    """The visits of one site, and when its slow function ran."""

    visits: Series
    runs: Sequence[float]
    summary: str


def waits(label: str, panels: Sequence[Panel], seconds: float) -> str:
    """Return a panel for each site: a dot for each visit, and below the axis a stroke for each run of the slow function."""
    most = max(y for panel in panels for _, y in panel.visits.points)
    wide, tall, over = 560 // len(panels), 220, 26
    parts = []
    for place, panel in enumerate(panels):
        last = place == len(panels) - 1
        axes = ("seconds" if last else "", "")
        canvas = Canvas(panel.visits.name, (wide, tall), (seconds, most * 1.02), axes, right=6, top=TOP + 14)
        kind = panel.visits.kind
        canvas.dots(panel.visits.points, f"{kind} faint", 2.2)
        for run in panel.runs:
            canvas.parts.append(f'<path class="run {kind}" d="M{canvas.x(run):.1f} {canvas.y(0) + 1:.1f}v5"/>')
        canvas.text(LEFT, 13, panel.visits.name, f"label {kind}")
        canvas.text(LEFT, 28, panel.summary, f"value {kind}")
        if place:  # the same scale as at the left
            canvas.parts = [part for part in canvas.parts if 'class="tick end"' not in part]
        else:
            canvas.text(0, 28, "ms", "axis")
        parts.append(f'<g transform="translate({place * (wide - over)} 0)">{"".join(canvas.parts)}</g>')
    return _picture(label, (wide - over) * (len(panels) - 1) + wide, tall, "".join(parts))


def shares(label: str, rows: Sequence[tuple[str, Sequence[tuple[str, str, float]]]]) -> str:
    """Return bars, divided into named parts: ``(title, [(what, kind, figure), …])`` for each bar."""
    width, tall, gap = 520, 26, 24
    most = max(sum(figure for _, _, figure in parts) for _, parts in rows) or 1
    inside = []
    for place, (title, parts) in enumerate(rows):
        y = place * (tall + gap)
        inside.append(f'<text class="axis" x="0" y="{y + 13}">{escape(title)}</text>')
        x = 0.0
        for what, kind, figure in parts:
            wide = (width - 4) * figure / most
            if not figure:
                continue
            inside.append(f'<rect class="fill {kind}" x="{x:.1f}" y="{y + 19}" width="{wide:.1f}" height="{tall}"/>')
            text = f"{figure:,.0f} {what}"
            if len(text) * TEXT * 0.58 + 16 > wide:
                text = f"{figure:,.0f}"
            if len(text) * TEXT * 0.58 + 10 < wide:
                inside.append(f'<text class="inside" x="{x + 8:.1f}" y="{y + 19 + 17}">{escape(text)}</text>')
            x += wide + 2
    return _picture(label, width, len(rows) * (tall + gap) + 4, "".join(inside))
