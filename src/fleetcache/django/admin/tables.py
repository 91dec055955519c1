"""Tables that are sorted by a column and shown page by page; both are links, so neither needs a script."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

ROWS = 50
"""How many rows a page of a table has."""


@dataclass(frozen=True)
class Column:
    """A column: what stands in it, and what it is sorted by."""

    name: str
    """In ``?sort=``; with a minus before it, the largest come first."""
    title: str
    text: Callable[[Any], Any]
    """Returns what stands in the column, of a row."""
    by: Callable[[Any], Any] | None = None
    """Returns a number or a text to sort by, or None for rows that come last; without it the column cannot be sorted."""
    hint: str = ""
    """What the figure means, in a sentence."""
    figure: bool = False
    """Whether it holds figures, which stand at the right."""


def table(request: Any, columns: Sequence[Column], rows: Sequence[Any], *, sort: str, rows_each: int = ROWS) -> Any:
    """Return what ``admin/fleetcache/table.html`` shows: *rows* as the request wants them, first by *sort*."""
    wanted = request.GET.get("sort", sort)
    by = {column.name: column for column in columns if column.by is not None}
    if wanted.removeprefix("-") not in by:
        wanted = sort
    ordered = _ordered(rows, by[wanted.removeprefix("-")], wanted.startswith("-"))
    pages = max(-(-len(ordered) // rows_each), 1)
    page = min(max(_whole(request.GET.get("p")), 1), pages)
    shown = ordered[(page - 1) * rows_each : page * rows_each]
    return {
        "heads": [_head(request, column, wanted) for column in columns],
        "rows": [[{"text": column.text(row), "figure": column.figure} for column in columns] for row in shown],
        "total": f"{len(ordered):,}",
        "page": page,
        "pages": pages,
        "before": with_query(request, p=page - 1) if page > 1 else "",
        "after": with_query(request, p=page + 1) if page < pages else "",
    }


def with_query(request: Any, **changes: Any) -> str:
    """Return the query of *request* with some *changes*; None takes a parameter out."""
    query = request.GET.copy()
    for name, value in changes.items():
        if value is None:
            query.pop(name, None)
        else:
            query[name] = value
    return f"?{query.urlencode()}"


def _head(request: Any, column: Column, sorted_by: str) -> dict[str, Any]:
    here = sorted_by.removeprefix("-") == column.name
    falling = sorted_by.startswith("-")
    # Of figures the largest are looked for first.
    other = column.name if falling else f"-{column.name}"
    wanted = other if here else f"-{column.name}" if column.figure else column.name
    return {
        "title": column.title,
        "hint": column.hint,
        "figure": column.figure,
        "url": with_query(request, sort=wanted, p=None) if column.by is not None else "",
        "sorted": ("descending" if falling else "ascending") if here else "",
    }


def _ordered(rows: Sequence[Any], column: Column, falling: bool) -> list[Any]:
    if column.by is None:
        return list(rows)
    keyed = [(column.by(row), row) for row in rows]
    known = [each for each in keyed if each[0] is not None]
    known.sort(key=lambda each: each[0], reverse=falling)
    return [row for _, row in known] + [row for key, row in keyed if key is None]


def _whole(text: str | None) -> int:
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 10 else 1
