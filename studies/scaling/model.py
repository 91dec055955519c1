"""A model of a fleet: what 10, 100 and 1,000 workers ask of the servers.

It is computed from what ``studies.scaling.constants`` measured.  Each worker is a process that reads names by
Zipf's law from its own near cache; every write is announced to every worker by the primary that holds the name.

A server tells all listeners of what was written since it last did so, once in each turn of its event loop.  While it has
time each write is so told by itself; when that no longer fits into a second, turns become longer and writes share messages.
So announcements never stop a server, but they make its turns as long as it takes to tell everybody.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise

from studies.scaling.constants import GET, LEASE, MISS, NAME, SET, ClientCosts, Constants, ServerCosts

WORKERS = (10, 100, 1_000)
PRIMARIES = (1, 3, 6)
WRITES = (100, 1_000, 10_000)
READS = 200
"""Reads a second of each worker."""
KEYS = 10_000
"""How many names there are; the one of rank n is read, and written, 1/n times as often as the first."""
MAX_TTL = 60
TIMEOUT = 300
LEASES = 3
"""So often in ``T_LIVE`` each worker asks each primary for a lease."""
T_LIVE, T_TOPO = 1, 15
CANARIES = 0.2
"""A second, of all workers together to each primary: one that heard another's waits half of ``CANARY`` or more."""
TURN = 0.01
"""Seconds a turn of a server's event loop may take before we call it full."""
HEADERS = 66
"""Bytes of Ethernet, IP and TCP around each message."""


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """Workers and primaries; *writes* are those of all workers together, in a second."""

    workers: int
    primaries: int
    writes: float
    reads: float = READS


# --- what a near cache finds ----------------------------------------------------------------------


@cache
def shares() -> tuple[float, ...]:
    """Return how often each name is asked for, of all asking."""
    whole = math.fsum(1 / rank for rank in range(1, KEYS + 1))
    return tuple(1 / rank / whole for rank in range(1, KEYS + 1))


@cache
def hit_ratio(reads: float, writes: float) -> float:
    """Return which part of *reads* a second finds a copy while *writes* a second are announced.

    A copy lives until its name is written, at random moments, or for MAX_TTL; what is read meanwhile is a hit, and the
    next read after it a miss.
    """
    hits = 0.0
    for share in shares():
        written = share * writes
        life = -math.expm1(-written * MAX_TTL) / written if written else MAX_TTL
        found = share * reads * life
        hits += share * found / (1 + found)
    return hits


@cache
def announcements(writes: float, expiries: float) -> float:
    """Return how many names are announced in a second: what is written, and what expires because it is not written again."""
    return math.fsum(share * writes * (1 + (expiries - 1) * math.exp(-share * writes * TIMEOUT)) for share in shares())


# --- what a primary does --------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Primary:
    """What one of the primaries does, in a second."""

    connections: int
    memory: float
    requests: float
    asked: float
    """CPU seconds for them."""
    names: float
    """Announced."""
    messages: float
    """To each listener; fewer than names if several share one."""
    told: float
    """CPU seconds for announcements if each is told by itself."""
    sent: float
    """Bytes of announcements, with their headers."""
    left: float
    """GETs that it could answer besides, with no turn longer than TURN; less than none if it is full."""


def kept(lease: float, costs: ServerCosts, t_live: float = T_LIVE, t_topo: float = T_TOPO) -> float:
    """Return the CPU in a second that a primary spends on each worker that listens, where a *lease* costs so much."""
    return lease * LEASES / t_live + costs.look / t_topo + costs.idle


def primary(costs: ServerCosts, fleet: Fleet, *, near: bool = True) -> Primary:
    """Return what each primary of *fleet* does, by *costs*."""
    request = {what: busy for what, (_, busy) in costs.requests.items()}
    part = 1 / fleet.primaries
    reads, writes = fleet.workers * fleet.reads * part, fleet.writes * part
    asked = writes * request[SET] + fleet.workers * costs.idle
    if not near:
        asked += reads * request[GET]
        left = (1 - asked) / request[GET]
        memory = fleet.workers * costs.connection_bytes
        return Primary(
            connections=fleet.workers,
            memory=memory,
            requests=reads + writes,
            asked=asked,
            names=0,
            messages=0,
            told=0,
            sent=0,
            left=left,
        )
    misses = reads * (1 - hit_ratio(fleet.reads, fleet.writes))
    asked += misses * request[MISS] + fleet.workers * kept(request[LEASE], costs) + CANARIES * request[SET]
    names = announcements(fleet.writes, costs.expiries) * part + CANARIES * costs.expiries
    copying, message = names * fleet.workers * costs.name, fleet.workers * costs.message
    free = 1 - asked - copying
    messages = min(names, max(free / message, 1 / TURN))
    fewest = min(names, 1 / TURN)
    return Primary(
        connections=2 * fleet.workers,
        memory=fleet.workers * (costs.connection_bytes + costs.listener_bytes),
        requests=misses + writes + fleet.workers * LEASES / T_LIVE,
        asked=asked,
        names=names,
        messages=messages,
        told=names * message + copying,
        sent=fleet.workers * (messages * (costs.message_bytes + HEADERS) + names * (costs.name_bytes + len(NAME))),
        left=(free - fewest * message) / request[GET],
    )


# --- what a worker does ---------------------------------------------------------------------------


def listening(costs: ClientCosts, primaries: int, names: float) -> float:
    """Return the CPU seconds in a second of a worker that is told of *names* by some primaries."""
    points = [(0.0, costs.idle), *((told, spent) for told, spent in costs.applied)]
    return primaries * _between(points, names / primaries)


def _between(points: list[tuple[float, float]], at: float) -> float:
    """Return the height at *at* of the line through *points*, the last piece of which goes on."""
    pairs = list(pairwise(points))
    (x, y), (right, top) = next((pair for pair in pairs if at <= pair[1][0]), pairs[-1])
    return y + (at - x) * max(0.0, top - y) / (right - x)


def worker(costs: ClientCosts, fleet: Fleet, names: float) -> tuple[float, float, float]:
    """Return a worker's CPU seconds in a second for its reads: with a near cache, without, and with django-redis."""
    ratio = hit_ratio(fleet.reads, fleet.writes)
    read = fleet.reads * (ratio * costs.hit + (1 - ratio) * costs.miss)
    return read + listening(costs, fleet.primaries, names), fleet.reads * costs.get, fleet.reads * costs.peer_get


def until(better: Callable[[float], bool], most: float = 1e6) -> float:
    """Return up to which rate of writes it is better; infinity if it always is."""
    if better(most):
        return math.inf
    low, high = 1e-3, most
    for _ in range(40):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if better(middle) else (low, middle)
    return low


def pays(constants: Constants, costs: ServerCosts, fleet: Fleet) -> tuple[float, float]:
    """Return up to how many writes a second a near cache spares the servers CPU, and the workers."""

    def spares_servers(writes: float) -> bool:
        at = replace(fleet, writes=writes)
        on, off = primary(costs, at), primary(costs, at, near=False)
        return on.asked + on.told < off.asked

    def spares_workers(writes: float) -> bool:
        at = replace(fleet, writes=writes)
        on, off, _ = worker(constants.client, at, announcements(writes, costs.expiries))
        return on < off

    return until(spares_servers), until(spares_workers)


# --- checks ---------------------------------------------------------------------------------------


def played(reads: float, writes: float, seconds: float = 600, seed: int = 1) -> float:
    """Return the hit ratio of a game of chance in which every read and every write is made, one after another."""
    chance = random.Random(seed)
    names = range(KEYS)
    heights = []
    reached = 0.0
    for share in shares():
        reached += share
        heights.append(reached)

    def moments(rate: float, *, read: bool) -> Iterator[tuple[float, int, bool]]:
        now = 0.0
        while (now := now + chance.expovariate(rate)) < seconds:
            yield now, chance.choices(names, cum_weights=heights)[0], read

    copies: dict[int, float] = {}
    hits = asked = 0
    for now, name, read in heapq.merge(moments(reads, read=True), moments(writes, read=False)):
        if not read:
            copies.pop(name, None)
            continue
        found = copies.get(name, 0) > now
        if not found:
            copies[name] = now + MAX_TTL
        if now > seconds / 4:
            hits, asked = hits + found, asked + 1
    return hits / asked
