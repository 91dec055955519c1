"""Which cache is meant: the one at a URL, or one of a module's CACHES."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import fields
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from fleetcache.cache import Cache
from fleetcache.caches import DEFAULT_ALIAS, VARIABLE, CacheHandler, caches, from_environment
from fleetcache.cli.calls import WrongUse
from fleetcache.errors import SettingsError
from fleetcache.inspection.advice import Commands
from fleetcache.masking import masked_url
from fleetcache.settings import Options, from_url, spellings

DJANGO = "DJANGO_SETTINGS_MODULE"
FOR_TOOLS = {"NEAR": None, "IGNORE_EXCEPTIONS": False, "STATS": False}
"""The OPTIONS of a cache that a tool uses: an outage is an error, and a tool is no worker of the site."""
GIVEN = "the URL that was given"
"""How messages name a URL that stands on the command line."""
DJANGOS_OWN = ("INSTALLED_APPS", "DATABASES", "SECRET_KEY", "ROOT_URLCONF", "MIDDLEWARE")
"""A module with any of these is the settings of a Django project."""


def opened(arguments: argparse.Namespace, *, for_tools: bool, options: Mapping[str, Any] | None = None) -> Cache:
    """Return the cache that *arguments* name; nothing is sent.

    The first that is given counts: a URL; ``--settings``, with ``--alias``; FLEETCACHE_URL, or FLEETCACHE_URL_ALIAS; the module
    that DJANGO_SETTINGS_MODULE names.  ``manage.py`` has its project's settings, and reads no FLEETCACHE_URL.  *options* replace
    its OPTIONS; with *for_tools* those in FOR_TOOLS do, too.
    """
    own = {**(FOR_TOOLS if for_tools else {}), **(options or {})}
    url = url_in(arguments)
    alias = getattr(arguments, "alias", None)
    module = getattr(arguments, "settings", None)
    in_django = getattr(arguments, "in_django", False)
    if url and (alias or (module and not in_django)):
        raise WrongUse("give either a URL or --alias and --settings, not both")
    if url:
        return _of_url(url, GIVEN, DEFAULT_ALIAS, own)
    alias = alias or DEFAULT_ALIAS
    if in_django:
        return _of_django(alias, own)
    urls = from_environment(os.environ)
    if not module and alias in urls:
        return _of_url(urls[alias], variable(alias), alias, own)
    module = module or os.environ.get(DJANGO)
    if not module:
        name = variable(alias)
        raise WrongUse(f"give the URL of a server or --settings MODULE, or set {name} or {DJANGO}")
    entries = caches_in(module)
    if entries is None:
        return _of_django(alias, own)
    if alias not in entries:
        raise WrongUse(f"{module} has no cache {alias!r}. Its CACHES are {', '.join(map(repr, entries)) or 'empty'}")
    return _of(entries[alias], alias, own)


def variable(alias: str) -> str:
    """Return the name of the variable that holds the URL of *alias*."""
    return VARIABLE if alias == DEFAULT_ALIAS else f"{VARIABLE}_{alias.upper()}"


def ready(arguments: argparse.Namespace) -> None:
    """Let `fleetcache.caches`, or Django's ``caches``, be those that *arguments* name, for code of the site."""
    url = url_in(arguments)
    module = getattr(arguments, "settings", None)
    if url and module and not getattr(arguments, "in_django", False):
        raise WrongUse("give either a URL or --settings, not both")
    importable()
    if url:
        caches.configure(url)
    elif not getattr(arguments, "in_django", False) and (
        module or (VARIABLE not in os.environ and DJANGO in os.environ)
    ):
        entries = caches_in(module or os.environ[DJANGO])
        if entries is not None:
            caches.configure(entries)


def url_in(arguments: argparse.Namespace) -> str | None:
    """Return the URL among *arguments*, None if there is none."""
    one, other = getattr(arguments, "place", None), getattr(arguments, "url", None)
    if one and other:
        raise WrongUse("give the URL once, as an argument or as --url")
    found: str | None = one or other
    if found and "://" not in found:
        raise WrongUse(_no_url(found, arguments))
    return found


def _no_url(text: str, arguments: argparse.Namespace) -> str:
    """Return the complaint about *text*, which was given in place of a URL; a word that may be a password is not in it."""
    if text in _aliases(arguments):
        return f"{text!r} is no URL, but the name of a cache: give --alias {text}"
    shown = masked_url(text)
    if "@" in text:
        return f"{shown!r} is no URL: redis:// is missing before it, as in redis://USER:PASSWORD@HOST:6379/0"
    if shown == text:
        return f"{text!r} is no URL. Give {'unix' if text.startswith('/') else 'redis'}://{text}"
    what = "a word" if re.fullmatch(r"[\w.-]+", text) else "a text"
    known = "redis://HOST:6379/0, or --alias and --settings for a cache of a settings module"
    return f"no URL was given, but {what} of {len(text)} characters without ://. Give {known}"


def _aliases(arguments: argparse.Namespace) -> Collection[str]:
    """Return the names of the caches that could have been meant."""
    known = [*from_environment(os.environ)]
    with suppress(Exception):  # settings that cannot be imported; whoever needs them says so
        module = getattr(arguments, "settings", None) or os.environ.get(DJANGO)
        if module:
            entries = caches_in(module)
            known += _of_django_aliases() if entries is None else entries
    return known


def _of_django_aliases() -> Collection[str]:
    from fleetcache.django.backend import entries

    return [alias for alias, _, _ in entries()]


def commands_about(arguments: argparse.Namespace) -> Commands:
    """Return how commands are written that are about the cache that *arguments* name."""
    in_django = getattr(arguments, "in_django", False)
    one, other = getattr(arguments, "place", None), getattr(arguments, "url", None)
    return Commands(
        _program(in_django=in_django),
        url=one or other or "",
        settings=getattr(arguments, "settings", None) or "",
        alias=getattr(arguments, "alias", None) or "",
        reads_variable=not in_django,
    )


def _program(*, in_django: bool) -> str:
    """Return how this process was called, as far as that can be told; else the usual name."""
    started, python = Path(sys.argv[0] if sys.argv else ""), Path(sys.executable or "python").name
    if started.name == "__main__.py" and started.parent.name == ("django" if in_django else "fleetcache"):
        return f"{python} -m django fleetcache" if in_django else f"{python} -m fleetcache"
    if not in_django:
        return "fleetcache"
    if started.name.startswith("django-admin"):
        return "django-admin fleetcache"
    return (
        f"{python} {started if started.suffix == '.py' and started.name != '__main__.py' else 'manage.py'} fleetcache"
    )


def importable() -> None:
    """Let modules in the current directory be imported, as ``python -m`` does."""
    here = str(Path.cwd())
    if not {"", here} & {*sys.path}:
        sys.path.insert(0, here)


def imported(module: str) -> Any:
    """Return the module called *module*, which may lie in the current directory."""
    importable()
    try:
        return import_module(module)
    except (Exception, SystemExit) as error:  # a module that ends the process would end it with a code of its own
        where = ""
        if isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}."):
            where = ". Run the command in the directory of manage.py, or set PYTHONPATH"
        raise WrongUse(f"{module} cannot be imported: {type(error).__name__}: {error}{where}") from error


def caches_in(module: str) -> Mapping[str, Any] | None:
    """Return the CACHES of *module*; None if it holds the settings of a Django project, which is set up now."""
    found = imported(module)
    if any(hasattr(found, name) for name in DJANGOS_OWN):
        os.environ[DJANGO] = module
        try:
            from fleetcache.django.management.opening import setup

            setup()
        except (Exception, SystemExit) as error:
            raise WrongUse(f"Django cannot be set up with {module}: {type(error).__name__}: {error}") from error
        return None
    entries = getattr(found, "CACHES", None)
    if isinstance(entries, str):
        return {DEFAULT_ALIAS: entries}
    if not isinstance(entries, Mapping):
        raise WrongUse(f"{module} has no CACHES")
    return entries


def replaced(written: Mapping[str, Any] | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the OPTIONS *written* in settings, with *options* in place of those, however they are spelt."""
    gone = {name for option in fields(Options) if option.name.upper() in options for name in spellings(option)}
    kept = {
        name: value for name, value in (written or {}).items() if str(name).upper() not in gone and name not in gone
    }
    return {**kept, **options}


def _of_url(url: str, source: str, alias: str, options: Mapping[str, Any]) -> Cache:
    """Return the cache of *url*; an error names *source*, where the URL was written, and no ``CACHES``."""
    try:
        return _of(url, alias, options)
    except SettingsError as error:
        raise SettingsError(f"{source}: {fault_in_url(error, alias)}") from error


def fault_in_url(error: Exception, alias: str) -> str:
    """Return what *error* says of the cache *alias*, without the parts of ``CACHES`` that nobody has written."""
    fault = str(error).removeprefix(f"CACHES[{alias!r}]").removeprefix("['OPTIONS']").removeprefix(": ")
    return re.sub(r"^LOCATION(: | (?='))", "", fault)


def _of(entry: Any, alias: str, options: Mapping[str, Any]) -> Cache:
    """Return the cache of a URL, or of an entry of CACHES without Django."""
    if options:
        location, params = (entry.get("LOCATION"), dict(entry)) if isinstance(entry, Mapping) else from_url(entry)
        entry = {**params, "LOCATION": location, "OPTIONS": replaced(params.get("OPTIONS"), options)}
    return CacheHandler({alias: entry})[alias]


def _of_django(alias: str, options: Mapping[str, Any]) -> Cache:
    """Return the cache of an alias of Django's CACHES."""
    from fleetcache.django.management.opening import made

    try:
        return made(alias, partial(replaced, options=options) if options else None)
    except SettingsError:
        raise
    except Exception as error:
        raise WrongUse(str(error)) from error
