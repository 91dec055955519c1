"""``fleetcache warm``: calls a site's function, so that its results are in the cache before anybody asks."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from fleetcache.cli.calls import FINDING, FINE, INTERRUPTED, Call, WrongUse
from fleetcache.cli.parsing import Table, whole
from fleetcache.cli.places import ready
from fleetcache.cli.showing import count, duration, visible
from fleetcache.inspection.warm import Given, Warmed, arguments_in, arguments_of, named, warm


def add(commands: Table) -> None:
    """Add the command."""
    command = commands.command(
        "warm",
        run,
        place="settings",
        help="call a function of the site, so that its results are in the cache",
        description="Call a function of the site once, or for each of many arguments, several calls at the same time. A function "
        "with @cached loads what is missing, in batches if it has loads_many. Exits with 0, or 1 if a call failed.",
    )
    command.add_argument("function", metavar="MODULE:FUNCTION", help="such as shop.profiles:profile")
    which = command.add_mutually_exclusive_group()
    which.add_argument(
        "--arguments",
        metavar="FILE",
        help="a call for each line: JSON, a list of arguments, an object of named ones, or the only argument; - is standard input",
    )
    which.add_argument("--from", dest="source", metavar="MODULE:FUNCTION", help="a function that returns the arguments")
    command.add_argument("--text", action="store_true", help="each line of FILE is a text, the only argument")
    command.add_argument("--refresh", action="store_true", help="load anew what is in the cache already")
    command.add_argument(
        "--concurrency", type=whole, default=4, metavar="N", help="calls at the same time, by default 4"
    )
    command.add_argument(
        "--batch", type=whole, default=100, metavar="N", help="arguments for loads_many at once, by default 100"
    )


def run(call: Call) -> int:
    """``fleetcache warm``."""
    arguments = call.arguments
    if arguments.text and not arguments.arguments:
        raise WrongUse("--text goes with --arguments FILE")
    ready(arguments)
    function = named(arguments.function)
    given = _given(call)
    total = len(given) if isinstance(given, list) else None
    with call.progress("warming", total) as bar:

        def step(warmed: Warmed) -> None:
            bar.at(warmed.called, f"{count(warmed.failed)} failed" if warmed.failed else "")

        options = {"refresh": arguments.refresh, "concurrency": arguments.concurrency, "batch": arguments.batch}
        warmed = warm(function, given, **options, step=step)
    call.answer({"function": arguments.function, **warmed.as_dict()}, shown(warmed))
    return INTERRUPTED if warmed.stopped else FINDING if warmed.failed else FINE


def _given(call: Call) -> Iterable[Given]:
    """Return the arguments of the calls; a list, if it is known how many there are."""
    arguments = call.arguments
    if arguments.source:
        return arguments_of(arguments.source)
    if arguments.arguments is None:
        return [((), {})]
    if arguments.arguments == "-":
        return arguments_in(sys.stdin, text=arguments.text)
    return _lines(Path(arguments.arguments), text=arguments.text)


def _lines(path: Path, *, text: bool) -> Iterable[Given]:
    """Return the arguments in the file at *path*; its lines are checked first, so that a wrong one stops nothing half way."""

    def read() -> Iterator[Given]:
        with path.open(encoding="utf-8") as lines:
            yield from arguments_in(lines, text=text)

    return list(read()) if path.stat().st_size < 50_000_000 else read()


def shown(warmed: Warmed) -> str:
    """Return the result for people."""
    loads = "" if warmed.loads is None else f", {count(warmed.loads)} loads"
    end = "Interrupted: " if warmed.stopped else ""
    lines = [
        f"{end}{count(warmed.called)} called{loads}, {count(warmed.failed)} failed, in {duration(warmed.seconds)}."
    ]
    lines += [f"  {name}: {count(number)}" for name, number in warmed.errors.most_common()]
    lines += [f"    {visible(example)}" for example in warmed.examples]
    return "\n".join(lines)
