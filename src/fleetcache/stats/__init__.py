"""Metrics: ``figures`` registers the counters of ``cache.info()``; ``exchanges`` calls listeners after each exchange."""

from fleetcache.stats.exchanges import Exchange, listen

__all__ = ["Exchange", "listen"]
