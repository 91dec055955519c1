"""Groups of keys: reads, loads and bytes are counted by group.

`OPTIONS["STATS"]["GROUPS"]` maps globs of keys to groups; without globs, the part of the key before its first ``:`` is
the group.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

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

SUMS: Final = (
    "near", "server", "stale", "missed",
    "loads", "joined", "load_errors", "load_seconds",
    "writes", "deletes", "bytes_read", "bytes_written",
)  # fmt: skip


class Group:
    """The sums of one group of keys since the process began.

    They are added to without a lock, so threads that count at the same moment may lose a count.
    """

    __slots__ = (
        "bytes_read", "bytes_written", "deletes", "joined", "load_errors", "load_seconds", "loads",
        "missed", "name", "near", "server", "stale", "writes",
    )  # fmt: skip

    def __init__(self, name: str) -> None:
        self.name = name
        self.clear()

    def clear(self) -> None:
        """Begin anew."""
        self.near = 0
        """Reads that copies served which have been removed; `Tally.snapshot` adds the hits of present copies."""
        self.server = 0
        """Reads that a server served with a value that is not stale."""
        self.stale = 0
        """Reads that returned a stale value."""
        self.missed = 0
        """Reads that found no value."""
        self.loads = 0
        self.joined = 0
        self.load_errors = 0
        self.load_seconds = 0.0
        self.writes = 0
        self.deletes = 0
        self.bytes_read = 0
        self.bytes_written = 0


class Grouping:
    """Says to which group a name belongs.

    *key_of* returns the key within a name, None if it is not known, and *group_of* the name of the group of a key, None
    if it has none.
    """

    def __init__(
        self, key_of: Callable[[str], str | None], group_of: Callable[[str], str | None] | None = None
    ) -> None:
        self.key_of = key_of
        self.group_of = group_of or before_colon

    def key(self, name: str) -> str:
        """Return the key within *name*, or *name* itself if that is not known."""
        try:
            key = self.key_of(name)
        except Exception:  # noqa: BLE001 - a function of the site's, which must not end a read
            return name
        return key if isinstance(key, str) else name

    def group(self, name: str) -> str:
        """Return the name of the group of *name*."""
        return (self.group_of(self.key(name)) or OTHER)[:LONGEST]


def before_colon(key: str) -> str | None:
    """Return the part of *key* before its first ``:``, None if it has none."""
    part, found, _ = key.partition(":")
    return part if found else None
