"""Metrics in OpenTelemetry: ``install()`` makes observable instruments, which are read when metrics are collected.

OpenTelemetry has no observable histogram.  So each distribution is three counters: of its ``.sum`` in seconds, of its
``.count``, and of its ``.bucket``, the times that were at most the label ``le`` in seconds, as in Prometheus.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, TypeAlias

from opentelemetry.metrics import CallbackOptions, Meter, Observation, get_meter

from fleetcache.telemetry.metrics import GROUPS, METRICS, Collector, Labels, Metric, buckets, own

Reader: TypeAlias = Callable[[Metric], Iterator[Observation]]


def install(meter_provider: Any = None, *, groups: int = GROUPS) -> Callable[[], None]:
    """Report all caches of this process, also those made later, to *meter_provider*; return a function that ends this.

    Left out, it is OpenTelemetry's global one.  The first *groups* groups of keys that are used have values of their own;
    all others are added to the group ``other``.
    """
    collector = Collector(own, groups)
    meter = get_meter("fleetcache", meter_provider=meter_provider)
    live = [True]

    def read(reader: Reader, metric: Metric, options: CallbackOptions) -> Iterable[Observation]:
        if live:
            yield from reader(metric)

    for metric in METRICS:
        for make, name, unit, reader in _instruments(meter, collector, metric):
            make(name, callbacks=[partial(read, reader, metric)], unit=unit, description=metric.meaning)
    return live.clear


def _instruments(
    meter: Meter, collector: Collector, metric: Metric
) -> list[tuple[Callable[..., object], str, str, Reader]]:
    """Return the instruments for *metric*: how to make each, its name, its unit, and how it is read."""
    counter, name = meter.create_observable_counter, metric.name
    if metric.kind == "histogram":
        return [
            (counter, f"{name}.sum", metric.unit, lambda metric: _distribution(collector, metric, "sum")),
            (counter, f"{name}.count", "{time}", lambda metric: _distribution(collector, metric, "count")),
            (counter, f"{name}.bucket", "{time}", lambda metric: _distribution(collector, metric, "bucket")),
        ]
    make = counter if metric.kind == "counter" else meter.create_observable_gauge
    return [(make, name, metric.unit, lambda metric: _values(collector, metric))]


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
