"""Every metric: its name, its sentence, and how it is read from a snapshot of what a process has counted.

The exporters only translate this list.  Nothing is counted for them: they read when they are asked, so a process that is
never asked pays nothing.  No key is ever a label.  Labels are the name of the cache, and words of which there are few;
of groups there are at most as many as an exporter is told.

A counter never falls, although what it is read from may, for a moment: a read may be moved from one figure to another,
and a cache that is gone takes its figures along.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any, Literal, TypeAlias

from fleetcache.forks import Guard, in_children
from fleetcache.interrupts import let_pass
from fleetcache.stats.groups import OTHER, SUMS
from fleetcache.stats.latency import LIMITS, PARTS, Latency
from fleetcache.stats.payloads import Said
from fleetcache.stats.tally import TALLIES
from fleetcache.threads import living

log = logging.getLogger("fleetcache.telemetry")

GROUPS = 50
"""How many groups are told apart by default; the others are added to the group ``other``."""

CROWD = 200
"""With more processes in a fleet than this, the groups of each are added to one, `ALL`."""

ALL = "all"
"""The label of all groups together.  A name of its own: a known series that jumps would look like a burst of reads."""

BOUNDS = LIMITS[PARTS - 1 :: PARTS][3:24]
"""The upper limits of exported buckets, in seconds, from 16 µs to 17 s: every fourth of those that are counted."""

RECENT = 0.1
"""For how many seconds the values of one moment are given to an exporter that asks for one metric after another."""

Kind: TypeAlias = Literal["counter", "gauge", "histogram"]
Snapshot: TypeAlias = Mapping[str, Any]
Labels: TypeAlias = tuple[str, ...]
Value: TypeAlias = "float | Latency"
Point: TypeAlias = tuple[Labels, Value]
Points: TypeAlias = dict[Labels, Any]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One metric, by its name in OpenTelemetry."""

    name: str
    kind: Kind
    meaning: str
    """A sentence, in the documentation and in the exporters' output."""
    unit: str
    """As in OpenTelemetry: ``s``, ``By``, or what is counted in braces."""
    labels: Labels
    """The names of its labels, beside ``cache.name``, which each has."""
    points: Callable[[Snapshot], Iterable[Point]]
    """Returns the values in a snapshot, each with its labels."""
    largest: bool = False
    """Whether of several values with the same labels the largest counts, and not their sum."""


def _requests(snapshot: Snapshot) -> Iterator[Point]:
    levels = (("near", "hit"), ("server", "hit"), ("stale", "stale"), ("missed", "miss"))
    for group, figures in snapshot["groups"].items():
        for figure, kind in levels:
            level = {"stale": "server", "missed": "none"}.get(figure, figure)
            yield (kind, level, group), figures[figure]


def _of_groups(figure: str) -> Callable[[Snapshot], Iterator[Point]]:
    return lambda snapshot: (((group,), figures[figure]) for group, figures in snapshot["groups"].items())


def _of_commands(figure: str) -> Callable[[Snapshot], Iterator[Point]]:
    return lambda snapshot: (((command,), each[figure]) for command, each in snapshot["commands"].items())


def _of_near(figure: str) -> Callable[[Snapshot], Iterator[Point]]:
    def points(snapshot: Snapshot) -> Iterator[Point]:
        found = (snapshot.get("near") or {}).get(figure)
        if isinstance(found, Mapping):
            yield from (((str(word).replace(" ", "_"),), count) for word, count in found.items())
        elif found is not None:
            yield (), found

    return points


def _state(snapshot: Snapshot) -> Iterator[Point]:
    near = snapshot.get("near") or {}
    yield (near.get("state", "off"),), 1


def _breakers(snapshot: Snapshot) -> Iterator[Point]:
    return (((str(server["address"]),), int(bool(server["away"]))) for server in snapshot.get("servers") or ())


def _stampede(snapshot: Snapshot) -> Iterator[Point]:
    outcomes = {"coalesced": "joined", "waited": "waited", "stale": "stale_served", "early": "early"}
    loading = snapshot.get("loading") or {}
    return (((outcome,), loading[figure]) for outcome, figure in outcomes.items() if figure in loading)


def _audited(figure: str) -> Callable[[Snapshot], Iterator[Point]]:
    return lambda snapshot: iter([((), snapshot["audit"][figure])] if snapshot.get("audit") else ())


def _metric(
    name: str, kind: Kind, unit: str, meaning: str, labels: str, points: Any, *, largest: bool = False
) -> Metric:
    words = tuple(labels.split())
    return Metric(name=name, kind=kind, unit=unit, meaning=meaning, labels=words, points=points, largest=largest)


GROUP, COMMAND = "cache.group", "db.operation.name"

METRICS: tuple[Metric, ...] = (
    _metric(
        "cache.requests", "counter", "{request}",
        "Reads, by outcome (`hit`, `stale`, `miss`) and by what answered: `near`, a copy in the process; `server`; `none`.",
        f"cache.request.type cache.level {GROUP}", _requests,
    ),
    _metric("cache.writes", "counter", "{entry}", SUMS["writes"], GROUP, _of_groups("writes")),
    _metric("cache.deletes", "counter", "{entry}", SUMS["deletes"], GROUP, _of_groups("deletes")),
    _metric("cache.read", "counter", "By", SUMS["bytes_read"], GROUP, _of_groups("bytes_read")),
    _metric("cache.written", "counter", "By", SUMS["bytes_written"], GROUP, _of_groups("bytes_written")),
    _metric("cache.loads", "counter", "{load}", SUMS["loads"], GROUP, _of_groups("loads")),
    _metric("cache.load.errors", "counter", "{load}", SUMS["load_errors"], GROUP, _of_groups("load_errors")),
    _metric("cache.load.time", "counter", "s", SUMS["load_seconds"], GROUP, _of_groups("load_seconds")),
    _metric(
        "cache.load.duration", "histogram", "s", "How long loaders ran.", "",
        lambda snapshot: [((), Latency.read(snapshot["loads"]["latency"]))],
    ),
    _metric("cache.joined", "counter", "{request}", SUMS["joined"], GROUP, _of_groups("joined")),
    _metric(
        "cache.time_saved", "gauge", "s",
        "Loading time that reads have saved: reads that needed no loader, by the mean time of a load of their group in the fleet.",
        GROUP, _of_groups("saved"),
    ),
    _metric(
        "cache.stampede", "counter", "{request}",
        "Loads that a caller did not run, or did not wait for: `coalesced`, a call waited for one of this process; `waited`, for "
        "another process; `stale`, an old value was returned while another caller loads, or because the load failed or took too "
        "long; `early`, the value was renewed before its end.",
        "outcome", _stampede,
    ),
    _metric(
        "cache.operations", "counter", "{command}",
        "Commands that callers asked for; also those that were not sent, because the server is away or cannot be reached.",
        COMMAND, _of_commands("calls"),
    ),
    _metric(
        "cache.operation.errors", "counter", "{command}", "Commands that were refused, or got no reply, or were not sent.", COMMAND,
        _of_commands("errors"),
    ),
    _metric(
        "cache.operation.duration", "histogram", "s",
        "How long exchanges of one command took; of a sample, so its count is smaller than that of the commands.", COMMAND,
        lambda snapshot: [((name,), Latency.read(each["latency"])) for name, each in snapshot["commands"].items()],
    ),
    _metric(
        "cache.errors", "counter", "{exchange}",
        "Exchanges with servers that failed, by the class of the error; with `CircuitOpen` and `NeverSent` nothing was sent.",
        "error.type", lambda snapshot: (((error,), count) for error, count in snapshot["errors"].items()),
    ),
    _metric(
        "cache.breaker.state", "gauge", "1", "1 while the server is taken as away, so that calls fail at once; else 0.",
        "server.address", _breakers, largest=True,
    ),
    _metric("cache.entries", "gauge", "{entry}", "Copies that the process holds now.", "", _of_near("entries")),
    _metric("cache.estimated_size", "gauge", "By", "The memory that these copies take.", "", _of_near("bytes")),
    _metric("cache.max_size", "gauge", "By", "The most that they may take, `MAX_BYTES`.", "", _of_near("max_bytes")),
    _metric(
        "cache.evictions", "counter", "{entry}", "Copies removed without a change, by reason, as in `near.evictions`.", "reason",
        _of_near("evictions"),
    ),
    _metric(
        "cache.invalidations", "counter", "{entry}", "Copies removed by a change, by cause, as in `near.invalidations`.", "cause",
        _of_near("invalidations"),
    ),
    _metric(
        "cache.near.epochs", "counter", "{epoch}", "How often every copy was given up at once, by reason.", "reason",
        _of_near("epochs"),
    ),
    _metric("cache.near.state", "gauge", "1", "1 for the state of the near cache, `off` without one.", "state", _state),
    _metric(
        "cache.owed_tags", "gauge", "{tag}", "Tags whose invalidation no server has received yet, of all caches of the process.",
        "", lambda snapshot: [((), (snapshot.get("loading") or {}).get("owed_tags", 0))], largest=True,
    ),
    _metric(
        "cache.fleet.readable", "gauge", "1",
        "With `fleet`: 1 if its server returned what the processes have published, else 0. Without `fleet` it has no value.",
        "", lambda snapshot: [((), snapshot["readable"])] if "readable" in snapshot else [],
    ),
    _metric(
        "cache.audit.compared", "counter", "{request}", "Hits that were compared with the entry on the server.", "",
        _audited("compared"),
    ),
    _metric(
        "cache.audit.violations", "counter", "{request}", "Compared hits that should not have been served: 0, or a bug.", "",
        _audited("violations"),
    ),
)  # fmt: skip


# --- reading them ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reading:
    """What one cache of one process has counted: *key* tells it from others, *labels* are its first labels."""

    key: Any
    labels: Labels
    snapshot: Snapshot
    only: Collection[str] | None = None
    """The names of the metrics that are read; None: all.  The others have no series, which would begin with zeros."""


def name_of(alias: str, snapshot: Snapshot) -> str:
    """Return the label ``cache.name``: the alias of a cache, or where its first server is."""
    servers = snapshot.get("servers") or ()
    return alias or (str(servers[0]["address"]) if servers else "cache")


def own() -> Iterator[Reading]:
    """Return the readings of all caches of this process."""
    for tally in living(TALLIES):
        try:
            snapshot = tally.snapshot()
        except Exception as error:  # noqa: BLE001 - the other caches are shown all the same
            let_pass(error)
            complain("tally", f"the figures of the cache {tally.alias!r} could not be read")
            continue
        yield Reading(weakref.ref(tally), (name_of(tally.alias, snapshot),), snapshot)


class Fleets:
    """How an exporter reads the processes of a fleet; `fleetcache.fleet` sets it, since it is above this package."""

    gather: Callable[..., Any]
    here: Callable[[], str]
    """Returns the label ``worker`` of this process."""


UNPUBLISHED = ("cache.breaker.state", "cache.near.state", "cache.owed_tags")
"""What a process says of itself while its entry cannot be read, because it tells of the outage: gauges only.  A counter as it
is now would fall with the next scrape, as that shows what was published a moment ago."""


def of_fleets(caches: Sequence[Any]) -> Iterator[Reading]:
    """Return the readings of all processes that have published theirs, each with a label ``worker``.

    They are not added up.  A sum falls when a process ends, and rates over it would be wrong.  Caches that share a server and
    a prefix share a fleet, whose entries are returned once.
    """
    known: set[str] = set()
    readable: dict[str, bool] = {}
    for place, cache in enumerate(caches):
        fleet = Fleets.gather(cache, live=False)
        name = _name(cache)
        readable[name] = readable.get(name, True) and fleet.error is None
        workers = {worker.name: worker for worker in fleet.workers if worker.name not in known}
        known |= workers.keys()
        shown = [(worker.alias or name, f"{worker.host}:{worker.pid}") for worker in workers.values()]
        for worker, (alias, label) in zip(workers.values(), shown, strict=True):
            # Containers may have one host name, and 1 as the process id.
            mark = worker.name[worker.name.rfind(":") :] if shown.count((alias, label)) > 1 else ""
            yield Reading(worker.name, (alias, label + mark), worker.snapshot)
        here = Fleets.here()
        if fleet.error is not None and here not in {f"{worker.host}:{worker.pid}" for worker in fleet.workers}:
            yield Reading(("own", place), (name, here), cache.snapshot(), only=UNPUBLISHED)
    for name, is_readable in readable.items():
        yield Reading(("fleet", name), (name, ""), {"readable": int(is_readable)}, only=("cache.fleet.readable",))


def _name(cache: Any) -> str:
    servers = cache.topology.servers
    alias = getattr(cache.tally, "alias", "")
    return name_of(alias, {"servers": [{"address": server.address} for server in servers[:1]]})


Seen: TypeAlias = "tuple[Labels, dict[str, Points]]"
"""The labels of a reading, and the last values of its counters and histograms."""


class Collector:
    """Reads all metrics; each exporter of a process has one."""

    def __init__(self, read: Callable[[], Iterable[Reading]], groups: int, crowd: int = CROWD) -> None:
        self.read = read
        self.groups = groups
        self.crowd = crowd
        self.crowded = False
        self.guard = Guard()
        self._start_afresh()
        in_children(self._start_afresh)

    def _start_afresh(self) -> None:
        self.seen: dict[Any, Seen] = {}
        """By the keys of the readings."""
        self.past: dict[str, Points] = {}
        """The last values of caches of this process that are gone."""
        self.latest: dict[str, Points] = {}
        self.read_at = -RECENT

    def recent(self) -> dict[str, Points]:
        """Return what `collect` returns, or has just returned: an exporter that asks for each metric sees one moment."""
        if monotonic() - self.read_at >= RECENT:
            self.latest = self.collect()
            self.read_at = monotonic()
        return self.latest

    def collect(self) -> dict[str, Points]:
        """Return the values of each metric by its name, each by its labels."""
        with self.guard.lock:
            found: dict[str, Points] = {metric.name: {} for metric in METRICS}
            readings = list(self.read())
            crowded, self.crowded = self.crowded, sum(each.only is None for each in readings) > self.crowd
            before, self.seen = self.seen if crowded == self.crowded else {}, {}
            for reading in readings:
                values = self._values(reading, before.get(reading.key, ((), {}))[1])
                for metric in METRICS:
                    _merge(found[metric.name], _labelled(reading.labels, values[metric.name]), largest=metric.largest)
                lasting = {metric.name: values[metric.name] for metric in METRICS if metric.kind != "gauge"}
                self.seen[reading.key] = reading.labels, lasting
            self._remember(before)
            for name, points in self.past.items():
                _merge(found[name], points.items())
            return found

    def _values(self, reading: Reading, before: Mapping[str, Points]) -> dict[str, Points]:
        values: dict[str, Points] = {}
        snapshot = reading.snapshot
        if reading.only is None:
            snapshot = together(snapshot) if self.crowded else bounded(snapshot, self.groups)
        for metric in METRICS:
            points = values[metric.name] = {}
            if reading.only is not None and metric.name not in reading.only:
                continue
            try:
                _merge(points, filter(_is_sound, metric.points(snapshot)), largest=metric.largest)
            except Exception as error:  # noqa: BLE001 - the other metrics are shown all the same
                let_pass(error)
                complain(metric.name, f"the metric {metric.name} could not be read")
            if metric.kind == "counter":
                for labels, value in before.get(metric.name, {}).items():
                    points[labels] = max(points.get(labels, value), value)
        return values

    def _remember(self, before: Mapping[Any, Seen]) -> None:
        """Go on counting what caches that are gone have counted; processes that are gone take their series along."""
        for key, (labels, values) in before.items():
            if key not in self.seen and isinstance(key, weakref.ref):
                for name, points in values.items():
                    _merge(self.past.setdefault(name, {}), _labelled(labels, points))


def bounded(snapshot: Snapshot, most: int) -> Snapshot:
    """Return *snapshot* with at most *most* groups, the first that were counted, and ``other``; so they stay the same."""
    groups = snapshot["groups"]
    kept = [name for name in groups if name != OTHER][:most]
    if len(kept) + (OTHER in groups) >= len(groups):
        return snapshot
    rest: dict[str, float] = {}
    for name, figures in groups.items():
        if name not in kept:
            for figure, count in figures.items():
                rest[figure] = rest.get(figure, 0) + count
    return {**snapshot, "groups": {**{name: groups[name] for name in kept}, OTHER: rest}}


def together(snapshot: Snapshot) -> Snapshot:
    """Return *snapshot* with one group, `ALL`."""
    sums: dict[str, float] = {}
    for figures in snapshot["groups"].values():
        for figure, count in figures.items():
            sums[figure] = sums.get(figure, 0) + count
    return {**snapshot, "groups": {ALL: sums} if sums else {}}


def buckets(latency: Latency) -> list[tuple[float, int]]:
    """Return how many times were at most each of `BOUNDS`."""
    return [(bound, sum(latency.counts[: LIMITS.index(bound) + 1])) for bound in BOUNDS]


def complain(about: str, text: str) -> None:
    """Log *text* with the traceback of the error at hand, at most once a minute for each *about*."""
    if _said.is_new(about):
        log.exception("%s", text)  # noqa: LOG004 - called where an error is handled


_said = Said()


def _labelled(first: Labels, points: Points) -> Iterator[Point]:
    return (((*first, *labels), value) for labels, value in points.items())


def _is_sound(point: Point) -> bool:
    """Return whether tools take *point*: another process may have published anything."""
    labels, value = point
    return isinstance(value, (int, float, Latency)) and all(map(_is_text, labels))


def _is_text(label: object) -> bool:
    """Return whether *label* can be written in UTF-8, which has no half of a surrogate pair."""
    return isinstance(label, str) and (label.isascii() or label.encode(errors="replace").decode() == label)


def _merge(found: Points, more: Iterable[Point], *, largest: bool = False) -> None:
    for labels, value in more:
        known = found.get(labels)
        if isinstance(value, Latency):
            if known is None:
                known = found[labels] = Latency()
            known.add(value)
        elif known is None:
            found[labels] = value
        else:
            found[labels] = max(known, value) if largest else known + value
