"""How many calls does one event loop make?

``aget`` of a small dict from 1 to 500 tasks on one loop, and the connections that takes on the server.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from benchmarks.contenders import AWAITING, FLOOR, aenter, connections
from benchmarks.contest import Contest, Pace, Table, Turn, hold, not_run, reason, show, times
from fleetcache.testing.servers import EmbeddedServer

TASKS = (1, 20, 100, 300, 500)


@dataclass
class Outcome:
    """One contest for each number of tasks, and the connections each contender then had."""

    contests: dict[int, Contest] = field(default_factory=dict)
    connections: dict[str, list[int]] = field(default_factory=dict)


def measure(server: EmbeddedServer, pace: Pace) -> Outcome:
    """Let every contender count its connections, then hold the contests."""
    outcome = Outcome()
    absent: dict[str, str] = {}
    caches: dict[str, tuple[asyncio.Runner, Any]] = {}
    # Long turns, so that making the tasks is a small part of them.
    pace = Pace(rounds=pace.rounds // 2 + 1, turn=pace.turn * 3)
    with ExitStack() as stack:
        for database, name in enumerate(AWAITING, start=1):
            before = connections(server.url())
            runner = stack.enter_context(asyncio.Runner())
            try:
                cache = runner.run(aenter(name, server.tcp_url(database)))
                outcome.connections[name] = []
                for tasks in TASKS:
                    crowd(runner, partial(cache.aget, "small"), tasks)(tasks)
                    outcome.connections[name].append(connections(server.url()) - before)
            except Exception as error:  # any failure of a peer is a line in the table
                absent[name] = reason(error)
            else:
                caches[name] = runner, partial(cache.aget, "small")
        for tasks in TASKS:
            contest = hold({name: crowd(*entered, tasks) for name, entered in caches.items()}, pace)
            contest.absent |= absent
            outcome.contests[tasks] = contest
    return outcome


def crowd(runner: asyncio.Runner, call: Callable[[], Awaitable[Any]], tasks: int) -> Turn:
    """Return a turn in which *tasks* tasks await *call* again and again."""

    async def one(calls: int) -> None:
        for _ in range(calls):
            await call()

    async def all_of_them(calls: int) -> None:
        await asyncio.gather(*(one(calls) for _ in range(tasks)))

    def turn(count: int) -> int:
        calls = max(1, round(count / tasks))
        runner.run(all_of_them(calls))
        return calls * tasks

    return turn


def tables(outcome: Outcome) -> list[Table]:
    """Write what each contender makes of each number of tasks, the fastest at 100 first."""
    contests = outcome.contests
    names = sorted(contests[100].costs, key=lambda name: contests[100].ratio(name, FLOOR) or 0)
    columns = ("", *(f"{tasks} task{'s' * (tasks > 1)}" for tasks in TASKS))
    absent = not_run(*(contest.absent for contest in contests.values()))
    return [
        Table(
            "Awaiting: time per aget / floor",
            columns,
            [(name, *(times(contests[tasks].ratio(name, FLOOR)) for tasks in TASKS)) for name in names],
            absent,
        ),
        Table(
            "Awaiting: CPU per aget / floor",
            columns,
            [(name, *(times(contests[tasks].ratio(name, FLOOR, "cpu")) for tasks in TASKS)) for name in names],
        ),
        Table(
            "Awaiting: thousand aget per second",
            columns,
            [(name, *(_thousands(contests[tasks].cost(name)) for tasks in TASKS)) for name in names],
        ),
        Table(
            "Awaiting: connections on the server",
            columns,
            [(name, *map(str, outcome.connections[name])) for name in names],
        ),
    ]


def _thousands(seconds: float | None) -> str:
    return times(seconds and 1e-3 / seconds)


if __name__ == "__main__":
    show(lambda server, pace: tables(measure(server, pace)), __doc__)
