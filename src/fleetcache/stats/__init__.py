"""Metrics.

Its modules:

    figures      the names of the counters of ``cache.info()``; a new one is registered beside the class that counts
    exchanges    listeners that are called after each exchange with a server
    operations   watchers that are called around each operation of a cache
    payloads     the counters of loads and of unreadable payloads
    tally        what a process counts of the caches of one configuration
    groups       the groups of keys by which it counts
    latency      distributions of times
    top          the keys with the most hits, bytes or seconds
    beginnings   what begins with the first connection of a process
"""

from fleetcache.stats.exchanges import Exchange, listen
from fleetcache.stats.operations import Facts, Operation, watch

__all__ = ["Exchange", "Facts", "Operation", "listen", "watch"]
