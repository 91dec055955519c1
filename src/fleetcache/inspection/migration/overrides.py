"""Methods of the site's own backend and client classes that name or change entries, and what becomes of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

from fleetcache.inspection.migration.origins import DJANGO_REDIS, VALKEY
from fleetcache.inspection.migration.report import Note

DOCS = "docs/migration.md#classes-of-your-own"
LIBRARIES = frozenset(("builtins", "django", "django_redis", "django_valkey", "fleetcache", "redis_cache", "typing"))
"""Packages whose own methods are no overrides of the site."""

OF_BACKENDS: Mapping[str, tuple[str, bool]] = {
    "make_key": ("names every entry. In {origin} a backend's make_key names none: remove it to keep those names", True),
    "make_and_validate_key": (
        "names every entry. In {origin} a backend's make_and_validate_key names none: remove it to keep those names",
        True,
    ),
    "validate_key": ("is called with every name. In {origin} it is called with none", False),
}
"""What becomes of each method of a backend that was derived from django-redis' or a fork of it, and whether to do something."""

OF_CLIENTS: Mapping[str, tuple[str, bool]] = {
    "make_key": (
        "names every entry, as before. keys, iter_keys and delete_pattern find these names too; they looked for others",
        False,
    ),
    "encode": ("changes no payload: name a SERIALIZER or a COMPRESSOR, or override make_codec", True),
    "decode": ("changes no payload: name a SERIALIZER or a COMPRESSOR, or override make_codec", True),
}
"""The same of a client."""


def overrides(origin: str, backend: str, client: Any) -> list[Note]:
    """Return a note on each such method of the classes *backend* and *client*, paths or classes, which are of *origin*.

    Those of Django's own backend, and of django-redis-cache's, name every entry before and after.
    """
    if origin not in {DJANGO_REDIS, VALKEY}:
        return []
    notes = [*_notes(backend, OF_BACKENDS, origin), *_notes(client, OF_CLIENTS, origin)]
    return list({note.text: note for note in notes}.values())


def _notes(of: Any, methods: Mapping[str, tuple[str, bool]], origin: str) -> Iterator[Note]:
    for kind in getattr(_class_at(of), "__mro__", ()):
        if kind.__module__.partition(".")[0] in LIBRARIES:
            continue
        for name in (each for each in methods if each in vars(kind)):
            what, todo = methods[name]
            text = f"{kind.__module__}.{kind.__qualname__}.{name} {what.format(origin=origin)}."
            yield Note(text=text, docs=DOCS, todo=todo)


def _class_at(path: Any) -> Any:
    """Return the class at *path*, or None; that it cannot be imported is told elsewhere."""
    if not isinstance(path, str):
        return path
    module, _, name = path.rpartition(".")
    try:
        return getattr(import_module(module), name)
    except Exception:  # noqa: BLE001 - a module of the site may raise anything
        return None
