"""The package's Lua scripts in Python, for ``memory://``; the texts are in `fleetcache.commands`, by the same names.

Each gets the database, its keys and its arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from fleetcache.exchange.contract import Reply

if TYPE_CHECKING:
    from fleetcache.servers.database import Database

Keys = Sequence[bytes]


def incr(database: Database, keys: Keys, delta: bytes, default: bytes, milliseconds: bytes) -> Reply:
    """Add to a number; store *default* first if there is none."""
    (key,) = keys
    if not database.EXISTS(key):
        if not default:
            return None
        database.SET(key, default, *((b"PX", milliseconds) if milliseconds else ()))
    total = database.INCRBY(key, delta)
    return total if abs(total) < 2**53 else database.GET(key)


def swap(database: Database, keys: Keys, old: bytes, new: bytes, *words: bytes) -> Reply:
    """Store *new* if the entry still holds *old*."""
    (key,) = keys
    if database.GET(key) != old:
        return 0
    database.SET(key, new, *words)
    return 1


def release(database: Database, keys: Keys, token: bytes) -> Reply:
    """Delete the lock if it still holds *token*."""
    (key,) = keys
    return database.DEL(key) if database.GET(key) == token else 0


def extend(database: Database, keys: Keys, token: bytes, milliseconds: bytes, replace: bytes) -> Reply:
    """Let the lock live longer if it still holds *token*."""
    (key,) = keys
    if database.GET(key) != token:
        return 0
    left = max(database.PTTL(key), 0) if replace == b"0" else 0
    return database.PEXPIRE(key, b"%d" % (left + int(milliseconds)))


def capture(database: Database, keys: Keys, life: bytes, longer: bytes, *new: bytes) -> Reply:
    """Return the version of each tag; make it if it is missing, and let it live *longer* if less than *life* is left."""
    found = []
    for key, candidate in zip(keys, new, strict=True):
        version = database.GET(key)
        if version is None or len(version) != len(candidate):
            version = candidate
            database.SET(key, version, *((b"PX", longer) if life else ()))
        elif (left := database.PTTL(key)) >= 0:
            if not life:
                database.PERSIST(key)
            elif left < int(life):
                database.PEXPIRE(key, longer)
        found.append(version)
    return found


SCRIPTS: dict[str, Callable[..., Reply]] = {run.__name__: run for run in (incr, swap, release, extend, capture)}
