"""Checks of caches of one site that share a database."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fleetcache.inspection.doctor.asking import Examination
from fleetcache.inspection.doctor.findings import Finding, finding
from fleetcache.keys import default_key_function


def check_aliases(examination: Examination) -> Iterator[Finding]:
    """Whether this cache is in the way of another of the same site."""
    mine = {server.address for server in examination.cache.topology.servers}
    for alias, other in examination.others.items():
        if alias != examination.alias and mine & {server.address for server in other.topology.servers}:
            yield from _of_two(examination, alias, other)


def _of_two(examination: Examination, alias: str, other: Any) -> Iterator[Finding]:
    cache, subject = examination.cache, examination.subject
    second = f"the cache {alias!r}" if examination.url else f"CACHES[{alias!r}]"
    own, its = cache.settings.key_prefix, other.settings.key_prefix
    plain = cache._namer is default_key_function and other._namer is default_key_function
    scope = examination.options.clear
    if scope == "database" or (scope == "auto" and not own):
        found = f"clear() empties the database, in which {second} is too"
        advice = "Give each cache a KEY_PREFIX, or a database of its own."
        yield finding("clear-removes-all", subject, found, advice)
    elif plain and own and its.startswith(f"{own}:"):
        found = f"the KEY_PREFIX {its!r} of {second} lies within {own!r}, in the same database"
        advice = "Give one of the two another prefix, such as one without a colon, or another database."
        yield finding("prefixes-nested", subject, found, advice)
    if own == its and cache.settings.version == other.settings.version and _named_alike(cache, other):
        kinds = [type(each.codec.serializer).__name__ for each in (cache, other)]
        differ = kinds[0] != kinds[1]
        found = (
            f"{second} has the same database, KEY_PREFIX and VERSION"
            + f", and writes by {kinds[1]}, not {kinds[0]}" * differ
        )
        advice = "Give each a KEY_PREFIX of its own, unless both shall see the same entries."
        yield finding("names-shared", subject, found, advice, None if differ else "info")


def _named_alike(cache: Any, other: Any) -> bool:
    """Whether the same function or method names the entries of both."""
    kind, its = type(cache), type(other)
    return cache.key_func is other.key_func and kind.name is its.name and kind.make_key is its.make_key
