from fleetcache.client import SentinelClient

__all__ = ["SentinelClient"]
