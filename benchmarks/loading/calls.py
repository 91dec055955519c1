"""What do loading and tags cost a call that finds its value?  Each beside the plain call of the same value."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from benchmarks.contenders import SMALL, TIMEOUT, Backend
from benchmarks.contest import Contest, Pace, Table, Turn, hold, micros, not_run, reason, times
from benchmarks.near.caches import close_at_end, wait_until_live
from fleetcache.testing.servers import EmbeddedServer

TAGS = ("reports", "user:5", "team:7")
MANY = {f"many:{at}": SMALL | {"id": at} for at in range(100)}
NAMES = list(MANY)

GET, GET_OR_SET, SOFT, TAGGED = "get", "get_or_set", "get_or_set, soft life", "get, 3 tags"
GET_MANY, GET_OR_SET_MANY = "get_many(100)", "get_or_set_many(100)"
REMOTE, NEAR, NEAR_STR = "remote", "near", "near, a str"
STR = "abcdefghijklmnopqrst"


@dataclass(frozen=True)
class Pair:
    """A call and the plain call that it is compared with."""

    where: str
    other: str
    plain: str
    limit: float | None = None
    """What the ratio is to be at most, or None."""
    awaiting: bool = False

    def __str__(self) -> str:
        return f"{self.where}{', awaiting' * self.awaiting}: {self.other} / {self.plain}"


GIVEN = Pair(REMOTE, TAGGED, GET, 1.3)
PAIRS = (
    Pair(REMOTE, GET_OR_SET, GET, 1.05),
    Pair(REMOTE, GET_OR_SET, GET, 1.05, awaiting=True),
    Pair(NEAR, GET_OR_SET, GET, 1.5),
    Pair(NEAR_STR, GET_OR_SET, GET, 1.5),
    Pair(NEAR_STR, GET_OR_SET, GET, 1.5, awaiting=True),
    Pair(REMOTE, SOFT, GET),
    Pair(NEAR_STR, SOFT, GET),
    GIVEN,
    Pair(REMOTE, TAGGED, GET, 1.3, awaiting=True),
    Pair(NEAR, TAGGED, GET, 2),
    Pair(NEAR_STR, TAGGED, GET, 2),
    Pair(REMOTE, GET_OR_SET_MANY, GET_MANY, 1.1),
    Pair(NEAR, GET_OR_SET_MANY, GET_MANY),
)


@dataclass
class Calls:
    """A contest for each pair."""

    contests: dict[Pair, Contest] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)

    def ratio(self, pair: Pair) -> float | None:
        """Return what the other call costs as a multiple of the plain one."""
        return self.contests[pair].ratio(pair.other, pair.plain) if pair in self.contests else None


def measure(pace: Pace) -> Calls:
    """Hold the contests, each of one pair, so that its turns follow each other closely."""
    found = Calls()
    with ExitStack() as stack:
        runner = stack.enter_context(asyncio.Runner())
        for pair in PAIRS:
            try:
                found.contests[pair] = _hold(pair, pace, runner)
            except Exception as error:  # a line in the table
                found.absent[str(pair)] = reason(error)
    return found


def _hold(pair: Pair, pace: Pace, runner: asyncio.Runner) -> Contest:
    with ExitStack() as stack:
        cache = _cache(pair, stack)
        if pair.awaiting:
            turns = {call: _running(runner, AWAITING[call](cache)) for call in (pair.plain, pair.other)}
        else:
            turns = {call: BLOCKING[call](cache) for call in (pair.plain, pair.other)}
        if pair == GIVEN:
            turns[TAGGED] = get_tags_given(cache)
        return hold(turns, Pace(pace.rounds, pace.turn * 2))


def _cache(pair: Pair, stack: ExitStack) -> Any:
    """Return a cache with the values that are read, on a server of its own."""
    server = stack.enter_context(EmbeddedServer(port=True))
    near, value = pair.where != REMOTE, STR if pair.where == NEAR_STR else SMALL
    cache = Backend("fleetcache.django.RedisCache", options={"NEAR": True} if near else {})(server.tcp_url())
    cache.set("plain", value, timeout=TIMEOUT)
    cache.set_many(MANY, timeout=TIMEOUT)
    if pair.other == TAGGED:
        cache.set("tagged", value, timeout=TIMEOUT, tags=TAGS)
    if pair.other == SOFT:
        cache.get_or_set("soft", lambda: value, TIMEOUT, stale_while_revalidate=60, early=1.0)
    if near:
        close_at_end(cache, stack)
        wait_until_live(cache)
    return cache


def _unwanted(*_keys: Any) -> Any:
    raise AssertionError("loaded what is there")


def _running(runner: asyncio.Runner, turn: Callable[[int], Any]) -> Turn:
    def run(count: int) -> int:
        runner.run(turn(count))
        return count

    return run


# The loops are written out: what a hit costs is not much more than what another call around it would.


def get(cache: Any) -> Turn:
    method = cache.get

    def turn(count: int) -> int:
        for _ in range(count):
            method("plain")
        return count

    return turn


def get_or_set(cache: Any) -> Turn:
    method = cache.get_or_set

    def turn(count: int) -> int:
        for _ in range(count):
            method("plain", _unwanted, TIMEOUT)
        return count

    return turn


def get_or_set_softly(cache: Any) -> Turn:
    method = cache.get_or_set

    def turn(count: int) -> int:
        for _ in range(count):
            method("soft", _unwanted, TIMEOUT, stale_while_revalidate=60, early=1.0)
        return count

    return turn


def get_tagged(cache: Any) -> Turn:
    method = cache.get

    def turn(count: int) -> int:
        for _ in range(count):
            method("tagged")
        return count

    return turn


def get_tags_given(cache: Any) -> Turn:
    method = cache.get

    def turn(count: int) -> int:
        for _ in range(count):
            method("tagged", tags=TAGS)
        return count

    return turn


def get_many(cache: Any) -> Turn:
    method = cache.get_many

    def turn(count: int) -> int:
        for _ in range(count):
            method(NAMES)
        return count

    return turn


def get_or_set_many(cache: Any) -> Turn:
    def turn(count: int) -> int:
        method = cache.get_or_set_many
        for _ in range(count):
            method(NAMES, _unwanted, TIMEOUT)
        return count

    return turn


def aget(cache: Any) -> Callable[[int], Any]:
    method = cache.aget

    async def turn(count: int) -> None:
        for _ in range(count):
            await method("plain")

    return turn


def aget_or_set(cache: Any) -> Callable[[int], Any]:
    method = cache.aget_or_set

    async def turn(count: int) -> None:
        for _ in range(count):
            await method("plain", _unwanted, TIMEOUT)

    return turn


def aget_tags_given(cache: Any) -> Callable[[int], Any]:
    method = cache.aget

    async def turn(count: int) -> None:
        for _ in range(count):
            await method("tagged", tags=TAGS)

    return turn


BLOCKING: Mapping[str, Callable[[Any], Turn]] = {
    GET: get,
    GET_OR_SET: get_or_set,
    SOFT: get_or_set_softly,
    TAGGED: get_tagged,
    GET_MANY: get_many,
    GET_OR_SET_MANY: get_or_set_many,
}
AWAITING: Mapping[str, Callable[[Any], Callable[[int], Any]]] = {
    GET: aget,
    GET_OR_SET: aget_or_set,
    TAGGED: aget_tags_given,
}


def tables(found: Calls) -> list[Table]:
    """Write one table."""
    rows = [
        (
            str(pair),
            times(found.ratio(pair)),
            times(contest.ratio(pair.other, pair.plain, "cpu")),
            micros(contest.cost(pair.other)),
            micros(contest.cost(pair.plain)),
        )
        for pair, contest in found.contests.items()
        if not contest.absent
    ]
    notes = [
        "The value is the small dict, or a str, which a near cache need not unpickle. The remote get is told the tags.",
        *not_run(
            found.absent,
            {f"{pair}: {name}": why for pair, each in found.contests.items() for name, why in each.absent.items()},
        ),
    ]
    return [Table("Loading: a value that is there", ("", "ratio", "the same, CPU", "µs", "µs, plain"), rows, notes)]
