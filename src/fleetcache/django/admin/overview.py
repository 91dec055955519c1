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
from fleetcache.fleet import Fleet, Period, gather, history
from fleetcache.inspection.blame import SiteFailed, blamed
from fleetcache.inspection.rates import Rates

HOURS = {"1": 1, "6": 6, "24": 24}
"""The lengths of time that can be chosen."""

SECONDS = 2.0
"""After this long, the page asks no further servers: with several away, each could take its SOCKET_TIMEOUT."""

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
            "missing": [*fleet.missing, *{f"the history: {period.missing}" for period in periods if period.missing}],
            "workers": showing.number(len(fleet.workers)),
            "links": [link for link in self.navigation(request, alias) if not link["current"]],
            **_reads(fleet, periods, hours),
            **_figures(fleet, periods),
            "commands": _commands(fleet.totals.get("commands") or {}),
        }


def _reads(fleet: Fleet, periods: Sequence[Period], hours: int) -> dict[str, Any]:
    """Return how reads ended: of the last hours, or if nobody has published a history, since the processes began."""
    past = [{level: period.sum(level) for level in charts.LEVELS} for period in periods]
    reads = {level: sum(each[level] for each in past) for level in charts.LEVELS}
    span = f"in the last {hours} h"
    if not any(reads.values()):
        groups = fleet.totals["groups"].values()
        reads = {level: sum(group.get(level, 0) for group in groups) for level in charts.LEVELS}
        span = "since the processes began"
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
        "soon": _soon(fleet, periods),
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


def _figures(fleet: Fleet, periods: Sequence[Period]) -> dict[str, Any]:
    """Return the single figures of a row."""
    totals = fleet.totals
    groups = totals["groups"].values()
    loading = totals.get("loading") or {}
    errors: Mapping[str, int] = totals.get("errors") or {}
    past = [period for period in periods[:-1] if period.groups]  # the last one is not over
    began = totals.get("since") or time.time()
    done = ("near", "server", "stale", "missed", "writes", "deletes")
    if past:
        rate = sum(past[-1].sum(each) for each in done) / 300
    else:
        averages = Rates().pace(fleet, "start").totals  # of each process since it began: they began at different times
        rate = sum(averages.get(each, 0) for each in done)
    prevented = sum(group.get("joined", 0) for group in groups) + loading.get("waited", 0)
    return {
        "rate": f"{showing.number(rate)}/s",
        "saved": showing.seconds(sum(period.sum("saved") for period in periods)),
        "saved_ever": showing.seconds(sum(group.get("saved", 0.0) for group in groups)),
        "prevented": showing.number(int(prevented)),
        "loads": showing.number(int(sum(group.get("loads", 0) for group in groups))),
        "failed": showing.number(sum(period.errors for period in periods)),
        "errors": [{"name": name, "count": showing.number(count)} for name, count in sorted(errors.items())],
        "since": showing.seconds(time.time() - began),
    }


def _commands(commands: Mapping[str, Any]) -> list[dict[str, Any]]:
    most = sorted(commands.items(), key=lambda each: -each[1].get("calls", 0))[:COMMANDS]
    return [
        {
            "name": name,
            "calls": showing.number(each.get("calls")),
            "errors": showing.number(each.get("errors")),
            "p50": showing.seconds(each["latency"].get("p50")) if each["latency"].get("count") else showing.NONE,
            "p99": showing.seconds(each["latency"].get("p99")) if each["latency"].get("count") else showing.NONE,
        }
        for name, each in most
    ]
