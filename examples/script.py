"""The cache in a plain script, blocking and awaiting, with keys that a Django site reads too."""

import asyncio

from fleetcache import cache


async def main() -> None:
    """Read a hundred values at once, over one connection."""
    await cache.aset_many({f"n:{number}": number for number in range(100)}, timeout=60)
    values = await asyncio.gather(*(cache.aget(f"n:{number}") for number in range(100)))
    print(sum(values), await cache.aget("user:1"))


if __name__ == "__main__":
    cache.set("user:1", {"name": "Ada"}, timeout=60)  # in Django: caches["default"].get("user:1")
    asyncio.run(main())
