"""Every kind of finding.  docs/doctor.md describes each under its id."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

Severity: TypeAlias = Literal["error", "warning", "info"]

ORDER: Mapping[str, int] = {"error": 0, "warning": 1, "info": 2}
NOUNS: Mapping[str, str] = {"error": "error", "warning": "warning", "info": "note"}
PAGE = "docs/doctor.md"


class Kind(NamedTuple):
    """A kind of finding."""

    severity: Severity
    """How bad it is, unless a finding says otherwise."""
    why: str
    """Why it matters."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that is wrong, or worth knowing."""

    id: str
    """The kind of finding, a key of `KINDS`; it stays the same in all releases."""
    severity: Severity
    """``error``: something does not work.  ``warning``: it may stop working, or harm.  ``info``: worth knowing."""
    subject: str
    """What it is about: the address of a server, an option, an alias."""
    found: str
    """What was found."""
    why: str
    """Why it matters."""
    advice: str
    """What to do."""
    docs: str
    """The page and the section that say more."""

    @property
    def noun(self) -> str:
        """The severity as people read it: an ``info`` is a note."""
        return NOUNS[self.severity]

    def as_dict(self) -> dict[str, Any]:
        """Return the finding as ``--json`` prints it."""
        return asdict(self)


def finding(id: str, subject: str, found: str, advice: str, severity: Severity | None = None) -> Finding:
    """Return a finding of the kind *id*."""
    kind = KINDS[id]
    return Finding(
        id=id,
        severity=severity or kind.severity,
        subject=subject,
        found=found,
        why=kind.why,
        advice=advice,
        docs=f"{PAGE}#{id}",
    )


OF_SERVER = frozenset(
    (
        *("version-unsupported", "version-ended", "memory-unlimited", "memory-full", "eviction-off", "evictions"),
        *("writes-stopped", "tracking-table-full"),
    )
)
"""The kinds that are about a whole server, whichever of its databases a cache uses."""


def told_once(found: Mapping[str, list[Finding]]) -> dict[str, list[Finding]]:
    """Return the findings of each alias without those of `OF_SERVER` that an alias before has for the same server."""
    known: set[tuple[str, str]] = set()
    left: dict[str, list[Finding]] = {}
    for alias, findings in found.items():
        places = [(each.id, each.subject.rpartition("/")[0] or each.subject) for each in findings]
        left[alias] = [
            each for each, place in zip(findings, places, strict=True) if each.id not in OF_SERVER or place not in known
        ]
        known.update(places)
    return left


def by_severity(findings: list[Finding]) -> list[Finding]:
    """Return *findings*, the worst first; those that are equally bad stay in their order."""
    return sorted(findings, key=lambda each: ORDER[each.severity])


KINDS: Mapping[str, Kind] = {
    # asking
    "settings-refused": Kind("error", "The first use of this cache raises an error."),
    "server-away": Kind("error", "Every call fails, or with IGNORE_EXCEPTIONS every read is a miss."),
    "server-refuses": Kind("error", "Every call fails, or with IGNORE_EXCEPTIONS every read is a miss."),
    "not-checked": Kind("info", "Findings that depend on this are missing from the list."),
    # servers
    "version-unsupported": Kind("error", "Fleetcache uses commands that this server does not know."),
    "version-ended": Kind("warning", "Security errors of this version are not corrected any more."),
    "memory-unlimited": Kind("warning", "The cache grows until the system stops the server, and all entries are lost."),
    "memory-full": Kind("warning", "Soon the server evicts entries, or refuses writes."),
    "eviction-off": Kind("warning", "When the memory is full, every write fails with an OOM error."),
    "eviction-of-some": Kind(
        "warning",
        "The policy evicts only entries with a timeout. Entries without one stay and fill the memory, until every "
        "write fails with an OOM error.",
    ),
    "evictions": Kind("info", "Entries disappear before their timeout, so that the hit ratio is lower."),
    "writes-stopped": Kind("error", "The server refuses every write, since it cannot save its data."),
    "connections-many": Kind("warning", "At its limit the server refuses new connections: TooManyConnections."),
    "tracking-table-full": Kind(
        "info",
        "Another client has the server remember which keys it read; the table is full, so that its copies are given up "
        "early. Fleetcache is not affected: it asks for announcements by prefix.",
    ),
    # near
    "near-refused": Kind("error", "The near cache is off, so that every read goes to the server."),
    "near-off": Kind("warning", "The near cache keeps no copies at the moment, so that every read goes to the server."),
    "near-possible": Kind("info", "Reads of copies in the process take a microsecond, and load no server."),
    "protocol-old": Kind("info", "With RESP2 a server cannot announce changes, so that there is no near cache."),
    # access
    "password-in-clear": Kind("warning", "Everybody on the way can read the password."),
    "pickle-in-clear": Kind(
        "warning", "Whoever can change bytes on the way, or write to the server, can run code in your processes."
    ),
    "certificate-unchecked": Kind("warning", "Another server can pose as this one, and read the password."),
    "right-missing": Kind("error", "The server refuses these commands to this user."),
    "names-refused": Kind("error", "The server refuses these names to this user."),
    # places
    "clock-apart": Kind(
        "warning", "Fresh lives and absolute timeouts (`expire_at`) end too early or too late by this time."
    ),
    "clocks-differ": Kind("warning", "The same entry is fresh on one primary and old on another."),
    "not-primary": Kind("error", "Every write fails with READONLY."),
    "replica-behind": Kind("warning", "Reads from this replica return old values."),
    "replica-away": Kind("warning", "This replica does not follow its primary: its values stay as they were."),
    "sentinels-few": Kind("warning", "If one Sentinel fails, too few are left to promote a replica."),
    "sentinel-away": Kind("warning", "A Sentinel that does not answer cannot help to promote a replica."),
    "quorum-missing": Kind("error", "If the primary fails, no replica is promoted."),
    "slots-uncovered": Kind("error", "No node holds these slots, so that calls about their keys fail."),
    "node-away": Kind("warning", "The other nodes of the cluster take this node for failed."),
    # aliases
    "prefixes-nested": Kind("warning", "`clear()` of the outer cache removes the entries of the inner one."),
    "clear-removes-all": Kind("warning", "`clear()` of one of these caches removes the entries of all."),
    "names-shared": Kind("warning", "The same key names the same entry in both caches."),
    # entries
    "database-shared": Kind("info", "The database has names that are not this cache's."),
    "timeout-missing": Kind("info", "Entries without a timeout stay until they are evicted or deleted."),
    "pickles-found": Kind(
        "warning",
        "The configured serializer does not unpickle, so that these entries are unreadable. Somebody still writes "
        "pickles: an old process, or an attacker.",
    ),
    "format-foreign": Kind("warning", "The configured serializer cannot read these entries: reads of them miss."),
    "library-missing": Kind("error", "Compressed entries cannot be read without the library."),
    "unreadable-for-others": Kind(
        "info",
        "django-redis and Django's own backend cannot read entries in an envelope; of the others they read the value, and ignore "
        "tags and ages.",
    ),
    "unreadable-counted": Kind("warning", "Each such read is a miss, and the value is made anew."),
    "loads-fail": Kind("warning", "These values are never in the cache, so that each caller runs the loader again."),
    "errors-counted": Kind("info", "Each was a failed call, or with IGNORE_EXCEPTIONS a miss."),
    # options
    "option-without-effect": Kind("warning", "The option does nothing."),
    "timeout-absent": Kind("warning", "A server that does not answer stops a caller for ever."),
    "connections-closed": Kind(
        "info", "Each request connects anew, which takes longer than the command, and more so with TLS."
    ),
    "near-too-large": Kind("warning", "The copies of all processes may take more memory than the machine has."),
    # workers
    "versions-mixed": Kind("warning", "Older processes may not be able to read what newer ones write."),
    "settings-mixed": Kind("warning", "Processes with other settings may use other names, formats or timeouts."),
    "workers-unreadable": Kind("info", "The figures of these processes are missing."),
}
"""Every kind of finding, by its id."""
