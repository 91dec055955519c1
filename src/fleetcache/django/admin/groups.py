"""Groups of keys: how often each is read, what a miss costs, and what the cache saves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

from fleetcache.django.admin import charts, showing
from fleetcache.django.admin.site import UNCOUNTED, Page
from fleetcache.django.admin.tables import Column, table
from fleetcache.fleet import gather
from fleetcache.stats.top import sure

TOP: Mapping[str, tuple[str, Callable[[Any], str]]] = {
    "hits": ("Most hits", showing.number),
    "bytes": ("Most bytes", showing.size),
    "seconds": ("Most seconds of loading", showing.seconds),
}


class Group(NamedTuple):
    """A group, and the sums of the fleet."""

    name: str
    sums: Mapping[str, float]

    def get(self, figure: str) -> float:
        """Return one of the sums."""
        return self.sums.get(figure, 0)

    @property
    def reads(self) -> float:
        """Reads of any outcome."""
        return sum(self.get(level) for level in charts.LEVELS)

    @property
    def found(self) -> float:
        """Reads that found a value."""
        return self.reads - self.get("missed")

    @property
    def cost(self) -> float | None:
        """The mean time of a load in seconds, None if nothing was loaded."""
        return self.get("load_seconds") / self.get("loads") if self.get("loads") else None


def _share(level: str, group: Group) -> float | None:
    return group.get(level) / group.reads if group.reads else None


def _level(level: str, title: str, hint: str) -> Column:
    return Column(
        level,
        title,
        lambda group: showing.percent(group.get(level), group.reads),
        partial(_share, level),
        hint,
        figure=True,
    )


def _sum(figure: str, title: str, text: Callable[[Any], str], hint: str = "") -> Column:
    return Column(
        figure, title, lambda group: text(group.get(figure)), lambda group: group.get(figure), hint, figure=True
    )


def _saved(group: Group) -> str:
    return showing.seconds(group.get("saved")) if group.get("saved") or group.cost is not None else showing.NONE


def _bar(group: Group) -> Any:
    if not group.reads:
        return ""
    label = ", ".join(f"{showing.percent(group.get(level), group.reads)} {level}" for level in charts.LEVELS)
    return charts.bar(group.sums, label, width=60)


COLUMNS = (
    Column("group", "Group", lambda group: group.name, lambda group: group.name),
    Column("reads", "Reads", lambda group: showing.number(int(group.reads)), lambda group: group.reads, figure=True),
    Column("split", "", _bar),
    Column("found", "Hits", lambda group: showing.percent(group.found, group.reads), lambda group: group.found / group.reads if group.reads else None,
           "Reads that found a value: near, server and stale", figure=True),
    _level("near", "Near", "Reads that a copy in the process answered"),
    _level("server", "Server", "Reads that a server answered"),
    _level("stale", "Stale", "Reads that returned an old value"),
    _level("missed", "Missed", "Reads that found nothing"),
    Column("cost", "Miss cost", lambda group: showing.seconds(group.cost), lambda group: group.cost,
           "The mean time of a load", figure=True),
    Column("saved", "Saved", _saved, lambda group: group.get("saved"),
           "Reads that needed no loader, times the mean time of a load of their group; not known without one", figure=True),
    _sum("load_seconds", "Time in loaders", showing.seconds, "How long all loaders ran: what misses cost"),
    _sum("joined", "Joined", lambda count: showing.number(int(count)), "Reads that missed, waited, and got a value that another caller or another process has loaded"),
    _sum("load_errors", "Failed", lambda count: showing.number(int(count)), "Loaders that raised an exception"),
    _sum("bytes_read", "Bytes read", showing.size, "Bytes of the payloads that servers sent"),
    _sum("bytes_written", "Bytes written", showing.size, "Bytes of the payloads that were stored"),
)  # fmt: skip


class Groups(Page):
    """A row for each group of keys, and the most used keys."""

    slug = "groups"
    title = "Groups"
    template = "admin/fleetcache/groups.html"

    def context(self, request: Any, alias: str, cache: Any) -> dict[str, Any]:
        """Return the groups of *cache*, the most useful first; keys are masked without the permission to see them."""
        fleet = gather(cache)
        groups = [Group(name, sums) for name, sums in (fleet.totals.get("groups") or {}).items()]
        return {
            "missing": fleet.missing,
            "nothing": "Nothing was read yet." if fleet.totals else UNCOUNTED,
            "workers": len(fleet.workers),
            "table": table(request, COLUMNS, groups, sort="-saved"),
            "most_saved": self.url(cache=alias, sort="-saved"),
            "most_lost": self.url(cache=alias, sort="-load_seconds"),
            "top": _top(fleet.totals.get("top") or {}, partial(self.key, request)),
        }


def _top(top: Mapping[str, Any], shown: Callable[[str], str]) -> list[dict[str, Any]]:
    return [
        {
            "title": title,
            "keys": [
                {"key": shown(str(key)), "figure": text(figure), "error": text(error) if error else ""}
                for key, figure, error in sure(top.get(name) or ())[:10]
            ],
        }
        for name, (title, text) in TOP.items()
    ]
