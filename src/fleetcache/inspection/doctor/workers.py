"""Checks of what the processes have counted, and whether all run the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from fleetcache.errors import is_outage
from fleetcache.inspection.doctor.asking import Examination
from fleetcache.inspection.doctor.findings import Finding, finding

FAILED, MOST = 3, 0.5
"""From how many failed loads on, and which share of all, a group's loader is taken for broken."""


def check_workers(examination: Examination) -> Iterator[Finding]:
    """Whether the processes of the fleet have the same release and the same settings."""
    fleet = examination.fleet
    if fleet is None:
        return
    for what, kind, attribute, workers in (
        ("releases of fleetcache", "versions-mixed", "version", fleet.workers),
        ("settings of this cache", "settings-mixed", "digest", _alike(fleet.workers, examination.alias)),
    ):
        counts = Counter(str(getattr(worker, attribute, "")) for worker in workers)
        if len(counts) > 1:
            among = ", ".join(f"{value or 'unknown'} ({count})" for value, count in counts.most_common(5))
            found = f"{len(workers)} processes have {len(counts)} {what}: {among}"
            if kind == "settings-mixed" and (names := _differing(workers)):
                found += f". They differ in {', '.join(names)}"
            yield finding(kind, examination.subject, found, "Nothing during a deployment; else restart the older ones.")
    if fleet.missing:
        found = "; ".join(fleet.missing[:3]) + f" and {len(fleet.missing) - 3} more" * (len(fleet.missing) > 3)
        if fleet.error is not None and is_outage(fleet.error):
            advice = "Let the server answer again first."
        else:
            advice = "See whether these processes run another release."
        yield finding("workers-unreadable", examination.subject, found, advice)


def _alike(workers: Sequence[Any], alias: str) -> Sequence[Any]:
    """Return those of *workers* whose entries are of the cache *alias*, or of no alias; all if no entry is of it."""
    if not any(alias and worker.alias == alias for worker in workers):
        return workers
    return [worker for worker in workers if worker.alias in {alias, ""}]


def _differing(workers: Sequence[Any]) -> list[str]:
    """Return the names of the settings that are not the same in all of *workers* that tell them."""
    told = [worker.settings for worker in workers if worker.settings]
    names = sorted({name for settings in told for name in settings})
    return [name for name in names if len({settings.get(name) for settings in told}) > 1]


def check_counters(examination: Examination) -> Iterator[Finding]:
    """Whether this process, or the fleet, has met unreadable payloads and failed calls."""
    subject, where = examination.subject, "this process has"
    figures: Mapping[str, Any] = examination.cache.snapshot()
    if examination.fleet is not None and examination.fleet.workers:
        figures, where = examination.fleet.totals, f"{len(examination.fleet.workers)} processes have"
    unreadable = examination.cache.info()["unreadable"]
    if unreadable:
        advice = "See the log of fleetcache for the names, and whether two programs use the same KEY_PREFIX."
        yield finding("unreadable-counted", subject, f"this process has met {unreadable} unreadable payloads", advice)
    errors: Mapping[str, int] = figures.get("errors") or {}
    if errors:
        among = ", ".join(f"{name} ({count})" for name, count in sorted(errors.items(), key=lambda each: -each[1])[:5])
        advice = f"See docs/errors.md for each class. {examination.commands('stats', options=['--since', '1h'])} says how many are new."
        yield finding("errors-counted", subject, f"{where} counted {among}{_since(figures)}", advice)
    yield from _loads(subject, where, figures)


def _loads(subject: str, where: str, figures: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield a finding for each group most of whose loaders fail."""
    for name, group in (figures.get("groups") or {}).items():
        loads, failed = group.get("loads", 0), group.get("load_errors", 0)
        if failed >= FAILED and failed >= MOST * loads:
            found = f"{where} counted {loads} loads in the group {name!r}, of which {failed} failed{_since(figures)}"
            advice = "See what the loader raises: its callers get the exception, so it is in the log of the site."
            yield finding("loads-fail", subject, found, advice)


def _since(figures: Mapping[str, Any]) -> str:
    """Return since when *figures* are counted, in words; "" if that is not known."""
    with suppress(ValueError, OverflowError, OSError):  # a process may have published any number
        if since := figures.get("since"):
            return f", since {datetime.fromtimestamp(since, UTC):%Y-%m-%d %H:%M:%S} UTC at the earliest"
    return ""
