"""Groups of keys: reads, loads and bytes are counted by group.

``OPTIONS["STATS"]["GROUPS"]`` maps globs of keys to groups; without globs, the part of the key before its first ``:`` is
the group.  A name that was seen lately costs one look into a dict.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from fleetcache.interrupts import let_pass
from fleetcache.stats.top import Top

OTHER: Final = "other"
"""The group of keys that have no other one."""
MOST: Final = 100
"""How many groups there are at most, `OTHER` included: names that users choose must not become groups without end."""
LONGEST: Final = 100
"""Longer names of groups are cut to this number of characters."""
NAMES: Final = 4096
"""Of how many names the group is remembered at most."""
LONG: Final = 250
"""The group of longer names is not remembered, which bounds the memory."""

SUMS: Final[Mapping[str, str]] = {
    "near": "Reads that a copy in this process answered.",
    "server": "Reads that a server answered with a value that is not stale.",
    "stale": "Reads that returned a stale value.",
    "missed": "Reads that found no value to return.",
    "loads": "Values that a loader was called for, of `get_or_set`, `get_or_set_many` or `@cached`.",
    "joined": "Reads that missed, waited, and got a value that another caller or another process has loaded.",
    "load_errors": "Values whose loader failed.",
    "load_seconds": "How long loaders ran, in seconds; the time of a loader of many values is divided among them.",
    "writes": "Entries that were stored, and numbers that were changed.",
    "deletes": "Entries that were to be deleted by key or by pattern, whether or not there were any.",
    "bytes_read": "Bytes of the payloads that servers sent for these reads.",
    "bytes_written": "Bytes of the payloads that were stored; those of numbers that the server changed are not known.",
}
"""What is counted of each group; telemetry and docs/observing.md have the same sentences."""
SAVED: Final = (
    "Seconds of loads that were not necessary: `near` + `server` + `stale` + `joined`, multiplied by "
    "[the mean time of a load](#what-a-load-takes)."
)
SPARED: Final = ("near", "server", "stale", "joined")
"""Reads that no loader had to answer."""


class Group:
    """The sums of one group of keys since the process began.

    They are added to without a lock, so of two threads that count at the same moment one may be lost.
    """

    __slots__ = (
        "bytes_read", "bytes_written", "deletes", "joined", "load_errors", "load_seconds", "loads",
        "missed", "name", "near", "server", "sizes", "stale", "writes",
    )  # fmt: skip

    sizes: list[int]
    """The lengths of the payloads that servers sent lately for reads of one key, which `settle` adds to the sums.

    To append one takes 5 ns, to add to two sums 80.
    """

    near: int
    """Reads that were served from copies which have been removed; `Tally.figures` adds the hits of the others."""
    server: int
    stale: int
    missed: int
    """As `near`: without the hits of present copies of "missing"."""
    loads: int
    joined: int
    load_errors: int
    load_seconds: float
    writes: int
    deletes: int
    bytes_read: int
    bytes_written: int

    def __init__(self, name: str) -> None:
        self.name = name
        self.clear()

    def clear(self) -> None:
        """Begin anew."""
        self.sizes = []
        self.near = self.server = self.stale = self.missed = 0
        self.loads = self.joined = self.load_errors = 0
        self.load_seconds = 0.0
        self.writes = self.deletes = self.bytes_read = self.bytes_written = 0

    def settle(self) -> None:
        """Add the reads that `sizes` has."""
        sizes, self.sizes = self.sizes, []
        self.server += len(sizes)
        self.bytes_read += sum(sizes)

    def read(self, level: str, payload: bytes | None = None) -> None:
        """Count a read that ended at *level*, ``"server"``, ``"stale"`` or ``"missed"``, and brought *payload*."""
        if level == "server":
            self.server += 1
        elif level == "missed":
            self.missed += 1
        else:
            setattr(self, level, getattr(self, level) + 1)
        if payload is not None:
            self.bytes_read += len(payload)

    def move(self, before: str, after: str) -> None:
        """Count a read at the level *after* that was counted at *before*."""
        setattr(self, before, getattr(self, before) - 1)
        setattr(self, after, getattr(self, after) + 1)


class Grouping:
    """Says to which group a name belongs.

    *key_of* returns the key within a name, None if it is not known; *group_of* the group of a key, None if it has none.
    *is_own* says which names, with these keys, hold something of the library's, such as the version of a tag: they are in
    no group.
    """

    def __init__(
        self,
        key_of: Callable[[str], str | None] = str,
        group_of: Callable[[str], str | None] | None = None,
        is_own: Callable[[str, str], bool] | None = None,
    ) -> None:
        self.key_of = key_of
        self.group_of = group_of or usual_group
        self.is_own = is_own or _never

    def key(self, name: str) -> str:
        """Return the key within *name*, or *name* itself if that is not known."""
        try:
            key = self.key_of(name)
        except Exception as error:  # noqa: BLE001 - of a function of the site's, which must not end a read
            let_pass(error)
            return name
        return key if isinstance(key, str) else name

    def group(self, name: str) -> str | None:
        """Return the group of *name*; None if it is one of the library's own."""
        key = self.key(name)
        return None if self.is_own(name, key) else (self.group_of(key) or OTHER)[:LONGEST]


class Groups:
    """The group of each name: ``groups[name]``."""

    def __init__(self, grouping: Grouping) -> None:
        self.grouping = grouping
        self.seen: dict[str, Group] = {}
        """The groups of names that were seen lately.  What reads often looks here first: a plain dict takes 7 ns, `Groups` 70."""
        self.named: dict[str, Group] = {}
        """The groups, by their names."""
        self.own = Group("")
        """The group of names of the library's own, which is not shown."""
        self.hits = Top()
        """The keys that were read most: from a server, in a sample; and from copies that were removed."""

    def __getitem__(self, name: str) -> Group:
        seen = self.seen
        if (group := seen.get(name)) is None:
            group = self._find(name)
            if len(name) <= LONG:
                if len(seen) >= NAMES:
                    seen.clear()
                seen[name] = group
        return group

    def _find(self, name: str) -> Group:
        called, named = self.grouping.group(name), self.named
        if called is None:
            return self.own
        if called not in named and len(named) >= MOST - (OTHER not in named):
            called = OTHER
        return named.get(called) or named.setdefault(called, Group(called))

    def of(self, names: Iterable[str]) -> list[Group]:
        """Return the group of each of *names*."""
        try:
            return list(map(self.seen.__getitem__, names))
        except KeyError:
            return list(map(self.__getitem__, names))


def usual_group(key: str) -> str | None:
    """Return the part of *key* before its first ``:``; of a key that Django makes without one, what it is for; else None."""
    part, found, _ = key.partition(":")
    if found:
        return part
    return next((group for beginning, group in OF_DJANGO.items() if key.startswith(beginning)), None)


OF_DJANGO: Final = {
    "django.contrib.sessions": "sessions",
    "views.decorators.cache": "pages",
    "fleetcache.page": "pages",
    "template.cache": "fragments",
}
"""The groups of keys that Django and ``fleetcache.django`` make, by their beginnings."""


def _never(name: str, key: str) -> bool:
    return False
