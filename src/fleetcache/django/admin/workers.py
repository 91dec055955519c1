"""The processes that use a cache, and their near caches."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from django.http import Http404
from django.utils.html import format_html

from fleetcache.django.admin import showing
from fleetcache.django.admin.site import UNCOUNTED, Page
from fleetcache.django.admin.tables import Column, table
from fleetcache.fleet import Worker, gather
from fleetcache.stats.figures import MEANINGS


class Workers(Page):
    """A row for each process, a summary of each host, and a page for one process."""

    slug = "workers"
    title = "Workers"
    template = "admin/fleetcache/workers.html"

    def more(self) -> list[tuple[str, str, Any]]:
        """Return the view of one process."""
        return [("one/", "one", self.one)]

    def context(self, request: Any, alias: str, cache: Any) -> dict[str, Any]:
        """Return the workers of *cache*, of all hosts or of the one in ``?host=``."""
        fleet = gather(cache)
        host = request.GET.get("host", "")
        workers = [worker for worker in fleet.workers if not host or worker.host == host]
        return {
            "missing": fleet.missing,
            "nothing": "No worker has published its figures." if fleet.totals else UNCOUNTED,
            "host": host,
            "whole": self.url(cache=alias),
            "table": table(request, self._columns(alias, fleet.workers), workers, sort="host"),
            "hosts": [_host(name, self.url(cache=alias, host=name), fleet.workers) for name in _hosts(fleet.workers)],
            "mixed": mixed(fleet.workers),
            "advice": fleet.totals.get("advice"),
            "sizes": _advice(fleet.totals.get("advice")),
            "audit": _audit(worker.part("audit") for worker in fleet.workers),
        }

    def _columns(self, alias: str, workers: Sequence[Worker]) -> list[Column]:
        version, usual = _usual(worker.version for worker in workers), _usual(worker.digest for worker in workers)
        now = time.time()

        def differs(worker: Worker) -> str:
            others = [worker.version] * (worker.version != version) + [worker.digest[:6]] * (worker.digest != usual)
            return ", ".join(others)

        def link(worker: Worker) -> Any:
            url = self.url("one", cache=alias, host=worker.host, pid=worker.pid, name=worker.name)
            return format_html('<a href="{}">{}</a>{}', url, worker.pid, " (own)" if worker.own else "")

        return [
            Column("host", "Host", lambda w: w.host, lambda w: (w.host, w.pid)),
            Column("pid", "Process", link, lambda w: w.pid),
            Column("differs", "Differs", differs, differs,
                   "The version, and the digest of the settings, where they are not those of most workers"),
            Column("age", "Seen", lambda w: f"{max(now - w.at, 0):.0f} s", lambda w: now - w.at,
                   "How long ago the process has published its figures", figure=True),
            Column("up", "Running", lambda w: _short(now - w.started), lambda w: now - w.started, figure=True),
            Column("state", "Near cache", _state, lambda w: near(w, "state") or ""),
            *FIGURES,
        ]  # fmt: skip

    def one(self, request: Any) -> Any:
        """Return the page of one process, which ``?host=`` and ``?pid=`` name; hosts may share a name, entries do not."""
        alias, cache, wrong = self._chosen(request.GET.get("cache"))
        if cache is None:
            raise Http404(wrong)
        host, pid, name = (request.GET.get(word, "") for word in ("host", "pid", "name"))
        for worker in gather(cache).workers:
            if (worker.host, str(worker.pid)) == (host, pid) and name in {"", worker.name}:
                found = {"alias": alias, **self._one(request, alias, worker)}
                return self.render(request, "admin/fleetcache/worker.html", found)
        gone = "This process has ended, or has not published its figures for a while."
        return self.render(request, "admin/fleetcache/worker.html", {"alias": alias, "wrong": gone})

    def _one(self, request: Any, alias: str, worker: Worker) -> dict[str, Any]:
        copies = worker.part("near") or {}
        audit = worker.part("audit") or {}
        return {
            "worker": worker,
            "back": self.url(cache=alias),
            "seen": showing.seconds(max(time.time() - worker.at, 0)),
            "running": showing.seconds(max(time.time() - worker.started, 0)),
            "near": [
                {"name": name, "text": _plain(name, figure), "meaning": _meaning(name)}
                for name, figure in copies.items()
                if figure != ""
            ],
            "advice": _advice(worker.part("advice")),
            "advised": (worker.part("advice") or {}).get("text", ""),
            "audit": _audit([audit]),
            "events": [self._event(request, event) for event in audit.get("events") or () if isinstance(event, dict)],
        }

    def _event(self, request: Any, event: Mapping[str, Any]) -> dict[str, Any]:
        """Return what is shown of a hit that was wrong, and of what had happened to its name."""
        at = event.get("at") or 0.0
        return {
            "at": showing.moment(at),
            "key": self.key(request, str(event.get("key", ""))),
            "promise": event.get("promise", ""),
            "history": [
                {
                    "before": showing.seconds(at - (each.get("at") or at)),
                    "what": each.get("what"),
                    "value": each.get("value"),
                }
                for each in event.get("history") or ()
            ],
        }


def near(worker: Worker, figure: str) -> Any:
    """Return a *figure* of the near cache of *worker*, or None."""
    return (worker.part("near") or {}).get(figure)


def _figure(name: str, title: str, hint: str = "", text: Any = showing.number) -> Column:
    return Column(name, title, lambda w: text(near(w, name)), lambda w: near(w, name), hint, figure=True)


def _sum(name: str, title: str, hint: str, *, of: str = "") -> Column:
    """Return a column with the sum of a figure that is counted by reasons, or what one reason, *of*, has of it."""

    def count(worker: Worker) -> int | None:
        found = near(worker, name)
        return (found.get(of, 0) if of else sum(found.values())) if isinstance(found, dict) else None

    return Column(of or name, title, lambda w: showing.short(count(w)), count, hint, figure=True)


def _ratio(worker: Worker) -> float | None:
    hits, misses = near(worker, "hits") or 0, near(worker, "misses") or 0
    return hits / (hits + misses) if hits + misses else None


LAG = re.compile(r"< ([0-9]{1,12}) us")
"""Which announcements a count in ``info()["near"]["lag"]`` is of."""


def lag(counts: Any) -> float | None:
    """Return the time in which 99 of 100 canaries were announced, in seconds; *counts* as in ``info()["near"]["lag"]``."""
    if not isinstance(counts, dict):
        return None
    known = sorted((int(found[1]), count) for name, count in counts.items() if (found := LAG.fullmatch(name)))
    whole, seen = sum(count for _, count in known), 0
    for limit, count in known:
        seen += count
        if seen >= 0.99 * whole:
            return limit / 1e6
    return None


def _state(worker: Worker) -> Any:
    state, why = near(worker, "state") or showing.NONE, near(worker, "why") or ""
    return format_html('{} <span class="fc-why">{}</span>', state, why) if why and state != "off" else state


def _wrong(worker: Worker) -> int | None:
    audit = worker.part("audit") or {}
    return audit.get("violations") if audit.get("compared") else None


def _at_twice(worker: Worker) -> float | None:
    """Return the estimated hit ratio at twice the size."""
    advice, size = worker.part("advice") or {}, near(worker, "max_bytes")
    ratios = [each.get("hit_ratio") for each in advice.get("sizes") or () if size and each.get("max_bytes") == 2 * size]
    return ratios[0] if ratios else None


FIGURES = (
    _figure("entries", "Copies", "Copies that are held now", showing.short),
    _figure("bytes", "Memory", "What the copies take", showing.size),
    _figure("hits", "Near hits", "Reads that a copy answered", showing.short),
    Column("ratio", "Near hit ratio", lambda w: showing.percent(_ratio(w) or 0, 1) if _ratio(w) is not None else showing.NONE, _ratio, "Of the reads that looked for a copy, those that a copy answered", figure=True),
    _sum("evictions", "Evicted", "Copies removed because others needed the room: a larger MAX_BYTES would help", of="size"),
    _sum("evictions", "Expired", "Copies removed because their time was over", of="expired"),
    _sum("invalidations", "Invalidated", "Copies removed by a change"),
    Column("lag", "Lag", lambda w: f"≤ {showing.seconds(found)}" if (found := lag(near(w, "lag"))) else showing.NONE, lambda w: lag(near(w, "lag")),
           "99 of 100 announcements came within this time, the limit of a class; each is twice the one before", figure=True),
    Column("twice", "At twice the size", lambda w: showing.percent(_at_twice(w) or 0, 1) if _at_twice(w) is not None else showing.NONE, _at_twice, "The near hit ratio that twice the MAX_BYTES would have, estimated", figure=True),
    Column("wrong", "Audit: wrong", lambda w: showing.number(_wrong(w)), _wrong, "Near hits that the audit compared with the server, and that were wrong", figure=True),
)  # fmt: skip


def _usual(values: Iterable[str]) -> str:
    """Return the most frequent of *values*."""
    counted = Counter(values).most_common(1)
    return counted[0][0] if counted else ""


def mixed(workers: Sequence[Worker]) -> list[str]:
    """Return sentences about workers that run another version, or other settings, than most."""
    found = []
    for what, of in (("fleetcache", lambda w: w.version), ("settings", lambda w: w.digest[:6])):
        counts = Counter(map(of, workers))
        if len(counts) > 1:
            (most, many), *others = counts.most_common()
            listed = ", ".join(f"{count} {other}" for other, count in others[:5])
            more = f", and {len(others) - 5} others" if len(others) > 5 else ""
            found.append(f"Not all workers run the same {what}: {many} of {len(workers)} run {most}, {listed}{more}.")
    return found


def _hosts(workers: Sequence[Worker]) -> list[str]:
    return sorted({worker.host for worker in workers})


def _host(name: str, url: str, workers: Sequence[Worker]) -> dict[str, Any]:
    own = [worker for worker in workers if worker.host == name]
    states = Counter(near(worker, "state") or showing.NONE for worker in own)
    hits, misses = (sum(near(worker, word) or 0 for worker in own) for word in ("hits", "misses"))
    return {
        "name": name,
        "url": url,
        "workers": len(own),
        "states": ", ".join(f"{count} {state}" for state, count in states.most_common()),
        "bytes": showing.size(sum(near(worker, "bytes") or 0 for worker in own)),
        "entries": showing.number(sum(near(worker, "entries") or 0 for worker in own)),
        "ratio": showing.percent(hits, hits + misses),
    }


def _audit(audits: Iterable[Any]) -> dict[str, Any] | None:
    """Return the sum of *audits* in words, None if nobody audits."""
    known = [audit for audit in audits if audit]
    if not known:
        return None
    compared, wrong = (sum(audit.get(word, 0) for audit in known) for word in ("compared", "violations"))
    if not compared:
        return {"wrong": False, "text": "No near hit has been compared with the server yet."}
    were = "was" if wrong == 1 else "were"
    return {
        "wrong": bool(wrong),
        "text": f"{showing.number(compared)} near hits were compared with the server, {showing.number(wrong)} {were} wrong: "
        f"{showing.nines(compared, wrong)}.",
    }


def _advice(advice: Any) -> list[dict[str, Any]]:
    sizes = advice.get("sizes") if isinstance(advice, dict) else None
    return [
        {
            "size": showing.size(each.get("max_bytes")),
            "ratio": showing.percent(each.get("hit_ratio") or 0, 1),
            "error": showing.percent(each.get("error") or 0, 1),
        }
        for each in sizes or ()
        if isinstance(each, dict)
    ]


def _meaning(name: str) -> str:
    """Return what a figure of the near cache means, as docs/observing.md says it; here lags have their own units."""
    return MEANINGS.get(f"near.{name}", "").replace("`", "").replace(", in microseconds", "")


def _short(seconds: float) -> str:
    """Return a length of time in its largest unit, for a narrow column."""
    return " ".join(showing.seconds(seconds).split()[:2])


def _limit(name: str) -> str:
    """Return the limit of a class of lags, such as ``< 4096 us``, as a length of time."""
    found = LAG.fullmatch(name)
    return showing.seconds(int(found[1]) / 1e6) if found else name


def _plain(name: str, figure: Any) -> str:
    if name == "lag" and isinstance(figure, dict):
        within = ((_limit(word), count) for word, count in figure.items())
        return ", ".join(f"{showing.number(count)} in less than {limit}" for limit, count in within) or "none"
    if isinstance(figure, dict):
        return ", ".join(f"{word} {showing.number(count)}" for word, count in figure.items()) or "none"
    if name in {"bytes", "max_bytes"}:
        return showing.size(figure)
    return showing.number(figure) if isinstance(figure, (int, float)) and not isinstance(figure, bool) else str(figure)
