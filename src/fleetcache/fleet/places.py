"""The names under which a fleet's figures are stored, beside the entries of the cache and outside of its prefix.

The entries of all processes are found without a scan, which would visit every key of the database: each is a member of
a sorted set, with the time of its expiry as its score.  There are eight such sets, and a process chooses one of them by
chance.  A set and the entries that it names are in one slot, so that a cluster with a node away still knows the
processes in the other parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fleetcache import commands as c
from fleetcache.exchange.contract import Verb
from fleetcache.masking import with_article

PARTS = 8
"""In how many parts the list of a fleet's processes is divided."""

PERIOD = 300
"""The seconds that one hash of the history stands for."""

DAY = 86400
"""How many seconds of history are kept."""

# All of them may run twice, as the same words are written again; HINCRBY may not.
ENTER = Verb("SET", c.TEXT, harmless=True)
LIST, UNLIST = Verb("ZADD", c.COUNT, harmless=True), Verb("ZREMRANGEBYSCORE", c.COUNT, harmless=True)
LIVE_ON = c.PEXPIRE
ADD, SIZE = c.HINCRBY, Verb("HLEN", c.COUNT, harmless=True)
MEMBERS, COUNTED = Verb("ZREVRANGE", harmless=True), Verb("ZCARD", c.COUNT, harmless=True)
READ = Verb("MGET", harmless=True, names=2**31)
SUMS = Verb("HGETALL", harmless=True)
MEANS, TELL = Verb("HMGET", harmless=True), Verb("HSET", c.COUNT, harmless=True)


def list_name(part: int, prefix: str) -> str:
    """Return the name of the sorted set of the processes in *part*."""
    return f"fleetcache:workers:{{{part}}}:{prefix}"


def worker_name(part: int, prefix: str, host: str, pid: int, mark: str) -> str:
    """Return the name of a process' entry."""
    return f"fleetcache:worker:{{{part}}}:{prefix}:{host}:{pid}:{mark}"


def history_name(period: int, prefix: str) -> str:
    """Return the name of the hash of the *period*-th five minutes since 1970."""
    return f"fleetcache:history:{{{period}}}:{prefix}"


def loads_name(prefix: str) -> str:
    """Return the name of the hash of what loads take."""
    return f"fleetcache:loads:{prefix}"


def fits(reply: Any, kinds: type | tuple[type, ...]) -> Any:
    """Return *reply*; raise it if it is a refusal, and TypeError if it is not of *kinds*."""
    if isinstance(reply, Exception):
        raise reply
    if not isinstance(reply, kinds):
        raise TypeError(f"the server replied with {with_article(type(reply).__name__)}")
    return reply


def all_fit(replies: Sequence[Any]) -> None:
    """Raise the first refusal among *replies*."""
    for reply in replies:
        fits(reply, object)


def named_once(address: str, why: str) -> str:
    """Return the *address* of a server and the text of its error, *why*, which may name the address itself, even twice."""
    place = address.partition("/")[0]
    why = why.removeprefix(f"{address}: ")
    return f"{address}: {why.replace(f' connecting to {place}.', ' connecting.') if place else why}"
