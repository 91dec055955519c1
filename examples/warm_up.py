"""Values are loaded before the first visitor comes: the missing ones of a thousand, in a few queries."""

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


def active_users() -> range:
    """Return the users whose profiles the next visitors will need."""
    return range(1000)


if __name__ == "__main__":
    profile(7)  # is there already, and is not loaded again
    loaded = profile.many(active_users())
    print(f"{len(loaded)} profiles, {len(queries)} queries")
