"""Names on a cache's servers, found by a bounded walk: a page shows what one budget of time finds, and a link to go on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from fleetcache.django.admin.asking import TROUBLE, Trouble, ask
from fleetcache.exchange.contract import Command, Reply, Server
from fleetcache.inspection.names import Wanted
from fleetcache.inspection.scanning import Walk
from fleetcache.twin import complete

T = TypeVar("T")

SECONDS = 0.15
"""How long a page looks for names."""

MOST = 200
"""How many rows a page has at most, about."""


@dataclass
class Found(Generic[T]):
    """The rows of a page, and how far the walk has come."""

    rows: list[T] = field(default_factory=list)
    cursor: str | None = None
    scanned: int = 0
    total: int = 0
    away: list[str] = field(default_factory=list)
    restarted: bool = False
    trouble: str = ""
    """Why the walk could not go on."""

    @property
    def reach(self) -> str:
        """How much of all names was looked at, in words."""
        if self.cursor is None:
            return f"All {self.total:,} names of the database were looked at" + (
                "." if not self.away else ", but not those on servers that are away."
            )
        return f"About {min(self.scanned, self.total):,} of {self.total:,} names of the database were looked at: the time of this page is over."


def look(
    cache: Any,
    wanted: Wanted,
    cursor: str | None,
    commands: Callable[[bytes], Sequence[Command]],
    row: Callable[[bytes, Sequence[Reply]], T | None],
    *,
    kind: str | None = None,
    seconds: float = SECONDS,
) -> Found[T]:
    """Return rows for the names that are *wanted*, from *cursor* on, which are looked for during *seconds*.

    *row* makes a row of a name and the replies to its *commands*, or None to leave the name out.
    """
    found: Found[T] = Found()
    try:
        walk = complete(Walk.begin(cache._still or cache, wanted, kind, cursor, seconds))
    except ValueError as error:
        found.trouble = str(error)
        return found
    except TROUBLE as error:
        found.trouble = Trouble.of(error).text
        return found
    try:
        while not walk.complete and len(found.rows) < MOST:
            server, names = complete(walk.step(MOST))
            found.rows += _rows(server, dict.fromkeys(names), commands, row)
            if not walk.in_time:
                break
    except TROUBLE as error:
        found.trouble = Trouble.of(error).text
    found.cursor, found.scanned, found.total = walk.cursor, walk.scanned, walk.total
    found.away, found.restarted = walk.away, walk.restarted
    return found


def _rows(
    server: Server,
    names: Iterable[bytes],
    commands: Callable[[bytes], Sequence[Command]],
    row: Callable[[bytes, Sequence[Reply]], T | None],
) -> list[T]:
    asked = [(name, commands(name)) for name in names]
    replies = ask(server, *(command for _, each in asked for command in each)) if asked else []
    if isinstance(replies, Trouble):
        return []
    rows, at = [], 0
    for name, each in asked:
        made = row(name, replies[at : at + len(each)])
        at += len(each)
        if made is not None:
            rows.append(made)
    return rows
