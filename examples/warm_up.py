"""Values are loaded before the first visitor comes: the missing ones of a thousand, in a few queries.

FLEETCACHE_URL=redis://127.0.0.1:6379/0 python examples/warm_up.py
"""

from fleetcache import cached

queries = []


@cached(3600, key="user:{user}")
def profile(user: int) -> str:
    """Return one user's profile."""
    queries.append([user])
    return f"profile {user}"


@profile.loads_many
def profiles(users: list[int]) -> dict[int, str]:
    """Return the profiles of many users, with one query."""
    queries.append(users)
    return {user: f"profile {user}" for user in users}


profile(7)  # is there already, and is not loaded again
loaded = profile.many(range(1000))
print(f"{len(loaded)} profiles, {len(queries)} queries")
