"""Metrics in OpenTelemetry: ``install()`` makes observable instruments, which are read when metrics are collected.

OpenTelemetry has no observable histogram.  So each distribution is three counters: of its ``.sum`` in seconds, of its
``.count``, and of its ``.bucket``, the times that were at most the label ``le`` in seconds, as in Prometheus.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

from opentelemetry.metrics import CallbackOptions, Meter, Observation, get_meter

from fleetcache.telemetry.metrics import GROUPS, METRICS, Collector, Labels, Metric, buckets, own

Reader: TypeAlias = Callable[[Collector, Metric], Iterator[Observation]]


class Global:
    """Stands for OpenTelemetry's global meter provider."""


GLOBAL = Global()

_installed: WeakKeyDictionary[Any, list[Collector]] = WeakKeyDictionary()
"""By meter provider, the collector that its instruments read; none once it has ended.

A provider makes each instrument once, and forgets the callbacks of a second one.
"""


def install(meter_provider: Any = None, *, groups: int = GROUPS) -> Callable[[], None]:
    """Report all caches of this process, also those made later, to *meter_provider*; return a function that ends this.

    Left out, it is OpenTelemetry's global one.  The first *groups* groups of keys that are used have values of their own;
    all others are added to the group ``other``.  Of several calls for one provider the last one counts.
    """
    collector = Collector(own, groups)
    provider = GLOBAL if meter_provider is None else meter_provider
    if (live := _installed.get(provider)) is None:
        live = _installed[provider] = []
        _make_instruments(get_meter("fleetcache", meter_provider=meter_provider), live)
    live[:] = [collector]
    return partial(_end, live, collector)


def _end(live: list[Collector], collector: Collector) -> None:
    if collector in live:
        live.clear()


def _make_instruments(meter: Meter, live: list[Collector]) -> None:
    """Make the instruments of *meter*, which read the collector that is *live* when they are asked."""

    def read(reader: Reader, metric: Metric, options: CallbackOptions) -> Iterable[Observation]:
        for collector in live:
            yield from reader(collector, metric)

    for metric in METRICS:
        for make, name, unit, reader in _instruments(meter, metric):
            make(name, callbacks=[partial(read, reader, metric)], unit=unit, description=metric.meaning)


def _instruments(meter: Meter, metric: Metric) -> list[tuple[Callable[..., object], str, str, Reader]]:
    """Return the instruments for *metric*: how to make each, its name, its unit, and how it is read."""
    counter, name = meter.create_observable_counter, metric.name
    if metric.kind == "histogram":
        return [
            (counter, f"{name}.sum", metric.unit, partial(_distribution, part="sum")),
            (counter, f"{name}.count", "{time}", partial(_distribution, part="count")),
            (counter, f"{name}.bucket", "{time}", partial(_distribution, part="bucket")),
        ]
    make = counter if metric.kind == "counter" else meter.create_observable_gauge
    return [(make, name, metric.unit, _values)]


def _values(collector: Collector, metric: Metric) -> Iterator[Observation]:
    for labels, value in collector.recent()[metric.name].items():
        yield Observation(value, attributes(metric, labels))


def _distribution(collector: Collector, metric: Metric, part: str) -> Iterator[Observation]:
    for labels, latency in collector.recent()[metric.name].items():
        found = attributes(metric, labels)
        if part == "bucket":
            for bound, count in buckets(latency):
                yield Observation(count, {**found, "le": f"{bound:g}"})
            yield Observation(latency.count, {**found, "le": "+Inf"})
        else:
            yield Observation(getattr(latency, part), found)


def attributes(metric: Metric, labels: Labels) -> dict[str, str]:
    """Return the attributes of a value with these *labels*."""
    return dict(zip(("cache.name", *metric.labels), labels, strict=True))
