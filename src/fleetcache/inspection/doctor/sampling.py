"""Some entries of a cache: a bounded part of the names, and of them the lifetimes and the first bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from fleetcache.errors import SettingsError
from fleetcache.inspection.doctor.asking import TROUBLE, Examination, Line, line_to
from fleetcache.inspection.doctor.formats import SAMPLE, TOKEN, Format, format_of
from fleetcache.inspection.names import is_library, named
from fleetcache.interrupts import let_pass
from fleetcache.patterns import pattern_of_all
from fleetcache.servers.arguments import glob

PAGE = 500
PAGES = 4
SEARCHES = 20
"""How many further pages are searched for entries of the cache if the first ones hold fewer than `ENOUGH`."""
ENOUGH = 20
LOOKED_AT = 200
"""How many entries of one server are looked at."""
MOST_PRIMARIES = 5
OWN = b"fleetcache:"
"""The beginning of the library's own names."""


@dataclass
class Sample:
    """What was found in a part of the names."""

    seen: int = 0
    """How many names were seen in all."""
    own: int = 0
    """How many of them belong to this cache."""
    foreign: Counter[str] = field(default_factory=Counter)
    """How many belong to no known cache, by their beginnings."""
    looked_at: int = 0
    """How many entries of this cache were looked at."""
    locks: int = 0
    """How many names were locks that are held: they are no entries, and only locks read them."""
    lasting: int = 0
    """How many of these have no timeout."""
    formats: Counter[Format] = field(default_factory=Counter)
    unnamed: str = ""
    """Why the key of one is not known: what a function of the site raised."""
    trouble: Exception | None = None

    def share(self, count: int) -> str:
        """Return *count* of the entries that were looked at, in words."""
        return f"{count} of {self.looked_at} entries that were looked at"


def sample(examination: Examination) -> Sample:
    """Return a sample of the entries on the primaries."""
    found = Sample()
    is_ours, pattern = owned(examination.cache)
    others = [_owned_by_other(other) for other in examination.others.values() if other is not examination.cache]
    for asked in examination.primaries[:MOST_PRIMARIES]:
        if examination.late:
            break
        try:
            with line_to(asked.remote) as line:
                names = _names(line, found, is_ours, others, pattern)
                entries = [name for name in names if not is_library(examination.cache, name)][:LOOKED_AT]
                unnamed = (why for name in entries if (why := named(examination.cache, name)[2]))
                found.unnamed = found.unnamed or next(unnamed, "")
                _look(line, found, entries)
        except TROUBLE as error:
            found.trouble = error
    return found


def owned(cache: Any) -> tuple[Callable[[bytes], Any], str]:
    """Return a function that tells whether a name belongs to *cache*, and the glob of such names."""
    try:
        pattern = str(pattern_of_all(cache._namer, cache.key_prefix))
    except SettingsError:  # a KEY_FUNCTION whose names cannot be told from others
        return bool, "*"
    return glob(pattern.encode()).fullmatch, pattern


def _owned_by_other(cache: Any) -> Callable[[bytes], Any]:
    """Return a function that tells whether a name belongs to *cache*, another one of the site."""
    try:
        return owned(cache)[0]
    except Exception as error:  # noqa: BLE001 - its KEY_FUNCTION raises, which is a finding about that cache
        let_pass(error)
        return bool


def _names(
    line: Line,
    found: Sample,
    is_ours: Callable[[bytes], Any],
    others: list[Callable[[bytes], Any]],
    pattern: str,
) -> list[bytes]:
    """Return names of this cache, and count those of others."""
    names: dict[bytes, None] = {}
    cursor: Any = b"0"
    for _ in range(PAGES):
        cursor, page = _page(line, cursor, "COUNT", PAGE)
        found.seen += len(page)
        for name in page:
            if is_ours(name):
                names[name] = None
                found.own += 1
            elif not (name.startswith(OWN) or any(theirs(name) for theirs in others)):
                found.foreign[beginning(name)] += 1
        if int(cursor) == 0:
            return list(names)
    for _ in range(SEARCHES):
        if len(names) >= ENOUGH:
            break
        cursor, page = _page(line, cursor, "MATCH", pattern, "COUNT", PAGE)
        names |= dict.fromkeys(page)
        if int(cursor) == 0:
            break
    return list(names)


def _page(line: Line, cursor: Any, *how: Any) -> tuple[Any, list[bytes]]:
    (reply,) = line.ask(("SCAN", cursor, *map(str, how)))
    if isinstance(reply, Exception):
        raise reply
    return reply[0], reply[1]


def beginning(name: bytes) -> str:
    """Return the part of *name* before its first colon, or a few letters, to show whose it may be."""
    text = name.decode(errors="replace")
    head, colon, _ = text.partition(":")
    return f"{head[:20]}:…" if colon else f"{head[:6]}…"


def _look(line: Line, found: Sample, names: list[bytes]) -> None:
    """Note the lifetimes and the formats of the entries *names*."""
    if not names:
        return
    replies = line.ask(
        *(
            command
            for name in names
            for command in (("PTTL", name), ("STRLEN", name), ("GETRANGE", name, "0", str(SAMPLE - 1)))
        )
    )
    for left, length, start in zip(replies[::3], replies[1::3], replies[2::3], strict=True):
        if isinstance(left, Exception) or left == -2:  # it has expired meanwhile
            continue
        # A hash, list or set has no beginning.
        form = (
            format_of(start, length if isinstance(length, int) else None)
            if isinstance(start, bytes) and start
            else None
        )
        if form is not None and form.body == TOKEN:
            found.locks += 1
            continue
        found.looked_at += 1
        found.lasting += left == -1
        if form is not None:
            found.formats[form] += 1
