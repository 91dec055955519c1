"""Keys and a group for each tenant: everything of one tenant is given up in one step, whatever it is."""

from contextvars import ContextVar

from fleetcache import cache, cached

tenant = ContextVar("tenant")  # a middleware sets it at the beginning of each request


def of_tenant(key: str, load):
    """Return the tenant's value of *key*; the tag puts it into the tenant's group."""
    return cache.get_or_set(f"{tenant.get()}:{key}", load, 600, tags=[f"tenant:{tenant.get()}"])


@cached(600, key="{tenant}:price:{article}", tags=["tenant:{tenant}"])
def price(tenant: str, article: int) -> int:
    """Return a price; functions with ``@cached`` name the tenant among their arguments."""
    return article * 3


if __name__ == "__main__":
    for name in ("acme", "globex"):
        tenant.set(name)
        of_tenant("menu", lambda: ["home", "orders"])
        price(name, 7)

    cache.invalidate_tags("tenant:acme")

    for name in ("acme", "globex"):
        print(name, cache.get_many([f"{name}:menu", f"{name}:price:7"]))
