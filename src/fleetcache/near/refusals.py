"""What a server says when it does not do what the near cache needs: for now, or for good."""

from __future__ import annotations

from typing import Any

from redis.exceptions import AskError, OutOfMemoryError

PRIMARY = {"", "master"}
"""What INFO calls a server that takes writes, if it says so at all."""

OLDEST = 7
"""Redis before 7.0 puts announcements into the middle of other replies."""


def insist(command: str, reply: Any) -> Any:
    """Return the reply to *command*, or say why there will be none."""
    if not isinstance(reply, Exception):
        return reply
    if str(reply).startswith(PASSING):
        raise reply
    raise Refused(f"{command} is refused: {reply}")


IN_ORDER = (AskError, OutOfMemoryError)
NO_WRITES = ("MISCONF", "NOREPLICAS")
"""Answers as good as any: that the slot is on its way, or that nothing can be written just now."""

PASSING = (
    *("BUSY", "LOADING", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "READONLY", "NOAUTH", "WRONGPASS", "DENIED"),
    *("OOM", "MISCONF", "NOREPLICAS", "INPROG", "UNKILLABLE"),
)
"""How refusals begin that are no last word: what is in the way passes."""


class Refused(Exception):
    """The server does not offer what a near cache needs."""


def too_old(version: str) -> bool:
    """Whether a server of this ``redis_version`` puts announcements where they cannot be told apart."""
    major = version.partition(".")[0]
    return major.isdigit() and int(major) < OLDEST
