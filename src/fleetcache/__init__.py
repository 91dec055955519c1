"""A cache for Django, and for any Python, on Redis and Valkey.

A map of the package, in the order in which a call passes through it:

    django/       Django's face of it all; nothing else imports Django
    caches        ``caches[alias]`` for those without Django
    client, cache a cache put together of its operations, servers, codec and near cache
    loading/      get_or_set
    locks/        locks, and what an interrupted caller left of them
    pipeline      many operations in one round trip
    values        get, set, add, delete, incr: each once, as a coroutine, with its blocking face
    keyspace      lifetimes, versions, scanning, clearing
    structures    hashes, sets, sorted sets, lists
    core          what operations are made of: names, commands, replies, values
    codec/        values to bytes and back
    settings      what may be configured
    near/         copies of values in the process
    topology/     which server is asked
    servers/      what can be asked: a remote server, memory, an embedded one, a client of the caller
    exchange/     bytes on a connected socket, blocking and awaiting
    twin          one coroutine, two faces
    errors        everything raised, by whose fault it is
"""

from fleetcache.cache import Cache
from fleetcache.caches import CacheHandler, cache, caches, configure
from fleetcache.core import DEFAULT_TIMEOUT
from fleetcache.errors import FleetcacheError, InvalidCacheBackendError, SettingsError

__all__ = [
    "DEFAULT_TIMEOUT",
    "Cache",
    "CacheHandler",
    "FleetcacheError",
    "InvalidCacheBackendError",
    "SettingsError",
    "cache",
    "caches",
    "configure",
]
