"""``fleetcache migrate check``: can a site move to fleetcache, and what will change?"""

from __future__ import annotations

import os
from contextlib import suppress

from fleetcache.cli.calls import FINDING, FINE, Call, WrongUse
from fleetcache.cli.doctor import page_of
from fleetcache.cli.parsing import Table
from fleetcache.cli.places import DJANGO, DJANGOS_OWN, imported
from fleetcache.cli.showing import visible
from fleetcache.inspection.migration import AliasReport, Note, Report, check


def add(commands: Table) -> None:
    """Add the command."""
    command = commands.command(
        "migrate",
        run,
        place="none",
        help="can a site move to fleetcache, and what will change?",
        description="Check whether a site that uses django-redis, Django's own Redis backend, django-valkey or django-redis-cache can move.",
    )
    table = Table(command)
    checking = table.command(
        "check",
        run,
        place="none",
        help="say what to change, what is refused, what will differ",
        description="Read the settings of a Django project and say, for each cache: the lines to change, which options are read or "
        "refused, what will behave differently, whether its entries can be read; and which packages depend on the old backend. Writes "
        "nothing. Exits with 0 if there is nothing to do, 1 if there is, 2 if the settings cannot be read.",
    )
    checking.add_argument(
        "--settings", metavar="MODULE", help="the settings of the project; else $DJANGO_SETTINGS_MODULE"
    )
    checking.add_argument("--alias", help="only this cache")
    checking.add_argument("--offline", action="store_true", help="ask no server")


def run(call: Call) -> int:
    """``fleetcache migrate check``."""
    arguments = call.arguments
    module = arguments.settings or os.environ.get(DJANGO)
    if not module:
        raise WrongUse(f"give the settings of a project as --settings, or set {DJANGO}")
    settings = imported(module)
    if any(hasattr(settings, name) for name in DJANGOS_OWN):
        set_up(module)
    names = {name: getattr(settings, name) for name in dir(settings) if name.isupper()}
    report = check(names, module=module, alias=arguments.alias, servers=not arguments.offline)
    call.answer(report.as_dict(), text(report))
    return FINDING if report.todo else FINE


def set_up(module: str) -> None:
    """Set Django up if that is possible, so that classes which the settings name can be imported."""
    os.environ.setdefault(DJANGO, module)
    with suppress(Exception):  # without Django, or with an app that is not installed; each import then says so
        from fleetcache.django.management.opening import setup

        setup()


def text(report: Report) -> str:
    """Return *report* for people."""
    lines = [line for each in report.caches for line in of_cache(each)]
    for title, notes in (("Settings", report.settings), ("Packages", report.packages), ("Tools", report.tools)):
        if notes:
            lines += [title, *map(of_note, notes), ""]
    lines += (
        ["In brackets: pages that the command `fleetcache docs` shows.", ""]
        if any("[" in line for line in lines)
        else []
    )
    lines.append("There is something to do (marked !)." if report.todo else "There is nothing to do.")
    return visible_lines(lines)


STATES = {
    "moves": "can move: change BACKEND",
    "done": "is fleetcache's",
    "refused": "cannot move yet",
    "other": "stays as it is",
}


def of_cache(report: AliasReport) -> list[str]:
    """Return the lines about one cache."""
    origin = f", {report.origin}" * bool(report.origin)
    lines = [f"CACHES[{report.alias!r}] ({report.backend}{origin}) {STATES[report.state]}"]
    lines += [f"  ! {change}" for change in report.changes]
    for result in ("refused", "translated", "read", "passed on", "no effect"):
        found = [each for each in report.options if each.result == result]
        if result in {"refused", "translated"}:
            mark = "!" if result == "refused" else " "
            lines += [f"  {mark} {each.name} is {result}: {each.note}" for each in found]
        elif found:
            lines.append(f"    {result}: {', '.join(each.name for each in found)}")
    lines += map(of_note, report.problems)
    if report.entries is not None:
        among = ", ".join(f"{count} {name}" for name, count in report.entries["formats"].items()) or "none"
        lines.append(f"    entries that were looked at: {report.entries['looked_at']} ({among})")
    if report.differences:
        lines += ["  What will differ:", *map(of_note, report.differences)]
    return [*lines, ""]


def of_note(note: Note) -> str:
    """Return the line of a note."""
    return f"  {'!' if note.todo else ' '} {note.text}" + f" [{page_of(note.docs)}]" * bool(note.docs)


def visible_lines(lines: list[str]) -> str:
    """Return *lines* without control characters."""
    return "\n".join(map(visible, lines))


__all__ = ["add", "run"]
