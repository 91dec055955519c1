"""One entry of ``CACHES``: what is read, ignored or refused, what will differ, and what its servers hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from fleetcache.cache import Cache
from fleetcache.errors import SettingsError
from fleetcache.inspection.doctor.access import check_rights
from fleetcache.inspection.doctor.asking import Examination
from fleetcache.inspection.doctor.entries import body_of, strange_to
from fleetcache.inspection.doctor.findings import Finding
from fleetcache.inspection.doctor.sampling import sample
from fleetcache.inspection.doctor.servers import check_answers, check_version
from fleetcache.inspection.migration.differences import Old, differences
from fleetcache.inspection.migration.origins import BACKENDS, DJANGO, NEW, OURS, Translation, translated
from fleetcache.inspection.migration.overrides import overrides
from fleetcache.inspection.migration.report import AliasReport, Note, OptionReport
from fleetcache.settings import IGNORED, Options, Settings, by_name, located
from fleetcache.signatures import connection_options

PAGE = "docs/migration.md"
OWN_BACKEND = f"{PAGE}#backends-of-your-own"
APART = {"NEAR": None, "STATS": False}
"""The OPTIONS of a cache that only looks."""


def read_entry(alias: str, entry: Any, names: Mapping[str, Any], *, servers: bool) -> AliasReport:
    """Return what becomes of the cache *alias*; *names* are the settings of the project, and *servers* are asked if wanted."""
    if not isinstance(entry, Mapping):
        return AliasReport(alias=alias, backend="", problems=[Note(text="it is no dict", todo=True)])
    backend = str(entry.get("BACKEND", ""))
    report = AliasReport(alias=alias, backend=backend)
    origin = BACKENDS.get(backend, "")
    if backend in OURS:
        report.state = "done"
    elif not origin:
        origin = _of_own_class(report, backend)
        if not origin:
            return report
    report.origin = origin
    wanted = translated(origin, entry)
    if report.state != "done":
        report.state = "moves"
        own = not BACKENDS.get(backend)
        report.changes = [*([] if own else [f'"BACKEND": "{NEW}",  # was "{backend}"']), *wanted.changes]
    report.problems += overrides(origin, backend, wanted.options.get("CLIENT_CLASS"))
    _read_options(report, wanted, origin)
    settings = _built(report, wanted, names)
    if settings is None:
        return report
    report.differences = differences(origin, Old(entry.get("OPTIONS") or {}, names, settings))
    if servers:
        _ask(report, settings, wanted, names)
    return report


def _of_own_class(report: AliasReport, backend: str) -> str:
    """Return the package of the backend from which the class *backend* of the site is derived; "" if it is from none."""
    module, _, name = backend.rpartition(".")
    try:
        kind = getattr(import_module(module), name)
    except Exception as error:  # noqa: BLE001 - a module of the site may raise anything
        report.problems.append(Note(text=f"BACKEND cannot be imported: {type(error).__name__}: {error}", todo=True))
        return ""
    paths = [f"{each.__module__}.{each.__qualname__}" for each in getattr(kind, "__mro__", ())]
    if OURS.intersection(paths):
        report.state = "done"
        return ""
    origin = next((BACKENDS[path] for path in paths if path in BACKENDS), "")
    if origin:
        text = f"{backend} is derived from the backend of {origin}. Derive it from {NEW}, or keep the name: install the stand-in."
        report.problems.append(Note(text=text, docs=OWN_BACKEND, todo=True))
    return origin


def _read_options(report: AliasReport, wanted: Translation, origin: str) -> None:
    """Note what becomes of each option; leave out those that are refused."""
    known = by_name(Options)
    for name, how in wanted.translated.items():
        report.options.append(OptionReport(name=name, result="translated", note=how))
    for name, advice in wanted.refused.items():
        report.options.append(OptionReport(name=name, result="refused", note=advice))
    for name, value in wanted.options.items():
        if name in wanted.translated:
            continue
        try:
            Options.read("OPTIONS", {name: value}, {})
        except SettingsError as error:
            text = str(error).removeprefix(f"OPTIONS: {name}: ").removeprefix("OPTIONS: ")
            ignored = " It was ignored." * (name not in known and origin != DJANGO)
            report.options.append(OptionReport(name=str(name), result="refused", note=f"{text.rstrip('.')}.{ignored}"))
            wanted.params["OPTIONS"] = {other: each for other, each in wanted.options.items() if other != name}
            continue
        result: Any = "no effect" if name in IGNORED else "read" if name in known else "passed on"
        if name in known and name in connection_options():
            result = "read"
        report.options.append(OptionReport(name=str(name), result=result))
    if any(each.result == "refused" for each in report.options):
        report.state = "refused" if report.state == "moves" else report.state
        names = ", ".join(each.name for each in report.options if each.result == "refused")
        report.problems.append(Note(text=f"Change or leave out: {names}.", docs=f"{PAGE}#options", todo=True))


def _built(report: AliasReport, wanted: Translation, names: Mapping[str, Any]) -> Settings | None:
    """Return the settings as fleetcache builds them; note why it cannot."""
    try:
        settings = Settings.read(wanted.location, wanted.params, alias=report.alias, defaults=names)
        kind: type[Cache] = settings.options.client_class
        kind.make_codec(settings)
        kind.make_topology(settings)
    except SettingsError as error:
        report.problems.append(Note(text=str(located(error, f"CACHES[{report.alias!r}]")), docs=PAGE, todo=True))
        report.state = "refused" if report.state == "moves" else report.state
        return None
    return settings


# --- the servers ----------------------------------------------------------------------------------


def _ask(report: AliasReport, settings: Settings, wanted: Translation, names: Mapping[str, Any]) -> None:
    """Note what the servers say, and what a sample of the entries shows."""
    if settings.location[0].kind == "memory":
        return
    params = {**wanted.params, "OPTIONS": {**wanted.options, **APART}}
    cache = settings.options.client_class(wanted.location, params, alias=report.alias, defaults=names)
    examination = Examination(cache, report.alias, {}, None, probes=False)
    for check in (check_answers, check_version, check_rights):
        report.problems += map(_note, check(examination))
    if not examination.primaries:
        return
    found = sample(examination)
    serializer = type(cache.codec.serializer).__name__
    strange = strange_to(serializer)
    unreadable = sum(count for form, count in found.formats.items() if form.body in strange)
    formats = Counter(str(form) for form in found.formats.elements())
    report.entries = {
        "names_seen": found.seen,
        "names_of_others": found.foreign.total(),
        "looked_at": found.looked_at,
        "formats": dict(formats),
        "serializer": serializer,
        "unreadable": unreadable if body_of(serializer) else None,
    }
    if unreadable:
        text = (
            f"{found.share(unreadable)} cannot be read by {serializer}: they are of another program, or of another "
            f"SERIALIZER. Reads of them miss"
        )
        report.problems.append(Note(text=text, docs="docs/doctor.md#format-foreign", todo=True))


def _note(finding: Finding) -> Note:
    return Note(
        text=f"{finding.subject}: {finding.found.rstrip('.')}. {finding.advice}",
        docs=finding.docs,
        # A server whose makers correct it no more serves fleetcache as it served before.  The site's servers may be out of reach from here.
        todo=finding.severity == "error" and finding.id != "server-away",
    )
