"""What happens in this process, counted and told: the figures of ``cache.info()``, and who hears of each exchange."""

from fleetcache.stats.exchanges import Exchange, listen

__all__ = ["Exchange", "listen"]
