"""Every exception of fleetcache, grouped by its cause: the settings, the call, the value or the server.

An error of the server or the network also derives from the ``redis.exceptions`` class that callers
of redis-py, django-redis or Django's backend already catch.
"""

from __future__ import annotations

import pickle
from typing import Any, Self

from redis import exceptions as redis


class FleetcacheError(Exception):
    """The base class of all exceptions of fleetcache."""

    def __repr__(self) -> str:
        # redis-py's classes show only their names.
        return f"{type(self).__name__}({str(self)!r})"


class Advised(str):
    """The message of an error that ends with advice about the place where the servers are written.

    That is LOCATION in settings, and in the message.  Other readers are told `fault_of` and `advice_of` the error, with the
    name that the place has for them.
    """

    __slots__ = ("advice", "fault")
    fault: str
    """The message without the advice."""
    advice: str
    """What to do, with ``{}`` for the name of the place."""

    def __new__(cls, fault: str, advice: str) -> Self:
        made = super().__new__(cls, f"{fault} {advice.format('LOCATION')}")
        made.fault, made.advice = fault, advice
        return made

    def __getnewargs__(self) -> Any:
        return self.fault, self.advice


def advised(fault: str, advice: str) -> str:
    """Return the message *fault* with *advice*, which may be empty; see `Advised.advice`."""
    return Advised(fault, advice) if advice else fault


def _message(error: BaseException) -> Any:
    return error.args[0] if error.args else ""


def fault_of(error: BaseException) -> str:
    """Return the message of *error* without advice about the place where the servers are written."""
    message = _message(error)
    return message.fault if isinstance(message, Advised) else str(error)


def advice_of(error: BaseException, place: str = "LOCATION") -> str:
    """Return that advice, with *place* as the name of the place; "" if *error* has none."""
    message = _message(error)
    return message.advice.format(place) if isinstance(message, Advised) else ""


# --- the settings are wrong -----------------------------------------------------------------------


class SettingsError(FleetcacheError, ValueError):
    """A setting is unknown, missing or of the wrong kind; the message names the setting and the fix."""


class InvalidCacheBackendError(SettingsError):
    """No cache is configured under this alias."""


class ServerNotFound(FleetcacheError):
    """``embedded://`` found no server program to start."""


class ServerNotStarted(FleetcacheError):
    """``embedded://`` started a server program, but it ended or did not answer; see its log."""


class UnusableFile(SettingsError, redis.ConnectionError):
    """A file that the settings name (certificate, key or authority) cannot be read; the message says which and why."""


# --- the call is wrong ----------------------------------------------------------------------------


class InvalidKey(FleetcacheError, TypeError, ValueError):
    """The object passed as a key cannot name a cache entry."""


class InvalidTimeout(FleetcacheError, redis.DataError, TypeError):
    """The timeout is wrong: it must be a number of seconds, a ``timedelta``, None (for ever) or left out."""


class CrossServer(FleetcacheError, ValueError):
    """One command needs keys that live on different servers, or in different slots of a cluster."""


# --- a value cannot be made -----------------------------------------------------------------------


class LoadFailed(FleetcacheError):
    """A load failed a moment ago, in some process, and RETRY_AFTER lets nobody try again before `retry_in` seconds."""

    def __init__(self, message: str, retry_in: float = 0.0) -> None:
        super().__init__(message)
        self.retry_in = retry_in
        """In how many seconds it may be tried again."""


# --- the value is wrong ---------------------------------------------------------------------------


class CompressorError(FleetcacheError):
    """A compressor raises this for bytes that it did not write."""


class UnreadableValue(FleetcacheError):
    """Stored bytes could not be turned into a value."""


class UnstorableValue(FleetcacheError, pickle.PicklingError, TypeError):
    """A value could not be turned into bytes; nothing was written."""


# --- the server, or the way to it -----------------------------------------------------------------

LARGE_REQUEST = 512 * 1024
"""Bytes of a request from which on a server may hang up because of its size."""


class ConnectionInterrupted(FleetcacheError):
    """The server could not be reached or did not answer; django-redis raises this class for all such errors.

    *connection* is accepted, because django-redis passes it, and ignored.
    """

    counted = False
    """Whether a breaker has counted it, or must not: one failure for which many callers waited counts once."""

    def __init__(self, *args: object, connection: object = None) -> None:
        super().__init__(*args)


class ServerGone(ConnectionInterrupted, redis.ConnectionError):
    """The server could not be reached, or closed the connection before it replied."""


class ServerTimeout(ConnectionInterrupted, redis.TimeoutError):
    """The server did not reply in time; a write may or may not have happened."""


class NeverSent(ServerGone):
    """The server could not be reached, so nothing was sent; every command may safely be sent again."""


class NotPrimary(NeverSent):
    """The server that should be the primary has become a replica, so nothing was sent."""

    def __init__(self, *args: object, primary: tuple[str, int] | None = None) -> None:
        super().__init__(*args)
        self.primary = primary
        """The primary that it replicates, if it says so."""


class ConnectionLost(ServerGone):
    """The server closed the connection before it replied; a write may or may not have happened."""

    sent = 0
    """How many bytes were sent, if that is the likely reason."""

    def doubt_size(self, sent: int) -> None:
        """If *sent* bytes may be too many for the server, say so; then the loss tells nothing of the server's health."""
        if sent > LARGE_REQUEST:
            self.sent, self.counted = sent, True

    def __str__(self) -> str:
        if not self.sent:
            return super().__str__()
        why = "Is that more than the server takes (proto-max-bulk-len, client-query-buffer-limit)?"
        return f"{super().__str__()}. {self.sent} bytes were sent. {why}"


class CircuitOpen(ServerGone):
    """The circuit breaker is open: the server failed a moment ago, so nothing was sent."""


class TooManyConnections(ServerGone):
    """All ``max_connections`` are in use and none became free in time; or the server reached its ``maxclients``."""


class AccessDenied(ConnectionInterrupted, redis.AuthenticationError):
    """The server refused the user name or password."""


class NoSuchDatabase(ConnectionInterrupted, redis.ResponseError):
    """The server has no database of this number."""


class UnsupportedServer(ConnectionInterrupted, redis.ConnectionError):
    """The server does not speak RESP3 (it is older than Redis 6), or is no cluster although the URL says so."""


def is_outage(error: BaseException) -> bool:
    """Whether *error* means that the server is away; a server that refuses us is not."""
    away = (redis.ConnectionError, redis.TimeoutError)  # a builtin TimeoutError is a time limit of the caller's
    refused = (redis.AuthenticationError, UnsupportedServer, SettingsError)
    return isinstance(error, away) and not isinstance(error, refused)
