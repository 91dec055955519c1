"""What a process counts of one cache: reads, loads and bytes by group of keys, commands, errors, the largest keys.

All caches of one configuration share a `Tally`; ``OPTIONS["STATS"] = False`` makes none.  A read from a copy in the
process costs nothing: the copy counts its hits anyway, and knows its group.  Everything else adds to plain integers.
Latencies are sampled.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from time import time
from typing import Any, Final

from fleetcache.forks import in_children
from fleetcache.stats.groups import LONG, MOST, NAMES, OTHER, SUMS, Group, Grouping
from fleetcache.stats.latency import Latency
from fleetcache.stats.top import Top

SHOWN: Final = 20
"""How many keys a snapshot has in each list of the largest."""


class Calls:
    """The calls of one command."""

    __slots__ = ("calls", "errors", "latency")

    def __init__(self) -> None:
        self.calls = 0
        self.errors = 0
        """Refusals, and calls that got no reply."""
        self.latency = Latency()
        """Of a sample of the exchanges that sent this command alone."""


class Tally:
    """What this process has counted of the caches of one configuration since it began."""

    def __init__(self, grouping: Grouping, options: Any = None) -> None:
        self.grouping = grouping
        self.options = options
        """``OPTIONS["STATS"]``, a `StatsOptions`."""
        self.alias = ""
        """The alias of the first cache of this configuration that has one."""
        self.parts: Callable[[], Callable[[], Mapping[str, Any]] | None] = lambda: None
        """Returns a function, None if its object is gone, which returns the parts of a snapshot that other objects count: `near`, `loading`, `servers`, `advice`, `audit`."""
        self.groups: dict[str, Group] = {}
        self.memo: dict[str, Group] = {}
        """The groups of names that were seen lately."""
        self.calls: dict[str, Calls] = {}
        """By the name of the command."""
        self.loads = Latency()
        self.errors: dict[str, int] = {}
        """Exchanges that failed, by the class of the error."""
        self.hits, self.bytes, self.seconds = Top(), Top(), Top()
        self._begin()
        TALLIES.add(self)
        in_children(self.after_fork)

    def _begin(self) -> None:
        self.since = time()
        for group in self.groups.values():
            group.clear()  # in place: copies and reads under way refer to it
        self.calls.clear()
        self.errors.clear()
        self.loads = Latency()
        for top in (self.hits, self.bytes, self.seconds):
            top.clear()

    def after_fork(self) -> None:
        """Start to count anew, in a child."""
        self._begin()

    # --- counting ---------------------------------------------------------------------------------

    def group(self, name: str) -> Group:
        """Return the group to which the entry called *name* belongs."""
        found = self.memo.get(name)
        return self._group(name) if found is None else found

    def _group(self, name: str) -> Group:
        called = self.grouping.group(name)
        groups = self.groups
        if called not in groups and len(groups) >= MOST - (OTHER not in groups):
            called = OTHER
        group = groups.setdefault(called, Group(called))
        if len(name) <= LONG:
            if len(self.memo) >= NAMES:
                self.memo.clear()
            self.memo[name] = group
        return group

    # --- reading ----------------------------------------------------------------------------------

    def snapshot(self) -> dict[str, Any]:
        """Return everything that was counted, in a form for JSON; docs/observing.md says what each figure means."""
        groups = {name: {each: getattr(group, each) for each in SUMS} for name, group in self.groups.copy().items()}
        for figures in groups.values():
            mean = figures["load_seconds"] / figures["loads"] if figures["loads"] else 0.0
            spared = figures["near"] + figures["server"] + figures["stale"] + figures["joined"]
            figures["saved"] = spared * mean
        commands = {
            name: {"calls": each.calls, "errors": each.errors, "latency": each.latency.figures()}
            for name, each in self.calls.copy().items()
        }
        parts = self.parts()
        top = {"hits": self.hits, "bytes": self.bytes, "seconds": self.seconds}
        return {
            "since": self.since,
            "groups": groups,
            "commands": commands,
            "loads": {"latency": self.loads.figures()},
            "errors": self.errors.copy(),
            "top": {name: [[*each] for each in keys.largest(SHOWN)] for name, keys in top.items()},
            "near": None,
            "loading": None,
            "servers": None,
            "advice": None,
            "audit": None,
            **({} if parts is None else parts()),
        }


TALLIES: weakref.WeakSet[Tally] = weakref.WeakSet()
"""The tallies of all caches of this process that are in use, or were lately."""
