"""Refusals of a server that does not do what the near cache needs: for now, or for good."""

from __future__ import annotations

from typing import Any

from redis.exceptions import AskError, OutOfMemoryError

PRIMARY = {"", "master"}
"""The role, in the reply to INFO, of a server that accepts writes; "" if the reply has none."""

OLDEST = 7
"""The oldest usable major version: Redis before 7.0 puts announcements into the middle of other replies."""


def insist(command: str, reply: Any) -> Any:
    """Return the reply to *command*; raise it if the refusal may pass, else `Refused`."""
    if not isinstance(reply, Exception):
        return reply
    if str(reply).startswith(PASSING):
        raise reply
    raise Refused(f"{command} is refused: {reply}")


IN_ORDER = (AskError, OutOfMemoryError)
NO_WRITES = ("MISCONF", "NOREPLICAS")
"""Refusals that count as answers: the slot is on its way, or no write is possible at the moment."""

PASSING = (
    *("BUSY", "LOADING", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "READONLY", "NOAUTH", "WRONGPASS", "DENIED"),
    *("OOM", "MISCONF", "NOREPLICAS", "INPROG", "UNKILLABLE"),
)
"""The beginnings of refusals that may pass."""


class Refused(Exception):
    """The server does not offer what a near cache needs."""


def too_old(version: str) -> bool:
    """Whether a server of this ``redis_version`` is too old, since it puts announcements into other replies."""
    major = version.partition(".")[0]
    return major.isdigit() and int(major) < OLDEST
