"""Whether an error of the server is raised or ignored: decided in one place."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial, wraps
from typing import Any, TypeVar

from redis.exceptions import (
    AuthenticationError,
    ConnectionError,
    MasterDownError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TimeoutError,
)

from fleetcache.errors import ConnectionInterrupted

T = TypeVar("T")

TROUBLE = (ConnectionError, TimeoutError, ResponseError)
"""Errors that may be ignored: the server is away, or refuses a command."""


ADVICE = {
    "NOPERM": "`fleetcache docs managed` lists the rights that a user needs",
    "NOAUTH": "Check OPTIONS['PASSWORD'], OPTIONS['USERNAME'] or the URL",
    "OOM": "The memory of the server is full: raise its maxmemory, shorten timeouts, or let it evict (maxmemory-policy allkeys-lfu)",
    "READONLY": "The server is a replica: name the primary first in LOCATION, or Sentinels, which know it",
    "MISCONF": "The server could not save its data, often because its disk is full; its log says why. "
    "For a cache that is not saved, set stop-writes-on-bgsave-error to no",
    "NOREPLICAS": "The primary has fewer replicas than its min-replicas-to-write: look to the replicas, or lower that number",
    "MASTERDOWN": "A replica has lost its primary: look to the primary, or set replica-serve-stale-data to yes",
}
"""What to do about refusals, by their codes."""

CODES = {
    NoPermissionError: "NOPERM",
    AuthenticationError: "NOAUTH",
    OutOfMemoryError: "OOM",
    ReadOnlyError: "READONLY",
    MasterDownError: "MASTERDOWN",
}
"""The codes of refusals that have classes of their own; where redis-py has read a reply, its text has lost the code."""


def explained(refusal: RedisError, asked: str, server: Any) -> RedisError:
    """Return *refusal* with what was *asked*, and, if something can be done about it, with the *server*, its user and what to do."""
    text = str(refusal)
    code = CODES.get(type(refusal)) or ("NOPERM" if "NOPERM " in text else text.partition(" ")[0])
    if code == "WRONGTYPE":
        return type(refusal)(f"{text} ({asked})")
    if code not in ADVICE:
        return refusal
    kwargs = getattr(getattr(server, "pool", None), "connection_kwargs", {})
    user = "" if kwargs.get("credential_provider") else f" as user {kwargs.get('username') or 'default'!r}"
    place = getattr(server, "address", "")
    return type(refusal)(f"{text.rstrip('.')} ({asked}{place and f' at {place}'}{user}). {ADVICE[code]}")


@dataclass(frozen=True)
class Failsafe:
    """Decides whether an error of the server is raised, or ignored and answered like a missing key.

    The value that a caller gets instead is written at each operation.  An error about a key that one of the
    globs *raise_for* matches is always raised.  The server's breaker logs the begin and the end of an outage;
    each error that is ignored is logged here if *log* is set.
    """

    ignore: bool = False
    log: logging.Logger | None = None
    raise_for: tuple[str, ...] = ()

    def instead(self, error: Exception, instead: T, keys: Callable[[], Iterable[str | None]]) -> T:
        """Return *instead*, or raise *error* if it may not be ignored.  *keys* returns the keys that it is about."""
        if not self.ignore or (self.raise_for and any(map(self._guards, keys()))):
            raise error
        if self.log is not None:
            self.log.error("Exception ignored", exc_info=error)
        return instead

    def _guards(self, key: str | None) -> bool:
        # An unknown key (None) may be the counter of a rate limiter: an error does less harm than a wrong yes.
        return key is None or any(fnmatchcase(key, glob) for glob in self.raise_for)


RAISE = Failsafe()


def omit_exception(method: Callable[..., Any] | None = None, return_value: Any = None) -> Any:
    """Decorate a method of a site's own backend: it returns *return_value* where the settings ignore an error."""
    if method is None:
        return partial(omit_exception, return_value=return_value)

    @wraps(method)
    def decorated(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return method(self, *args, **kwargs)
        except (ConnectionInterrupted, *TROUBLE) as error:
            key = args[0] if args else kwargs.get("key")
            return self._failsafe.instead(error, return_value, lambda: (key if isinstance(key, str) else None,))

    return decorated
