"""What do 10, 100 and 1,000 workers ask of the servers?

A model of a fleet, computed from what ``benchmarks.constants`` measured.  Each worker is a process that reads names by
Zipf's law from its own near cache; what is written, by whomever, is announced to every worker by the primary that has it.

A server tells all listeners of what was written since it last did so, once in each turn of its event loop.  While it has
time each write is so told by itself; when that no longer fits into a second, turns become longer and writes share messages.
So announcements never stop a server, but they make its turns as long as it takes to tell everybody.

``python -m benchmarks.constants`` measures again.  This script needs no server, and the same constants give the same
page: it writes the tables of ``docs/scaling.md`` and the plot beside it.
"""

from __future__ import annotations

import heapq
import math
import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise, product
from pathlib import Path

from benchmarks.constants import CROWD, GET, LEASE, MISS, NAME, SET, ClientCosts, Constants, ServerCosts
from benchmarks.contest import Table, micros, times

PAGE = Path(__file__).parent.parent / "docs" / "scaling.md"
PLOT = PAGE.with_suffix(".svg")
MARK = "<!-- What follows is written by python -m benchmarks.scaling. -->\n"

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
    """So many workers on so many primaries; *writes* a second of all of them together."""

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
    """Return the CPU seconds in a second of a worker that hears of *names* from so many primaries."""
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


def checks(constants: Constants, costs: ServerCosts) -> Table:
    """Write what the model says beside what real connections did."""
    alone = {what: each for what, (each, _) in costs.requests.items()}
    rows = []
    for real in constants.fleets:
        told = real.writes * real.processes * (costs.message + costs.name)
        standing = real.primaries * real.processes * kept(alone[LEASE], costs)
        client = listening(constants.client, real.primaries, real.writes)
        of = f"of {real.primaries} primaries" if real.primaries > 1 else "on one server"
        what = f"{real.processes} near caches {of}, {real.writes:.0f} writes/s"
        rows.append(
            (f"{what}: the servers' CPU", f"{real.writes * alone[SET] + told + standing:.1%}", f"{real.server:.1%}")
        )
        rows.append((f"{what}: CPU of each process", f"{client:.2%}", f"{real.client:.2%}"))
    for real in constants.crushes:
        told = real.listeners * (real.messages * costs.message + real.writes * costs.name)
        spent = real.writes * costs.requests[SET][1] + told
        what = f"{real.listeners} listeners, {CROWD} writers without pause"
        rows.append((f"{what}: the server's CPU", f"{spent:.1%}", f"{real.server:.1%}"))
    for reads, writes in ((READS, 100), (READS, 1_000)):
        rows.append(
            (
                f"hit ratio, {reads} reads/s, {writes:,} writes/s (each event played)",
                f"{hit_ratio(reads, writes):.1%}",
                f"{played(reads, writes):.1%}",
            )
        )
    note = (
        "The constants are those of a server that has much to do.  One that sleeps between writes, as in the first rows, pays a few "
        "times as much for each, and so does any while other programs want the machine."
    )
    return Table("Checks", ("", "computed", "measured"), rows, [note])


# --- tables ---------------------------------------------------------------------------------------


def tables(constants: Constants) -> list[Table]:
    """Write what was measured, then what follows from it for fleets on the first server."""
    costs = next(iter(constants.servers.values()))
    return [
        *measured(constants),
        checks(constants, costs),
        *fleets(constants, costs),
        at_rest(costs),
        break_even(constants, costs),
    ]


def measured(constants: Constants) -> list[Table]:
    """Write the constants."""
    kinds: dict[str, Callable[[ServerCosts], str]] = {
        "an ordinary connection at rest, bytes": lambda costs: f"{costs.connection_bytes:,.0f}",
        "a listening connection at rest, bytes": lambda costs: f"{costs.listener_bytes:,.0f}",
        "a name that a listener has not read, bytes": lambda costs: f"{costs.unread_bytes:,.0f}",
        "sent to each listener: a message + each name + its characters, bytes": lambda costs: (
            f"{costs.message_bytes:.0f} + {costs.name_bytes:.0f}"
        ),
        "times that an entry is announced which is written once and expires": lambda costs: times(costs.expiries),
        "CPU of a message to one listener, µs": lambda costs: micros(costs.message),
        "CPU of each name in it, µs": lambda costs: micros(costs.name),
        **{
            f"CPU of a SET that {listeners} connections are told of, µs": lambda costs, listeners=listeners: micros(
                costs.writes[listeners][0]
            )
            for listeners in next(iter(constants.servers.values())).writes
        },
        **{
            f"CPU of {what}, one at a time; {CROWD} at once, µs": lambda costs, what=what: "; ".join(
                map(micros, costs.requests[what])
            )
            for what in next(iter(constants.servers.values())).requests
        },
        "CPU of a look around, every `T_TOPO`, µs": lambda costs: micros(costs.look),
        "CPU of 1,000 idle connections, of one core": lambda costs: f"{1000 * costs.idle:.2%}",
    }
    servers = Table(
        "Measured: what a server pays",
        ("", *constants.servers),
        [(what, *(write(costs) for costs in constants.servers.values())) for what, write in kinds.items()],
    )
    client = constants.client
    rows = [
        ("get without NEAR", f"{micros(client.get)} µs"),
        ("get that the near cache answers, a small dict", f"{micros(client.hit)} µs"),
        ("get that it does not", f"{micros(client.miss)} µs"),
        ("get of django-redis", f"{micros(client.peer_get)} µs"),
        ("listening to one primary, nothing written", f"{client.idle:.2%} of a core"),
        ("each lease more in a second", f"{client.lease:.3%}"),
        *((f"listening, told of {told:,.0f} names a second", f"{spent:.2%}") for told, spent in client.applied),
    ]
    return [servers, Table("Measured: CPU of a process", ("", ""), rows)]


def fleets(constants: Constants, costs: ServerCosts) -> list[Table]:
    """Write what each primary and each worker does."""
    servers, workers = [], []
    for size, primaries, writes in product(WORKERS, PRIMARIES, WRITES):
        fleet = Fleet(workers=size, primaries=primaries, writes=writes)
        on, off = primary(costs, fleet), primary(costs, fleet, near=False)
        row = (
            f"{on.connections:,}",
            f"{on.memory / 1e6:.1f}",
            f"{on.messages * size / 1000:,.1f}",
            f"{on.sent / 1e6:.2f}",
            f"{on.told:.0%}",
            f"{on.requests / 1000:,.1f}",
            f"{off.requests / 1000:,.1f}",
            _thousands(on.left),
            _thousands(off.left),
        )
        servers.append((f"{size:,}", str(primaries), f"{writes:,}", *row))
    for primaries, writes in product(PRIMARIES, WRITES):
        names = announcements(writes, costs.expiries)
        spent = worker(constants.client, Fleet(workers=1, primaries=primaries, writes=writes), names)
        heard = listening(constants.client, primaries, names)
        row = (f"{hit_ratio(READS, writes):.0%}", f"{names:,.0f}", *(f"{each:.1%}" for each in (heard, *spent)))
        workers.append((str(primaries), f"{writes:,}", *row))
    columns = (
        "workers", "primaries", "writes/s", "connections", "MB for them", "messages", "MB/s",
        "announcing", "asked", "asked, no NEAR", "left", "left, no NEAR",
    )  # fmt: skip
    note = (
        f"Writes are those of all together; each worker reads {READS} times a second.  Thousands a second: messages to all "
        "listeners, what is asked, and GETs that could be asked besides, while everybody is told 100 times a second. "
        "Announcing: of one core, if each name is told by itself; when that does not fit, names share messages."
    )
    more = (
        "primaries", "writes/s", "hit ratio", "told of, /s", "listening", "all, NEAR", "all, no NEAR", "all, django-redis"
    )  # fmt: skip
    other = "CPU of one core, for listening and for all reads.  django-redis knows no cluster."
    return [
        Table("Computed: each primary", columns, servers, [note]),
        Table("Computed: each worker", more, workers, [other]),
    ]


def _thousands(requests: float) -> str:
    return f"{requests / 1000:,.1f}" if requests > 0 else "none"


def at_rest(costs: ServerCosts) -> Table:
    """Write what listeners cost while nothing happens."""
    lease = costs.requests[LEASE][1]
    rows = [
        (
            f"`T_LIVE` {t_live}, `T_TOPO` {t_topo}",
            *(f"{size * kept(lease, costs, t_live, t_topo):.1%}" for size in WORKERS),
        )
        for t_live, t_topo in ((T_LIVE, T_TOPO), (3, 60))
    ]
    title = "Computed: each primary, while nothing is read or written"
    return Table(title, ("", *(f"{size:,} workers" for size in WORKERS)), rows, ["CPU of one core."])


def break_even(constants: Constants, costs: ServerCosts) -> Table:
    """Write up to which rate of writes a near cache spares CPU."""
    rows = []
    for reads in (20, READS, 2_000):
        for primaries in (PRIMARIES[0], PRIMARIES[-1]):
            fleet = Fleet(workers=WORKERS[-1], primaries=primaries, writes=0, reads=reads)
            servers, workers = pays(constants, costs, fleet)
            rows.append((f"{reads:,}", str(primaries), _rate(servers), _rate(workers)))
    return Table(
        "Computed: where a near cache stops paying",
        ("reads/s of each worker", "primaries", "servers: writes/s", "workers: writes/s"),
        rows,
        ["Writes a second of all together, up to which less CPU is spent with NEAR than without; 1,000 workers."],
    )


def _rate(writes: float) -> str:
    return "never" if writes < 1 else "always" if writes == math.inf else f"{float(f'{writes:.2g}'):,.0f}"


# --- the plot -------------------------------------------------------------------------------------


def plot(costs: ServerCosts) -> None:
    """Draw what announcements and a fleet cost the servers."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "fleetcache", "font.size": 9, "path.simplify": True})
    rates = [10 ** (power / 4) for power in range(17)]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for color, size in zip(("tab:green", "tab:blue", "tab:red"), WORKERS, strict=True):
        fleet = Fleet(workers=size, primaries=1, writes=0)
        for style, primaries in (("-", 1), ("--", 6)):
            told = [primary(costs, replace(fleet, primaries=primaries, writes=rate)).told for rate in rates]
            left.plot(rates, told, style, color=color, label=f"{size:,} workers" if primaries == 1 else None)
        on, off = ([primary(costs, replace(fleet, writes=rate), near=near) for rate in rates] for near in (True, False))
        right.plot(rates, [each.asked + each.told for each in on], "-", color=color)
        right.plot(rates, [each.asked for each in off], ":", color=color)
    left.axhline(1, color="gray", linewidth=0.8)
    left.set(title="Announcing: 1 primary (—), each of 6 (- -)", xlabel="writes/s of all together", ylabel="cores")
    right.set(title="All CPU of 1 primary: NEAR (—), no NEAR (···)", xlabel="writes/s of all together")
    for axes in (left, right):
        axes.set(xscale="log", yscale="log", ylim=(1e-4, 1e3))
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.grid(alpha=0.3)
        axes.minorticks_off()
    left.legend(frameon=False)
    figure.savefig(PLOT, metadata={"Date": None, "Creator": None})


def written(constants: Constants) -> str:
    """Return what the page says after its mark."""
    return "\n".join([f"\n{constants.where}\n", *(f"{table}\n" for table in tables(constants))])


def main() -> None:
    """Compute everything, print it, and write it where the page says it comes from."""
    constants = Constants.load()
    text = written(constants)
    sys.stdout.write(text)
    plot(next(iter(constants.servers.values())))
    head, mark, _ = PAGE.read_text(encoding="utf-8").partition(MARK)
    PAGE.write_text(f"{head}{mark}{text}", encoding="utf-8")


if __name__ == "__main__":
    main()
