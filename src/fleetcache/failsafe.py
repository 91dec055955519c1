"""Whether an error of the server is raised or ignored: decided in one place."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial, wraps
from typing import Any, TypeVar

from redis.exceptions import ConnectionError, ResponseError, TimeoutError

from fleetcache.errors import ConnectionInterrupted

T = TypeVar("T")

TROUBLE = (ConnectionError, TimeoutError, ResponseError)
"""Errors that may be ignored: the server is away, or refuses a command."""


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
