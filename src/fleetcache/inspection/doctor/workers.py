"""Checks of what the processes have counted, and whether all run the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from fleetcache.errors import is_outage
from fleetcache.inspection.doctor.asking import Examination
from fleetcache.inspection.doctor.findings import Finding, finding


def check_workers(examination: Examination) -> Iterator[Finding]:
    """Whether the processes of the fleet have the same release and the same settings."""
    fleet = examination.fleet
    if fleet is None:
        return
    for what, kind, attribute in (
        ("releases of fleetcache", "versions-mixed", "version"),
        ("settings of this cache", "settings-mixed", "digest"),
    ):
        counts = Counter(str(getattr(worker, attribute, "")) for worker in fleet.workers)
        if len(counts) > 1:
            among = ", ".join(f"{value or 'unknown'} ({count})" for value, count in counts.most_common(5))
            found = f"{len(fleet.workers)} processes have {len(counts)} {what}: {among}"
            yield finding(kind, examination.subject, found, "Nothing during a deployment; else restart the older ones.")
    if fleet.missing:
        found = "; ".join(fleet.missing[:3]) + f" and {len(fleet.missing) - 3} more" * (len(fleet.missing) > 3)
        if fleet.error is not None and is_outage(fleet.error):
            advice = "Let the server answer again first."
        else:
            advice = "See whether these processes run another release."
        yield finding("workers-unreadable", examination.subject, found, advice)


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
        yield finding("errors-counted", subject, f"{where} counted {among}", "See docs/errors.md for each class.")
