"""``fleetcache get``: what is known of an entry?"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from redis.exceptions import RedisError

from fleetcache import commands as c
from fleetcache.cli.calls import FINDING, FINE, Call, WrongUse
from fleetcache.cli.missing import add_search, missing
from fleetcache.cli.parsing import Table, add_naming
from fleetcache.cli.showing import count, duration, moment, size, table, visible
from fleetcache.inspection.describing import server_of
from fleetcache.inspection.keys import Description, Preview, describe
from fleetcache.inspection.misses import why
from fleetcache.inspection.names import name_of
from fleetcache.twin import complete


def add(commands: Table) -> None:
    """Add the command."""
    command = commands.command(
        "get",
        run,
        place="option",
        help="show an entry: lifetime, size, format, tags, value",
        description="Show all that is known of an entry, and its value, of which 64 kB at most are read. A pickle is not unpickled, but what "
        "it holds is named. If there is no entry, the same key is looked for under other versions and prefixes, in other databases and caches. "
        "Exits with 0, or 1 if there is no entry.",
    )
    command.add_argument("key", metavar="KEY", help="the key of the entry")
    how = command.add_mutually_exclusive_group()
    how.add_argument(
        "--raw", action="store_true", help="write the bytes of the value, as they are on the server, and nothing else"
    )
    how.add_argument(
        "--unpickle", action="store_true", help="unpickle the value: this runs whatever code its writer chose"
    )
    add_naming(command)
    add_search(command)


def run(call: Call) -> int:
    """``fleetcache get``."""
    arguments = call.arguments
    key = call.key(arguments.key)
    if arguments.raw:
        return _raw(call, key)
    found = describe(call.cache, key, version=arguments.version, unpickle=arguments.unpickle)
    if not found.exists:
        return missing(call, key, {})
    reason = why(call.cache, found)
    near = _near(call) if call.configured.settings.options.near is not None else ""
    call.answer({**document(found), "returned": not reason, "why_not": reason}, shown(found, reason, near=near))
    call.note_rights(found.problems)
    return FINE


def _raw(call: Call, key: str | bytes) -> int:
    """Write the value as it is on the server."""
    if call.json:
        raise WrongUse("--raw writes bytes, which --json cannot")
    cache = call.cache
    still = cache._still or cache
    name = name_of(still, key, call.arguments.version)
    (payload,) = complete(_exchanged(still, name))
    if isinstance(payload, RedisError):
        raise payload
    if payload is None:
        call.note(f"fleetcache: {visible(call.arguments.key)}: there is no entry")
        return FINDING
    call.write_bytes(payload)
    return FINE


async def _exchanged(cache: Any, name: bytes) -> list[Any]:
    server = await server_of(cache, name)
    found: list[Any] = await cache._runtime.exchange(server, ((c.GET_NOW, name),))
    return found


def document(found: Description) -> dict[str, Any]:
    """Return *found* for JSON."""
    facts = {**asdict(found), "there": True, "name": found.shown}
    facts["seconds"] = facts.pop("ttl")
    facts["type"] = facts.pop("kind")
    facts["bytes"] = facts.pop("size")
    facts["value"] = facts.pop("preview")
    return facts


def _near(call: Call) -> str:
    """Return what is to be said of the copies that processes keep."""
    stats = f"each process has its own; `{call.commands('stats')}` counts what they answer"
    return " ".join(filter(None, (f"{stats}, `fleetcache docs cli` says why one may not.", call.commands.note)))


def shown(found: Description, reason: str, *, near: str) -> str:
    """Return *found* for people; *reason* says why the cache does not return it, *near* tells of the copies of processes."""
    rows = [("name", found.shown), ("server", found.server), ("answer", visible(reason) or "a hit")]
    rows += [("near copies", near)] if near else []
    rows.append(("type", found.kind))
    rows.append(("lives", "for ever" if found.ttl is None else f"for {duration(found.ttl)}"))
    rows += [("takes", size(found.size))] if found.size is not None else []
    if found.length is not None:
        rows.append(("length", size(found.length) if found.kind == "string" else f"{count(found.length)} members"))
    rows += [("format", ", ".join(found.codec))] if found.codec else []
    rows += [("not read", f"for {duration(found.idle)}")] if found.idle else []
    rows += [("being loaded", f"its lease ends in {duration(found.loading)}")] if found.loading else []
    rows += _about(found)
    rows += [("problem", visible(problem)) for problem in found.problems]
    lines = [table(("", ""), rows, left=2)]
    if found.preview is not None:
        lines += ["", _value(found.preview)]
    if found.members:
        lines += ["", *(_member(member) for member in found.members)]
    return "\n".join(lines)


def _about(found: Description) -> list[tuple[str, str]]:
    about = found.about
    if about is None:
        return []
    rows = [("state", about.standing)] if about.standing else []
    rows += [("fresh", f"for {duration(about.fresh)}")] if about.fresh is not None and about.fresh > 0 else []
    rows += [("stale", f"for {duration(about.stale)} after that")] if about.stale else []
    rows += [("loaded", moment(about.made))] if about.made else []
    rows += [("load took", duration(about.cost))] if about.cost else []
    for tag in about.tags:
        state = {True: "", False: " (invalidated)", None: " (not known)"}[tag.valid]
        rows.append(("tag", f"{visible(tag.name)}{state}"))
    return rows


def _member(member: Any) -> str:
    score = "" if member.score is None else f"{member.score:g}  "
    name = f"{visible(member.name)}  " if member.name else ""
    return f"  {name}{score}{_value(member.value)}"


def _value(preview: Preview) -> str:
    problem = f"\n({visible(preview.problem)})" if preview.problem else ""
    return f"{preview.text}{'' if preview.whole else ' …'}{problem}"
