from fleetcache.client import DefaultClient, HerdClient, SentinelClient, ShardClient

__all__ = ["DefaultClient", "HerdClient", "SentinelClient", "ShardClient"]
