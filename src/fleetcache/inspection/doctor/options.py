"""Checks of options that contradict each other, do nothing, or harm."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from platform import node

from fleetcache.inspection.doctor.asking import Examination
from fleetcache.inspection.doctor.findings import Finding, Severity, finding
from fleetcache.inspection.doctor.servers import megabytes

MANY_WORKERS = 8


def check_effect(examination: Examination) -> Iterator[Finding]:
    """Whether each option that was written has an effect."""
    for name, found, advice in idle(examination):
        yield finding("option-without-effect", examination.option(name), found, advice)


def idle(examination: Examination) -> Iterator[tuple[str, str, str]]:
    """Yield the name of each option without effect, why it has none, and what to do."""
    settings, options, where = examination.settings, examination.options, examination.location
    herds = any(kind.__name__ == "HerdClient" for kind in options.client_class.__mro__)
    in_memory = settings.location[0].kind == "memory"
    if not options.ignore_exceptions:
        if options.outage_ttl:
            yield (
                "OUTAGE_TTL",
                "IGNORE_EXCEPTIONS is off, so that calls raise while the server is away",
                "Set IGNORE_EXCEPTIONS, or leave it out.",
            )
        if options.raise_for:
            yield "RAISE_FOR", "IGNORE_EXCEPTIONS is off, so that every failure is raised", "Leave it out."
        if options.log_ignored_exceptions:
            yield "LOG_IGNORED_EXCEPTIONS", "IGNORE_EXCEPTIONS is off, so that nothing is ignored", "Leave it out."
    if "HERD_TIMEOUT" in options.given and not herds:
        yield (
            "HERD_TIMEOUT",
            "only HerdClient reads it",
            "Use stale_while_revalidate of get_or_set, or CLIENT_CLASS = 'HerdClient'.",
        )
    if in_memory and options.near is not None:
        yield "NEAR", "the entries of memory:// are in this process already", "Leave it out."
    if options.near is not None and options.connection.get("protocol") == 2:
        yield "NEAR", 'with "protocol": 2 a server cannot announce changes', "Leave out the option protocol."
    replicas = len(settings.location) > 1 or settings.location[0].kind in {"cluster", "service"}
    if options.read_from in {"replica", "nearest"} and not replicas and not _asks_sentinels(examination):
        yield "READ_FROM", f"{where} names no replica", f"Name the replicas in {where}, after the primary."
    if not options.replica_read_only and len(settings.location) < 2:
        yield "REPLICA_READ_ONLY", f"{where} names no other server", "Leave it out."
    if "PICKLE_VERSION" in options.given and not getattr(examination.cache.codec.serializer, "pickles", False):
        yield "PICKLE_VERSION", "the SERIALIZER does not pickle", "Leave it out."
    compresses = type(examination.cache.codec.compressor).__name__ != "IdentityCompressor"
    for name in ("COMPRESS_LEVEL", "COMPRESS_MIN_LENGTH"):
        if name in options.given and not compresses:
            yield name, "there is no COMPRESSOR", "Leave it out, or set COMPRESSOR."


def _asks_sentinels(examination: Examination) -> bool:
    return bool(examination.options.sentinels)


def check_harm(examination: Examination) -> Iterator[Finding]:
    """Whether an option harms: no deadline, connections that are closed, more copies than there is memory."""
    options = examination.options
    for name, limit in (
        ("SOCKET_TIMEOUT", options.socket_timeout),
        ("SOCKET_CONNECT_TIMEOUT", options.socket_connect_timeout),
    ):
        if not limit and examination.settings.location[0].kind != "memory":
            advice = "Leave it out: the default is 5 s."
            yield finding("timeout-absent", examination.option(name), f"{name} is {limit!r}: no limit", advice)
    if options.close_connection:
        workers = examination.workers
        among = f", by {workers} processes" if workers else ""
        severity: Severity | None = "warning" if workers >= MANY_WORKERS else None
        advice = "Leave it out: connections that are idle do no harm, and one that the server closed is replaced."
        found = f"connections are closed at the end of each request{among}"
        yield finding("connections-closed", examination.option("CLOSE_CONNECTION"), found, advice, severity)
    if options.near is not None:
        here = _on_this_machine(examination)
        most, memory = options.near.max_bytes * max(here, 1), machine_memory()
        if memory and most > memory:
            among = f" in each of {here} processes" if here > 1 else ""
            found = f"MAX_BYTES is {megabytes(options.near.max_bytes)}{among}; this machine has {megabytes(memory)}"
            yield finding("near-too-large", examination.option("NEAR"), found, "Set a smaller MAX_BYTES.")


def _on_this_machine(examination: Examination) -> int:
    if examination.fleet is None:
        return 0
    return sum(worker.host == node() for worker in examination.fleet.workers)


def machine_memory() -> int:
    """Return how many bytes of memory this process may use: those of the machine, or of its container; 0 if unknown."""
    found: list[int] = []
    with suppress(ValueError, OSError, AttributeError):
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    with suppress(ValueError, OSError):
        found.append(int(Path("/sys/fs/cgroup/memory.max").read_text()))  # "max" is no number
    return min(found, default=0)
