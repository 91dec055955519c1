"""``fleetcache doctor``: what is wrong with the caches of a site, their servers and their settings?"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from fleetcache.cache import Cache
from fleetcache.caches import DEFAULT_ALIAS, VARIABLE, CacheHandler, from_environment
from fleetcache.cli.calls import FINDING, FINE, UNREACHABLE, Call, WrongUse
from fleetcache.cli.parsing import Table
from fleetcache.cli.places import DJANGO, GIVEN, caches_in, fault_in_url, replaced, url_in, variable
from fleetcache.cli.showing import visible
from fleetcache.errors import SettingsError
from fleetcache.fleet import Fleet, gather
from fleetcache.inspection.blame import told
from fleetcache.inspection.doctor import KINDS, Finding, answers, examine, refused, told_once
from fleetcache.inspection.doctor.findings import NOUNS
from fleetcache.interrupts import let_pass
from fleetcache.settings import from_url

GONE = frozenset(("server-away", "server-refuses"))
SILENT = {"STATS": False}


def add(commands: Table) -> None:
    """Add the command."""
    command = commands.command(
        "doctor",
        run,
        help="what is wrong with the caches, their servers and settings?",
        description="Check the settings of all caches, or of the one that --alias names, and their servers: version, memory, "
        "rights, TLS, clocks, replicas, Sentinels, clusters, a sample of the entries, the processes. Writes one entry "
        "with a random name, which expires. Exits with 0 if there is no error and no warning, 1 if there is, 2 if no server of a "
        "cache answers. `fleetcache docs doctor` explains every finding.",
    )
    command.add_argument("--ignore", metavar="ID", action="append", default=[], help="leave out this kind of finding")
    command.add_argument("--no-probe", action="store_true", help="write nothing: do not probe the near cache")


def run(call: Call) -> int:
    """``fleetcache doctor``."""
    ignored: list[str] = call.arguments.ignore
    if unknown := [name for name in ignored if name not in KINDS]:
        raise WrongUse(f"there is no finding {unknown[0]!r}. `fleetcache docs doctor` lists them")
    site = opened(call)
    made = site.caches
    caches = {alias: cache for alias, cache in made.items() if isinstance(cache, Cache)}
    wanted = [call.arguments.alias] if call.arguments.alias else list(made)
    found: dict[str, list[Finding]] = {}
    unreachable = False
    for alias in wanted:
        if alias not in made:
            raise WrongUse(
                f"there is no cache {alias!r} of fleetcache. There are {', '.join(map(repr, made)) or 'none'}"
            )
        cache = made[alias]
        if isinstance(cache, SettingsError):
            findings = [refused(alias, cache, site.urls.get(alias, ""))]
        else:
            findings = examine(
                cache,
                alias=alias,
                others=caches,
                fleet=fleet_of(cache),
                probes=not call.arguments.no_probe,
                url=site.urls.get(alias, ""),
                commands=call.commands if len(made) == 1 else call.commands.of(alias),
            )
            gone = {each.subject for each in findings if each.id in GONE}
            unreachable |= gone.issuperset({server.address for server in cache.topology.servers})
        found[alias] = [each for each in findings if each.id not in ignored]
    found = told_once(found)
    call.answer(document(found), text(call, site, found))
    if unreachable:
        return UNREACHABLE
    return FINDING if counts(found)["error"] or counts(found)["warning"] else FINE


class Site(NamedTuple):
    """The caches of a site by alias, or why one cannot be made."""

    caches: Mapping[str, Cache | SettingsError]
    urls: Mapping[str, str] = {}
    """The name of the place where a cache's URL is written, by alias; empty if the caches are those of CACHES."""

    def subject(self, alias: str) -> str:
        """Return the place where the settings of *alias* are written."""
        return self.urls.get(alias) or f"CACHES[{alias!r}]"


def opened(call: Call) -> Site:
    """Return the caches of the site.

    They are as its workers have them, but count nothing: this process is no worker, and publishes no figures.
    """
    arguments = call.arguments
    if url := url_in(arguments):
        if arguments.alias or (arguments.settings and not getattr(arguments, "in_django", False)):
            raise WrongUse("give either a URL or --alias and --settings, not both")
        return of_urls({DEFAULT_ALIAS: url}, {DEFAULT_ALIAS: GIVEN})
    if getattr(arguments, "in_django", False):
        return Site(of_django())
    urls = from_environment(os.environ)
    if urls and not arguments.settings:
        return of_urls(urls, {alias: variable(alias) for alias in urls})
    module = arguments.settings or os.environ.get(DJANGO)
    if not module:
        raise WrongUse(f"give the URL of a server or --settings MODULE, or set {VARIABLE} or {DJANGO}")
    entries = caches_in(module)
    return Site(of_django() if entries is None else of_entries(entries))


def of_urls(urls: Mapping[str, str], places: Mapping[str, str]) -> Site:
    """Return the caches of *urls*, each of which is written at one of *places*."""
    made = of_entries(urls)
    wrong = {alias: each for alias, each in made.items() if isinstance(each, SettingsError)}
    return Site({**made, **{alias: SettingsError(fault_in_url(each, alias)) for alias, each in wrong.items()}}, places)


def of_entries(entries: Mapping[str, Any]) -> dict[str, Cache | SettingsError]:
    """Return the caches of *entries*, URLs or entries of ``CACHES``, without Django."""
    return {alias: attempted(one_of, entry, alias) for alias, entry in entries.items()}


def one_of(entry: Any, alias: str) -> Cache:
    """Return the cache of one *entry*."""
    location, params = (entry.get("LOCATION"), dict(entry)) if isinstance(entry, Mapping) else from_url(entry)
    params["OPTIONS"] = replaced(params.get("OPTIONS"), SILENT)
    return CacheHandler({alias: {**params, "LOCATION": location}})[alias]


def of_django() -> dict[str, Cache | SettingsError]:
    """Return the caches in Django's ``CACHES`` that are fleetcache's."""
    from fleetcache.django.backend import entries
    from fleetcache.django.management.opening import made

    silent = partial(replaced, options=SILENT)
    return {alias: attempted(made, alias, silent) for alias, _, _ in entries()}


def attempted(make: Callable[..., Cache], *arguments: Any) -> Cache | SettingsError:
    """Return what *make* makes of *arguments*, or why it refuses."""
    try:
        return make(*arguments)
    except SettingsError as error:
        return error
    except Exception as error:
        let_pass(error)
        of_site = told(error)
        # Django's ImproperlyConfigured cannot be named here.
        if not of_site and not isinstance(error, ValueError) and type(error).__name__ != "ImproperlyConfigured":
            raise
        return SettingsError(of_site or str(error))


def fleet_of(cache: Cache) -> Fleet | None:
    """Return the processes that publish their figures; None if none does, or no server answers within seconds."""
    if not answers(cache):  # without SOCKET_TIMEOUT the cache would wait for ever
        return None
    found = gather(cache)
    workers = [worker for worker in found.workers if not worker.own]
    return replace(found, workers=workers) if workers else None


def counts(found: Mapping[str, list[Finding]]) -> dict[str, int]:
    """Return how many findings there are of each severity."""
    return {name: sum(each.severity == name for findings in found.values() for each in findings) for name in NOUNS}


def document(found: Mapping[str, list[Finding]]) -> dict[str, Any]:
    """Return the findings as ``--json`` prints them."""
    return {
        "findings": [{"alias": alias, **each.as_dict()} for alias, findings in found.items() for each in findings],
        "counts": counts(found),
    }


def text(call: Call, site: Site, found: Mapping[str, list[Finding]]) -> str:
    """Return the findings for people."""
    lines: list[str] = []
    for alias, findings in found.items():
        lines += [call.painted(site.subject(alias), strong=True), ""] if len(found) > 1 else []
        for each in findings:
            mark = call.painted(each.noun, good=False if each.severity == "error" else None, strong=True)
            lines += [f"{mark} {each.id}: {visible(each.subject)}", f"    {visible(each.found).rstrip('.')}."]
            lines += [
                f"    {each.why}",
                f"    {visible(each.advice)}",
                f"    See `fleetcache docs {page_of(each.docs)}`",
                "",
            ]
    number = counts(found)
    if not any(number.values()):
        return "\n".join([*lines, "Nothing was found."])
    return "\n".join([*lines, ", ".join(plural(count, NOUNS[name]) for name, count in number.items() if count) + "."])


def page_of(docs: str) -> str:
    """Return the page at the path *docs*, with its section, as ``fleetcache docs`` takes it."""
    return docs.removeprefix("docs/").replace(".md", "", 1)


def plural(count: int, noun: str) -> str:
    """Return *count* with the noun."""
    return f"{count} {noun}{'s' if count != 1 else ''}"
