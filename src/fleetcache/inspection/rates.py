"""What a fleet does at the moment: rates, from what its processes have published lately.

Each process publishes at a time of its own, every ten seconds or so.  The difference between two readings of the sums would
jump with every process that has published in between.  So each process has its own rates, the difference between its two
latest publications, which hold until its next one; the fleet's are their sum.  A process that was seen with one publication
only counts with its average since it began.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from fleetcache.fleet import Fleet, Worker
from fleetcache.fleet.figures import quantile
from fleetcache.stats.groups import SPARED
from fleetcache.stats.latency import ENOUGH

READS = ("near", "server", "stale", "missed")
FOUND = ("near", "server", "stale")

Basis: TypeAlias = Literal["latest", "now", "start"]
"""``latest``: each process counts with the best that is known of it.  ``now``: only those that were seen with two publications
count.  ``start``: all count with their averages since they began."""


@dataclass
class Pace:
    """What happens in a second, in the fleet."""

    groups: dict[str, dict[str, float]] = field(default_factory=dict)
    """By group the figures of a snapshot's group, each a second, and ``reads``."""
    commands: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By command ``calls`` and ``errors`` a second; ``timed``, how many calls were timed; and ``p50``, ``p95``, ``p99`` in
    seconds, None if these are too few, see `ENOUGH`."""
    errors: dict[str, float] = field(default_factory=dict)
    """Failed exchanges a second, by class."""
    workers: dict[str, dict[str, float]] = field(default_factory=dict)
    """By worker the sums of all its groups."""
    since_start: int = 0
    """How many processes count with their average since they began."""
    left_out: int = 0
    """How many processes do not count, because they were seen with one publication only."""

    @property
    def totals(self) -> dict[str, float]:
        """The sums of all groups."""
        return added(self.groups.values())


def added(several: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Return the sum of *several* sets of figures."""
    sums: dict[str, float] = {}
    for figures in several:
        for name, figure in figures.items():
            sums[name] = sums.get(name, 0) + figure
    return sums


@dataclass
class _Seen:
    """What is known of a worker."""

    worker: Worker
    before: Worker | None = None
    """The worker as it was when it published before."""


class Rates:
    """Rates of a fleet that is read again and again."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, int, str], _Seen] = {}

    def pace(self, fleet: Fleet, basis: Basis = "latest") -> Pace:
        """Take note of *fleet*, and return its pace on this *basis*."""
        seen: dict[tuple[str, int, str], _Seen] = {}
        for worker in fleet.workers:
            key = (worker.host, worker.pid, worker.name)
            known = self._seen.get(key)
            if known is None or known.worker.at > worker.at or _began(known.worker) != _began(worker):
                seen[key] = _Seen(worker)
            elif known.worker.at == worker.at:
                seen[key] = known
            else:
                seen[key] = _Seen(worker, known.worker)
        self._seen = seen
        found = Pace()
        buckets: dict[str, dict[float, float]] = {}
        for (host, pid, _), known in seen.items():
            each = _Seen(known.worker) if basis == "start" else known
            if each.before is None and basis == "now":
                found.left_out += 1
                continue
            found.since_start += each.before is None
            _add(found, buckets, f"{host}:{pid}", each)
        for name, counts in buckets.items():
            listed = [[upper, counts[upper]] for upper in sorted(counts)]
            timed = sum(counts.values())
            found.commands[name]["timed"] = timed
            for percent, enough in ENOUGH.items():
                found.commands[name][f"p{percent}"] = quantile(listed, percent / 100) if timed >= enough else None
        return found


def _add(found: Pace, buckets: dict[str, dict[float, float]], name: str, each: _Seen) -> None:
    """Add the rates of one worker to those of the fleet."""
    now, before = each.worker, each.before

    def earlier_of(name: str) -> Mapping[str, Any]:
        return (before.part(name) if before is not None else None) or {}

    began = before.at if before is not None else _began(now)
    seconds = max(now.at - began, 1e-3)
    mine: list[dict[str, float]] = []
    for group, figures in (now.part("groups") or {}).items():
        gained = _gained(figures, earlier_of("groups").get(group) or {})
        gained["reads"] = sum(gained.get(level, 0.0) for level in READS)
        # By the mean load as the process knows it, which changes with each load of the fleet.
        spared = sum(figures.get(level, 0.0) for level in SPARED)
        mean = figures.get("saved", 0.0) / spared if spared else 0.0
        gained["saved"] = mean * sum(gained.get(level, 0.0) for level in SPARED)
        rates = {figure: count / seconds for figure, count in gained.items()}
        mine.append(rates)
        found.groups[group] = added((found.groups.get(group, {}), rates))
    found.workers[name] = added((found.workers.get(name, {}), *mine))  # two of one name, in containers, are one line
    for command, figures in (now.part("commands") or {}).items():
        earlier = earlier_of("commands").get(command) or {}
        gained = _gained(figures, earlier)
        rates = {figure: gained.get(figure, 0.0) / seconds for figure in ("calls", "errors")}
        found.commands[command] = added((found.commands.get(command, {}), rates))
        counts = buckets.setdefault(command, {})
        had = dict((earlier.get("latency") or {}).get("buckets") or ())
        for upper, count in (figures.get("latency") or {}).get("buckets") or ():
            counts[upper] = counts.get(upper, 0) + max(count - had.get(upper, 0), 0)
    for error, count in _gained(now.part("errors") or {}, earlier_of("errors")).items():
        found.errors[error] = found.errors.get(error, 0.0) + count / seconds


def _began(worker: Worker) -> float:
    """Return when *worker* began to count."""
    return float(worker.part("since") or worker.started)


def _gained(now: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, float]:
    """Return by how much each number has grown; one that has fallen, as a miss that became a stale read, not at all."""
    found = {}
    for name, figure in now.items():
        if isinstance(figure, (int, float)) and not isinstance(figure, bool):
            found[name] = float(max(figure - before.get(name, 0), 0))
    return found
