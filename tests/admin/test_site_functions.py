"""A function of the site that raises: every page is there, and says which function it is and what it raised."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from django.test import Client
from tests.admin.site import client, site
from tests.admin.test_pages import PAGES, of, text_of

from fleetcache.client import DefaultClient

NAME = "users:1"


class Armed(Exception):
    """What the functions below raise."""


class Switch:
    """Whether they raise."""

    on = False

    @classmethod
    def press(cls) -> None:
        """Raise, if they are to."""
        if cls.on:
            raise Armed("no tenant")


def naming(key: Any, prefix: str, version: Any) -> str:
    """Name entries as a KEY_FUNCTION does."""
    Switch.press()
    return plain(key, prefix, version)


def naming_keys(key: Any, prefix: str, version: Any) -> str:
    """Name entries, except for keys that it does not know."""
    if str(key) not in {NAME, "us*"}:
        Switch.press()
    return plain(key, prefix, version)


def nameless(key: Any, prefix: str, version: Any) -> Any:
    """Return no text."""
    return None if Switch.on else plain(key, prefix, version)


def plain(key: Any, prefix: str, version: Any) -> str:
    """Name entries."""
    return f"{prefix}/{version}/{key}"


def reversing(name: str) -> str:
    """Return the key in *name*, as a REVERSE_KEY_FUNCTION does."""
    Switch.press()
    return name.split("/", 2)[2]


class Naming(DefaultClient):  # type: ignore[misc]
    """Names entries itself."""

    def make_key(self, key: Any, version: Any = None, prefix: Any = None) -> Any:
        """Name an entry."""
        Switch.press()
        return super().make_key(key, version, prefix)


class Serializer:
    """Of the site."""

    def __init__(self, options: Any = None) -> None: ...

    def dumps(self, value: Any) -> bytes:
        """Serialize."""
        return b"S" + json.dumps(value).encode()

    def loads(self, payload: bytes) -> Any:
        """Return the value."""
        Switch.press()
        return json.loads(payload[1:])


class Compressor:
    """Of the site."""

    def __init__(self, options: Any = None) -> None: ...

    def compress(self, value: bytes) -> bytes:
        """Compress."""
        return b"Z" + value

    def decompress(self, payload: bytes) -> bytes:
        """Decompress."""
        Switch.press()
        return payload[1:]


class Unmade(Serializer):
    """A serializer that cannot be made."""

    def __init__(self, options: Any = None) -> None:
        Switch.press()


class Uncompressed(Compressor):
    """A compressor that cannot be made."""

    def __init__(self, options: Any = None) -> None:
        Switch.press()


def connecting(connection: Any) -> None:
    """Greet a server, as a ``redis_connect_func`` does."""
    Switch.press()
    connection.on_connect()


def at(name: str) -> str:
    return f"{__name__}.{name}"


TENANT = {"KEY_FUNCTION": at("naming")}
LATE: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "naming": (TENANT, {}),
    "naming and NEAR": (TENANT, {"NEAR": True}),
    "naming and reversing": ({**TENANT, "REVERSE_KEY_FUNCTION": at("reversing")}, {}),
    "naming_keys": ({"KEY_FUNCTION": at("naming_keys")}, {}),
    "nameless": ({"KEY_FUNCTION": at("nameless")}, {}),
    "reversing": ({"KEY_FUNCTION": at("plain"), "REVERSE_KEY_FUNCTION": at("reversing")}, {}),
    "make_key": ({}, {"CLIENT_CLASS": at("Naming")}),
    "loads": ({}, {"SERIALIZER": at("Serializer")}),
    "decompress": ({}, {"COMPRESSOR": at("Compressor")}),
}
"""Settings whose function raises when the cache is in use: those of the entry, and its OPTIONS."""

EARLY: dict[str, dict[str, Any]] = {
    "Unmade": {"SERIALIZER": at("Unmade")},
    "Uncompressed": {"COMPRESSOR": at("Uncompressed")},
    "connecting": {"redis_connect_func": connecting},
}
"""OPTIONS whose function raises before the cache is in use."""

QUERIES: list[tuple[str, dict[str, str]]] = [
    *((page, {}) for page in PAGES),
    *(("keys", {"show": show}) for show in ("all", "tags", "library")),
    ("keys", {"pattern": "us*"}),
    ("keys/erase", {}),
    ("held", {"q": "us*"}),
    ("tags", {"q": "us"}),
]

FORMS: list[tuple[str, dict[str, str]]] = [
    ("keys/erase", {"act": "count", "pattern": "us*"}),
    ("keys/erase", {"act": "count", "pattern": "*", "show": "all"}),
    ("tags", {"act": "invalidate", "tag": "users", "confirmed": "yes"}),
    ("doctor", {"act": "probe"}),
]


@pytest.fixture
def switch() -> Iterator[type[Switch]]:
    """The switch, which is off at the beginning and at the end."""
    yield Switch
    Switch.on = False


def shown(browser: Client, names: list[str]) -> dict[str, str]:
    """Return what each page says, and each answer to a form; none may be an error."""
    browser.raise_request_exception = False
    entries = [("keys/entry", {"name": name}) for name in (*names, "of another")]
    changes = [
        ("keys/entry", {"act": act, "name": name, "seconds": "5"}) for name in names for act in ("ttl", "delete")
    ]
    said = {}
    for send, asked in ((browser.get, [*QUERIES, *entries]), (browser.post, [*FORMS, *changes])):
        for page, query in asked:
            answer: Any = send(f"/admin/fleetcache/{page}/", {"cache": "default", **query}, follow=True)
            assert answer.status_code in {200, 404}, (page, query, answer)
            if answer.status_code == 200:
                said[f"{page} {query.get('act', '')}".rstrip()] = text_of(answer)
    return said


@pytest.mark.parametrize("case", LATE)
def test_every_page_is_there(valkey: Any, switch: type[Switch], case: str) -> None:
    """Whatever a function of the site raises, no page is an error, and those that need the function say what it raised."""
    top, options = LATE[case]
    with site({"default": of(valkey.url(9), **options) | top}):
        from django.core.cache import caches

        cache = caches["default"]
        cache.set(NAME, {"a": [1]})
        cache.set("tagged", 1, tags=["users"])
        names = [str(cache.make_key(NAME)), str(cache.make_key("tagged"))]
        switch.on = True

        said = shown(client(superuser=True), names)

    if case in {"loads", "decompress"}:
        assert "Value" in said["keys/entry"]  # a site's serializer is not called for it
        return
    wrong = (
        "KEY_FUNCTION has to return text" if case == "nameless" else "a function of the site, raised Armed: no tenant"
    )
    assert wrong in said["keys"] or case == "naming_keys"
    assert wrong in said["keys/entry"]
    assert wrong in said["doctor"] or case == "nameless"


@pytest.mark.parametrize("case", EARLY)
def test_a_cache_that_cannot_be_made(valkey: Any, switch: type[Switch], case: str) -> None:
    """A cache that cannot be made, or not connected, has its reason on each page; the other caches have their figures."""
    switch.on = True
    prefixes = of(valkey.url(9)), of(valkey.url(9), **EARLY[case], socket_timeout=1.25)
    with site({"default": prefixes[1], "other": prefixes[0]}):
        said = shown(client(superuser=True), ["x"])

    for page in ("overview", "keys", "workers", "doctor"):
        assert f"{case}" in said[page], page
        assert "a function of the site, raised Armed: no tenant" in said[page], page
    assert said["overview"].count("Armed") == 1


def test_keys_are_whole_names(valkey: Any, switch: type[Switch]) -> None:
    """Where only the way back from a name fails, the list and the entry are there with whole names."""
    top, _ = LATE["reversing"]
    with site({"default": of(valkey.url(9)) | top}):
        from django.core.cache import caches

        caches["default"].set(NAME, "value of it")
        name = str(caches["default"].make_key(NAME))
        switch.on = True
        said = shown(client(superuser=True), [name])

    why = f"REVERSE_KEY_FUNCTION {__name__}.reversing(), a function of the site, raised Armed: no tenant"
    assert f"Whole names stand for keys: {why}" in said["keys"]
    assert name in said["keys"]
    assert why in said["keys/entry ttl"]


def test_the_error_s_own_text_may_hold_a_key(valkey: Any, switch: type[Switch]) -> None:
    """A user who may not see keys is told the function and the kind of the error only."""
    with site({"default": of(valkey.url(9)) | TENANT}):
        from django.core.cache import caches

        caches["default"].set(NAME, 1)
        switch.on = True
        answer = client("view_cache").get("/admin/fleetcache/held/")

    assert f"{__name__}.naming(), a function of the site, raised Armed (" in text_of(answer)
    assert "no tenant" not in text_of(answer)
