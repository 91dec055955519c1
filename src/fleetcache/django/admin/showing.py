"""Figures as text.  Templates get text, never numbers: Django would write those as the user's language does, in SVG too."""

from __future__ import annotations

from datetime import UTC, datetime
from math import floor, isfinite, log10
from typing import Any

from django.utils import timezone

from fleetcache.near.audit import FEW

NONE = "–"  # noqa: RUF001 - a dash
"""Stands for a figure that is not known."""


def number(count: Any) -> str:
    """Return *count* with its thousands apart; a fraction with three digits that count."""
    if not isinstance(count, (int, float)) or not isfinite(count):
        return NONE
    if isinstance(count, int) or abs(count) >= 100:
        return f"{count:,.0f}"
    return f"{count:.3g}"


def short(count: Any) -> str:
    """Return *count* with three digits that count, for a narrow column: 13.4 M."""
    if not isinstance(count, (int, float)) or not isfinite(count):
        return NONE
    if abs(count) < 10_000:
        return number(count)
    power = min(int(log10(abs(count) * 1.0005)) // 3, 3)
    return f"{count / 1000**power:.3g} {' kMG'[power]}"


def percent(part: float, whole: float) -> str:
    """Return how much *part* is of *whole*."""
    if not whole:
        return NONE
    share = 100 * part / whole
    return f"{share:.1f} %" if share < 99.95 or part == whole else f"{min(share, 99.99):.2f} %"


def size(count: Any) -> str:
    """Return a number of bytes."""
    if not isinstance(count, (int, float)):
        return NONE
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"


def seconds(time: Any) -> str:
    """Return a length of time that is given in seconds."""
    if not isinstance(time, (int, float)) or not isfinite(time):
        return NONE
    if abs(time) < 1:
        for factor, unit in ((1e6, "µs"), (1e3, "ms")):
            if abs(time) * factor < 999.5:
                return f"{time * factor:.3g} {unit}" if time else "0 s"
        return "1 s"
    if time < 60:
        return f"{time:.3g} s"
    for length, unit, smaller, part in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if time >= length:
            whole, rest = divmod(int(time), length)
            return (
                f"{whole:,} {unit} {rest // smaller} {part}" if rest // smaller and whole < 100 else f"{whole:,} {unit}"
            )
    return NONE


def moment(at: float) -> str:
    """Return seconds since 1970 as a date and a time in Django's current time zone, which is named."""
    then = timezone.localtime(datetime.fromtimestamp(at, UTC))
    return f"{then:%Y-%m-%d %H:%M:%S} {then.tzname()}"


def nines(compared: int, wrong: int) -> str:
    """Return how many of *compared* were right, in nines; without a wrong one, how many nines so many can prove, as `Near.audit`."""
    if not compared:
        return NONE
    if wrong:
        return f"{log10(compared / wrong):.1f} nines"
    return f"≥ {floor(log10(compared / 3) * 10) / 10:.1f} nines" if compared >= FEW else "too few to say more"
