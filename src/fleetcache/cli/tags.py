"""``fleetcache tags``: which tags are in use, which entries have one; and: give them up."""

from __future__ import annotations

from typing import Any

from fleetcache.cli.calls import FINDING, FINE, UNREACHABLE, Call
from fleetcache.cli.listing import Listing
from fleetcache.cli.parsing import Table, refusing, version_number
from fleetcache.cli.showing import count, duration, visible
from fleetcache.inspection.keys import ALL, masked_key
from fleetcache.inspection.tags import Course, Tag, entries_with, in_use, state


def add(commands: Table) -> None:
    """Add the commands."""
    table = commands.group(
        "tags", help="list tags, show one, or invalidate some", description="The tags of entries: see docs/tags.md."
    )
    command = table.command(
        "list",
        run_list,
        place="option",
        help="list the tags that are in use",
        description="List the tags that are in use, as they are found, with the time that they are still kept. Tags are masked unless "
        "--show-keys is given. Exits with 0, 1 if there is none, 2 if a server is away.",
    )
    command.add_argument(
        "pattern", metavar="PATTERN", nargs="?", default="*", help="a glob, such as 'user:*'; by default all"
    )
    command.add_argument("--show-keys", action="store_true", help="show tags as they are")
    command.add_argument("--all-versions", action="store_true", help="of every version, not only of the cache's")
    add_version(command)
    command = table.command(
        "show",
        run_show,
        place="option",
        help="show a tag, and the entries that have it",
        description="Show whether a tag is in use; with --entries walk through all entries, and list those that have it. Exits with 0, 1 if the "
        "tag is not in use, 2 if a server is away.",
    )
    command.add_argument("tag", metavar="TAG", help="the tag")
    command.add_argument("--entries", action="store_true", help="list the entries that have it")
    command.add_argument("--show-keys", action="store_true", help="show keys as they are")
    add_version(command)
    command = table.command(
        "invalidate",
        run_invalidate,
        place="option",
        help="give up all entries of tags; without --yes only show what would happen",
        description="Give up all entries that have one of the tags, stored or being loaded, in one step. Without --yes nothing is done: "
        "it is shown which tags are in use. Exits with 0, or 1 if none is.",
    )
    command.add_argument("tags", metavar="TAG", nargs="+", help="the tags")
    command.add_argument("--yes", action="store_true", help="invalidate them")
    add_version(command)


def add_version(command: Any) -> None:
    """Add the option that says in which version tags are named."""
    command.add_argument(
        "--version", type=version_number, metavar="N", help="the version of the keys, by default the cache's"
    )


def run_list(call: Call) -> int:
    """``fleetcache tags list``."""
    arguments = call.arguments
    course, listing = Course(), Listing(call, "tags")
    version = ALL if arguments.all_versions else arguments.version
    with call.progress("looking") as bar, refusing():
        for tag in in_use(call.cache, arguments.pattern, course, version):
            bar.clear()
            name = tag.name if arguments.show_keys else masked_key(tag.name)
            scope = f"{tag.version}:" if arguments.all_versions else ""
            document = {"tag": name, "version": tag.version, "seconds": tag.left}
            listing.add(document, f"{_left(tag):>8}  {scope}{visible(name)}")
            bar.total = course.total
            bar.at(course.passed)
    listing.end({"count": listing.number, "complete": not course.away, "away": list(course.away)})
    call.away(course.away)
    return UNREACHABLE if course.away else FINE if listing.number else FINDING


def _left(tag: Tag) -> str:
    return "for ever" if tag.left is None else duration(tag.left)


def run_show(call: Call) -> int:
    """``fleetcache tags show``."""
    arguments, cache = call.arguments, call.cache
    with refusing():
        tag = state(cache, arguments.tag, arguments.version)
    course, listing, valid = Course(), Listing(call, "entries"), 0
    if not call.json:
        name = visible(arguments.tag)
        call.say(f"{name}: not in use" if tag is None else f"{name}: in use, kept for {_left(tag)}")
    if arguments.entries:
        with call.progress("looking") as bar:
            for entry in entries_with(cache, arguments.tag, course, arguments.version):
                bar.clear()
                valid += entry.valid
                key = entry.key if arguments.show_keys else masked_key(entry.key)
                listing.add({"key": key, "valid": entry.valid}, f"  {key}{'' if entry.valid else '  (given up)'}")
                bar.total = course.total
                bar.at(course.passed)
    facts = {"tag": arguments.tag, "in_use": tag is not None, "seconds": tag.left if tag else 0}
    listing.end({**facts, "searched": arguments.entries, "valid": valid, "away": list(course.away)})
    if arguments.entries and not call.json:
        call.say(f"{count(listing.number)} entries, {count(listing.number - valid)} of them given up")
    call.away(course.away)
    return UNREACHABLE if course.away else FINE if tag else FINDING


def run_invalidate(call: Call) -> int:
    """``fleetcache tags invalidate``."""
    arguments, cache = call.arguments, call.cache
    with refusing():
        states = {tag: state(cache, tag, arguments.version) for tag in arguments.tags}
        used = [tag for tag, known in states.items() if known is not None]
        done = cache.invalidate_tags(*arguments.tags, version=arguments.version) if arguments.yes else 0
    how = "invalidated" if arguments.yes else "would be invalidated"
    lines = [f"{visible(tag)}: {how if tag in used else 'not in use'}" for tag in states]
    lines += ["Nothing was done. Give --yes to invalidate."] if not arguments.yes else []
    unused = [tag for tag in states if tag not in used]
    document = {"in_use": used, "not_in_use": unused, "invalidated": done, "dry_run": not arguments.yes}
    call.answer(document, "\n".join(lines))
    return FINE if used else FINDING
