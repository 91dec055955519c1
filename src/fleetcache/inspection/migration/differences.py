"""What behaves differently after the move; docs/migration.md has the whole tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from fleetcache.inspection.migration.origins import DJANGO, DJANGO_REDIS, REDIS_CACHE, VALKEY
from fleetcache.inspection.migration.report import Note
from fleetcache.keys import default_key_function
from fleetcache.settings import Settings

BUGS = "docs/migration.md#fixed-bugs"
OF_DJANGO = "docs/migration.md#from-djangos-own-backend"


@dataclass
class Old:
    """The settings of a cache before the move, and as fleetcache reads them."""

    options: Mapping[str, Any]
    names: Mapping[str, Any]
    """The settings of the project."""
    settings: Settings

    def has(self, option: str, setting: str = "") -> bool:
        """Whether *option*, or the *setting* that stands in for it, is set and not off."""
        return bool(self.options.get(option, self.names.get(setting) if setting else None))

    @property
    def clears_less(self) -> bool:
        """Whether `clear` removes only a part of the database now."""
        return bool(self.settings.key_prefix) and self.settings.options.clear != "database"

    @property
    def herds(self) -> bool:
        """Whether the client is a HerdClient."""
        return any(kind.__name__ == "HerdClient" for kind in self.settings.options.client_class.__mro__)


class Difference(NamedTuple):
    """One difference."""

    holds: Callable[[Old], bool]
    """Whether it matters for these settings."""
    text: str
    docs: str = BUGS


def _always(old: Old) -> bool:
    return True


COMMON = (
    Difference(
        lambda old: old.clears_less,
        "clear() removes only the entries under KEY_PREFIX; it emptied the whole database. CLEAR = 'database' restores that.",
    ),
    Difference(
        lambda old: old.settings.key_function is not default_key_function and old.clears_less,
        "clear() finds the entries by their names. If KEY_FUNCTION does not show the KEY_PREFIX in them, it raises an error.",
    ),
    Difference(
        _always,
        "A payload that cannot be read is a miss, counted and logged; it was an error. UNREADABLE = 'raise' restores that.",
    ),
    Difference(
        _always,
        "get_or_set calls its loader once for all callers of the fleet that miss at the same time.",
        "docs/loading.md",
    ),
    Difference(
        _always,
        "a-methods are coroutines of their own: they use no threads, and do not call the blocking methods.",
        "docs/async.md",
    ),
    Difference(
        lambda old: not old.has("SOCKET_TIMEOUT") and not old.has("socket_timeout"),
        "A call fails if the server does not answer within 5 s (SOCKET_TIMEOUT), and at once while it is away (a breaker).",
        "docs/outages.md",
    ),
    Difference(_always, "Keys that are None, bytes or lists raise InvalidKey; their text was the name."),
)

FORKED = (
    Difference(
        lambda old: old.has("IGNORE_EXCEPTIONS", "DJANGO_REDIS_IGNORE_EXCEPTIONS"),
        "IGNORE_EXCEPTIONS covers every method, and each has its own fallback value; some methods raised.",
        "docs/outages.md#ignore_exceptions",
    ),
    Difference(
        lambda old: (
            old.has("LOG_IGNORED_EXCEPTIONS", "DJANGO_REDIS_LOG_IGNORED_EXCEPTIONS")
            and not old.names.get("DJANGO_REDIS_LOGGER")
        ),
        "Ignored failures are logged by the logger fleetcache; it was django_redis.cache.",
        "docs/migration.md#options",
    ),
    Difference(
        lambda old: not old.names.get("DJANGO_REDIS_SCAN_ITERSIZE"),
        "keys, iter_keys, delete_pattern look at 1000 entries in one step of SCAN; it was 10.",
        "docs/migration.md#options",
    ),
    Difference(
        lambda old: old.has("COMPRESSOR"),
        "Values are read whatever COMPRESSOR is set: it may be changed or left out at any time.",
    ),
    Difference(
        lambda old: old.herds,
        "get_or_set of HerdClient makes a missing value once in the fleet.",
        "docs/migration.md#clients",
    ),
    Difference(_always, "set_many returns a list, and delete_many([]) None, as Django documents them."),
    Difference(_always, "Text is no number: expire(key, '5') and incr(key, '5') raise; they worked."),
    Difference(_always, "delete_pattern removes page by page with UNLINK; it was one transaction."),
)

DIFFERENCES: Mapping[str, tuple[Difference, ...]] = {
    DJANGO_REDIS: (*COMMON, *FORKED),
    VALKEY: (
        Difference(_always, "Connections are made by redis-py, in place of valkey-py; the servers are the same.", ""),
        *COMMON,
        *FORKED,
    ),
    DJANGO: (
        Difference(_always, "Timeouts count milliseconds; 0.5 s deleted the entry.", OF_DJANGO),
        Difference(
            lambda old: "PICKLE_VERSION" not in old.options and "serializer" not in old.options,
            "Pickles have Python's default protocol; it was the highest. PICKLE_VERSION = -1 restores that.",
            OF_DJANGO,
        ),
        Difference(_always, "incr and incr_version are atomic; incr_version keeps the timeout.", OF_DJANGO),
        Difference(_always, "delete_many returns a number; it returned None.", OF_DJANGO),
        *COMMON,
    ),
    REDIS_CACHE: (
        Difference(
            lambda old: len(old.settings.location) > 1,
            "Several servers in LOCATION are a primary and its replicas; they were shards, chosen by the key. Name one server, or "
            "use ShardClient: entries are then on other shards than before.",
            "docs/migration.md#clients",
        ),
        Difference(_always, "set(key, value, timeout=0) deletes the entry; it was stored for ever."),
        Difference(_always, "clear(version=…), reinsert_keys and lock=… do not exist.", ""),
        *COMMON,
    ),
}


def differences(origin: str, old: Old) -> list[Note]:
    """Return what behaves differently for these settings."""
    return [Note(text=each.text, docs=each.docs) for each in DIFFERENCES.get(origin, ()) if each.holds(old)]
