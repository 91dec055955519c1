"""``fleetcache bench``: what do operations cost on this server, from this machine?"""

from __future__ import annotations

from typing import Any

from fleetcache.cache import Cache
from fleetcache.cli.calls import FINE, Call
from fleetcache.cli.parsing import Table, span
from fleetcache.cli.places import opened
from fleetcache.cli.showing import duration, size, table
from fleetcache.inspection.bench import Benchmark, measure

NOISY = 0.3
"""A bare socket that varies by more than this is no measure."""


def add(commands: Table) -> None:
    """Add the command."""
    command = commands.command(
        "bench",
        run,
        help="what do operations cost on this server, from this machine?",
        description="Measure get, set, get_many and reads from near copies against a bare socket to the same server, in "
        "turns. Writes some entries with random names, which expire, and deletes them at the end. Exits with 0, or 2 if no server answers.",
    )
    command.add_argument("--seconds", type=span, default=5.0, help="how long it measures, by default 5")


def run(call: Call) -> int:
    """``fleetcache bench``."""
    seconds = call.arguments.seconds

    def near(beginning: str) -> Cache:
        return opened(call.arguments, for_tools=True, options={"NEAR": {"PREFIXES": [beginning]}})

    with call.progress("measuring", 100) as bar:
        found = measure(call.cache, near, seconds, lambda part: bar.at(round(100 * part)))
    call.answer(found.as_dict(), shown(found))
    return FINE


def shown(found: Benchmark) -> str:
    """Return the result as a table for people."""
    rows = [
        (f"{case.name}, {size(case.size)}", duration(case.call), duration(case.floor), f"{ratio(case)}")
        for case in found.cases
    ]
    heads = ("", "a call", "bare socket", "ratio")
    noise = f"Noise: the bare socket varied by {100 * found.noise:.0f} % between {found.rounds} rounds"
    lines = [found.address, "", table(heads, rows, indent="  "), ""]
    lines += [f"Not measured: {name}: {why}." for name, why in found.absent.items()]
    lines.append(f"{noise}.{' Something else is busy here: measure again.' if found.noise > NOISY else ''}")
    return "\n".join(lines)


def ratio(case: Any) -> str:
    """Return the ratio of *case* to the floor, with its spread."""
    figures = case.as_dict()
    return f"{figures['ratio']:.2f} ±{50 * figures['ratio_spread']:.0f} %"
