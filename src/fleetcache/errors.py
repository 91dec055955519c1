"""Everything fleetcache raises, by whose fault it is.

An error of the server, or of the way to it, is also the ``redis.exceptions`` class that a caller
of redis-py, django-redis or Django's backend already catches.
"""

from __future__ import annotations

import pickle

from redis import exceptions as redis


class FleetcacheError(Exception):
    """The root of all that fleetcache raises on its own account."""


# --- the settings are wrong -----------------------------------------------------------------------


class SettingsError(FleetcacheError, ValueError):
    """A setting is unknown, missing or of the wrong kind; the message names it and the fix."""


class InvalidCacheBackendError(SettingsError):
    """No cache is configured under this alias."""


class ServerNotFound(FleetcacheError):
    """``embedded://`` found no server program to start."""


class ServerNotStarted(FleetcacheError):
    """``embedded://`` started a server program that ended, or did not answer; see its log."""


class UnusableFile(SettingsError, redis.ConnectionError):
    """A certificate, a key or an authority that the settings name cannot be read; the message says which and why."""


# --- the call is wrong ----------------------------------------------------------------------------


class InvalidKey(FleetcacheError, TypeError, ValueError):
    """An object that cannot name a cache entry was given as a key."""


class InvalidTimeout(FleetcacheError, redis.DataError, TypeError):
    """A timeout is a number of seconds, a ``timedelta``, None (for ever) or left out."""


class CrossServer(FleetcacheError, ValueError):
    """One command needs keys that live on different servers, or in different slots of a cluster."""


# --- the value is wrong ---------------------------------------------------------------------------


class CompressorError(FleetcacheError):
    """What a compressor raises for bytes that are not its own."""


class UnreadableValue(FleetcacheError):
    """Stored bytes could not be turned into a value."""


class UnstorableValue(FleetcacheError, pickle.PicklingError, TypeError):
    """A value could not be turned into bytes; nothing was written."""


# --- the server, or the way to it -----------------------------------------------------------------


class ConnectionInterrupted(FleetcacheError):
    """The server could not be asked, or did not answer: what django-redis' clients call all such errors.

    *connection* is accepted and forgotten.
    """

    def __init__(self, *args: object, connection: object = None) -> None:
        super().__init__(*args)


class ServerGone(ConnectionInterrupted, redis.ConnectionError):
    """The server could not be reached, or hung up before it replied."""


class ServerTimeout(ConnectionInterrupted, redis.TimeoutError):
    """The server did not reply in time; a write may or may not have happened."""


class NeverSent(ServerGone):
    """The server could not be reached, so nothing was sent; asking again is safe, whatever is asked."""


class NotPrimary(NeverSent):
    """The server that is called the primary has become a replica, so nothing was sent."""

    primary: tuple[str, int] | None = None
    """Whose replica it is."""


class ConnectionLost(ServerGone):
    """The server hung up before it replied; a write may or may not have happened."""


class CircuitOpen(ServerGone):
    """The server failed a moment ago, so this call was not even tried."""


class TooManyConnections(ServerGone):
    """``max_connections`` are in use, and none came back in time; or the server's ``maxclients`` are."""


class AccessDenied(ConnectionInterrupted, redis.AuthenticationError):
    """The server refused the user name or password."""


class NoSuchDatabase(ConnectionInterrupted, redis.ResponseError):
    """The server has no database of this number."""


class UnsupportedServer(ConnectionInterrupted, redis.ConnectionError):
    """The server does not speak RESP3 (it is older than Redis 6), or is no cluster where one is asked for."""


def is_outage(error: BaseException) -> bool:
    """Whether *error* means that the server is away; one that refuses us is not."""
    away = (redis.ConnectionError, redis.TimeoutError)  # a builtin TimeoutError is a time limit of the caller's
    refused = (redis.AuthenticationError, UnsupportedServer, SettingsError)
    return isinstance(error, away) and not isinstance(error, refused)
