"""What came of a call, in a form that can be compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import redis
from tests.elsewhere import ON

SLACK = 5.0 if ON else 2.0
"""How many seconds may pass between a command and the reading of its key's time to live."""

UNORDERED = {"hkeys", "keys", "iter_keys", "sscan_iter", "srandmember"}
"""Return lists in the server's order, which is no order."""


# --- outcomes -------------------------------------------------------------------------------------


@dataclass(eq=False)
class Left:
    """A time to live, which goes on while the tests run."""

    seconds: float

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Left) and abs(self.seconds - other.seconds) <= SLACK

    __hash__ = None


@dataclass(frozen=True)
class Raised:
    """An exception as an outcome."""

    error: Exception

    def __repr__(self) -> str:
        return f"raised {type(self.error).__name__}: {self.error}"

    @property
    def word(self) -> str:
        """The first word of the server's complaint, such as WRONGTYPE."""
        return str(self.error).split(" ", 1)[0]


def shape(value: Any) -> Any:
    """Return *value* so that it equals another exactly if a caller cannot tell them apart."""
    if isinstance(value, dict):
        return ("dict", [(shape(key), shape(item)) for key, item in value.items()])
    if isinstance(value, (list, tuple)):
        return (type(value).__name__, [shape(item) for item in value])
    if isinstance(value, (set, frozenset)):
        return (type(value).__name__, {repr(shape(item)) for item in value})
    if isinstance(value, str):
        return str(value)  # names are a subclass of str on either side
    if isinstance(value, float):
        return ("float", repr(value))
    if isinstance(value, redis.client.Pipeline):
        return "the pipeline"
    if is_lock(value):
        return "a lock"
    if isinstance(value, redis.Redis):
        return f"a {type(value).__name__}"
    return (type(value).__qualname__, value)


def timeless(payload: bytes) -> bytes:
    """Return *payload* without what gzip says of when and where it was made."""
    return payload[:4] + b"......" + payload[10:] if payload.startswith(b"\x1f\x8b") else payload


def is_lock(value: Any) -> bool:
    return hasattr(value, "acquire") and hasattr(value, "release")


def outcome_of(name: str, value: Any) -> Any:
    """Return what the call of *name* came to, in comparable form."""
    if name in {"ttl", "pttl"} and isinstance(value, int) and value > 0:
        return Left(value if name == "ttl" else value / 1000)
    if name == "encode" and isinstance(value, bytes):
        value = timeless(value)
    if name in UNORDERED and isinstance(value, list):
        value = sorted(value, key=repr)
    return shape(value)
