"""Leases and locks that somebody holds now.

A lease has a name of its own.  A lock is an entry like any other, known only by its value: 32 hexadecimal digits.  So
leases are found by their names, and locks by the values of entries whose keys match a pattern.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from fleetcache import commands as c
from fleetcache.django.admin import showing
from fleetcache.django.admin.found import look
from fleetcache.django.admin.site import Page
from fleetcache.errors import SettingsError
from fleetcache.exchange.contract import Command, Reply
from fleetcache.inspection.blame import blamed
from fleetcache.inspection.names import Wanted, parts, wanted
from fleetcache.keys import CacheKey, default_key_function

LEASE = "fleetcache:lease:"
TOKEN = re.compile(rb"[0-9a-f]{32}")
"""The value of a lock: fleetcache's and redis-py's tokens."""

SECONDS = 0.08
"""How long the page looks for leases, and then for locks."""

EARLIEST = 1_600_000_000
"""A token's number below this time, in seconds since 1970, is not fleetcache's: other tokens are random."""


class Lease(NamedTuple):
    """The permission to load an entry."""

    key: str
    version: str
    state: str
    holder: str
    left: str


class Held(NamedTuple):
    """A lock that is held."""

    key: str
    version: str
    token: str
    since: str
    left: str


class Leases(Page):
    """A row for each lease, and for each lock."""

    slug = "held"
    title = "Leases and locks"
    template = "admin/fleetcache/held.html"

    def context(self, request: Any, alias: str, cache: Any) -> dict[str, Any]:
        """Return the leases and the locks that one walk each finds."""
        shown = partial(self.key, request)
        # Rows of masked keys would tell them letter by letter to whoever may search.
        pattern = (request.GET.get("q", "")[:200] if self.sees_keys(request) else "") or "*"
        leases = look(
            cache,
            Wanted(cache, CacheKey(f"{LEASE}*"), None, library=True),
            request.GET.get("leases") or None,
            _of_lease,
            partial(_lease, cache, shown),
            seconds=SECONDS,
        )
        answer = {"leases": leases, "q": pattern, "locks_onward": "", "leases_onward": ""}
        if leases.cursor:
            answer["leases_onward"] = self.url(cache=alias, q=pattern, leases=leases.cursor)
        try:
            with blamed(cache):
                names = wanted(cache, pattern)
        except (ValueError, SettingsError) as error:
            return {**answer, "unusable": self.failure(request, error)}
        cursor = request.GET.get("locks") or None
        locks = look(cache, names, cursor, _of_lock, partial(_lock, cache, shown), kind="string", seconds=SECONDS)
        if locks.cursor:
            answer["locks_onward"] = self.url(cache=alias, q=pattern, locks=locks.cursor)
        return {**answer, "locks": locks}


def _of_lease(name: bytes) -> Sequence[Command]:
    return (c.GET_NOW, name), (c.PTTL_NOW, name)


def _of_lock(name: bytes) -> Sequence[Command]:
    return (c.GLIMPSE_NOW, name, 0, 32), (c.PTTL_NOW, name)  # one byte more than a token has


def entry_of(lease: bytes) -> bytes:
    """Return the name of the entry that *lease*, made by `fleetcache.keys.lease_name`, is about."""
    rest = lease.removeprefix(LEASE.encode())
    if rest.count(b"}") == 1 and rest.startswith(b"{") and rest.endswith(b"}"):
        return rest[1:-1]
    return rest.partition(b"}")[2]


def _lease(cache: Any, shown: Callable[[str], str], name: bytes, replies: Sequence[Reply]) -> Lease | None:
    value, left = replies
    entry = entry_of(name)
    if type(value) is not bytes or type(left) is not int or not _is_own(cache, entry):
        return None  # it has ended, or is another cache's
    words = value.decode(errors="replace").split(" ")
    holder = words[1] if len(words) > 1 else ""
    over = int(words[2]) if len(words) > 2 and words[2].isascii() and words[2].isdigit() else 0
    waits = max(left - over, 0)
    if words[3:] == ["failed"]:
        state, waits = "failed: nobody tries", left
    else:
        state = "loading" if waits else "late: others may load too"
    version, key = parts(cache, entry)
    return Lease(shown(key), version, state, holder[:8], showing.seconds(waits / 1000))


def _lock(cache: Any, shown: Callable[[str], str], name: bytes, replies: Sequence[Reply]) -> Held | None:
    value, left = replies
    if type(value) is not bytes or not TOKEN.fullmatch(value):
        return None
    began = int(value[:16], 16) / 1e6
    now = time.time()
    since = showing.seconds(max(now - began, 0)) if EARLIEST < began < now + 60 else showing.NONE
    life = "for ever" if left == -1 else showing.seconds(left / 1000) if type(left) is int else showing.NONE
    version, key = parts(cache, name)
    return Held(shown(key), version, f"…{value[-8:].decode()}", since, life)


def _is_own(cache: Any, entry: bytes) -> bool:
    """Whether *entry* is this cache's, as far as its name tells."""
    return cache._namer is not default_key_function or entry.startswith(f"{cache.key_prefix}:".encode())
