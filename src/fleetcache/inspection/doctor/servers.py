"""Checks of each server: whether it answers, its version, its memory, its connections."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

from fleetcache.errors import AccessDenied, NoSuchDatabase, UnsupportedServer, advice_of, fault_of
from fleetcache.inspection.doctor.asking import Asked, Examination
from fleetcache.inspection.doctor.findings import Finding, Severity, finding
from fleetcache.near.refusals import OLDEST

FULL = 0.9
"""From which share of its limit on memory is called full."""
MANY = 0.8
"""From which share of `maxclients` on connections are called many."""

ENDS = {
    ("Redis", 7, 0): date(2024, 7, 29),
    ("Redis", 8, 0): date(2026, 2, 11),
    ("Valkey", 7, 2): date(2029, 4, 16),
    ("Valkey", 8, 0): date(2027, 9, 15),
    ("Valkey", 8, 1): date(2030, 3, 31),
    ("Valkey", 9, 0): date(2028, 10, 21),
}
"""When the last corrections of a release are due, as far as it is known (endoflife.date, 2026)."""

REFUSING = (AccessDenied, NoSuchDatabase, UnsupportedServer)


def check_answers(examination: Examination) -> Iterator[Finding]:
    """Whether every server answers, and lets the user in."""
    for asked in examination.servers:
        why = fault_of(asked.trouble).removeprefix(f"{asked.address}: ") if asked.trouble is not None else ""
        if isinstance(asked.trouble, REFUSING):
            advice = advice_of(asked.trouble, examination.location) or (
                "Correct the user, the password or the number of the database, or give the user the right it names."
            )
            yield finding("server-refuses", asked.address, why, advice)
        elif asked.trouble is not None:
            advice = f"Start the server, or correct {examination.location}; see also what stands between here and the server."
            yield finding("server-away", asked.address, why, advice)
        if "INFO" in asked.refused:
            found = f"the server says to INFO: {asked.refused['INFO']}"
            advice = f"Allow it: ACL SETUSER {asked.user or 'USER'} +info"
            yield finding("not-checked", asked.address, found, advice)


def check_version(examination: Examination) -> Iterator[Finding]:
    """Whether fleetcache supports the server's version, and whether its makers still do."""
    for asked in examination.answering:
        release = asked.info.get("redis_version", "").split(".")
        if not release[0].isdigit():
            continue
        if int(release[0]) < OLDEST:
            yield finding("version-unsupported", asked.address, asked.name, "Use Redis 7.0 or later, or Valkey.")
            continue
        name, _, version = asked.name.partition(" ")
        major, minor, *_ = (*version.split("."), "0", "0")
        ends = ENDS.get((name, int(major), int(minor))) if major.isdigit() and minor.isdigit() else None
        if ends is not None and ends < date.today():  # noqa: DTZ011 - a day more or less does not matter
            advice = "Use a newer release, unless your distribution corrects this one itself."
            found = f"{name} {major}.{minor}, which its makers have not corrected since {ends}"
            yield finding("version-ended", asked.address, found, advice)


def check_memory(examination: Examination) -> Iterator[Finding]:
    """Whether the memory has a limit, and what happens there."""
    for asked in examination.answering:
        if asked.role == "slave":
            continue  # a replica does as its primary does
        limit, used, policy = asked.number("maxmemory"), asked.number("used_memory"), policy_of(asked)
        if limit == 0:
            advice = "Set maxmemory to what the machine can spare, and maxmemory-policy to allkeys-lfu or allkeys-lru."
            yield finding("memory-unlimited", asked.address, "maxmemory is not set", advice)
        elif policy == "noeviction":
            advice = "Set maxmemory-policy to allkeys-lfu or allkeys-lru, unless other programs keep data there that must stay."
            yield finding("eviction-off", asked.address, "maxmemory-policy is noeviction", advice)
        if limit and used is not None and used >= FULL * limit:
            found = f"{megabytes(used)} of {megabytes(limit)} are used"
            advice = "Raise maxmemory, shorten timeouts, or compress values (COMPRESSOR)."
            severity: Severity | None = "error" if policy == "noeviction" and used >= limit else None
            yield finding("memory-full", asked.address, found, advice, severity)
        if evicted := asked.number("evicted_keys"):
            found = f"{evicted} entries were evicted since the server started"
            yield finding("evictions", asked.address, found, "Raise maxmemory if the hit ratio is too low.")
        if (
            asked.info.get("rdb_last_bgsave_status") == "err"
            and asked.config.get("stop-writes-on-bgsave-error") == "yes"
        ):
            found = "the last attempt to save the data failed, and stop-writes-on-bgsave-error is set"
            advice = 'See the server\'s log: often its disk is full. A cache needs no saving: CONFIG SET save ""'
            yield finding("writes-stopped", asked.address, found, advice)


def policy_of(asked: Asked) -> str:
    """Return the server's maxmemory-policy; "" if it is not told."""
    return asked.info.get("maxmemory_policy") or asked.config.get("maxmemory-policy", "")


def check_connections(examination: Examination) -> Iterator[Finding]:
    """Whether the server accepts as many connections as the processes may open."""
    for asked in examination.answering:
        told = asked.info.get("maxclients") or asked.config.get("maxclients", "")
        limit, connected = int(told) if told.isdigit() else 0, asked.number("connected_clients") or 0
        rejected = asked.number("rejected_connections") or 0
        most, found = most_connections(examination), ""
        if rejected:
            found = f"it has refused {rejected} connections since it started; maxclients is {limit}"
        elif limit and connected >= MANY * limit:
            found = f"{connected} of maxclients = {limit} are connected"
        elif limit and most > limit:
            found = f"{examination.workers} processes may open {most} connections; maxclients is {limit}"
        if found:
            advice = "Raise maxclients (and the limit of open files), lower MAX_CONNECTIONS, or run fewer processes."
            yield finding("connections-many", asked.address, found, advice)


def most_connections(examination: Examination) -> int:
    """Return how many connections the fleet may open to one server; 0 if it is not known."""
    options = examination.options
    own = options.max_connections or options.connection_pool_kwargs.get("max_connections") or 0
    if not own or not examination.workers:
        return 0
    near = 1 if examination.cache.near is not None else 0
    return examination.workers * (own + near)


def check_tracking_table(examination: Examination) -> Iterator[Finding]:
    """Whether the table of keys that other clients track is full."""
    for asked in examination.answering:
        most = asked.config.get("tracking-table-max-keys", "")
        tracked = asked.number("tracking_total_keys") or 0
        if most.isdigit() and int(most) and tracked >= FULL * int(most):
            found = f"{tracked} keys are tracked; tracking-table-max-keys is {most}"
            yield finding("tracking-table-full", asked.address, found, "Raise tracking-table-max-keys.")


def megabytes(count: int) -> str:
    """Return a number of bytes as text."""
    return f"{count / 1e6:.3g} MB"
