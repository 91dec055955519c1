"""Installed packages, and the site's own code, that depend on another backend.

Only source files of some packages are read, and nothing is imported: of the apps in INSTALLED_APPS, of packages that are
known to look at the backend, and of those whose metadata names it.  So a package that is none of these is not found.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import Distribution, distributions, packages_distributions
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from fleetcache.inspection.migration.report import Note

PAGE = "docs/migration.md"
STAND_IN = f"{PAGE}#packages-that-import-django_redis"
MOST_FILES = 3000
LARGEST = 1_000_000
LONGEST = 20.0
"""Seconds after which no further package is read."""
SHOWN = 4

OTHERS = ("django_redis", "django_valkey", "redis_cache")
DISTRIBUTIONS = frozenset(("django-redis", "django-valkey", "django-redis-cache"))
SKIPPED = frozenset((*OTHERS, "fleetcache", "django", "debug_toolbar", "redis", "valkey"))

SIGNS: Mapping[str, re.Pattern[str]] = {
    "imports it": re.compile(rf"^[ \t]*(?:from|import)[ \t]+(?:{'|'.join(OTHERS)})\b", re.MULTILINE),
    "calls get_redis_connection": re.compile(r"\bget_redis_connection[ \t]*\("),
    "names the backend": re.compile(
        r"""["'](?:django_redis\.|django\.core\.cache\.backends\.redis\.|django_valkey\.)"""
    ),
    "looks at BACKEND": re.compile(r"""["']BACKEND["'][^\n]{0,60}(?:==|!=|\bin\b|startswith|endswith)"""),
}

KNOWN: Mapping[str, str] = {
    "django-rq": "with USE_REDIS_CACHE it asks the cache itself if no package django_redis is installed; else install the stand-in",
    "django-q2": 'with "django_redis": "default" it needs the stand-in',
    "django-prometheus": "its Redis backend needs the stand-in",
    "django-defender": "nothing is needed",
    "django-cachalot": "its system check compares BACKEND with known names: keep django_redis.cache.RedisCache by the stand-in, or silence the check",
    "django-ratelimit": "its system check compares BACKEND with known names: keep django_redis.cache.RedisCache by the stand-in, or silence the check",
    "django-axes": "nothing is needed",
    "django-constance": "nothing is needed",
    "djangorestframework": "nothing is needed",
    "channels-redis": "nothing is needed: it uses no cache",
    "django-health-check": "its check of Redis asks a raw client by django_redis: install the stand-in, or check the cache",
    "django-cacheops": "nothing is needed: it has connections of its own",
}
"""What packages need that were tried with fleetcache, or whose source was read."""


OURS = re.compile(r"^[ \t]*from[ \t]+fleetcache\.django[ \t]+import\b", re.MULTILINE)
"""The import of a file that asks fleetcache for raw clients already."""


class Hit(NamedTuple):
    """A line of a source file."""

    sign: str
    path: str
    line: int


def is_installed(distribution: str) -> bool:
    """Whether *distribution* is installed."""
    with suppress(Exception):
        return bool(Distribution.from_name(distribution))
    return False


def packages(apps: Sequence[str], module: str) -> list[Note]:
    """Return what has to be known of packages, for a site with these *apps* and the settings *module*."""
    until = time.monotonic() + LONGEST
    owners = {name: found[0] for name, found in packages_distributions().items()}
    needing = {str(each.metadata["Name"]): each for each in distributions() if _needs(each)}
    mentioned = [*apps, module]
    tops = dict.fromkeys(each.partition(".")[0] for each in mentioned)
    known = {_spelled(name) for name in KNOWN}
    for top, owner in owners.items():
        if _spelled(owner) in known or owner in needing:
            tops[top] = None
    found = [_of_metadata(name) for name in sorted(needing) if not any(owners.get(top) == name for top in tops)]
    files = MOST_FILES
    for top in tops:
        if top in SKIPPED or not top:
            continue
        if time.monotonic() > until or files <= 0:
            found.append(
                Note(text=f"{top} and further packages were not read: the time was over, or there were too many files.")
            )
            break
        hits, read = _hits(top, files)
        files -= read
        owner = owners.get(top, "")
        if not owner:  # its settings name the backend, of course
            hits = [hit for hit in hits if hit.sign != "names the backend"]
        if hits or owner in needing:
            found.append(_of_package(top, owner, hits))
    return found


def _needs(distribution: Distribution) -> bool:
    """Whether the metadata of *distribution* demands another backend."""
    for requirement in distribution.requires or ():
        name = re.match(r"[\w.-]+", requirement)
        if name and _spelled(name[0]) in DISTRIBUTIONS and "extra ==" not in requirement:
            return True
    return False


def _spelled(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _hits(top: str, most: int) -> tuple[list[Hit], int]:
    """Return the lines of the package *top* that depend on a backend, and how many files were read."""
    found: list[Hit] = []
    read = 0
    for path, shown in _sources(top):
        if read >= most:
            break
        read += 1
        with suppress(OSError, UnicodeError):
            if path.stat().st_size > LARGEST:
                continue
            text = path.read_text()
            carried_over = OURS.search(text) and not SIGNS["imports it"].search(text)
            for sign, pattern in SIGNS.items():
                if sign == "calls get_redis_connection" and carried_over:
                    continue
                found += [Hit(sign, shown, text.count("\n", 0, each.start()) + 1) for each in pattern.finditer(text)]
    return found, read


def _sources(top: str) -> Iterator[tuple[Path, str]]:
    """Yield the source files of the package *top*, each with the path to show."""
    try:
        spec = find_spec(top)
    except (ImportError, ValueError, AttributeError):
        return
    if spec is None:
        return
    if not spec.submodule_search_locations:
        if spec.origin and spec.origin.endswith(".py"):
            yield Path(spec.origin), Path(spec.origin).name
        return
    for place in spec.submodule_search_locations:
        root = Path(place)
        for path in sorted(root.rglob("*.py")):
            inner = path.relative_to(root)
            if not {"tests", "test", "migrations"} & set(inner.parts):
                yield path, f"{top}/{inner.as_posix()}"


def _of_metadata(name: str) -> Note:
    return Note(
        text=f"{name} requires django-redis, or a backend like it, by its metadata. If it imports it, install the stand-in in its place.",
        docs=STAND_IN,
        todo=True,
    )


def _of_package(top: str, owner: str, hits: Sequence[Hit]) -> Note:
    if not hits:
        return _of_metadata(owner)
    signs = [sign for sign in SIGNS if any(hit.sign == sign for hit in hits)]
    what = f"{owner or top} {', '.join(f'{sign} ({_places(hits, sign)})' for sign in signs)}"
    advice = next((text for name, text in KNOWN.items() if owner and _spelled(owner) == _spelled(name)), "")
    if advice:
        return Note(text=f"{what}: {advice}.", docs=STAND_IN, todo="stand-in" in advice)
    if not owner:
        text = f"{what}: your own code. Replace imports as the table says"
        return Note(text=f"{text}.", docs=f"{PAGE}#from-django-redis", todo="imports it" in signs)
    imports = "imports it" in signs
    advice = "install the stand-in in place of django-redis" if imports else "it may compare names; try it"
    return Note(text=f"{what}: {advice}.", docs=STAND_IN, todo=imports)


def _places(hits: Iterable[Hit], sign: str) -> str:
    """Return where *sign* was found: the files, each with its lines."""
    shown = [f"{path}:{line}" for path, line in sorted({(hit.path, hit.line) for hit in hits if hit.sign == sign})]
    return ", ".join(shown[:SHOWN]) + f" and {len(shown) - SHOWN} more" * (len(shown) > SHOWN)
