"""Figures and tables for people."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from math import isfinite
from textwrap import wrap
from typing import Any

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")
ANSI = re.compile(r"\x1b\[[\d;]*m")
LONG = ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s"))
"""Lengths of time in seconds, each with its name, and the unit that stands behind it."""
UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def visible(text: str) -> str:
    """Return *text* with control characters written out, so that nothing stored in a cache commands the terminal."""
    return CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def as_json(document: Any, indent: int | None = None) -> str:
    """Return *document* as JSON, which has neither infinity nor NaN: they become texts."""
    try:
        return json.dumps(document, indent=indent, default=str, allow_nan=False)
    except ValueError:
        return json.dumps(_finite(document), indent=indent, default=str)


def _finite(part: Any) -> Any:
    if isinstance(part, float) and not isfinite(part):
        return str(part)
    if isinstance(part, Mapping):
        return {name: _finite(value) for name, value in part.items()}
    return [_finite(each) for each in part] if isinstance(part, (list, tuple)) else part


def count(number: float | None) -> str:
    """Return a whole number with commas between thousands; "-" for None."""
    return "-" if number is None else f"{number:,.0f}"


def share(part: float, whole: float) -> str:
    """Return *part* of *whole* as percents; "-" if there is nothing."""
    return f"{100 * part / whole:.1f} %" if whole else "-"


def size(number: float | None) -> str:
    """Return a number of bytes in a unit that leaves up to three figures."""
    if number is None:
        return "-"
    for unit in UNITS:
        if number < 1000 or unit == UNITS[-1]:
            break
        number /= 1000
    return f"{number:.0f} {unit}" if unit == "B" or number >= 100 else f"{number:.1f} {unit}"


def duration(seconds: float | None) -> str:
    """Return seconds in a unit that leaves up to three figures, from two minutes on in two units; "-" for None."""
    if seconds is None:
        return "-"
    for unit, name in ((1e-6, "µs"), (1e-3, "ms")):
        if seconds < 1000 * unit:
            return f"{seconds / unit:.3g} {name}" if seconds else "0"
    if seconds < 120:
        return f"{seconds:.3g} s"
    whole = round(seconds)
    length, name, part, smaller = next(unit for unit in LONG if whole >= unit[0])
    count, rest = whole // length, whole % length // part
    return f"{count:,} {name} {rest} {smaller}" if rest and count < 100 else f"{count:,} {name}"


def rate(number: float) -> str:
    """Return how often something happens in a second."""
    return f"{number:,.0f}/s" if number >= 10 or not number else f"{number:.2g}/s"


def moment(at: float) -> str:
    """Return seconds since 1970 as a date, a time and the zone: that of Django's TIME_ZONE, else of this machine."""
    return f"{datetime.fromtimestamp(at).astimezone():%Y-%m-%d} {time_of_day(at)}"


def time_of_day(at: float) -> str:
    """Return the time and the zone of `moment`, without the date."""
    then = datetime.fromtimestamp(at).astimezone()
    name = then.tzname() or ""
    # Windows has no abbreviations: its names are whole phrases.
    return f"{then:%H:%M:%S} {name if name and ' ' not in name else f'{then:%z}'}"


def sentences(text: str) -> list[str]:
    """Return *text*, for people, as lines of a sentence each, so that none is wider than a window."""
    return re.split(r"(?<=[.]) (?=[A-Z])", visible(text))


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1, indent: str = "") -> str:
    """Return lines of columns; the first *left* columns are aligned to the left, the others, of figures, to the right."""
    lines = [tuple(heads), *map(tuple, rows)]
    if not any(heads):
        lines = lines[1:]
    widths = [max((len(ANSI.sub("", cell)) for cell in column), default=0) for column in zip(*lines, strict=True)]
    return "\n".join(
        (
            indent
            + "  ".join(
                _fitted(cell, width, place < left) for place, (cell, width) in enumerate(zip(line, widths, strict=True))
            )
        ).rstrip()
        for line in lines
    )


def _fitted(cell: str, width: int, to_left: bool) -> str:
    space = " " * (width - len(ANSI.sub("", cell)))
    return cell + space if to_left else space + cell


def cut(text: str, most: int) -> str:
    """Return *text*, or its beginning and an ellipsis, *most* characters at most."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def folded(line: str, width: int) -> list[str]:
    """Return a sentence in lines of *width* columns at most; one that is too long loses its colours."""
    plain = ANSI.sub("", line)
    return [line] if len(plain) <= width else wrap(plain, width, subsequent_indent="  ")


def clipped(line: str, width: int) -> str:
    """Return *line* as far as it fits into *width* columns; its colours end with it."""
    plain = ANSI.sub("", line)
    if len(plain) <= width:
        return line
    return plain[:width]
