"""The checks, in their order, and `examine`, which runs them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from fleetcache.fleet import Fleet
from fleetcache.inspection.advice import Commands
from fleetcache.inspection.blame import SiteFailed, blamed, told
from fleetcache.inspection.doctor.access import check_rights, check_way
from fleetcache.inspection.doctor.aliases import check_aliases
from fleetcache.inspection.doctor.asking import Examination
from fleetcache.inspection.doctor.entries import check_entries
from fleetcache.inspection.doctor.findings import Finding, by_severity, finding
from fleetcache.inspection.doctor.near import check_near
from fleetcache.inspection.doctor.options import check_effect, check_harm
from fleetcache.inspection.doctor.places import check_clocks, check_cluster, check_replicas, check_sentinels
from fleetcache.inspection.doctor.servers import (
    check_answers,
    check_connections,
    check_memory,
    check_tracking_table,
    check_version,
)
from fleetcache.inspection.doctor.workers import check_counters, check_workers
from fleetcache.interrupts import let_pass

CHECKS: tuple[Callable[[Examination], Iterator[Finding]], ...] = (
    check_effect,
    check_harm,
    check_aliases,
    check_answers,
    check_version,
    check_memory,
    check_connections,
    check_tracking_table,
    check_way,
    check_rights,
    check_clocks,
    check_replicas,
    check_sentinels,
    check_cluster,
    check_near,
    check_entries,
    check_workers,
    check_counters,
)


def examine(
    cache: Any,
    *,
    alias: str = "",
    others: Mapping[str, Any] | None = None,
    fleet: Fleet | None = None,
    probes: bool = True,
    url: str = "",
    commands: Commands | None = None,
) -> list[Finding]:
    """Return what is wrong with *cache*, its servers and its settings, the worst first.

    *others* are the caches of the same site by alias, *alias* this one's; *fleet* is the result of ``fleet.gather``.
    With *probes* the near cache is probed, which writes one small entry that expires; nothing else is written.
    *url* names the place where a URL is written that is all there is of the settings, such as ``FLEETCACHE_URL``; else the
    cache is one of ``CACHES``.  *commands* writes the commands that the advice names.

    A server that is away, or refuses a command, is a finding and no error.  All servers are asked over connections of
    their own, with 5 seconds for each exchange; after 30 seconds no further check begins.
    """
    examination = Examination(cache, alias, others or {}, fleet, probes=probes, url=url, commands=commands)
    found: list[Finding] = []
    for check in CHECKS:
        what = (check.__doc__ or "").splitlines()[0].rstrip(".")
        if examination.late:
            found.append(finding("not-checked", examination.subject, f"{what}: the time was over", "Run it again."))
            continue
        try:
            found += check(examination)
        except Exception as error:  # noqa: BLE001 - whatever a check met, the others go on
            let_pass(error)
            found.append(_stopped(examination, what, error))
    return by_severity(list(dict.fromkeys(found)))


def _stopped(examination: Examination, what: str, error: Exception) -> Finding:
    """Return the finding about a check that raised *error*."""
    if of_site := told(error, examination.cache):
        return finding("settings-refused", examination.subject, of_site, "Correct this function.")
    text = f"{what}: {type(error).__name__}: {error}"
    return finding("not-checked", examination.subject, text, "This is an error of fleetcache: report it.")


def answers(cache: Any) -> bool:
    """Whether every server of *cache* that is not in this process answers, within 5 seconds each."""
    try:
        with blamed(cache):
            return all(asked.trouble is None for asked in Examination(cache, "", {}, None).servers)
    except SiteFailed:
        return False  # `examine` says so


def refused(alias: str, error: Exception, url: str = "") -> Finding:
    """Return the finding for a cache whose settings are wrong, or need a library; *url* is that of `examine`."""
    return finding("settings-refused", url or f"CACHES[{alias!r}]", str(error), "Do what the message says.")
