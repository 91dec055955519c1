"""Keys and a group for each tenant: everything of one tenant is given up in one step, whatever it is.

FLEETCACHE_URL=redis://127.0.0.1:6379/0 python examples/tenants.py
"""

from fleetcache import cache


def of_tenant(tenant: str, key: str, load):
    """Return the tenant's value of *key*; the tag puts it into his group."""
    return cache.get_or_set(f"{tenant}:{key}", load, 600, tags=[f"tenant:{tenant}"])


for tenant in ("acme", "globex"):
    of_tenant(tenant, "menu", lambda: ["home", "orders"])
    of_tenant(tenant, "prices", lambda: {"apple": 3})

cache.invalidate_tags("tenant:acme")

print("acme:", cache.get("acme:menu"), cache.get("acme:prices"))
print("globex:", cache.get("globex:menu"), cache.get("globex:prices"))
