"""The listener's pauses between two attempts to connect."""

from __future__ import annotations

from fleetcache.forks import chance
from fleetcache.near.stages import State

ASIDE = 2.0
"""The pause, in seconds, after more announcements came than could be applied."""

REFUSED_FOR = (1.0, 60.0)
"""The first and the longest pause, in seconds, after a server did not offer what is needed."""

RETRIES = (0.05, 1.0)
"""The same after a connection failed or was lost."""

MOST = 16
"""After this many doublings every pause is the longest."""


def pause(state: State, tried: int) -> float:
    """Return the pause, in seconds, after *tried* attempts that ended in *state*; random, so that processes differ."""
    shortest, longest = {State.OFF: REFUSED_FOR, State.ASIDE: (ASIDE, ASIDE)}.get(state, RETRIES)
    doubled: float = shortest * 2 ** min(tried, MOST)
    return min(doubled, longest) * chance.uniform(0.5, 1.5)
