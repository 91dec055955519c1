"""``fleetcache keys``: which entries are there?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fleetcache.cli.calls import FINDING, FINE, UNREACHABLE, Call, WrongUse
from fleetcache.cli.listing import Listing
from fleetcache.cli.missing import nothing
from fleetcache.cli.parsing import Table, add_naming, refusing, whole
from fleetcache.cli.showing import count, duration, size
from fleetcache.inspection.keys import ALL, KINDS, Row, masked_key, page
from fleetcache.inspection.names import named
from fleetcache.inspection.tags import Course, walked
from fleetcache.keys import CacheKey

PAGE = 500
"""Entries in a page, with ``--long``."""


def add(commands: Table) -> None:
    """Add the command."""
    command = commands.command(
        "keys",
        run,
        place="option",
        help="list the keys that match a pattern, or count them",
        description="List the keys that match a glob, as they are found; a million keys take some seconds, and the server serves others "
        "in between. Keys are masked (users:…3f2a90c1) unless --show-keys is given. A key may come twice while the server rearranges its table. "
        "If nothing matches, it says which other prefixes and versions have such keys. Exits with 0, 1 if nothing matches, 2 if a server is away.",
    )
    command.add_argument(
        "pattern", metavar="PATTERN", nargs="?", default="*", help="a glob, such as 'user:*'; by default all"
    )
    command.add_argument("--count", action="store_true", help="only count them")
    command.add_argument("--long", action="store_true", help="with lifetime, size and type")
    command.add_argument("--show-keys", action="store_true", help="show keys as they are")
    command.add_argument("--full-names", action="store_true", help="show whole names on the server, which --name takes")
    command.add_argument("--kind", choices=KINDS, help="only entries of this type")
    command.add_argument("--limit", type=whole, metavar="N", help="stop after N keys")
    command.add_argument("--all-versions", action="store_true", help="of every version, not only of the cache's")
    command.add_argument("--library", action="store_true", help="also the library's own: of tags, leases, workers")
    add_naming(command)


def run(call: Call) -> int:
    """``fleetcache keys``."""
    arguments = call.arguments
    if arguments.all_versions and (arguments.version is not None or arguments.name):
        raise WrongUse("--all-versions goes with neither --version nor --name")
    if arguments.count and (arguments.long or arguments.limit):
        raise WrongUse("--count goes with neither --long nor --limit")
    course, listing, number, unnamed = Course(), Listing(call, "keys"), 0, ""
    with call.progress("looking") as bar, refusing():
        for found in (_rows if arguments.long else _names)(call, course):
            if not arguments.count and found:
                bar.clear()
            for row in found[: arguments.limit and arguments.limit - number]:
                number += 1
                unnamed = unnamed or row.unnamed
                if not arguments.count:
                    listing.add(*_written(call, row))
            if found and not arguments.count:
                call.flush()
            bar.total = course.total
            bar.at(course.passed, f"{count(number)} found")
            if number == arguments.limit:
                break
    facts = {
        "count": number,
        "names_on_servers": course.total,
        "complete": number != arguments.limit and not course.away,
    }
    if not (number or course.away or arguments.name or arguments.all_versions or arguments.kind):
        facts["elsewhere"] = nothing(call, arguments.pattern)
    if unnamed:
        facts["problem"] = f"whole names stand for keys: {unnamed}"
    if arguments.json:
        listing.end({**facts, "away": list(course.away)})
    elif arguments.count:
        call.say(str(number))
    if unnamed and not (arguments.json or arguments.count):
        call.note(f"fleetcache: {facts['problem']}")
    call.away(course.away)
    return UNREACHABLE if course.away else FINE if number else FINDING


def _names(call: Call, course: Course) -> Iterator[list[Row]]:
    """Yield the entries with nothing but their names."""
    pattern, version, arguments = *_wanted(call), call.arguments
    cache = call.cache
    for server, names in walked(cache, pattern, course, version, tags=arguments.library, kind=arguments.kind):
        yield [_row(cache, name, server.address) for name in names]


def _row(cache: Any, name: bytes, server: str) -> Row:
    version, key, unnamed = named(cache, name)
    return Row(name, version, key, kind="", ttl=None, size=None, server=server, unnamed=unnamed)


def _rows(call: Call, course: Course) -> Iterator[list[Row]]:
    """Yield the entries with all that a row has."""
    pattern, version, arguments = *_wanted(call), call.arguments
    cursor: str | None = None
    while True:
        options: dict[str, Any] = {"version": version, "kind": arguments.kind, "library": arguments.library}
        found = page(call.cache, pattern, cursor=cursor, count=PAGE, **options)
        course.passed, course.total, course.away = found.scanned, found.total, found.away
        yield found.entries
        cursor = found.cursor
        if cursor is None:
            return


def _wanted(call: Call) -> tuple[str, Any]:
    """Return the pattern and the version, as `page` takes them."""
    arguments = call.arguments
    pattern = CacheKey(arguments.pattern) if arguments.name else arguments.pattern
    return pattern, ALL if arguments.all_versions else arguments.version


def _written(call: Call, row: Row) -> tuple[dict[str, Any], str]:
    """Return *row* for JSON, and as a line."""
    arguments = call.arguments
    key = row.shown if arguments.full_names else row.key
    text = key if arguments.show_keys else masked_key(key)
    document: dict[str, Any] = {"name" if arguments.full_names else "key": text}
    if arguments.all_versions:
        document["version"] = row.version
        text = text if arguments.full_names else f"{row.version}:{text}"
    if not arguments.long:
        return document, text
    left = "for ever" if row.ttl is None else duration(row.ttl)
    document |= {"seconds": row.ttl, "bytes": row.size, "type": row.kind, "server": row.server}
    if row.problem:
        document["problem"] = row.problem
    return document, f"{left:>8}  {size(row.size):>8}  {row.kind:<6}  {text}"
