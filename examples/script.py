"""The same cache in a plain script, blocking and awaiting, with keys that a Django site reads too.

FLEETCACHE_URL='redis://127.0.0.1:6379/0?key_prefix=shop' python examples/script.py
"""

import asyncio

from fleetcache import cache

cache.set("user:1", {"name": "Ada"}, timeout=60)  # in Django: caches["default"].get("user:1")


async def main() -> None:
    """Read a hundred values at once, over one connection."""
    await cache.aset_many({f"n:{number}": number for number in range(100)}, timeout=60)
    values = await asyncio.gather(*(cache.aget(f"n:{number}") for number in range(100)))
    print(sum(values), await cache.aget("user:1"))


asyncio.run(main())
