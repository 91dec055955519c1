"""LOCATION: this module takes each URL apart once; everything else uses the `Location` that it returns.

A new scheme is a row in SCHEMES.  ``fleetcache.topology.opening.OPENERS`` names the function that opens each kind.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, TypeAlias
from urllib.parse import parse_qsl, urlencode, urlsplit

from fleetcache.errors import SettingsError
from fleetcache.kinds import SENTINEL_PORT, is_lazy, nearest, text_of
from fleetcache.masking import masked_url

Kind: TypeAlias = Literal["server", "cluster", "service", "memory", "embedded"]
"""One server, a node of a cluster, a service under Sentinels, a server in memory, a server that the process starts."""


class Scheme(NamedTuple):
    """One row of SCHEMES."""

    kind: Kind
    plain: str
    """The scheme under which redis-py connects to the servers; "" if redis-py does not connect to them."""


SCHEMES: Mapping[str, Scheme] = {
    "redis": Scheme("server", "redis"),
    "rediss": Scheme("server", "rediss"),
    "valkey": Scheme("server", "redis"),
    "valkeys": Scheme("server", "rediss"),
    "redis+cluster": Scheme("cluster", "redis"),
    "rediss+cluster": Scheme("cluster", "rediss"),
    "valkey+cluster": Scheme("cluster", "redis"),
    "valkeys+cluster": Scheme("cluster", "rediss"),
    "redis+sentinel": Scheme("service", "redis"),
    "rediss+sentinel": Scheme("service", "rediss"),
    "valkey+sentinel": Scheme("service", "redis"),
    "valkeys+sentinel": Scheme("service", "rediss"),
    "unix": Scheme("server", "unix"),
    "memory": Scheme("memory", ""),
    "embedded": Scheme("embedded", ""),
}

ESCAPES = "in a password / # ? @ are written %2F %23 %3F %40"

SEPARATOR = re.compile(r"[;,]\s*(?=[a-z][a-z0-9+.-]*://)")
PARTS = re.compile(r"(?:(.*?)://)?([^/?#]*@)?([^/?#]*)([^?#]*)(?:\?([^#]*))?", re.DOTALL)


@dataclass(frozen=True, repr=False)
class Location:
    """A URL in its parts, each of them as it was written."""

    scheme: str
    login: str
    """``user:password@``, or nothing."""
    hosts: tuple[str, ...]
    """Each with its port, if one was written.  Only clusters and services have several."""
    path: str
    query: str

    @classmethod
    def of(cls, url: str) -> Location:
        """Return the parts of *url*; whether LOCATION may hold it is not checked."""
        scheme, login, hosts, path, query = PARTS.match(url).groups("")  # type: ignore[union-attr]  # all else is optional
        found = cls(scheme, login, (hosts,), path, query)
        return replace(found, hosts=tuple(map(str.strip, hosts.split(",")))) if "+" in scheme else found

    @property
    def url(self) -> str:
        """The whole URL, with its secrets."""
        scheme, query = self.scheme and f"{self.scheme}://", self.query and f"?{self.query}"
        return f"{scheme}{self.login}{','.join(self.hosts)}{self.path}{query}"

    @property
    def masked(self) -> str:
        """The whole URL without its secrets, for messages and logs."""
        return masked_url(self.url)

    def __repr__(self) -> str:
        return f"Location({self.masked!r})"

    @property
    def kind(self) -> Kind:
        """The kind of server that the scheme leads to."""
        return SCHEMES[self.scheme].kind

    @property
    def plain(self) -> Location:
        """The same location under redis-py's own scheme, if there is one."""
        return replace(self, scheme=SCHEMES[self.scheme].plain or self.scheme) if self.scheme in SCHEMES else self

    @property
    def parameters(self) -> dict[str, str]:
        """The parameters in the query."""
        return dict(parse_qsl(self.query, keep_blank_values=True))

    @property
    def addresses(self) -> list[tuple[str | None, int | None]]:
        """The name and port of each host; None for a part that was not written."""
        places = [urlsplit(f"//{host}") for host in self.hosts]
        return [(place.hostname, place.port) for place in places]

    @property
    def sentinels(self) -> tuple[tuple[str, int], ...]:
        """The addresses of the Sentinels, which are the hosts of a service's URL."""
        return tuple((name or "", port or SENTINEL_PORT) for name, port in self.addresses)

    @property
    def of_service(self) -> Location:
        """The same location for redis-py's Sentinel pools, which expect the name of the service in place of the host."""
        service, _, database = self.path.removeprefix("/").partition("/")
        # The name of a host is converted to lower case, so a service with a capital is named once more.
        exactly = "" if service.islower() else f"service_name={service}"
        query = "&".join(filter(None, (self.query, exactly)))
        return replace(self.plain, hosts=(service,), path=f"/{database}", query=query)

    def at(self, host: str, port: int | None = None) -> Location:
        """Return the same location at another host."""
        if port is not None:
            host = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        return replace(self, hosts=(host,))

    @property
    def in_both_roles(self) -> tuple[Location, Location]:
        """The locations of the primary, and of the replicas, of a service."""
        primary, replicas = (replace(self, query=urlencode({**self.parameters, "is_master": role})) for role in (1, 0))
        return primary, replicas


def locations(where: str, written: Any) -> tuple[Location, ...]:
    """Return the locations in LOCATION: one for each URL, and one for each node of a cluster."""
    found: list[Location] = []
    for text in _texts(where, written):
        location = _checked(where, text)
        found += map(location.at, location.hosts) if location.kind == "cluster" else [location]
    if not found:
        raise SettingsError(f"{where}: LOCATION is empty. Give the server's URL, such as 'redis://127.0.0.1:6379/1'")
    if 0 < sum(each.kind == "cluster" for each in found) < len(found):
        raise SettingsError(f"{where}: LOCATION: either all URLs are of a cluster's nodes, or none")
    return tuple(found)


def _texts(where: str, written: Any) -> list[str]:
    """Return the texts in LOCATION; each may be a URL."""
    several = isinstance(written, Iterable) and not (is_lazy(written) or hasattr(written, "geturl"))
    several = several and not isinstance(written, (str, bytes, bytearray, Mapping, set, frozenset))
    given = list(written) if several else [written]
    found: list[str] = []
    for each in given:
        try:
            text = each.url if isinstance(each, Location) else "" if each is None else text_of(each)
        except TypeError:
            kind = type(each).__name__
            raise SettingsError(
                f"{where}: LOCATION: a URL, or a list of URLs, is expected, and {kind} is neither"
            ) from None
        # A comma separates only before the next URL; elsewhere it may be part of a password.
        found += SEPARATOR.split(text) if len(given) == 1 else [text]
    return [text.strip() for text in found if text.strip()]


def _checked(where: str, url: str) -> Location:
    """Return the location of *url*; refuse an unknown scheme, and parts that redis-py would read as something else."""
    scheme, found, _ = url.partition("://")
    if not found or scheme not in SCHEMES:
        known = bool(found) and re.fullmatch(r"[\w+.-]+", scheme)
        what = f"unknown URL scheme {scheme!r}" if known else f"{masked_url(url)!r} is no URL"
        near = nearest(scheme, SCHEMES) if known else _schemeless(url)
        raise SettingsError(f"{where}: LOCATION: {what}.{near} Known: {', '.join(f'{s}://' for s in SCHEMES)}")
    location = Location.of(url)
    for host in location.hosts:
        if fault := _fault(location.at(host), url):
            raise SettingsError(f"{where}: LOCATION {masked_url(url)!r}: {fault}")
    return location


def _schemeless(url: str) -> str:
    """Return advice on *url*, which has no scheme: the likely URL, or only the likely scheme if a secret may stand in it."""
    if "://" in url:
        return ""
    if masked_url(url) != url:
        return " Write redis:// before it." if re.match(r"([^/?#]*@)?[\w.-]+:\d+(/\d*)?(\?.*)?$", url) else ""
    if url.startswith(("/", "[")) or re.match(r"[\w.-]+(:\d+)?$", url):
        return f" Did you mean {('unix://' if url.startswith('/') else 'redis://') + url!r}?"
    return ""


def _fault(location: Location, url: str) -> str:
    """Return what is wrong with *location*, one host of *url*; "" if redis-py reads it as it was meant."""
    networked = location.plain.scheme in {"redis", "rediss"}
    try:
        ((name, port),) = location.addresses
        urlsplit(location.url)
    except ValueError:  # its text may quote a password
        return (
            "the port must be a number up to 65535, and the host a name of letters, digits, -, _ and ., or an address; "
            f"{ESCAPES}"
        )
    if location.kind == "memory":
        return ""
    if url.partition("#")[2]:
        return "a '#' ends a URL; in a password it is written %23"
    if "@" in location.path and networked:
        return f"a password ends at a '/'; {ESCAPES}"
    if re.search(r"[^\S\t\r\n]", location.login + location.hosts[0]):
        return "there is white space in the host"
    if port == 0:
        return "no server has port 0"
    if location.kind in {"cluster", "service"} and (not name or re.search(",.*:.*@", location.login)):
        return "a host is missing, or stands before the @; in a password , is written %2C"
    if location.scheme == "unix" and (name or not location.path.strip("/")):
        return "a socket has a path and no host: unix:///run/valkey.sock?db=1"
    if not networked:
        return ""
    database = location.path.strip("/")
    if location.kind == "service":
        service, _, database = location.path.removeprefix("/").partition("/")
        if not service:
            return "the service is missing: redis+sentinel://host1:26379,host2:26379/service/0"
    if database and not (database.isascii() and database.isdigit()):
        found = repr(database) if database in location.masked else "what stands there"
        return f"the database must be a whole number, not {found}"
    if location.kind == "cluster" and int(database or 0):
        return f"a cluster has only database 0. Leave /{database} out"
    return ""
