"""``fleetcache ttl``: how long does an entry live?  And: let it live longer, or less long."""

from __future__ import annotations

from fleetcache.cli.calls import FINDING, FINE, Call
from fleetcache.cli.missing import add_search, missing
from fleetcache.cli.parsing import Table, add_naming, lifetime
from fleetcache.cli.showing import duration, visible
from fleetcache.inspection.keys import Description, describe, set_ttl
from fleetcache.inspection.misses import why


def add(commands: Table) -> None:
    """Add the command."""
    command = commands.command(
        "ttl",
        run,
        place="option",
        help="show how long an entry lives, or change it",
        description="Show how long an entry lives on the server, and how long it is fresh; with SECONDS let it be fresh for that time from "
        "now. If there is no entry, it is looked for as by `get`. Exits with 0, or 1 if there is no entry; a stale one, whose fresh life has ended, counts as none when it is to be changed.",
    )
    command.add_argument("key", metavar="KEY", help="the key of the entry")
    command.add_argument(
        "seconds",
        metavar="SECONDS",
        nargs="?",
        type=lifetime,
        help="how long it is fresh from now on, or 'forever'; its stale life after that stays as long as it is",
    )
    add_naming(command)
    add_search(command)


def run(call: Call) -> int:
    """``fleetcache ttl``."""
    arguments = call.arguments
    cache, key, version, wanted = call.cache, call.key(arguments.key), arguments.version, arguments.seconds
    changed = wanted is None or set_ttl(cache, key, None if wanted == "forever" else wanted, version=version)
    found = describe(cache, key, version=version)
    if not found.exists:
        facts = {"seconds": None, "fresh_seconds": 0.0, "state": "missing", "changed": False}
        return missing(call, key, facts)
    there = changed
    call.answer(
        {
            "key": arguments.key,
            "there": there,
            "seconds": found.ttl,
            "fresh_seconds": found.fresh,
            "state": found.about.standing if found.about else "fresh",
            "changed": wanted is not None and changed,
        },
        _shown(call, found) if there else f"{visible(arguments.key)}: there is no fresh entry",
    )
    return FINE if there else FINDING


def _shown(call: Call, found: Description) -> str:
    reason = why(call.cache, found)
    return f"{_life(found)}\n{visible(reason)}" if reason else _life(found)


def _life(found: Description) -> str:
    lives = "for ever" if found.ttl is None else duration(found.ttl)
    about = found.about
    if about is None or (about.standing == "fresh" and about.fresh is None):
        return lives
    if about.standing != "fresh":
        return f"{about.standing}, and kept for {lives}"
    return f"fresh for {duration(about.fresh)}, kept for {lives}"
