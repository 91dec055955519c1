from fleetcache.client import ShardClient

__all__ = ["ShardClient"]
