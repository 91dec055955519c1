"""Snapshots of several processes added up, and the difference between two of one process.

A snapshot is what ``cache.snapshot()`` returns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from fleetcache.fleet import capacity
from fleetcache.fleet.capacity import is_number
from fleetcache.stats.groups import OTHER, SPARED
from fleetcache.stats.latency import BUCKETS, parsed, written
from fleetcache.stats.top import largest

STATES = ("live", "armed", "connecting", "asleep", "suspect", "aside", "dead", "off")
"""The states of near caches; of several the last one counts, but `off` only if there is no other."""

PROTECTION = ("full", "partial", "none")

TOP = 20
"""The most keys in each list of ``top``."""

EVENTS = 50
"""The most events of the audit in a sum."""

FIGURES = (
    *("near", "server", "stale", "missed", "loads", "joined", "load_errors", "load_seconds"),
    *("writes", "deletes", "bytes_read", "bytes_written", "saved"),
)
"""The figures of a group."""
ZEROS = dict.fromkeys(FIGURES, 0)

GROUPS = 1000
"""The most groups in a sum: each process may have other ones, if its keys begin with the names of users."""

NUMBERS = frozenset((int, float))

Group = Mapping[str, float]


def total(snapshots: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the sum of *snapshots*, in their shape; `{}` if there are none.  They may be as they were published.

    Buckets of latencies are added, and their quantiles taken from the sum.  ``advice`` is the mean, see `capacity.mean`.
    """
    found = [each for each in snapshots if each]
    if not found:
        return {}
    groups: dict[str, dict[str, float]] = {}
    for each in found:
        given = _mapping(each.get("groups"))
        for name, figures in (given if len(given) <= GROUPS else _groups(given)).items():
            sums = groups.get(name)
            if sums is None:
                sums = groups[name] = dict(ZEROS)
            for figure, count in _mapping(figures).items():  # written out: most of the work for a large fleet
                if type(count) in NUMBERS:
                    sums[figure] = sums.get(figure, 0) + count
    return {
        "since": min((each["since"] for each in found if is_number(each.get("since"))), default=0.0),
        "groups": fewer(groups, GROUPS),
        "commands": _commands(_mapping(each.get("commands")) for each in found),
        "loads": {"latency": latency(_mapping(_mapping(each.get("loads")).get("latency")) for each in found)},
        "errors": _numbers(added(_mapping(each.get("errors")) for each in found)),
        "top": _top([_mapping(each.get("top")) for each in found]),
        "near": _near([_mapping(each.get("near")) for each in found]),
        "loading": _loading([_mapping(each.get("loading")) for each in found]),
        "servers": _servers(each.get("servers") for each in found),
        "advice": capacity.mean(each.get("advice") for each in found),
        "audit": _audit([audit for each in found if (audit := _mapping(each.get("audit")))]),
    }


def fewer(groups: Mapping[str, Any], size: int) -> dict[str, Any]:
    """Return the *size* most used of *groups*; the others are added to ``other``, so that no sum changes."""
    if len(groups) <= size:
        return dict(groups)
    use = {
        name: sum(v for v in (group.get("near"), group.get("server"), group.get("missed"), group.get("writes")) if v)
        for name, group in groups.items()
        if name != OTHER
    }
    kept = {name for name, _ in most(use, size - 1)}
    found = {name: group for name, group in groups.items() if name in kept}
    found[OTHER] = added(group for name, group in groups.items() if name not in kept)
    return found


def saved(now: Group, before: Group) -> float:
    """Return how many seconds of loading a group has saved since *before*.

    These are its reads since then by the mean load of *now*: ``saved`` itself changes with the mean as well.  If that was not
    known before, what was read until then has not been counted.
    """
    reads, earlier = (sum(figures.get(level, 0) for level in SPARED) for figures in (now, before))
    if not reads or not before.get("saved"):
        return now.get("saved", 0.0)
    return now.get("saved", 0.0) * (reads - earlier) / reads


def added(several: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the sum of all numbers in *several*, and in the dicts within them, by their names."""
    found: dict[str, Any] = {}
    for each in several:
        _add(found, each)
    return found


def latency(several: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the sum of latencies, bucket by bucket; those that are none are left out."""
    seconds, counts = 0.0, [0] * BUCKETS
    for each in several:
        with suppress(ValueError, OverflowError):
            more, buckets = parsed(each)
            seconds += more
            for place, count in buckets:
                counts[place] += count
    return written(seconds, [(place, count) for place, count in enumerate(counts) if count])


def quantile(buckets: Iterable[Iterable[float]], share: float) -> float | None:
    """Return the upper limit, in seconds, of the bucket that holds this *share* of all; None of nothing."""
    listed = [tuple(each) for each in buckets]
    wanted = share * sum(count for _, count in listed)
    seen = 0.0
    for upper, count in listed:
        seen += count
        if count and seen >= wanted:
            return upper
    return None


def restored(snapshot: Any) -> dict[str, Any]:
    """Return *snapshot*, as it was published, in its whole shape; what does not fit into the shape is left out.

    It may have been written by another version, or by something else.
    """
    given = _mapping(snapshot)
    return {name: restore(given.get(name)) for name, restore in PARTS.items()} if given else {}


def _groups(given: Any) -> dict[str, Any]:
    return fewer({name: _group(figures) for name, figures in _mapping(given).items()}, GROUPS)


def _group(figures: Any) -> dict[str, Any]:
    """Return the *figures* of a group, as it was published, with all their names."""
    return ZEROS | {figure: count for figure, count in _mapping(figures).items() if is_number(count)}


PARTS: Mapping[str, Callable[[Any], Any]] = {
    "since": lambda given: given if is_number(given) else 0.0,
    "groups": _groups,
    "commands": lambda given: _commands([_mapping(given)]),
    "loads": lambda given: {"latency": latency([_mapping(_mapping(given).get("latency"))])},
    "errors": lambda given: _numbers(_mapping(given)),
    "top": lambda given: _top([_mapping(given)]),
    "near": lambda given: _without(_near([_mapping(given)]), "states"),
    "loading": lambda given: _loading([_mapping(given)]),
    "servers": lambda given: [_without(server, "away_for") for server in _servers([given])],
    "advice": capacity.clean,
    "audit": lambda given: _audit([audit] if (audit := _mapping(given)) else []),
}
"""The parts of a snapshot, and what brings each, as it was published, into its whole shape."""


def _without(figures: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {each: figure for each, figure in figures.items() if each != name}


def gained(after: Any, before: Any) -> Any:
    """Return by how much the numbers of *after* are more than those of *before*, without zeros."""
    found = {}
    for name, figure in _mapping(after).items():
        old = _mapping(before).get(name)
        if isinstance(figure, Mapping):
            if more := gained(figure, old):
                found[name] = more
        elif is_number(figure):
            more = figure - (old if is_number(old) else 0)
            if more:
                found[name] = more
    return found


def _keys(value: Any) -> Iterator[tuple[str, float, float]]:
    """Yield the keys in a list of ``top``, each with its sum and the standard error of that."""
    for each in value if isinstance(value, list) else ():
        if isinstance(each, (list, tuple)) and len(each) in {2, 3}:  # versions before this one wrote no error
            key, count, error = (*each, 0)[:3]
            if is_number(count) and is_number(error):
                yield str(key), count, error


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if type(value) is dict or isinstance(value, Mapping) else {}


def _numbers(found: Mapping[str, Any]) -> dict[str, Any]:
    return {name: figure for name, figure in found.items() if is_number(figure)}


def _add(found: dict[str, Any], more: Any) -> None:
    """Add the numbers of *more* to those of *found*; of anything else the first is kept, and of truths whether one is true."""
    for name, figure in _mapping(more).items():
        kind = type(figure)
        if kind in NUMBERS:
            known = found.get(name, 0)
            found[name] = figure + known if type(known) in NUMBERS else figure
        elif kind is bool:
            found[name] = bool(found.get(name)) or figure
        elif isinstance(figure, Mapping):
            known = found.get(name)
            if not isinstance(known, dict):
                known = found[name] = {}
            _add(known, figure)
        else:
            found.setdefault(name, figure)


def _commands(several: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    found: dict[str, dict[str, Any]] = {}
    latencies: dict[str, list[Mapping[str, Any]]] = {}
    for commands in several:
        for name, known in commands.items():
            each = _mapping(known)
            counted = found.setdefault(name, {"calls": 0, "errors": 0})
            _add(counted, {word: each[word] for word in counted if word in each})
            latencies.setdefault(name, []).append(_mapping(each.get("latency")))
    return {name: {**counted, "latency": latency(latencies[name])} for name, counted in found.items()}


def _top(several: list[Mapping[str, Any]]) -> dict[str, list[list[Any]]]:
    found: dict[str, dict[str, tuple[float, float]]] = {}
    for each in several:
        for name, keys in each.items():
            sums = found.setdefault(name, {})
            for key, count, error in _keys(keys):
                total, variance = sums.get(key, (0, 0.0))
                sums[key] = total + count, variance + error**2
    return {name: largest(sums, TOP) for name, sums in found.items()}


def most(sums: Mapping[str, float], size: int) -> list[list[Any]]:
    """Return the *size* largest of *sums*, as lists of a name and its number."""
    return [list(pair) for pair in sorted(sums.items(), key=lambda pair: -pair[1])[:size]]


def _worst(several: list[Mapping[str, Any]], name: str, order: tuple[str, ...]) -> Mapping[str, Any]:
    """Return the one of *several* whose *name* comes last in *order*; words that are not in it come first."""
    return max(several, key=lambda each: order.index(each[name]) if each.get(name) in order else -1, default={})


def _near(several: list[Mapping[str, Any]]) -> dict[str, Any]:
    found = added(several)
    on = [each for each in several if each.get("state") not in {None, "off"}]
    worst = _worst(on or several, "state", STATES)
    states: dict[str, int] = {}
    for each in several:
        state = str(each.get("state", "off"))
        states[state] = states.get(state, 0) + 1
    return {**found, "state": worst.get("state", "off"), "why": worst.get("why", ""), "states": states}


def _loading(several: list[Mapping[str, Any]]) -> dict[str, Any]:
    found = added(several)
    worst = _worst(several, "protection", PROTECTION)
    return {**found, "protection": worst["protection"]} if "protection" in worst else found


def _servers(several: Iterable[Any]) -> list[dict[str, Any]]:
    """Return each server once; it is ``away`` if it is for one of the processes, and ``away_for`` so many of them."""
    found: dict[str, dict[str, Any]] = {}
    for servers in several:
        for each in map(_mapping, servers if isinstance(servers, list) else ()):
            address = str(each.get("address"))
            server = found.setdefault(address, {"address": address, "away": False, "away_for": 0})
            server["away"] = server["away"] or bool(each.get("away"))
            server["away_for"] += bool(each.get("away"))
    return list(found.values())


def _audit(several: list[Mapping[str, Any]]) -> dict[str, Any] | None:
    if not several:
        return None
    events = [event for each in several if isinstance(listed := each.get("events"), list) for event in listed]
    counts = {"compared": 0, "violations": 0} | _numbers(added(several))
    return {**counts, "events": events[:EVENTS]}
