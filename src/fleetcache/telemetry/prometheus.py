"""Metrics in Prometheus: ``install()`` registers a collector, which reads what was counted when it is scraped.

A process serves its own figures.  Where several processes share one port, as under gunicorn, a scrape meets one of them by
chance.  With ``fleet=cache`` whichever answers serves the figures of all, each under its own label ``worker``, as they
were last published.  While they cannot be read, it serves what it knows itself of the outage.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family

from fleetcache.telemetry.metrics import CROWD, GROUPS, METRICS, Collector, Metric, Points, buckets, of_fleets, own

LABELS = {
    "cache.name": "cache",
    "cache.request.type": "result",
    "cache.level": "level",
    "cache.group": "group",
    "db.operation.name": "command",
    "error.type": "error",
    "server.address": "server",
}
"""The names of labels in Prometheus; others stay as they are."""

COARSE = 4
"""In a crowd every fourth bucket is reported."""

UNITS = {"s": "_seconds", "By": "_bytes"}


def install(
    registry: CollectorRegistry = REGISTRY,
    *,
    groups: int = GROUPS,
    fleet: Any = None,
    crowd: int = CROWD,
    django_names: bool = False,
) -> FleetcacheCollector:
    """Register all caches of this process, also those made later; return the collector, for ``registry.unregister``.

    The first *groups* groups of keys that are used have series of their own; all others are added to the group ``other``.
    *fleet* is a cache, or a list of caches: then all processes that publish their figures are reported, each with a label
    ``worker``, and nothing else; while they cannot be read, this process reports its breakers, the states of its near caches
    and the tags that it owes.  If their entries are more than *crowd*, one for each cache of each process, a scrape is made
    smaller: the groups of each are added to one, ``all``, what was not counted yet is left out, and histograms have a quarter
    of their buckets.  With *django_names* there are also the metrics of django-prometheus, for dashboards made for it.
    Raises `TypeError` if *fleet* is no cache of fleetcache, and `ValueError` if *registry* has such a collector already.
    """
    collector = FleetcacheCollector(groups=groups, fleet=fleet, crowd=crowd, django_names=django_names)
    registry.register(collector)
    return collector


class FleetcacheCollector:
    """A custom collector of prometheus_client."""

    def __init__(
        self, *, groups: int = GROUPS, fleet: Any = None, crowd: int = CROWD, django_names: bool = False
    ) -> None:
        read, most = (own, sys.maxsize) if fleet is None else (partial(of_fleets, caches_in(fleet)), crowd)
        self.collector = Collector(read, groups, most)
        self.first = ("cache.name",) if fleet is None else ("cache.name", "worker")
        self.django_names = django_names

    def describe(self) -> list[Family]:
        """Return the families without values."""
        return [
            *(self._family(metric) for metric in METRICS),
            *(_of_django({}, self.first) if self.django_names else ()),
        ]

    def collect(self) -> Iterator[Family]:
        """Return the families with their values of now."""
        found, crowded = self.collector.collect(), self.collector.crowded
        for metric in METRICS:
            family = self._family(metric)
            for labels, value in found[metric.name].items():
                if crowded and metric.kind != "gauge" and not (value.count if metric.kind == "histogram" else value):
                    continue
                if metric.kind == "histogram":
                    bounds = [(f"{bound:g}", count) for bound, count in buckets(value)[:: COARSE if crowded else 1]]
                    family.add_metric(labels, [*bounds, ("+Inf", value.count)], value.sum)
                else:
                    family.add_metric(labels, value)
            yield family
        if self.django_names:
            yield from _of_django(found, self.first)

    def _family(self, metric: Metric) -> Any:
        kinds: dict[str, Any] = {
            "counter": CounterMetricFamily,
            "gauge": GaugeMetricFamily,
            "histogram": HistogramMetricFamily,
        }
        labels = [LABELS.get(label, label) for label in (*self.first, *metric.labels)]
        return kinds[metric.kind](name_of(metric), metric.meaning, labels=labels)


def caches_in(fleet: Any) -> list[Any]:
    """Return the caches that *fleet* is or holds."""
    found = list(fleet) if isinstance(fleet, (list, tuple)) else [fleet]
    for cache in found:
        if not hasattr(cache, "topology"):
            raise TypeError(f"fleet: a cache of fleetcache, or a list of some, is expected, not {type(cache).__name__}")
    return found


def name_of(metric: Metric) -> str:
    """Return the name of *metric* in Prometheus; prometheus_client adds ``_total`` to those of counters."""
    return f"fleetcache_{metric.name.removeprefix('cache.').replace('.', '_')}{UNITS.get(metric.unit, '')}"


def _of_django(found: dict[str, Points], first: Sequence[str]) -> list[Family]:
    """Return the metrics of django-prometheus, whose label ``backend`` is ``redis``: reads of all caches together.

    *first* are the labels that all points begin with.  The processes of a fleet are not added up: see `of_fleets`.
    """
    sums: dict[tuple[str, ...], Counter[str]] = {(): Counter()} if found and len(first) == 1 else {}
    for labels, count in found.get("cache.requests", {}).items():
        sums.setdefault(labels[1 : len(first)], Counter())["misses" if "miss" in labels[len(first) :] else "hits"] += (
            count
        )
    for labels, count in found.get("cache.operation.errors", {}).items():
        if labels[-1] in {"GET", "MGET"}:
            sums.setdefault(labels[1 : len(first)], Counter())["fail"] += count
    meanings = {
        "get": "Total get requests on cache",
        "get_hits": "Total hits on cache",
        "get_misses": "Total misses on cache",
        "get_fail": "Total get request failures by cache",
    }
    families: list[Family] = []
    for name, meaning in meanings.items():
        family = CounterMetricFamily(f"django_cache_{name}", meaning, labels=["backend", *first[1:]])
        for worker, counts in sums.items():
            family.add_metric(
                ["redis", *worker], counts[name.removeprefix("get_")] if name != "get" else counts.total()
            )
        families.append(family)
    return families
