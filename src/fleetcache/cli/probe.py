"""``fleetcache probe``: does the near cache work with a server?"""

from __future__ import annotations

from redis.exceptions import RedisError

from fleetcache.cli.calls import FINDING, FINE, UNREACHABLE, Call, WrongUse
from fleetcache.cli.parsing import Table
from fleetcache.cli.showing import table
from fleetcache.errors import FleetcacheError
from fleetcache.probe import Report, examine

MARKS = {True: "ok", False: "NO", None: ""}


def add(commands: Table) -> None:
    """Add the command."""
    command = commands.command(
        "probe",
        run,
        help="does the near cache work with a server?",
        description="Check that a server offers what the near cache needs. Writes one entry with a random name, "
        "which expires; on a cluster one on each primary. Exits with 0 if the near cache works, 1 if not, 2 if a server does not answer.",
    )
    command.add_argument("--prefix", help="begins the name of the key (KEY_PREFIX, or 'fleetcache', and ':')")


def run(call: Call) -> int:
    """``fleetcache probe``."""
    try:
        report = examine(call.cache.settings, call.arguments.prefix)
    except (WrongUse, FleetcacheError, RedisError, OSError) as error:
        return call.complain(error, works=False)
    call.answer(report.as_dict(), table_of(report))
    away = any(node.error for node in report.nodes)
    return FINE if report.works else UNREACHABLE if away else FINDING


def table_of(report: Report) -> str:
    """Return *report* as a table for people."""
    rows = [(check.name, MARKS[check.passed], check.found) for check in report.checks]
    return "\n".join([report.address, table(("", "", ""), rows, left=3, indent="  "), "", report.conclusion])
