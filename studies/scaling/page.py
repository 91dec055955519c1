"""The tables of ``docs/scaling.md``, and the plot beside it; the same constants give the same page."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path

from benchmarks.contest import Table, micros, times
from benchmarks.drawing import pyplot, save

from studies.scaling.constants import CROWD, LEASE, SET, Constants, ServerCosts
from studies.scaling.model import (
    PRIMARIES,
    READS,
    T_LIVE,
    T_TOPO,
    WORKERS,
    WRITES,
    Fleet,
    announcements,
    hit_ratio,
    kept,
    listening,
    pays,
    played,
    primary,
    worker,
)

PAGE = Path(__file__).parents[2] / "docs" / "scaling.md"
PLOT = PAGE.with_suffix(".svg")
MARK = "<!-- What follows is written by python -m studies.scaling. -->\n"


# --- checks ---------------------------------------------------------------------------------------


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
    plt = pyplot()
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
    save(figure, PLOT)


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
