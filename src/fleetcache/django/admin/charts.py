"""Figures as pictures: SVG within the page, drawn by the server.

A picture has no styles of its own, since a strict Content-Security-Policy refuses them; its parts have classes, to which
the style sheet gives colours, light or dark.  What it shows is said in its label, for readers who do not see it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django.utils.html import format_html, format_html_join

WIDTH, HEIGHT = 240, 48
LEVELS = ("near", "server", "stale", "missed")
"""Where reads found their values; a picture shows them in this order, from the bottom, or from the left."""


def bar(counts: Mapping[str, float], label: str, *, parts: Sequence[str] = LEVELS, width: int = WIDTH) -> Any:
    """Return one bar, divided as *counts* of *parts* are."""
    whole = sum(counts.get(part, 0) for part in parts)
    pieces, at = [], 0.0
    for part in parts:
        wide = width * counts.get(part, 0) / whole if whole else 0.0
        if wide:
            pieces.append((part, f"{at:.2f}", f"{wide:.2f}"))
        at += wide
    return _picture(
        label, width, 12, format_html_join("", '<rect class="fc-{}" x="{}" y="0" width="{}" height="12"/>', pieces)
    )


def columns(history: Sequence[Mapping[str, float]], label: str, *, parts: Sequence[str] = LEVELS) -> Any:
    """Return a column for each time in *history*, divided as its counts of *parts* are; the tallest fills the picture."""
    tallest = max((sum(counts.get(part, 0) for part in parts) for counts in history), default=0)
    step = WIDTH / max(len(history), 1)
    pieces = []
    for place, counts in enumerate(history):
        top = float(HEIGHT)
        for part in parts:
            tall = HEIGHT * counts.get(part, 0) / tallest if tallest else 0.0
            top -= tall
            if tall:
                pieces.append((part, f"{place * step:.2f}", f"{top:.2f}", f"{max(step - 0.5, 0.5):.2f}", f"{tall:.2f}"))
    inside = format_html_join("", '<rect class="fc-{}" x="{}" y="{}" width="{}" height="{}"/>', pieces)
    return _picture(label, WIDTH, HEIGHT, inside)


def line(values: Sequence[float | None], label: str, *, most: float | None = None) -> Any:
    """Return a line through *values*, with gaps where one is None; *most* is the value at the top."""
    top = most or max((value for value in values if value is not None), default=0) or 1
    step = WIDTH / max(len(values) - 1, 1)
    pieces, run = [], list[str]()
    for place, value in enumerate((*values, None)):
        if value is not None:
            run.append(f"{place * step:.2f},{HEIGHT - 1 - (HEIGHT - 2) * min(value / top, 1):.2f}")
        elif run:
            pieces.append((" ".join(run if len(run) > 1 else [*run, *run]),))
            run = []
    return _picture(label, WIDTH, HEIGHT, format_html_join("", '<polyline class="fc-line" points="{}"/>', pieces))


def _picture(label: str, width: int, height: int, inside: Any) -> Any:
    return format_html(
        '<svg class="fc-picture" role="img" aria-label="{}" viewBox="0 0 {} {}" width="{}" height="{}" '
        'preserveAspectRatio="none"><title>{}</title>{}</svg>',
        label, width, height, width, height, label, inside,
    )  # fmt: skip
