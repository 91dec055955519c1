"""``fleetcache delete``: deletes entries, after a dry run that shows which."""

from __future__ import annotations

from typing import Any

from fleetcache import commands as c
from fleetcache.cli.calls import FINDING, FINE, UNREACHABLE, Call, WrongUse
from fleetcache.cli.parsing import Table, add_naming, refusing
from fleetcache.cli.showing import count, visible
from fleetcache.inspection.describing import server_of
from fleetcache.inspection.keys import ALL, Progress, delete, delete_pattern, masked_key, shown
from fleetcache.inspection.names import name_of, parts
from fleetcache.keys import CacheKey
from fleetcache.twin import complete


def add(commands: Table) -> None:
    """Add the command."""
    command = commands.command(
        "delete",
        run,
        place="option",
        help="delete entries, by key or by pattern; without --yes only show which",
        description="Delete entries, stored or just being loaded. Without --yes nothing is deleted: it is shown what would be. Exits with 0, 1 "
        "if there is no such entry, 2 if a server is away.",
    )
    command.add_argument("keys", metavar="KEY", nargs="*", help="the keys of the entries")
    command.add_argument("--pattern", metavar="PATTERN", help="all entries whose keys match this glob")
    command.add_argument("--yes", action="store_true", help="delete them")
    command.add_argument("--show-keys", action="store_true", help="show keys that match the pattern as they are")
    command.add_argument("--all-versions", action="store_true", help="with --pattern: of every version")
    add_naming(command)


def run(call: Call) -> int:
    """``fleetcache delete``."""
    arguments = call.arguments
    if bool(arguments.keys) == (arguments.pattern is not None):
        raise WrongUse("give keys, or --pattern PATTERN" + (", not both" if arguments.keys else ""))
    if arguments.all_versions and (arguments.keys or arguments.name or arguments.version is not None):
        raise WrongUse("--all-versions goes with --pattern, and with neither --version nor --name")
    return _by_pattern(call) if arguments.pattern is not None else _by_key(call)


def _by_key(call: Call) -> int:
    arguments, cache = call.arguments, call.cache
    still = cache._still or cache
    there = []
    for text in dict.fromkeys(arguments.keys):
        name = name_of(still, call.key(text), arguments.version)
        if complete(_exists(still, name)):
            there.append((text, name))
    deleted = delete(cache, [name for _, name in there], version=arguments.version) if arguments.yes and there else 0
    missing = [text for text in dict.fromkeys(arguments.keys) if text not in dict(there)]
    document = {
        "found": [text for text, _ in there],
        "missing": missing,
        "deleted": deleted,
        "dry_run": not arguments.yes,
    }
    lines = [f"{'deleted' if arguments.yes else 'would be deleted'}: {visible(text)}" for text, _ in there]
    lines += [f"not there: {visible(text)}" for text in missing]
    lines += ["Nothing was deleted. Give --yes to delete."] if there and not arguments.yes else []
    call.answer(document, "\n".join(lines))
    return FINE if there else FINDING


async def _exists(cache: Any, name: bytes) -> bool:
    server = await server_of(cache, name)
    (reply,) = await cache._runtime.exchange(server, ((c.EXISTS_NOW, name),))
    if isinstance(reply, Exception):
        raise reply
    return bool(reply)


def _by_pattern(call: Call) -> int:
    arguments = call.arguments
    pattern = CacheKey(arguments.pattern) if arguments.name else arguments.pattern
    version = ALL if arguments.all_versions else arguments.version
    last: Progress | None = None
    what = "deleting" if arguments.yes else "looking"
    with call.progress(what) as bar, refusing():
        for last in delete_pattern(call.cache, pattern, dry_run=not arguments.yes, version=version):
            bar.total = last.total
            bar.at(last.scanned, f"{count(last.matched)} found")
    assert last is not None
    call.answer(_document(call, last), _text(call, last))
    call.away(last.away)
    return UNREACHABLE if last.away else FINE if last.matched else FINDING


def _samples(call: Call, last: Progress) -> list[str]:
    keys = [shown(name) if call.arguments.name else parts(call.cache, name)[1] for name in last.samples]
    return keys if call.arguments.show_keys else [masked_key(key) for key in keys]


def _document(call: Call, last: Progress) -> dict[str, Any]:
    return {
        "matched": last.matched,
        "deleted": last.deleted,
        "dry_run": not call.arguments.yes,
        "samples": _samples(call, last),
        "complete": not last.away,
        "away": last.away,
    }


def _text(call: Call, last: Progress) -> str:
    if not last.matched:
        return "Nothing matches."
    if call.arguments.yes:
        return f"{count(last.deleted)} deleted."
    samples = _samples(call, last)
    more = [f"  … and {count(last.matched - len(samples))} more"] if last.matched > len(samples) else []
    lines = [f"{count(last.matched)} would be deleted:", *(f"  {key}" for key in samples), *more]
    return "\n".join([*lines, "Nothing was deleted. Give --yes to delete."])
