"""A cache for Django, and for any Python, on Redis and Valkey.

A map of the package, in the order in which a call passes.  A module imports only from lines below its own.

    The ways in
    cli/          the command ``fleetcache``: its parser, what its commands share, and a module for each command
    testing/      servers, and a proxy that fails on order, for tests
    django/       Django's cache backend, system checks and middleware; nothing else imports Django
    inspection/   looks into a running cache: what it holds, entry by entry
    probe         checks whether a server offers what the near cache needs
    caches        ``caches[alias]`` for programs without Django
    client        the clients that the option CLIENT_CLASS may name

    The operations, each written once as a coroutine
    cache         the class `Cache`: all operations together, with what they need
    watching      the same with operations that watchers see
    fleet/        what all processes that use a cache have counted: each publishes its figures, any reads them all
    loading/      get_or_set: read a value, or produce and store it; of many; of a function: ``@cached``
    locks/        locks, and the release of locks that an interrupted caller left
    pipeline      many operations in one round trip
    values        get, set, add, delete, incr, of one key or many
    keyspace      lifetimes, versions, scanning, clearing
    structures/   hashes, sets, sorted sets, lists
    reading       a read: from a copy in this process, or from a server, whose reply may leave a copy
    judging       entries with metadata: fresh, stale or given up
    tagging       tags: which versions they have now, and which a new entry gets
    core          the steps of every operation: name, encode, ask, decode
    naming        the name of an entry: by the settings, or by a method of a site's class

    What an operation passes through
    near/         copies of values in this process: their store, and the protocol that keeps them current
    codec/        values to bytes and back: serializers, compressors
    failsafe      an error of the server: raised, or answered as a missing key
    commands      every command, and whether it reads, may be repeated, and which names it changes
    patterns      glob patterns that find a cache's entries
    owed          invalidations of tags that a server has not received

    The servers
    topology/     which server is asked: one, a primary with replicas, shards, a cluster
    pool          redis-py's connection pools, one for each configuration
    servers/      what can be asked: a remote server, one in memory, an embedded one, the caller's client
    exchange/     commands out, replies in, blocking or awaiting; retries, deadlines, breaker, Sentinels

    The settings
    settings      every setting: the ``CACHES`` entry, a URL, the environment
    urls          LOCATION: each URL, taken apart once into a `Location`; the schemes
    sharing       the parts that caches of one configuration share
    kinds         how each kind of setting is read
    keys          names of entries, ``prefix:version:key``

    The ground
    masking       secrets out of messages and logs
    policy        how long loaded values live, and what to do when they are old
    marks         objects that stand for "no value"
    times         timeouts to whole milliseconds or seconds
    telemetry/    spans and metrics, in the tools that the process uses
    stats/        metrics: the counters of ``cache.info()``, listeners to each exchange with a server, watchers of operations
    threads       the library's own threads: how they start and end
    forks         locks and random numbers in forked processes
    twin          one coroutine, two faces: ``aget`` and ``get``
    errors        every exception, grouped by its cause
    interrupts    exceptions of signal handlers, told from errors
    signatures    the arguments that the installed redis-py's connections take

Words such as *near*, *face*, *fence* and *epoch* are explained in ``docs/glossary.md``.
"""

from fleetcache.cache import Cache
from fleetcache.caches import CacheHandler, cache, cached, caches, configure
from fleetcache.core import DEFAULT_TIMEOUT
from fleetcache.errors import FleetcacheError, InvalidCacheBackendError, LoadFailed, SettingsError
from fleetcache.loading.load import current_load
from fleetcache.policy import Policy
from fleetcache.values import Lookup

__all__ = [
    "DEFAULT_TIMEOUT",
    "Cache",
    "CacheHandler",
    "FleetcacheError",
    "InvalidCacheBackendError",
    "LoadFailed",
    "Lookup",
    "Policy",
    "SettingsError",
    "cache",
    "cached",
    "caches",
    "configure",
    "current_load",
]
