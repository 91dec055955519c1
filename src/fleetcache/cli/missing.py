"""What commands say of a key that is not there: which name was asked for, where the key is instead, and what to do."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict
from typing import Any

from fleetcache.cli.calls import FINDING, Call
from fleetcache.cli.parsing import Parser, span
from fleetcache.cli.showing import count, table, visible
from fleetcache.errors import FleetcacheError
from fleetcache.inspection.misses import BUDGET, Search, heads, search
from fleetcache.keys import default_key_function


def add_search(command: Parser) -> None:
    """Add the option that bounds the search."""
    command.add_argument(
        "--search",
        type=seconds,
        default=BUDGET,
        metavar="SECONDS",
        help="how long it looks for similar names if there is no entry, by default 2; 0: not at all",
    )


def seconds(text: str) -> float:
    """Return the seconds in *text*, for ``type=`` of an argument."""
    return 0.0 if text == "0" else span(text)


def missing(call: Call, key: str | bytes, document: dict[str, Any]) -> int:
    """Say that there is no entry of *key*, and where it may be; *document* begins the JSON document.  Return the exit code."""
    arguments = call.arguments
    found = search(
        call.cache,
        key,
        version=arguments.version,
        others=_others(call),
        budget=arguments.search,
        commands=call.commands,
    )
    call.answer({"key": arguments.key, "there": False, **document, **_document(found)}, _text(call, found))
    call.away(found.away)
    call.note_rights([found.refused])
    return FINDING


def _others(call: Call) -> dict[str, Any]:
    """Return the other caches of the same settings, by alias; none if a URL names the cache."""
    from fleetcache.cli.doctor import opened
    from fleetcache.cli.places import url_in

    if url_in(call.arguments):
        return {}
    mine = call.arguments.alias or "default"
    with suppress(FleetcacheError):
        caches = opened(call).caches
        return {alias: each for alias, each in caches.items() if alias != mine and hasattr(each, "topology")}
    return {}


def _document(found: Search) -> dict[str, Any]:
    return {
        "name": found.name,
        "server": found.server,
        "asked": {"prefix": found.prefix, "version": found.version, "key": found.key},
        "alike": [asdict(each) for each in found.alike],
        "searched": {
            "names": found.scanned,
            "total": found.total,
            "complete": found.complete,
            "refused": found.refused,
        },
        "perhaps": found.perhaps,
        "facts": found.facts,
    }


def nothing(call: Call, pattern: str) -> dict[str, int]:
    """Say how names begin that match *pattern* in other versions and under other prefixes; return their numbers."""
    if call.cache._namer is not default_key_function:
        if not call.json:
            own = "KEY_FUNCTION, or make_key(), is your own: other versions and prefixes were not looked for."
            call.note(f"fleetcache: no name of this version matches. {own}")
        return {}
    found = heads(call.cache, pattern)
    mine = f"{call.cache.key_prefix}:{call.arguments.version or call.cache.version}:"
    if not call.json:
        others = f"Names of other prefixes and versions match: {visible(str(found))}." if found.counts else ""
        call.note(" ".join(filter(None, (f"fleetcache: no name that begins with {mine!r} matches.", others))))
    return dict(found.counts.most_common(5))


def _text(call: Call, found: Search) -> str:
    lines = [
        f"{visible(call.arguments.key)}: there is no entry {visible(found.name)} on {visible(str(found.server))}",
        "",
    ]
    if found.version is not None:
        rows = [
            ("prefix", visible(found.prefix or "none")),
            ("version", visible(str(found.version))),
            ("key", visible(found.key)),
        ]
        lines += [table(("", ""), rows, left=2), ""]
    for each in found.alike:
        lines += [f"There is {visible(each.name)}: {visible(each.how)}.", f"    {visible(each.advice)}"]
    if found.alike and call.commands.note:
        lines.append(call.commands.note)
    if not found.alike and not found.hidden:
        lines.append("No similar name was found." if call.arguments.search else "No similar name was looked for.")
    if found.refused:
        lines.append(f"The names cannot be searched: {visible(found.refused)}.")
    elif call.arguments.search and not found.complete:
        part = f"{count(found.scanned)} of {count(found.total)} names were looked through"
        lines.append(f"The search is not complete: {part}. Give --search 60 to search for a minute.")
    lines += [visible(fact) for fact in found.facts]
    lines += ["", "Otherwise, perhaps:" if found.alike else "Perhaps:", *(f"  {reason}" for reason in found.perhaps)]
    return "\n".join(lines)
