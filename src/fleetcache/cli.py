"""The command ``fleetcache``, also ``python -m fleetcache``."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from typing import Any

from redis.exceptions import RedisError

from fleetcache.caches import VARIABLE
from fleetcache.errors import FleetcacheError
from fleetcache.probe import Report, probe

FINE, OFF, UNREACHABLE = 0, 1, 2
MARKS = {True: "ok", False: "NO", None: ""}


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line; each command sets ``run``."""
    commands = argparse.ArgumentParser(prog="fleetcache", description="A cache on Redis and Valkey: tools.")
    table = commands.add_subparsers(required=True, metavar="COMMAND")
    command = table.add_parser(
        "probe",
        help="does the near cache work with a server?",
        description="Check that a server offers what the near cache needs. Writes one entry with a random name, "
        "which expires. Exits with 0 if the near cache works, 1 if not, 2 if no server answers.",
    )
    command.add_argument("url", metavar="URL", nargs="?", help=f"such as redis://127.0.0.1:6379/0; else ${VARIABLE}")
    command.add_argument("--prefix", help="begins the name of the key (KEY_PREFIX, or 'fleetcache', and ':')")
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(run=run_probe)
    return commands


def run_probe(arguments: argparse.Namespace) -> int:
    """``fleetcache probe``."""
    url = arguments.url or os.environ.get(VARIABLE)
    if not url:
        return complain(f"give the URL of a server, or set {VARIABLE}", arguments)
    try:
        report = probe(url, arguments.prefix)
    except (FleetcacheError, RedisError, OSError) as error:
        return complain(str(error), arguments)
    say(json.dumps(report.as_dict(), indent=2) if arguments.json else table_of(report))
    return FINE if report.works else OFF


def table_of(report: Report) -> str:
    """Return *report* as a table for people."""
    rows = [(check.name, MARKS[check.passed], check.found) for check in report.checks]
    width = max(len(name) for name, _, _ in rows)
    lines = [f"  {name:<{width}}  {mark:<2}  {found}" for name, mark, found in rows]
    return "\n".join([report.address, *lines, "", report.conclusion])


def complain(message: str, arguments: argparse.Namespace) -> int:
    """Say why no server could be asked; return the exit code for that."""
    if arguments.json:
        say(json.dumps({"works": False, "error": message}))
    else:
        sys.stderr.write(f"fleetcache: {message}\n")
    return UNREACHABLE


def say(text: str) -> None:
    """Write *text* and a line end."""
    sys.stdout.write(f"{text}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    found: Any = parser().parse_args(arguments)
    code: int = found.run(found)
    return code
