"""Measures a cache against a bare socket to the same server: what does each operation cost, from this machine?

Other work on the machine or the network slows both down for a while.  So the time is divided into many short turns: in each
round every operation has one, through the cache and over the socket, in a new random order.  A ratio is taken within a round,
where both meet the same disturbance, and the median over the rounds is returned.

The socket sends the very bytes that the cache sends, and reads as many bytes as the server replies with: nobody who asks
this server from Python can be faster.  Entries have random names, expire, and are deleted at the end.
"""

from __future__ import annotations

import gc
import os
import random
import secrets
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from statistics import median, quantiles
from time import monotonic, perf_counter, sleep
from typing import Any, Self

from redis.exceptions import RedisError

from fleetcache import commands as c
from fleetcache.cache import Cache
from fleetcache.errors import ConnectionLost, FleetcacheError, SettingsError
from fleetcache.exchange.blocking import CHUNK, Conversation
from fleetcache.exchange.contract import Command
from fleetcache.exchange.wire import NEED_DATA, new_parser, packed

SMALL, LARGE, MANY = 100, 10_000, 10
"""Bytes of the values, and how many are read at once."""
LIFE = 300
"""Seconds that the entries live if the measurement is killed; shorter ones would be stored by two commands."""
TURN = 0.01
"""Seconds of one turn."""
ROUNDS = 5
"""How many rounds there are at least."""
PATIENCE = 2.0
"""Seconds for which a copy is waited for."""


@dataclass
class Case:
    """One operation, and what its turns took: seconds for each call, round by round."""

    name: str
    size: int
    """Bytes of each value."""
    through_cache: Callable[[], Any]
    over_socket: Callable[[], Any]
    calls: list[float] = field(default_factory=list)
    floors: list[float] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def call(self) -> float:
        """Seconds of a call."""
        return median(self.calls)

    @property
    def floor(self) -> float:
        """Seconds of the same exchange over a bare socket; of a read from a copy, of the read that it saves."""
        return median(self.floors)

    @property
    def ratios(self) -> list[float]:
        """The cost of a call, relative to the bare socket, in each round."""
        return [call / floor for call, floor in zip(self.calls, self.floors, strict=True)]

    @property
    def spread(self) -> float:
        """The distance between the quartiles of the ratios, relative to their median."""
        return spread_of(self.ratios)

    def as_dict(self) -> dict[str, Any]:
        """Return the figures for JSON."""
        ratio = median(self.ratios)
        return {
            "operation": self.name,
            "value_bytes": self.size,
            "call_seconds": self.call,
            "socket_seconds": self.floor,
            "ratio": ratio,
            "ratio_spread": self.spread,
        }


@dataclass
class Benchmark:
    """The result of `measure`."""

    address: str
    rounds: int
    cases: list[Case]
    absent: dict[str, str]
    """What could not be measured, and why."""

    @property
    def noise(self) -> float:
        """How much the bare socket itself varied between rounds: the distance between quartiles, relative to the median."""
        return median([spread_of(case.floors) for case in self.cases])

    def as_dict(self) -> dict[str, Any]:
        """Return the figures for JSON."""
        cases = [case.as_dict() for case in self.cases]
        return {
            "address": self.address,
            "rounds": self.rounds,
            "noise": self.noise,
            "operations": cases,
            "absent": self.absent,
        }


def spread_of(figures: Sequence[float]) -> float:
    """Return the distance between the quartiles of *figures*, relative to the median; 0 for fewer than two."""
    if len(figures) < 2:
        return 0.0
    low, middle, high = quantiles(figures, n=4)
    return (high - low) / middle if middle else 0.0


def measure(
    cache: Cache, near: Callable[[str], Cache], seconds: float = 5.0, step: Callable[[float], None] = lambda _: None
) -> Benchmark:
    """Measure the operations of *cache* for some *seconds*; raise what the cache raises if a server is away.

    *near* returns the same cache with copies of names that begin with its argument.  *step* is called in between with the part
    that is done, from 0 to 1.
    """
    keys = _Keys(cache)
    with ExitStack() as opened:
        opened.callback(keys.delete)
        keys.store()
        server = cache.topology.route((c.GET, cache.name(keys.small)))  # of a cluster only now
        if server.remote is None:
            raise SettingsError(f"{server.address} is in this process: there is no server to measure")
        line = opened.enter_context(Socket(server.remote))
        cases = cases_of(cache, keys, line)
        found = Benchmark(server.address, 0, cases, {})
        try:
            copies = near(cache.name(keys.head))
            for key, size in ((keys.small, SMALL), (keys.large, LARGE)):
                wait_for_copy(copies, key)
                cases.append(Case("near get", size, _reading(copies, key), line.ready(cache, [_get(cache, key)])))
        except (FleetcacheError, RedisError) as error:
            found.absent["near get"] = str(error)
        _hold(found, seconds, step)
    return found


class _Keys:
    """Random keys, in one slot of a cluster."""

    def __init__(self, cache: Cache) -> None:
        self.cache = cache
        self.head = f"~bench:{{{secrets.token_hex(8)}}}:"
        self.small, self.large = f"{self.head}small", f"{self.head}large"
        self.many = [f"{self.head}{number}" for number in range(MANY)]
        self.values = {SMALL: os.urandom(SMALL), LARGE: os.urandom(LARGE)}

    def store(self) -> None:
        """Store an entry of each key."""
        self.cache.set(self.large, self.values[LARGE], LIFE)
        for key in (self.small, *self.many):
            self.cache.set(key, self.values[SMALL], LIFE)

    def delete(self) -> None:
        """Delete the entries; if the server is away, they expire."""
        with suppress(FleetcacheError, RedisError):
            self.cache.delete_many([self.small, self.large, *self.many])


def cases_of(cache: Cache, keys: _Keys, line: Socket) -> list[Case]:
    """Return the operations that ask the server."""
    found = []
    for key, size in ((keys.small, SMALL), (keys.large, LARGE)):
        value, name = keys.values[size], cache.name(key)
        storing: Command = (c.SET, name, cache.encode(value), "PX", LIFE * 1000)
        found.append(Case("get", size, _reading(cache, key), line.ready(cache, [_get(cache, key)])))
        found.append(Case("set", size, _writing(cache, key, value), line.ready(cache, [storing])))
    names = cache._names(keys.many)
    together = line.ready(cache, cache._batch(c.MGET if cache.near is None else c.MGET_NOW, names))
    found.append(Case(f"get_many of {MANY}", SMALL, _reading_many(cache, keys.many), together))
    return found


def _get(cache: Cache, key: str) -> Command:
    return (c.GET, cache.name(key))


def _reading(cache: Cache, key: str) -> Callable[[], Any]:
    return lambda: cache.get(key)


def _reading_many(cache: Cache, keys: list[str]) -> Callable[[], Any]:
    return lambda: cache.get_many(keys)


def _writing(cache: Cache, key: str, value: bytes) -> Callable[[], Any]:
    return lambda: cache.set(key, value, LIFE)


def wait_for_copy(copies: Cache, key: str) -> None:
    """Read *key* until there is a copy of it; raise if there is none in time."""
    until = monotonic() + PATIENCE
    while monotonic() < until:
        copies.get(key)
        if copies.lookup(key).state == "near":
            return
        sleep(0.01)
    near = copies.info()["near"]
    raise SettingsError(
        f"no copy within {PATIENCE:g} s: the near cache is {near['state']}: {near.get('why') or 'see fleetcache probe'}"
    )


class Socket:
    """A connection to a server that is used without any library: bytes out, bytes in."""

    def __init__(self, remote: Any) -> None:
        self.address = remote.address
        self.conversation = Conversation(remote.connect_apart(), remote.timeout or PATIENCE, remote.address)
        self.buffer = bytearray(CHUNK)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.conversation.close()

    def ready(self, cache: Cache, commands: Sequence[Command]) -> Callable[[], None]:
        """Return a function that sends *commands* and reads as many bytes as the server replied with the first time."""
        data, sock, buffer = packed(commands), self.conversation.sock, self.buffer
        size = self._measured(data, len(commands))

        def exchange() -> None:
            sock.sendall(data)
            left = size
            while left > 0:
                found = sock.recv_into(buffer)
                if not found:
                    raise ConnectionLost(f"{self.address}: the server closed the connection")
                left -= found

        return exchange

    def _measured(self, data: bytes, count: int) -> int:
        """Return how many bytes reply to *data*, which are *count* commands; raise the error that is among them."""
        parser, size = new_parser(), 0
        self.conversation.sock.sendall(data)
        while count:
            if (reply := parser.gets()) is NEED_DATA:
                found = self.conversation.sock.recv_into(self.buffer)
                if not found:
                    raise ConnectionLost(f"{self.address}: the server closed the connection")
                size += found
                parser.feed(bytes(self.buffer[:found]))
            elif isinstance(reply, Exception):
                raise reply
            else:
                count -= 1
        return size


def _hold(found: Benchmark, seconds: float, step: Callable[[float], None]) -> None:
    """Let all operations take turns."""
    turns = [(case, how) for case in found.cases for how in ("through_cache", "over_socket")]
    for case, how in turns:
        case.counts[how] = _calibrated(getattr(case, how))
    order = random.Random()
    began = monotonic()
    gc.collect()
    gc.disable()
    try:
        while found.rounds < ROUNDS or monotonic() < began + seconds:
            for case, how in order.sample(turns, len(turns)):
                taken = _timed(getattr(case, how), case.counts[how])
                (case.calls if how == "through_cache" else case.floors).append(taken)
            found.rounds += 1
            step(min(1.0, (monotonic() - began) / seconds if seconds else 1.0))
    finally:
        gc.enable()


def _calibrated(operation: Callable[[], Any]) -> int:
    """Warm up, and return how many calls take about a turn."""
    count = 1
    while True:
        taken = _timed(operation, count) * count
        if taken > TURN / 4:
            return max(1, round(count * TURN / taken))
        count *= 2


def _timed(operation: Callable[[], Any], count: int) -> float:
    """Return the seconds of one call among *count*."""
    began = perf_counter()
    for _ in range(count):
        operation()
    return (perf_counter() - began) / count
