"""At most five calls a minute for each user.  While the server is away nobody is let through."""

from fleetcache import cache

LIMIT, WINDOW = 5, 60


def allowed(user: int) -> bool:
    """Whether *user* may call once more; raises a `redis.exceptions.RedisError` while nobody can count."""
    # `incr` counts, and begins the minute with the first call, in one step on the server.
    return cache.strict.incr(f"calls:{user}", default=0, timeout=WINDOW) <= LIMIT


if __name__ == "__main__":
    print([allowed(1) for _ in range(7)])
