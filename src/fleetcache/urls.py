"""What LOCATION may be: the URLs of servers, and what is wrong with one."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from fleetcache.errors import SettingsError
from fleetcache.masking import masked_url

CLUSTERED = ("redis+cluster", "rediss+cluster", "valkey+cluster", "valkeys+cluster")
WATCHED = ("redis+sentinel", "rediss+sentinel", "valkey+sentinel", "valkeys+sentinel")
NETWORKED = ("redis", "rediss", "valkey", "valkeys", *CLUSTERED, *WATCHED)
SCHEMES = (*NETWORKED, "unix", "memory", "embedded")

ESCAPES = "in a password / # ? @ are written %2F %23 %3F %40"

separator = re.compile(r"[;,]\s*(?=[a-z][a-z0-9+.-]*://)")


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a question after the one of *known* that *name* may stand for, or nothing."""
    first = {other.lower(): other for other in reversed([*known])}
    close = difflib.get_close_matches(name.lower(), first, 1)
    return f" Did you mean {first[close[0]]!r}?" if close else ""


def is_lazy(value: Any) -> bool:
    """Whether *value* is a text of Django's that is made when it is looked at, as translations are."""
    django = sys.modules.get("django.utils.functional")  # where there is none, there is no such text
    return django is not None and isinstance(value, django.Promise)


def text_of(value: Any) -> str:
    """Return the text of *value*: of a string, a lazy one, bytes, a path, a number, or an object that is a URL or a secret."""
    if isinstance(value, (str, bytes, bytearray)):
        try:
            return value.encode().decode() if isinstance(value, str) else value.decode()
        except UnicodeError:
            raise TypeError("text of UTF-8 is expected") from None  # the cause would quote it
    for method in ("get_secret_value", "geturl"):  # pydantic's secrets; what urllib.parse.urlsplit returns
        if callable(found := getattr(value, method, None)):
            return text_of(found())
    kind: Any = type(value)
    nameless = kind.__str__ is object.__str__ and kind.__repr__ is object.__repr__
    if nameless or value is None or isinstance(value, (bool, type, Mapping, list, tuple, set, frozenset)):
        raise TypeError("text is expected")
    return str(value)


def servers(where: str, location: Any) -> tuple[str, ...]:
    """Return the URLs in *location*, each of a scheme that exists."""
    urls = [node for url in _texts(where, location) for node in _hosts(url, CLUSTERED)]
    if not urls:
        raise SettingsError(f"{where}: LOCATION is empty. Give the server's URL, such as 'redis://127.0.0.1:6379/1'")
    for url in urls:
        scheme, found, _ = url.partition("://")
        if not found or scheme not in SCHEMES:
            known = bool(found) and re.fullmatch(r"[\w+.-]+", scheme)
            what = f"unknown URL scheme {scheme!r}" if known else f"{masked_url(url)!r} is no URL"
            near = nearest(scheme, SCHEMES) if known else _schemeless(url)
            raise SettingsError(f"{where}: LOCATION: {what}.{near} Known: {', '.join(f'{s}://' for s in SCHEMES)}")
        for one in _hosts(url):
            if fault := _fault(scheme, one):
                raise SettingsError(f"{where}: LOCATION {masked_url(url)!r}: {fault}")
    if 0 < sum(clustered([url]) for url in urls) < len(urls):
        raise SettingsError(f"{where}: LOCATION: either all URLs are of a cluster's nodes, or none")
    return tuple(urls)


def _schemeless(url: str) -> str:
    """Return a question after the URL that *url*, which has no scheme, may stand for, or nothing."""
    if "://" in url or masked_url(url) != url:
        return ""
    if url.startswith(("/", "[")) or re.match(r"[\w.-]+(:\d+)?$", url):
        return f" Did you mean {('unix://' if url.startswith('/') else 'redis://') + url!r}?"
    return ""


def _texts(where: str, location: Any) -> list[str]:
    """Return the texts of *location*, of which each may be a URL."""
    several = isinstance(location, Iterable) and not (is_lazy(location) or hasattr(location, "geturl"))
    several = several and not isinstance(location, (str, bytes, bytearray, Mapping, set, frozenset))
    given = list(location) if several else [location]
    found: list[str] = []
    for each in given:
        try:
            text = "" if each is None else text_of(each)
        except TypeError:
            kind = type(each).__name__
            raise SettingsError(
                f"{where}: LOCATION: a URL, or a list of URLs, is expected, and {kind} is neither"
            ) from None
        # Only before the next URL does a comma separate; elsewhere it may be part of a password.
        found += separator.split(text) if len(given) == 1 else [text]
    return [text.strip() for text in found if text.strip()]


def clustered(urls: Iterable[str]) -> bool:
    """Whether *urls* are those of a cluster's nodes."""
    return all(url.partition("://")[0] in CLUSTERED for url in urls)


def watched(url: str) -> bool:
    """Whether *url* names a service, and the Sentinels that know where it is."""
    return url.partition("://")[0] in WATCHED


def secured(url: str) -> bool:
    """Whether *url* is of a server that speaks TLS."""
    return url.partition("://")[0].partition("+")[0] in {"rediss", "valkeys"}


def _hosts(url: str, schemes: Iterable[str] = (*CLUSTERED, *WATCHED)) -> list[str]:
    """Return a URL for each of the hosts in *url*, between which commas may stand under these *schemes*."""
    scheme, _, rest = url.partition("://")
    if scheme not in schemes:
        return [url]
    netloc, path = re.fullmatch(r"([^/?#]*)(.*)", rest, re.DOTALL).groups()  # type: ignore[union-attr]
    user, at, hosts = netloc.rpartition("@")
    return [f"{scheme}://{user}{at}{host.strip()}{path}" for host in hosts.split(",")]


def _fault(scheme: str, url: str) -> str:
    """Return what redis-py would silently read differently from what was meant."""
    try:
        place = urlsplit(url)
        port = place.port
    except ValueError:  # whose text may quote a password
        return f"the port is no number up to 65535, or a character is none of a host's; {ESCAPES}"
    if scheme == "memory":
        return ""
    if place.fragment:
        return "a '#' ends a URL; in a password it is written %23"
    if "@" in place.path and scheme in NETWORKED:
        return f"a password ends at a '/'; {ESCAPES}"
    if any(char.isspace() for char in place.netloc):
        return "there is white space in the host"
    if port == 0:
        return "no server has port 0"
    if "+" in scheme and (not place.hostname or re.search(",.*:.*@", place.netloc)):
        return "a host is missing, or stands before the @; in a password , is written %2C"
    if scheme == "unix" and (place.hostname or not place.path.strip("/")):
        return "a socket has a path and no host: unix:///run/valkey.sock?db=1"
    if scheme not in NETWORKED:
        return ""
    database = place.path.strip("/")
    if watched(url):
        service, _, database = place.path.removeprefix("/").partition("/")
        if not service:
            return "the service is missing: redis+sentinel://host1:26379,host2:26379/service/0"
    if database and not (database.isascii() and database.isdigit()):
        found = repr(database) if database in masked_url(url) else "what stands there"
        return f"the database must be a whole number, not {found}"
    if clustered([url]) and int(database or 0):
        return f"a cluster has only database 0. Leave /{database} out"
    return ""
