"""Metrics.

Its modules:

    figures      the names of the counters of ``cache.info()``; a new one is registered beside the class that counts
    exchanges    listeners that are called after each exchange with a server
    payloads     the counter of unreadable payloads
"""

from fleetcache.stats.exchanges import Exchange, listen

__all__ = ["Exchange", "listen"]
