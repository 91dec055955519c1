"""Connecting: redis-py opens a connection, then fleetcache uses its socket; errors say what to do.

Only the connection class and keyword arguments of a redis-py pool are used: they open, secure and authenticate
a connection.  Then its socket serves both faces.  All uses of redis-py's undocumented attributes are in this
module: ``Connection._sock`` and ``._parser``.
"""

from __future__ import annotations

import inspect
import os
import re
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from math import inf
from time import monotonic
from typing import Any, TypeAlias

import redis
from redis import exceptions
from redis.cluster import REDIS_ALLOWED_KEYS
from redis.sentinel import SentinelConnectionPool

from fleetcache import errors
from fleetcache.exchange.diagnosis import SHORTLY, bracketed, speaks_plainly, speaks_tls, unusable_file
from fleetcache.exchange.repeating import greets_again
from fleetcache.exchange.wire import PACKER
from fleetcache.interrupts import let_pass
from fleetcache.masking import without_frames
from fleetcache.signatures import DEADLINE, parameters

OF_CLUSTERS = frozenset(REDIS_ALLOWED_KEYS)
"""The options that ``redis.RedisCluster`` passes on to its connections; it silently ignores all others."""

Place: TypeAlias = tuple[str, int]


@dataclass(eq=False)
class Way:
    """The way to a server, as a pool of redis-py describes it, and what is known of the server."""

    pool: Any
    of_sentinel: bool = False
    """Whether a Sentinel is at its end, and is meant to be."""
    proved: bool = False
    """Whether a connection has been made before: then both sides agree about TLS."""


try:
    VERSION = version("fleetcache")
except PackageNotFoundError:  # it was copied, not installed
    VERSION = "unknown"
LIBRARY: dict[str, Any] = {"lib_name": "fleetcache", "lib_version": VERSION}
if hasattr(redis, "DriverInfo"):  # redis-py 7.2
    LIBRARY = {"driver_info": redis.DriverInfo(name="fleetcache", lib_version=VERSION)}


def wanted(pool: Any) -> tuple[str, ...]:
    """Return the arguments that ``get_connection`` of a redis-py pool needs: before redis-py 5.3 a command's name."""
    name = inspect.signature(inspect.unwrap(pool.get_connection)).parameters.get("command_name")
    return ("_",) if name is not None and name.default is name.empty else ()


def arguments(pool: Any, connection_class: type) -> dict[str, Any]:
    """Return the arguments that *pool* would pass to a connection, without those of its push-driven maintenance mode."""
    kwargs = {name: value for name, value in pool.connection_kwargs.items() if not name.startswith("maint")}
    # For our connections only: a raw client may block for as long as its command says, or listen for ever.
    kwargs = {"socket_timeout": DEADLINE, "socket_connect_timeout": DEADLINE, **kwargs}
    # For our connections only: with RESP3, a raw client of the pool would return other types than sites expect.
    kwargs.setdefault("protocol", 3)
    if "command_packer" in parameters(connection_class):
        kwargs.setdefault("command_packer", PACKER)
    if kwargs.keys().isdisjoint(("driver_info", "lib_name", "lib_version")):
        kwargs |= {name: value for name, value in LIBRARY.items() if name in parameters(connection_class)}
    return kwargs


def address_of(pool: Any) -> str:
    """Return the address that *pool* leads to, for messages: without a password."""
    kwargs: Mapping[str, Any] = pool.connection_kwargs
    if isinstance(pool, SentinelConnectionPool):
        place = f"{pool.service_name} ({'primary' if pool.is_master else 'replica'})"
    elif "path" in kwargs:
        place = kwargs["path"]
    else:
        host, port = place_of(pool)
        place = f"{bracketed(host)}:{port}"
    return f"{place}/{kwargs.get('db') or 0}"


def place_of(pool: Any) -> Place:
    """Return the host and port of *pool*."""
    kwargs = pool.connection_kwargs
    return kwargs.get("host", "localhost"), int(kwargs.get("port", 6379))


class TooLate(Exception):
    """The time for making a connection is over; no ``Retry`` of redis-py retries on this."""


TIMED_OUT = (exceptions.TimeoutError, TimeoutError, TooLate)


NOT_KNOWN = "No such host is known: correct {}, or look to the name server"
ADVICE = {
    "Connection refused": "Nothing listens there: start the server, or correct {}",
    "No such file": "There is no such socket: start the server, or correct {}",
    "Permission denied": "This user may not use the socket: change its group, or the server's unixsocketperm",
    "Name or service not known": NOT_KNOWN,
    "nodename nor servname": NOT_KNOWN,
    "No address associated": NOT_KNOWN,
    "name resolution": NOT_KNOWN,
    "unreachable": "Correct {}, or look to the network",
    "No route to host": "Correct {}, or look to the network",
}
"""What to do about the operating system's reasons for no connection; see `errors.Advised`."""


def explained(error: Exception, way: Way, connection: Any = None, place: Place | None = None) -> Exception:
    """Return *error*, which occurred while connecting, as one that names the address and what to do."""
    pool = way.pool
    address = address_of(pool)
    text = str(error)
    if isinstance(error, (errors.SettingsError, errors.NeverSent, errors.ServerTimeout)):  # explained already
        return error
    if isinstance(error, (ImportError, TypeError, ValueError)):
        return errors.SettingsError(f"{address}: redis-py cannot connect with these settings: {text}")
    if isinstance(error, errors.AccessDenied):
        return errors.AccessDenied(f"{address}: {text}")
    if any(each.startswith("DENIED") for each in (text, *getattr(connection, "refusals", ()))):
        return errors.AccessDenied(
            f"{address}: the server is in protected mode, and serves only clients on its own machine. Give it a "
            f"password (requirepass), or set protected-mode to no where nobody else reaches it"
        )
    if "max number of clients" in text:
        return errors.TooManyConnections(f"{address}: the server serves as many clients as its maxclients allows")
    if isinstance(error, exceptions.AuthenticationError) or "WRONGPASS" in text or "NOAUTH" in text:
        return _denied(way, address)
    if isinstance(error, exceptions.ResponseError):
        return _refused(error, address, getattr(connection, "handshake_metadata", {}))
    if wrong := _other_language(error, way, place):
        return wrong
    if isinstance(error, exceptions.InvalidResponse):
        return errors.ServerGone(f"{address}: sent bytes that are no valid reply: {text}")
    if isinstance(error, TIMED_OUT):
        return errors.ServerTimeout(f"{address}: no answer while connecting")
    if isinstance(error, (exceptions.ConnectionError, OSError)):
        # The server's own address stands in front; that of a server which it names, such as a Sentinel's primary, stays.
        host, port = place or place_of(pool)
        text = text.replace(f"{host}:{port}", f"{bracketed(host)}:{port}")
        text = re.sub(rf" to (unix socket: )?{re.escape(address.rpartition('/')[0])}(?=\.)", "", text)
        advice = next((advice for part, advice in ADVICE.items() if part in text), "")
        return errors.NeverSent(errors.advised(f"{address}: {text or type(error).__name__}", advice))
    if isinstance(error, AttributeError):  # of redis-py, when the reply to HELLO is not a map
        return errors.UnsupportedServer(f"{address}: the server answers HELLO 3, but not in RESP3 ({text})")
    return error


def _denied(way: Way, address: str) -> errors.AccessDenied:
    kwargs = way.pool.connection_kwargs
    where = "OPTIONS['PASSWORD'], OPTIONS['USERNAME'] or the URL"
    if way.of_sentinel:
        where = "what a Sentinel wants: OPTIONS['SENTINEL_KWARGS'] = {'username': …, 'password': …}"
    provider = kwargs.get("credential_provider")
    if provider is not None:
        name = getattr(provider, "name", type(provider).__name__)
        return errors.AccessDenied(
            f"{address}: the server refused, twice, the credentials that credential_provider {name} returned"
        )
    user = kwargs.get("username") or "default"
    if kwargs.get("username") and not kwargs.get("password"):
        # Nearly always the password was written in the place of the user name, so the name is not shown.
        return errors.AccessDenied(
            f"{address}: the server wants a password, but there is only a user name. If that is the "
            f"password, write redis://:password@host, with a colon. Check {where}"
        )
    if not kwargs.get("password"):
        return errors.AccessDenied(f"{address}: the server wants a password of user {user!r}. Check {where}")
    return errors.AccessDenied(
        f"{address}: the server refused the password of user {user!r}. Check {where}. In a URL a % of the password is written %25"
    )


def _refused(error: Exception, address: str, greeting: Any) -> Exception:
    """Return the error for a refused command of the greeting; it names the command."""
    text = str(error).partition(", with args")[0]
    found = re.search(r"unknown command [`']?(\w+)", text)
    command = found[1].upper() if found else ""
    if mode_in(greeting) == "sentinel":
        return a_sentinel(address)
    if "DB index" in text or "SELECT is not allowed" in text:
        fix = "Choose another number at the end of the URL"
        if mode_in(greeting) == "cluster":
            fix = "It is a node of a cluster: write redis+cluster:// in {}, without a number"
        return errors.NoSuchDatabase(errors.advised(f"{address}: the server has no such database ({text}).", fix))
    if command == "SELECT":
        fault = f"{address}: the server refuses SELECT ({text}), so only database 0 can be used."
        return errors.NoSuchDatabase(errors.advised(fault, "Leave the number out of {}"))
    # Without a reply to HELLO, it is HELLO that the server knows under another name.
    renamed = bool(command) and not greeting and command not in {"AUTH", "CLIENT", "READONLY"}
    if command == "HELLO" or renamed or "NOPROTO" in text:
        return errors.UnsupportedServer(
            f"{address}: the server does not speak RESP3 ({text}). fleetcache needs Redis 7.0+ or "
            f'Valkey 7.2+; with OPTIONS["protocol"] = 2 it works without RESP3, and without the near cache'
        )
    return type(error)(f"{address}: refused while connecting: {text}")


def mode_in(greeting: Any) -> str:
    """Return the mode in the reply to HELLO: standalone, cluster or sentinel; "" if there is none."""
    found = greeting.get(b"mode", greeting.get("mode", b"")) if isinstance(greeting, Mapping) else b""
    return found.decode() if isinstance(found, bytes) else str(found)


def a_sentinel(address: str) -> errors.UnsupportedServer:
    """Return the error for LOCATION that names a Sentinel in place of a server."""
    place = address.partition("/")[0]
    fault = f"{address}: the server is a Sentinel, which holds no data."
    advice = f"Write redis+sentinel://{place}/service/0 in {{}}, with the name of the service that it watches"
    return errors.UnsupportedServer(errors.advised(fault, advice))


def _other_language(error: Exception, way: Way, place: Place | None) -> Exception | None:
    """Return an error that says that only one side speaks TLS, or that a file for TLS cannot be used; None if neither."""
    pool, own = way.pool, way.of_sentinel
    address, options = address_of(pool), pool.connection_kwargs
    if "path" in options or way.proved:
        return None
    cause = error.__context__ or error
    timed_out = isinstance(error, TIMED_OUT)
    if issubclass(pool.connection_class, redis.SSLConnection):
        if not timed_out and isinstance(cause, (OSError, ValueError)) and (wrong := unusable_file(options)):
            return errors.UnusableFile(f"{address}: {wrong}")
        if (timed_out or isinstance(cause, ssl.SSLError)) and speaks_plainly(place or place_of(pool)):
            fix = "Leave ssl out of OPTIONS['SENTINEL_KWARGS']" if own else "Write redis instead of rediss in {}"
            kind = errors.ServerTimeout if timed_out else errors.NeverSent
            return kind(errors.advised(f"{address}: the server does not speak TLS.", fix))
    elif _hung_up(error) and speaks_tls(place or place_of(pool)):
        fix = "Set ssl in OPTIONS['SENTINEL_KWARGS']" if own else "Write rediss instead of redis in {}"
        return errors.NeverSent(errors.advised(f"{address}: the server speaks TLS only.", fix))
    return None


def _hung_up(error: Exception) -> bool:
    """Whether the server accepted the connection, and then closed it, or sent bytes that are no reply."""
    if isinstance(error, exceptions.InvalidResponse):
        return True
    cause = error.__context__ or error
    ended = not isinstance(cause, OSError) or isinstance(cause, (ConnectionResetError, BrokenPipeError))
    return ended and isinstance(error, exceptions.ConnectionError)


CANNOT_CONNECT = (exceptions.RedisError, OSError, AttributeError, ImportError, TypeError, ValueError, TooLate)


def time_to_connect(pool: Any) -> float | None:
    """Return the seconds that making a connection may take, including the greeting; None for no limit."""
    replying, connecting = (pool.connection_kwargs.get(f"socket_{what}timeout", DEADLINE) for what in ("", "connect_"))
    connecting = connecting or replying
    return connecting + replying if connecting and replying else None


def _made(way: Way) -> Any:
    """Return a connection that is not connected yet.  Its arguments hold the password: no frame that stays may hold them."""
    pool = way.pool
    given = arguments(pool, pool.connection_class)
    if way.of_sentinel:  # without redis-py's own retries, which take seconds: another Sentinel is asked at once
        given.pop("retry", None)
    return hurried(pool.connection_class)(**given)


def connect(way: Way, place: Place | None = None, until: float = inf) -> Any:
    """Return a connected, authenticated ``redis.Connection`` along *way*, or to *place*, which a Sentinel named.

    The attempt ends at the moment *until*.
    """
    pool, connection = way.pool, None
    try:
        connection = _made(way)
        connection.begin(until, proved=way.proved)
        connect = connection.connect if place is None else partial(connection.connect_to, place)
        try:
            connect()
        except (exceptions.ConnectionError, exceptions.TimeoutError) as error:
            let_pass(error)
            if not greets_again(error, suspected=connection.suspected):
                raise
            if isinstance(error, exceptions.TimeoutError):
                if wrong := _other_language(error, way, place):
                    raise wrong from without_frames(error)
                connection.suspicious = False
            connect()
    except BaseException as error:
        if connection is not None:
            connection.disconnect()  # redis-py does so only after errors of its own classes
        if not isinstance(error, CANNOT_CONNECT):
            raise
        let_pass(error)
        raise explained(error, way, connection, place) from without_frames(error)
    connection.calm_down()
    if mode_in(getattr(connection, "handshake_metadata", None)) == "sentinel" and not way.of_sentinel:
        connection.disconnect()
        raise a_sentinel(address_of(pool))
    way.proved = True
    return connection


class Hasty:
    """A socket with one deadline for all its reads and writes, while redis-py greets the server."""

    def __init__(self, sock: Any, until: float) -> None:
        self.sock = sock
        self.until = until

    def __getattr__(self, name: str) -> Any:
        if name in {"recv", "recv_into", "sendall"}:
            left = self.until - monotonic()
            if left <= 0:
                raise TimeoutError("timed out")
            self.sock.settimeout(left)
        return getattr(self.sock, name)


class Hurried:
    """Mixed into a connection class of redis-py: one deadline for all steps of connecting."""

    connecting_until: float | None = None
    until = inf
    limit: float | None = None
    suspicious = suspected = False
    socket_timeout: float | None
    pid: int
    _sock: Any
    _parser: Any

    def begin(self, until: float, *, proved: bool) -> None:
        """Start the limits, with *until* as the last moment for ``connect``."""
        self.refusals: list[str] = []
        self.suspicious = not proved
        self.limit = self.socket_connect_timeout
        self.until = until

    @property
    def socket_connect_timeout(self) -> float | None:
        """The seconds that are left; redis-py applies this limit to each address of a host name."""
        if self.connecting_until is None:
            given: float | None = vars(self).get("_socket_connect_timeout", self.limit)
            return given
        if (left := self.connecting_until - monotonic()) <= 0:
            raise TimeoutError("timed out")
        return left

    @socket_connect_timeout.setter
    def socket_connect_timeout(self, seconds: float | None) -> None:
        self.limit = self._socket_connect_timeout = seconds

    def _connect(self) -> Any:
        if monotonic() >= self.until:
            raise TooLate("timed out")
        if self.limit or self.until < inf:
            self.connecting_until = min(monotonic() + (self.limit or inf), self.until)
        try:
            sock = super()._connect()  # type: ignore[misc]  # of the connection class
        finally:
            self.connecting_until = None
        until = min(self.until, monotonic() + (self.socket_timeout or inf))
        return Hasty(sock, until) if until < inf else sock

    def _wrap_socket_with_ssl(self, sock: Any) -> Any:
        if self.until < inf:
            # A server without TLS stays silent: the first wait is short, then the server is asked in plain text.
            self.suspected = self.suspicious
            left = min(self.until - monotonic(), SHORTLY if self.suspicious else inf)
            sock.settimeout(max(min(left, self.socket_timeout or inf), 0.001))
        try:
            return super()._wrap_socket_with_ssl(sock)  # type: ignore[misc]  # of the connection class
        except BaseException:
            sock.close()  # redis-py does so only after some errors
            raise

    def read_response(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().read_response(*args, **kwargs)  # type: ignore[misc]  # of the connection class
        except exceptions.ResponseError as error:
            self.refusals.append(str(error))  # redis-py ignores some refusals
            raise

    def disconnect(self, *args: Any, **kwargs: Any) -> None:
        """Close the connection, and let interrupts pass: redis-py ignores any OSError here, also a handler's TimeoutError."""
        sock, self._sock = self._sock, None
        try:
            if sock is not None:
                try:
                    if self.pid == os.getpid():
                        sock.shutdown(socket.SHUT_RDWR)
                finally:
                    sock.close()
        except (OSError, TypeError) as error:  # a socket of TLS raises TypeError if its handshake was cut short
            let_pass(error)
        finally:
            super().disconnect(*args, **kwargs)  # type: ignore[misc]  # of the connection class

    def calm_down(self) -> None:
        """Give the socket its usual timeout again."""
        hasty = self._sock
        if isinstance(hasty, Hasty):
            self._sock = hasty.sock
            hasty.sock.settimeout(self.socket_timeout)
            if getattr(self._parser, "_sock", None) is not None:
                self._parser._sock = hasty.sock


@cache
def hurried(kind: Any) -> Any:
    """Return the connection class *kind* as a `Hurried` one, under the same name."""
    return type(kind.__name__, (Hurried, kind), {})


def socket_of(connection: Any) -> Any:
    """Return the connected socket of a ``redis.Connection``, from now on without redis-py's parser.

    The parser refers to itself, and its finalizer would run at a time of the garbage collector's
    choosing: what a signal's handler raises in there is lost.
    """
    parser = connection._parser
    for name, value in vars(parser).items():
        if getattr(value, "__self__", None) is parser:
            setattr(parser, name, None)
    return connection._sock
