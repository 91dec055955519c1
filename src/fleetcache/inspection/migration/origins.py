"""The backends that fleetcache replaces, and how their settings are written for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

NEW = "fleetcache.django.RedisCache"
DJANGO_REDIS, DJANGO, VALKEY, REDIS_CACHE = "django-redis", "Django", "django-valkey", "django-redis-cache"

BACKENDS: Mapping[str, str] = {
    "django_redis.cache.RedisCache": DJANGO_REDIS,
    "django.core.cache.backends.redis.RedisCache": DJANGO,
    "django_valkey.cache.ValkeyCache": VALKEY,
    "django_valkey.cluster_cache.cache.ClusterValkeyCache": VALKEY,
    "django_valkey.async_cache.cache.AsyncValkeyCache": VALKEY,
    "redis_cache.RedisCache": REDIS_CACHE,
    "redis_cache.cache.RedisCache": REDIS_CACHE,
    "redis_cache.backends.single.RedisCache": REDIS_CACHE,
    "redis_cache.backends.multiple.ShardedRedisCache": REDIS_CACHE,
    "redis_cache.ShardedRedisCache": REDIS_CACHE,
}
"""The package of each backend that fleetcache replaces."""

OURS = frozenset((NEW, "fleetcache.django.backend.RedisCache"))


@dataclass
class Translation:
    """The settings of one cache as fleetcache reads them."""

    location: Any
    params: dict[str, Any]
    """The entry without LOCATION and BACKEND."""
    changes: list[str] = field(default_factory=list)
    """The lines to change, beside BACKEND."""
    translated: dict[str, str] = field(default_factory=dict)
    """The options that are written in another way, each with how."""
    refused: dict[str, str] = field(default_factory=dict)
    """The options that have no counterpart, each with what to do."""

    @property
    def options(self) -> dict[str, Any]:
        """The options."""
        return dict(self.params.get("OPTIONS") or {})

    def rewrite(self, name: str, to: str, value: Any, shown: str = "…") -> None:
        """Write the option *name* as *to* with *value*."""
        options = self.options
        options.pop(name, None)
        self.params["OPTIONS"] = {**options, to: value}
        self.translated[name] = f"written as {to}" if to != name else f"written as {shown}"
        self.changes.append(
            f'OPTIONS: "{to}": {shown},  # was "{name}"' if to != name else f'OPTIONS: "{to}": {shown},'
        )

    def drop(self, name: str, advice: str) -> None:
        """Leave out the option *name*."""
        options = self.options
        options.pop(name, None)
        self.params["OPTIONS"] = options
        self.refused[name] = advice


def translated(origin: str, entry: Mapping[str, Any]) -> Translation:
    """Return the settings of *entry*, which is of *origin*, as fleetcache reads them."""
    entry = {**entry, "OPTIONS": dict(entry.get("OPTIONS") or {})}
    params = {name: value for name, value in entry.items() if name not in {"BACKEND", "LOCATION"}}
    found = Translation(entry.get("LOCATION", ""), params)
    if (translate := TRANSLATORS.get(origin)) is not None:
        translate(found)
    if "ClusterValkeyCache" in str(entry.get("BACKEND")) and "CLIENT_CLASS" not in found.options:
        found.params["OPTIONS"] = {**found.options, "CLIENT_CLASS": "ClusterClient"}
        found.changes.append('OPTIONS: "CLIENT_CLASS": "ClusterClient",')
    return found


# --- django-valkey --------------------------------------------------------------------------------


def _from_valkey(found: Translation) -> None:
    for name, value in found.options.items():
        if isinstance(value, str) and value.startswith("django_valkey."):
            if (new := _of_valkey(name, value)) is None:
                found.drop(name, f"{value} has no counterpart: entries that need it cannot be read")
            else:
                found.rewrite(name, name, new, repr(new))
    for name, to in (("BASE_CLIENT_CLASS", "REDIS_CLIENT_CLASS"), ("BASE_CLIENT_KWARGS", "REDIS_CLIENT_KWARGS")):
        if name in found.options:
            value = found.options[name]
            if isinstance(value, str) and value.startswith("valkey."):
                found.drop(name, "raw clients are redis-py's: leave it out")
            else:
                found.rewrite(name, to, value)
    for name in ("PARSER_CLASS", "CONNECTION_POOL_CLASS"):
        if str(found.options.get(name, "")).startswith("valkey."):
            found.drop(name, "connections are made by redis-py: leave it out, or name one of its classes")


def _of_valkey(option: str, path: str) -> str | None:
    """Return what fleetcache calls the class at a *path* of django-valkey; None if it has none."""
    _, kind, *_, name = path.split(".")
    if option == "CLIENT_CLASS" or kind in {"client", "async_cache", "cluster_cache"}:
        clients = {
            "DefaultClient": "DefaultClient",
            "HerdClient": "HerdClient",
            "SentinelClient": "SentinelClient",
            "ShardClient": "ShardClient",
            "DefaultClusterClient": "ClusterClient",
            "AsyncDefaultClient": "DefaultClient",
            "AsyncHerdClient": "HerdClient",
            "AsyncSentinelClient": "SentinelClient",
        }
        return clients.get(name)
    known = {
        "PickleSerializer": "pickle",
        "JSONSerializer": "json",
        "MSGPackSerializer": "msgpack",
        "MsgSpecJsonSerializer": "msgspec-json",
        "MsgSpecMsgPackSerializer": "msgspec",
        "IdentityCompressor": "identity",
        "ZlibCompressor": "zlib",
        "GzipCompressor": "gzip",
        "LzmaCompressor": "lzma",
        "Lz4Compressor": "lz4",
        "ZStdCompressor": "zstd",
        "ConnectionFactory": "fleetcache.pool.ConnectionFactory",
        "SentinelConnectionFactory": "fleetcache.pool.SentinelConnectionFactory",
        "default_reverse_key": "fleetcache.keys.default_reverse",
    }
    return known.get(name)


# --- django-redis-cache ---------------------------------------------------------------------------


def _from_redis_cache(found: Translation) -> None:
    options = found.options
    database = str(options.get("DB", found.params.pop("db", 1)))
    places = found.location if isinstance(found.location, (list, tuple)) else str(found.location).split(",")
    urls = [_url(str(place).strip(), database) for place in places]
    if urls != list(places):
        found.location = urls if len(urls) > 1 else urls[0]
        found.changes.append(f'"LOCATION": {found.location!r},')
    if "DB" in options:
        found.drop("DB", "")
        found.refused.pop("DB")
        found.translated["DB"] = "written into LOCATION"
    for name, to in (("SERIALIZER_CLASS", "SERIALIZER"), ("COMPRESSOR_CLASS", "COMPRESSOR")):
        if name in options:
            new = OF_REDIS_CACHE.get(str(options[name]).rpartition(".")[2])
            if new is None:
                found.drop(name, f"write a class for {to}: docs/migration.md#classes-of-your-own")
            else:
                found.rewrite(name, to, new, repr(new))
    if "CONNECTION_POOL_CLASS_KWARGS" in options:
        found.rewrite("CONNECTION_POOL_CLASS_KWARGS", "CONNECTION_POOL_KWARGS", options["CONNECTION_POOL_CLASS_KWARGS"])
    if "PICKLE_VERSION" not in options and "SERIALIZER_CLASS" not in options:
        found.params["OPTIONS"] = {**found.options, "PICKLE_VERSION": -1}
        found.changes.append('OPTIONS: "PICKLE_VERSION": -1,  # the highest, as before; optional')
    for name in ("SERIALIZER_CLASS_KWARGS", "COMPRESSOR_CLASS_KWARGS", "MASTER_CACHE"):
        if name in options:
            found.drop(name, "the first URL in LOCATION is the primary" if name == "MASTER_CACHE" else "leave it out")


OF_REDIS_CACHE = {
    "PickleSerializer": "pickle",
    "JSONSerializer": "json",
    "MSGPackSerializer": "msgpack",
    "NoopCompressor": "identity",
    "ZLibCompressor": "zlib",
}


def _url(place: str, database: str) -> str:
    """Return the URL for a *place* of django-redis-cache: a URL, a path, or host and port."""
    if "://" in place:
        return place
    return f"unix://{place}?db={database}" if place.startswith("/") else f"redis://{place}/{database}"


TRANSLATORS: Mapping[str, Callable[[Translation], None]] = {VALKEY: _from_valkey, REDIS_CACHE: _from_redis_cache}
