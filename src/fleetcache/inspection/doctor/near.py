"""Checks of the near cache: whether the server offers what it needs, and whether it runs."""

from __future__ import annotations

from collections.abc import Iterator

from fleetcache.inspection.doctor.asking import TROUBLE, Examination
from fleetcache.inspection.doctor.findings import Finding, finding
from fleetcache.inspection.rates import READS
from fleetcache.near.stages import State
from fleetcache.probe import examine as probe

WRONG = frozenset((State.OFF, State.DEAD, State.SUSPECT))
PROBED = frozenset(("server", "cluster", "service"))


def check_near(examination: Examination) -> Iterator[Finding]:
    """Whether the near cache works, or would work."""
    place, wanted = examination.settings.location[0], examination.options.near is not None
    protocol = examination.options.connection.get("protocol", 3)
    if protocol == 2 and not wanted:
        advice = "Leave out the option protocol, unless the server or a proxy does not know HELLO."
        yield finding("protocol-old", examination.option("protocol"), "RESP2 is spoken", advice)
    if examination.cache.near is not None:
        state, why = (examination.cache.info()["near"][name] for name in ("state", "why"))
        if state in WRONG:
            yield finding("near-off", examination.subject, f"its state is {state}: {why}", "Do what the reason says.")
    if place.kind not in PROBED or not examination.probes or not examination.primaries or protocol == 2:
        return
    try:
        report = probe(examination.settings)
    except TROUBLE as error:
        found = f"whether the near cache works: {error}"
        yield finding(
            "not-checked", examination.subject, found, f"This command may tell more: {examination.commands('probe')}"
        )
        return
    if report.works and not wanted and not _unread(examination):
        found = f"{report.server} at {report.address} offers what the near cache needs"
        how = "Add near=true to the URL" if examination.url else "Set OPTIONS['NEAR'] = True"
        yield finding("near-possible", examination.subject, found, f"{how} if values are read often.")
    elif wanted and not report.works:
        missing = report.missing[0] if report.missing else None
        found = f"{missing.name}: {missing.found}" if missing else "no check was made"
        yield finding(
            "near-refused", report.address, found, missing.remedy if missing else f"See {examination.commands('probe')}"
        )


def _unread(examination: Examination) -> bool:
    """Whether there are processes that publish what they count, and none of them has read anything."""
    fleet = examination.fleet
    if fleet is None or not fleet.workers or not fleet.totals:
        return False
    groups = (fleet.totals.get("groups") or {}).values()
    return not any(group.get(level) for group in groups for level in READS)
