from fleetcache.keys import CacheKey
from fleetcache.keys import default_reverse as default_reverse_key

__all__ = ["CacheKey", "default_reverse_key"]
