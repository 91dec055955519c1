"""The caches: what each is worth, and how it does."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from django.conf import settings

from fleetcache.django.admin import charts, showing
from fleetcache.django.admin.asking import TROUBLE, Budget
from fleetcache.django.admin.site import UNCOUNTED, Page, opened
from fleetcache.django.backend import entries
from fleetcache.fleet import Fleet, Period, gather, history, places
from fleetcache.inspection.blame import SiteFailed, blamed
from fleetcache.inspection.rates import Rates

HOURS = {"1": 1, "6": 6, "24": 24}
"""The lengths of time that can be chosen."""

SECONDS = 2.0
"""After this long, the page asks no further servers: with several away, each could take its SOCKET_TIMEOUT."""

UNKNOWN = "not known"
BEGAN = "since the processes began"

DONE = (*charts.LEVELS, "writes", "deletes")
"""The figures whose rates are shown."""

COMMANDS = 6
"""How many commands a row shows, those with the most calls."""


class Overview(Page):
    """One row for each entry of ``CACHES``."""

    slug = "overview"
    title = "Caches"
    template = "admin/fleetcache/overview.html"
    chooses = False

    def context(self, request: Any, alias: str, cache: Any) -> dict[str, Any]:
        """Return a row for each of fleetcache's caches, and the names of the others."""
        hours = HOURS.get(request.GET.get("hours", ""), 6)
        ours = [name for name, *_ in entries()]
        budget = Budget(SECONDS)
        rows = [
            {"alias": name, "wrong": "Not asked: servers of the caches above took too long."}
            if budget.over
            else self._row(request, name, hours)
            for name in ours
        ]
        return {
            "rows": rows,
            "others": [name for name in settings.CACHES if name not in ours],
            "hours": hours,
            "spans": [
                {"hours": each, "url": self.url(hours=each), "current": each == hours} for each in HOURS.values()
            ],
        }

    def _row(self, request: Any, alias: str, hours: int) -> dict[str, Any]:
        """Return what is shown of one cache."""
        cache, wrong = opened(alias)
        if cache is None:
            return {"alias": alias, "wrong": wrong}
        try:
            with blamed(cache):
                fleet, periods = gather(cache), history(cache, hours)
        except SiteFailed as error:
            return {"alias": alias, "wrong": self.failure(request, error)}
        except TROUBLE as error:
            return {"alias": alias, "wrong": f"{type(error).__name__}: {error}"}
        if not fleet.totals:
            return {"alias": alias, "wrong": UNCOUNTED}
        return {
            "alias": alias,
            "servers": fleet.totals.get("servers") or (),
            "missing": _missing(fleet, periods),
            "workers": showing.number(len(fleet.workers)),
            "whose": "of the workers that could be read, since they began" if fleet.missing else BEGAN,
            "links": [link for link in self.navigation(request, alias) if not link["current"]],
            **_reads(fleet, periods, hours),
            **_figures(fleet, periods, hours),
            "commands": _commands(fleet.totals.get("commands") or {}),
        }


def _missing(fleet: Fleet, periods: Sequence[Period]) -> list[str]:
    """Return a sentence for each server that keeps something from the page: why, and what is missing."""
    texts = list(fleet.missing)
    servers: dict[str, str] = {}
    for period in periods:
        if period.missing:
            servers.setdefault(period.missing.partition(": ")[0], period.missing)
    for address, why in servers.items():
        place = next((place for place, text in enumerate(texts) if f"{address}: " in text), None)
        if place is None:
            texts.append(f"what the fleet did before cannot be read: {why}")
        else:
            texts[place] = f"{texts[place].rstrip('.')}. The charts are missing too."
    for server in fleet.totals.get("servers") or ():
        if server.get("away") and not any(f"{server['address']}: " in text for text in texts):
            count, whole = server.get("away_for") or 0, len(fleet.workers)
            texts.append(f"{server['address']} is away for {count} of {whole} workers: their circuit breakers are open")
    return texts


def _reads(fleet: Fleet, periods: Sequence[Period], hours: int) -> dict[str, Any]:
    """Return how reads ended: of the last hours, or if nobody has published a history, since the processes began."""
    past = [{level: period.sum(level) for level in charts.LEVELS} for period in periods]
    reads = {level: sum(each[level] for each in past) for level in charts.LEVELS}
    span = f"in the last {hours} h"
    unread = all(period.missing for period in periods)
    if not any(reads.values()):
        groups = fleet.totals["groups"].values()
        reads = {level: sum(group.get(level, 0) for group in groups) for level in charts.LEVELS}
        span = BEGAN if not fleet.missing else "of the workers that could be read"
    whole = sum(reads.values())
    ratio = showing.percent(whole - reads["missed"], whole)
    parts = [{"level": level, "text": f"{showing.percent(reads[level], whole)} {level}"} for level in charts.LEVELS]
    split = ", ".join(part["text"] for part in parts)
    label = f"{ratio} of {showing.number(int(whole))} reads found a value: {split}" if whole else "Nothing was read"
    return {
        "ratio": ratio,
        "reads": f"{showing.number(int(whole))} reads {span}",
        "parts": parts if whole else (),
        "bar": charts.bar(reads, label),
        "columns": charts.columns(
            past, f"Reads in each five minutes of the last {hours} h, by where they found a value"
        ),
        "soon": "" if unread else _soon(fleet, periods),
        "unread": unread,
        "line": charts.line([period.hit_ratio for period in periods], f"Hit ratio over the last {hours} h", most=1.0),
    }


def _soon(fleet: Fleet, periods: Sequence[Period]) -> str:
    """Return why there is no line of hit ratios yet; "" if there is one."""
    # The last period is not over: alone it is a single point at the edge of the picture.
    if any(period.hit_ratio is not None for period in periods[:-1]):
        return ""
    if not any(worker.interval for worker in fleet.workers):
        return "There is no history: no process publishes its figures."
    return "The first point comes after five minutes of reads."


def _saved(loads: float, saved: float, unread: bool = False) -> str:
    """Return how many seconds were saved; without a load it is not known how long one takes."""
    return showing.seconds(saved) if (saved or loads) and not unread else UNKNOWN


def _figures(fleet: Fleet, periods: Sequence[Period], hours: int) -> dict[str, Any]:
    """Return the single figures of a row."""
    totals = fleet.totals
    groups = totals["groups"].values()
    errors: Mapping[str, int] = totals.get("errors") or {}
    unread = [period for period in periods if period.missing]
    began = totals.get("since") or time.time()

    def ever(figure: str) -> float:
        return float(sum(group.get(figure, 0) for group in groups))

    saved = _saved(
        sum(period.sum("loads") for period in periods), sum(period.sum("saved") for period in periods), bool(unread)
    )
    saved_ever = _saved(ever("loads"), ever("saved"))
    failed = showing.number(sum(period.errors for period in periods))
    return {
        "rates": _rates(fleet, periods),
        "saved": f"{saved} in {hours} h; {saved_ever}" if {saved, saved_ever} != {UNKNOWN} or unread else "",
        "joined": showing.number(int(ever("joined"))),
        "loads": showing.number(int(ever("loads"))),
        "load_errors": showing.number(int(ever("load_errors"))),
        "failed": failed if not unread else UNKNOWN if len(unread) == len(periods) else f"at least {failed}",
        "errors": [{"name": name, "count": showing.number(count)} for name, count in sorted(errors.items())],
        "since": showing.seconds(time.time() - began),
    }


def _rates(fleet: Fleet, periods: Sequence[Period]) -> dict[str, str]:
    """Return how often something is done in a second: in the last five minutes that are over, else on average."""
    if any(period.groups for period in periods[:-1]) and not periods[-2].missing:
        rates = {name: periods[-2].sum(name) / places.PERIOD for name in DONE}
        span = "in the last five minutes that are over"
    else:
        rates, span = Rates().pace(fleet, "start").totals, BEGAN  # each process has begun at a time of its own
    reads = sum(rates.get(level, 0) for level in charts.LEVELS)
    counts = {"reads": reads, "writes": rates.get("writes", 0), "deletes": rates.get("deletes", 0)}
    return {"span": span, "text": ", ".join(f"{showing.number(each)}/s {what}" for what, each in counts.items())}


def _commands(commands: Mapping[str, Any]) -> list[dict[str, Any]]:
    most = sorted(commands.items(), key=lambda each: -each[1].get("calls", 0))[:COMMANDS]
    return [
        {
            "name": name,
            "calls": showing.number(each.get("calls")),
            "errors": showing.number(each.get("errors")),
            "timed": showing.number(each["latency"].get("count")),
            "p50": showing.seconds(each["latency"].get("p50")),
            "p99": showing.seconds(each["latency"].get("p99")),
        }
        for name, each in most
    ]
