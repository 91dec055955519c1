"""Takes a lock on the server, with a token that grows.

A holder that was stopped for longer than its lock lives may write when the next holder has the lock.  Only the store
that it writes to can refuse this, if every writer shows a number that grows with each holder (a *fencing token*;
M. Kleppmann, "How to do distributed locking", 2016).  So a token begins with 16 hexadecimal digits of such a number;
16 random ones follow.  To redis-py and django-redis a token is a text like any other.

The number is the server's time in microseconds, or one more than the last number if that is not less.  Therefore it
grows after a step of the clock, and also if the key of the last number is lost.  One key serves all locks of a server,
or of a slot in a cluster.

A server that refuses this script is asked for less: `FORMS`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from time import monotonic, time_ns
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

from redis.exceptions import NoPermissionError, ResponseError, TryAgainError

from fleetcache import commands as c
from fleetcache.core import Core
from fleetcache.exchange.contract import Command
from fleetcache.keys import LAST_NUMBER, last_number
from fleetcache.servers.borrowed import is_pipeline
from fleetcache.topology.contract import Topology

log = logging.getLogger("fleetcache.locks")

REMEMBERED = 60.0
"""For how many seconds a server is not asked again in a form that it refused."""

Life: TypeAlias = tuple[str, int] | tuple[()]


def _numbered(name: str, end: str, life: Life, *, cluster: bool) -> Command:
    """Ask with the key of the last number."""
    return (c.ADMIT, c.LOCK, 2, name, last_number(name) if cluster else LAST_NUMBER, end, *life)


def _dated(name: str, end: str, life: Life, *, cluster: bool) -> Command:
    """Ask without: for a user who may not touch that key, or while the slot moves to another node of the cluster."""
    return (c.ADMIT, c.LOCK, 1, name, end, *life)


def _plain(name: str, end: str, life: Life, *, cluster: bool) -> Command:
    """Ask without a script; the number is the time of this machine."""
    return (c.ACQUIRE, name, b"%016x%s" % (time_ns() // 1000, end.encode()), *life, "NX")


FORMS: tuple[Callable[..., Command], ...] = (_numbered, _dated, _plain)
"""The forms of the question, the best one first."""

_refused: WeakKeyDictionary[Topology, tuple[int, float]] = WeakKeyDictionary()
"""The place of the form in which to ask servers that refuse the first one, and until when."""


def end_of_token() -> str:
    """Return the random end of a new token."""
    return os.urandom(8).hex()


async def take(store: Core, name: str, mine: bytes | None, end: str, lifetime: int | None, client: Any) -> bytes | None:
    """Ask once for the lock called *name*; return its token, or None if it is taken.

    The token is *mine*, or a new one that ends with *end*.
    """
    life: Life = () if lifetime is None else ("PX", lifetime)
    if mine is not None:
        return mine if await store.strict.ask((c.ACQUIRE, name, mine, *life, "NX"), None, client) else None
    if _refused or client is not None:
        return await _take(store, name, end, life, client)
    try:
        command = _numbered(name, end, life, cluster=store.topology.one_by_one)
        token: bytes | None = await store.strict.ask(command, None)
    except ResponseError as refusal:
        if not _asks_too_much(refusal):
            raise
        return await _take(store, name, end, life, None)
    return token


async def _take(store: Core, name: str, end: str, life: Life, client: Any) -> bytes | None:
    """Ask in one form after another until the server does not refuse it."""
    topology = store.topology
    place, until = _refused.get(topology, (0, 0.0))
    if is_pipeline(client):
        place = len(FORMS) - 1  # its reply, the token of a script, comes later
    elif until < monotonic():
        place = 0
    while True:
        command = FORMS[place](name, end, life, cluster=topology.one_by_one)
        try:
            taken = await store.strict.ask(command, None, client)
        except ResponseError as refusal:
            if command[0] is c.ACQUIRE or not _asks_too_much(refusal):
                raise
            place += 1
            if client is None and not isinstance(refusal, TryAgainError):
                _remember(store, place, refusal)
        else:
            token: bytes | None = command[2] if command[0] is c.ACQUIRE and taken else taken
            return token


def _asks_too_much(refusal: ResponseError) -> bool:
    """Whether the server refuses the script or its second key, and not the lock."""
    words = str(refusal).lower()
    return isinstance(refusal, (NoPermissionError, TryAgainError)) or any(
        sign in words for sign in ("acl failure", "unknown command", "crossslot", "same slot")
    )


def _remember(store: Core, place: int, refusal: ResponseError) -> None:
    known = store.topology in _refused
    _refused[store.topology] = (place, monotonic() + REMEMBERED)
    if not known:
        log.warning(
            "%r: the tokens of locks grow only as a clock does, because the server refuses the script that numbers "
            "them, or its key %s: %s",
            store, LAST_NUMBER, refusal,
            extra={"event": "tokens"},
        )  # fmt: skip
