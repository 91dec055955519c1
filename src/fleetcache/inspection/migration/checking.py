"""`check`: the whole report about a site."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fleetcache.errors import SettingsError
from fleetcache.inspection.migration.entries import read_entry
from fleetcache.inspection.migration.packages import is_installed, packages
from fleetcache.inspection.migration.report import Note, Report
from fleetcache.inspection.migration.tools import tools
from fleetcache.settings import STAND_INS, stand_in_meant

OPTIONS = "docs/migration.md#options"
STEPS = "docs/migration.md#the-switch"
APP = "fleetcache.django"
INSTALL = (
    f'INSTALLED_APPS: add "{APP}",  # without it there are no system checks, no pages in the admin, no manage.py fleetcache, '
    f"and processes do not publish what they count"
)


def check(
    names: Mapping[str, Any], *, module: str = "settings", alias: str | None = None, servers: bool = True
) -> Report:
    """Return what becomes of the site whose settings are *names*, such as ``vars(settings)``.

    Only the cache *alias* is looked at if one is given.  If *servers*, those of each cache are asked, and a few of their entries are
    read; nothing is written.  Raise SettingsError if there are no caches, or not this one.
    """
    caches = names.get("CACHES")
    if not isinstance(caches, Mapping) or not caches:
        raise SettingsError(f"{module} has no CACHES")
    if alias is not None and alias not in caches:
        raise SettingsError(f"{module} has no cache {alias!r}. Its CACHES are {', '.join(map(repr, caches))}")
    wanted = {name: entry for name, entry in caches.items() if alias in {None, name}}
    known, notes = _stand_ins(names)
    report = Report(module=module, settings=notes)
    report.caches = [read_entry(name, entry, known, servers=servers) for name, entry in wanted.items()]
    apps = [str(app) for app in names.get("INSTALLED_APPS") or ()]
    if "INSTALLED_APPS" in names and not any(app.startswith(APP) for app in apps):
        moves = any(each.state in {"moves", "refused"} for each in report.caches)
        if moves or any(each.state == "done" for each in report.caches):
            report.settings.append(Note(text=INSTALL, docs=STEPS, todo=moves))
    report.packages = packages(apps, module)
    report.tools = tools(is_installed, wanted)
    return report


def _stand_ins(names: Mapping[str, Any]) -> tuple[dict[str, Any], list[Note]]:
    """Return the settings that fleetcache reads in place of absent OPTIONS, and what has to be known of all of them."""
    known = {name: names[name] for name in STAND_INS if name in names}
    notes = [Note(text=f"{name} is read.", docs=OPTIONS) for name in sorted(known)]
    for name in sorted(names):
        if not name.startswith(("DJANGO_VALKEY_", "DJANGO_REDIS_")) or name in known:
            continue
        renamed = name.replace("DJANGO_VALKEY_", "DJANGO_REDIS_")
        if renamed in STAND_INS:
            known.setdefault(renamed, names[name])
            notes.append(
                Note(text=f"Rename {name} to {renamed}, or set the option of each cache.", docs=OPTIONS, todo=True)
            )
        else:
            advice = stand_in_meant(renamed) or "Leave it out."
            notes.append(Note(text=f"{name} is not read. {advice}", docs=OPTIONS, todo=True))
    return known, notes
