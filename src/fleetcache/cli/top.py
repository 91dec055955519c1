"""``fleetcache top``: what does the fleet do at the moment?"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from fleetcache.cli.calls import FINDING, FINE, Call
from fleetcache.cli.parsing import Table, span
from fleetcache.cli.showing import (
    count,
    cut,
    duration,
    folded,
    rate,
    sentences,
    share,
    size,
    table,
    time_of_day,
    visible,
)
from fleetcache.cli.stats import NOBODY
from fleetcache.cli.terminal import Screen
from fleetcache.fleet import Fleet, gather
from fleetcache.inspection.rates import FOUND, READS, Basis, Pace, Rates

KEYS = {"g": "group", "c": "command", "w": "worker"}
INTERVAL = 2.0
STEP, LONGEST = 0.5, 61.5
"""With ``--once``: how often it looks, and how long it waits at most."""


def add(commands: Table) -> None:
    """Add the command."""
    command = commands.command(
        "top",
        run,
        help="what does the fleet do at the moment?",
        description="Show reads, loads, errors and latencies of all processes that use the cache, again and again, until q or Ctrl-C. "
        "g, c and w show groups, commands and workers. Rates are those between the two latest publications of each process that top has seen; until it has seen two, which takes 10 seconds, a "
        "process counts with its average since it began. With --once it waits until each process has published anew, and shows what happened between; a "
        "process that has not is left out, and named in the count. Exits with 0, "
        "with --once also with 1 if no process has published anything, 2 if no server answers.",
    )
    command.add_argument("--once", action="store_true", help="show it once, for scripts; --json implies it")
    command.add_argument(
        "--interval",
        type=span,
        metavar="SECONDS",
        help="between two screens, by default 2; with --once how long it waits at most, by default until each process should have published anew",
    )
    command.add_argument(
        "--by",
        choices=tuple(KEYS.values()),
        default="group",
        help="what the table shows first, by default groups of keys",
    )


def run(call: Call) -> int:
    """``fleetcache top``."""
    rates = Rates()
    if call.arguments.once or call.json:
        return _once(call, rates)
    with Screen(call) as screen, suppress(KeyboardInterrupt):
        _watch(call, rates, screen)
    return FINE


def _watch(call: Call, rates: Rates, screen: Screen) -> None:
    """Draw the screen again and again, until q."""
    view, cache = call.arguments.by, call.cache
    while True:
        fleet = gather(cache)
        pace = rates.pace(fleet)
        until = time.monotonic() + (call.arguments.interval or INTERVAL)
        while (left := until - time.monotonic()) > 0:
            screen.draw(lines(call, fleet, pace, view, screen.size))
            key = screen.key(left)
            if key == "q":
                return
            view = KEYS.get(key, view)


def _once(call: Call, rates: Rates) -> int:
    fleet = gather(call.cache)
    if not fleet.workers:
        if fleet.missing:
            return call.unread(fleet.missing, fleet.error)
        if not call.json:
            call.note(f"fleetcache: {NOBODY}")
    pace = rates.pace(fleet)
    until = time.monotonic() + (call.arguments.interval or _patience(fleet))
    while pace.since_start and (left := until - time.monotonic()) > 0:
        time.sleep(min(left, STEP))
        fleet = gather(call.cache)
        pace = rates.pace(fleet)
    # Averages of all time and rates of the moment do not add up: one or the other.
    basis: Basis = "now" if pace.since_start < len(fleet.workers) else "start"
    pace = rates.pace(fleet, basis)
    document = {
        "at": fleet.at,
        "processes": len(fleet.workers),
        "basis": basis,
        "since_start": pace.since_start,
        "left_out": pace.left_out,
        "totals": pace.totals,
        "groups": pace.groups,
        "commands": pace.commands,
        "errors": pace.errors,
        "advice": fleet.totals.get("advice"),
        "workers": pace.workers,
        "missing": fleet.missing,
    }
    text = "\n".join(lines(call, fleet, pace, call.arguments.by, None, once=True))
    if call.json or fleet.workers:
        call.answer(document, text)
    return FINE if fleet.workers else FINDING


def _patience(fleet: Fleet) -> float:
    """Return for how many seconds to wait until each process of *fleet* should have published once more."""
    return min(max((worker.interval for worker in fleet.workers), default=0.0) + 1.5, LONGEST) if fleet.workers else 0.0


def lines(
    call: Call, fleet: Fleet, pace: Pace, view: str, screen: os.terminal_size | None, *, once: bool = False
) -> list[str]:
    """Return the lines of a screen of that size, *screen*; None for one without an end; *once* if no other screen follows."""
    totals = pace.totals
    when = time_of_day(fleet.at)
    processes = f"{count(len(fleet.workers))} process{'' if len(fleet.workers) == 1 else 'es'}"
    found = [call.painted(f"fleetcache top   {place(call)}   {processes}   {when}", strong=True)]
    reads = totals.get("reads", 0.0)
    levels = ", ".join(f"{share(totals.get(level, 0), reads)} {level}" for level in READS)
    errors = sum(pace.errors.values())
    found += [
        f"reads {rate(reads)}: {levels}" if reads else "reads 0/s",
        f"loads {rate(totals.get('loads', 0))}, joined {rate(totals.get('joined', 0))}, failed {rate(totals.get('load_errors', 0))}"
        f"   saved {duration(totals.get('saved', 0))} of loading each second",
        f"writes {rate(totals.get('writes', 0))}   bytes {size(totals.get('bytes_read', 0))}/s read, {size(totals.get('bytes_written', 0))}/s written   "
        + call.painted(f"errors {rate(errors)}", good=False if errors else None),
    ]
    if advice := fleet.totals.get("advice"):
        found += sentences(f"near size: {advice['text']}")
    if notice := _basis(pace, processes, once=once):
        found.append(call.painted(notice, faint=True))
    found += [call.painted(f"not complete: {visible(each)}", good=False) for each in fleet.missing[:3]]
    found += [NOBODY] if not fleet.workers and not fleet.missing else []
    body = TABLES[view](pace).splitlines()
    if screen is None:
        return [*found, "", *body]
    whole = [part for line in found for part in folded(line, screen.columns)]
    found = whole if len(whole) <= screen.lines // 2 else found  # a small screen is for the table first
    return [*found, "", *body[: max(screen.lines - len(found) - 1, 0)]]


def _basis(pace: Pace, processes: str, *, once: bool) -> str:
    """Return what the rates are of, if they are not those of the moment in all processes."""
    if pace.left_out:
        return f"{count(pace.left_out)} of {processes} not counted: no second publication was seen"
    if pace.since_start and once:
        return "all rates are averages since each process began: none has published anew meanwhile"
    if pace.since_start:
        return f"{count(pace.since_start)} of {processes}: average since they began, until they publish again"
    return ""


def place(call: Call) -> str:
    """Return which cache is shown."""
    cache = call.cache
    prefix = f"{visible(cache.key_prefix)} at " if cache.key_prefix else ""
    return prefix + ", ".join(server.address for server in list(cache.topology.primaries)[:3])


def _groups(pace: Pace) -> str:
    return _reading(pace.groups.items(), "group")


def _workers(pace: Pace) -> str:
    return _reading(pace.workers.items(), "process")


def _reading(several: Iterable[tuple[str, dict[str, float]]], head: str) -> str:
    rows = []
    for name, rates in sorted(several, key=lambda pair: -pair[1].get("reads", 0)):
        reads, loads = rates.get("reads", 0.0), rates.get("loads", 0.0)
        rows.append(
            (
                visible(cut(name, 30)),
                rate(reads),
                share(sum(rates.get(level, 0) for level in FOUND), reads),
                share(rates.get("near", 0), reads),
                rate(loads),
                duration(rates.get("load_seconds", 0) / loads) if loads else "-",
                rate(rates.get("writes", 0)),
                f"{size(rates.get('bytes_read', 0))}/s",
            )
        )
    return table((head, "reads", "found", "near", "loads", "each", "writes", "bytes read"), rows)


def _commands(pace: Pace) -> str:
    rows = [
        (
            visible(name),
            rate(each["calls"]),
            rate(each["errors"]),
            count(each.get("timed", 0)),
            *(duration(each.get(word)) for word in ("p50", "p95", "p99")),
        )
        for name, each in sorted(pace.commands.items(), key=lambda pair: -pair[1]["calls"])
    ]
    return table(("command", "calls", "errors", "timed", "p50", "p95", "p99"), rows)


TABLES: dict[str, Callable[[Pace], Any]] = {"group": _groups, "command": _commands, "worker": _workers}
