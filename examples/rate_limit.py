"""A rate limit: at most five calls a minute for each user.  Without a server nobody is let through.

FLEETCACHE_URL=redis://127.0.0.1:6379/0 python examples/rate_limit.py
"""

from fleetcache import cache

LIMIT, WINDOW = 5, 60


def allowed(user: int) -> bool:
    """Whether *user* may call once more; raises the server's error if it is away, see `strict`."""
    # `incr` counts and sets the end of the window in one atomic step, so no crash can leave a counter without an end.
    return cache.strict.incr(f"calls:{user}", default=0, timeout=WINDOW) <= LIMIT


cache.delete("calls:1")
print([allowed(1) for _ in range(7)])
