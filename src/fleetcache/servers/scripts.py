"""The package's Lua scripts in Python, for ``memory://``; the texts are in `fleetcache.commands`, by the same names.

Each gets the database, its keys and its arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from hashlib import sha1
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


def lock(database: Database, keys: Keys, end: bytes, *words: bytes) -> Reply:
    """Take the lock if it is free, with a token that begins with a number above the last one."""
    key, *last = keys
    number = b"%016x" % (database.now * 1000)
    before = database.GET(last[0]) if last else None
    if before is not None and before >= number:
        with suppress(ValueError):
            number = b"%016x" % (int(before, 16) + 1)
    if not database.SET(key, number + end, b"NX", *words):
        return None
    if last:
        database.SET(last[0], number, b"PX", b"604800000")
    return number + end


def release(database: Database, keys: Keys, token: bytes) -> Reply:
    """Delete the lock if it still holds *token*."""
    (key,) = keys
    return database.DEL(key) if database.GET(key) == token else 0


def release_ending(database: Database, keys: Keys, end: bytes) -> Reply:
    """Delete the lock if its token ends with *end*."""
    (key,) = keys
    return database.DEL(key) if (database.GET(key) or b"").endswith(end) else 0


def extend(database: Database, keys: Keys, token: bytes, milliseconds: bytes, how: bytes) -> Reply:
    """Let the lock live longer if it still holds *token*."""
    (key,) = keys
    if database.GET(key) != token:
        return 0
    left = database.PTTL(key)
    if how == b"2" and left > int(milliseconds):
        return 1
    left = max(left, 0) if how == b"0" else 0
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


def _is_same(database: Database, key: bytes, mode: bytes, mark: bytes) -> bool:
    """Whether the entry is still the one that *mark* describes."""
    payload = database.GET(key)
    if not mode or payload is None:
        return not mode and payload is None
    if mode == b"head":
        return bool(payload.startswith(mark))
    return sha1(payload).hexdigest().encode() == mark  # noqa: S324 - as the script does


def _lease(database: Database, lease: bytes) -> tuple[bytes, bytes, int, bool]:
    """Return the parts of a lease, empty if there is none: see `fleetcache.commands`."""
    words = (database.GET(lease) or b"").split(b" ")
    return (words[0], words[1], int(words[2]), len(words) > 3) if len(words) > 2 else (b"", b"", 0, False)


def take(database: Database, keys: Keys, mode: bytes, mark: bytes, mine: bytes, me: bytes, *times: bytes) -> Reply:
    """Take the lease, or without *times* look at it; the reply says what is there."""
    key, lease = keys
    if not _is_same(database, key, mode, mark):
        payload = database.GET(key)
        return [0, b"gone"] if payload is None else [0, b"entry", payload]
    generation, holder, over, failed = _lease(database, lease)
    left = database.PTTL(lease) - over if generation else 0
    if failed:
        return [left, b"failed", generation, holder]
    if generation and holder == me:
        return [left, b"mine", generation, holder]
    if generation and (left > 0 or not times):
        return [left, b"held", generation, holder]
    if not times:
        return [0, b"free"]
    hold, keep = map(int, times)
    database.SET(lease, b"%s %s %d" % (generation or mine, me, keep - hold), b"PX", times[1])
    return [hold, b"mine", generation or mine, me]


def fill(
    database: Database, keys: Keys, generation: bytes, mode: bytes, mark: bytes, payload: bytes, life: bytes, *of: bytes
) -> Reply:
    """Store what was loaded if the lease stands, the entry is the one that was judged, and each tag has its version."""
    key, lease, *tags = keys
    standing, _, _, failed = _lease(database, lease)
    if standing != generation or failed:
        return int(database.GET(key) == payload)
    if not _is_same(database, key, mode, mark):
        return -1
    if [database.GET(tag) for tag in tags] != list(of):
        return -2
    database.SET(key, payload, *((b"PX", life) if life else ()))
    database.DEL(lease)
    return 1


def letgo(database: Database, keys: Keys, me: bytes, pause: bytes) -> Reply:
    """Give up the lease; or note in it that no process shall try for *pause* milliseconds."""
    _, lease = keys
    generation, holder, _, _ = _lease(database, lease)
    if not generation or holder != me:
        return 0
    if int(pause) <= 0:
        return database.DEL(lease)
    database.SET(lease, b"%s %s 0 failed" % (generation, me), b"PX", pause)
    return 1


def ending(database: Database, keys: Keys, glob: bytes, life: bytes) -> Reply:
    """End the epoch, and note the glob of what is being deleted."""
    epoch, gone = keys
    ended = database.GET(epoch)
    if ended is None and not database.EXISTS(gone):
        return 0
    if ended is None or len(ended) != 8:
        ended = b"--------"
    database.LPUSH(gone, ended + glob)
    database.LTRIM(gone, b"0", b"99")
    database.PEXPIRE(gone, life)
    return database.DEL(epoch)


def noted(database: Database, keys: Keys, new: bytes, life: bytes) -> Reply:
    """Return the epoch, made if there is none, and what has ended earlier ones."""
    key, gone = keys
    epoch = database.GET(key)
    if epoch is None or len(epoch) != len(new):
        epoch = new
        database.SET(key, epoch, b"PX", life)
    elif 0 <= database.PTTL(key) < int(life):
        database.PEXPIRE(key, life)
    return [epoch, *database.LRANGE(gone, b"0", b"-1")]


SCRIPTS: dict[str, Callable[..., Reply]] = {
    run.__name__: run
    for run in (incr, swap, lock, release, release_ending, extend, capture, take, fill, letgo, ending, noted)
}
