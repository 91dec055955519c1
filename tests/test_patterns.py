"""Globs for entries that a site names by a function of its own: found as meant, or refused; never a silent no-op."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from itertools import count
from random import Random
from typing import Any
from urllib.parse import quote

import pytest
from django.test import override_settings
from tests.django_settings import configure
from tests.faces import FACES, Face

from fleetcache import Cache
from fleetcache.errors import SettingsError
from fleetcache.keys import CacheKey
from fleetcache.patterns import KEY, may_match
from fleetcache.servers.arguments import glob

configure()

from fleetcache.django.checks import check_caches  # noqa: E402 - needs the settings


def digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()


Named = Callable[[Any, str, Any], str]

FOUND: dict[str, Named] = {
    "slashes": lambda key, prefix, version: f"{prefix}/{version}/{key}",
    "key first": lambda key, prefix, version: f"{key}@{version}@{prefix}",
    "a number": lambda key, prefix, version: "%s:%03d:%s" % (prefix, int(version), key),
    "lower case": lambda key, prefix, version: f"{prefix}:{version}:{str(key).lower()}",
    "without version": lambda key, prefix, version: f"{prefix}:{key}",
    "one tag": lambda key, prefix, version: f"{{{prefix}}}:{version}:{key}",
}
"""Functions that leave a glob as it is."""

CLEARED: dict[str, Named] = FOUND | {
    "quoted key": lambda key, prefix, version: f"{prefix}:{version}:{quote(str(key), safe='')}",
    "quoted": lambda key, prefix, version: quote(f"{prefix}:{version}:{key}", safe=""),
    "hashed key": lambda key, prefix, version: f"{prefix}:{version}:{digest(str(key))}",
    "hashed prefix": lambda key, prefix, version: f"{digest(prefix)}:{version}:{key}",
    "hashed with version": lambda key, prefix, version: f"{prefix}:{digest(f'{version}:{key}')}",
}
"""Functions whose names still tell what stands under a prefix."""

HIDDEN: dict[str, Named] = {
    "hashed": lambda key, prefix, version: digest(f"{prefix}:{version}:{key}"),
    "without prefix": lambda key, prefix, version: f"{version}:{key}",
    "bare": lambda key, prefix, version: str(key),
    "no end of the prefix": lambda key, prefix, version: f"{prefix}{digest(str(key))}",
}
"""Functions whose names do not."""

ALL = CLEARED | HIDDEN


numbers = count()


def sites(name: str, face: str, **options: Any) -> tuple[Face, list[Face]]:
    """Return a cache of a shop, and those of others in the same database."""
    database = f"memory://patterns-{next(numbers)}"
    caches = [
        Face(
            Cache(
                database,
                {"KEY_PREFIX": prefix, "KEY_FUNCTION": ALL[name], "OPTIONS": options},
            ),
            face,
        )
        for prefix in ("s[h]op", "s[h]opx", "xs[h]op", "shop", "")
    ]
    return caches[0], caches[1:]


@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize("name", CLEARED)
async def test_clear_finds_all_that_is_under_the_prefix(name, face):
    """Whatever the function does to keys, all versions go, and nothing of others does."""
    shop, others = sites(name, face)
    keys = ["a", "user:1", "a b", "100%", "*"]
    for each in (shop, *others):
        for key in keys:
            await each.set(key, 1)
            await each.set(key, 1, version=27)

    await shop.clear()

    for key in keys:
        assert (await shop.get(key), await shop.get(key, version=27)) == (None, None)
        for other in others:
            assert await other.get(key) == 1


@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize("name", HIDDEN)
async def test_clear_is_refused_where_names_tell_nothing(name, face):
    """Where the prefix cannot be told from names, clear() says what to set, and removes nothing."""
    shop, others = sites(name, face)
    for each in (shop, *others):
        await each.set("a", 1)

    with pytest.raises(SettingsError, match=r"OPTIONS\['CLEAR'\] = 'database'"):
        await shop.clear()
    for each in (shop, *others):
        assert await each.get("a") == 1
    shop, _ = sites(name, face, CLEAR="database")
    await shop.set("a", 1)
    await shop.clear()
    assert await shop.get("a") is None


@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize("name", ALL)
async def test_patterns_are_found_or_refused(name, face):
    """A glob finds what it means, or is refused; a pattern without special characters is a key."""
    shop, _ = sites(name, face)
    await shop.set_many({"user:1": 1, "user:2": 2, "x": 3})

    if name in FOUND or name in {"without prefix", "bare"}:
        assert await shop.delete_pattern("user:*") == 2
        assert await shop.get_many(["user:1", "x"]) == {"x": 3}
    else:
        for refused in (shop.keys("user:*"), shop.delete_pattern("user:*"), shop.scan(search="u?er:1")):
            with pytest.raises(
                SettingsError, match=r"KEY_FUNCTION, or make_key\(\), does not leave the special characters"
            ):
                await refused
        with pytest.raises(SettingsError, match="KEY_FUNCTION"):
            async for _ in shop.iter_keys("*"):
                pass
        assert await shop.delete_pattern("user:1") == 1
        assert await shop.get_many(["user:1", "user:2"]) == {"user:2": 2}
        assert await shop.delete_pattern(CacheKey("*")) == 2


def entry(url: str, prefix: str, **more: Any) -> dict[str, Any]:
    return {"BACKEND": "fleetcache.django.RedisCache", "LOCATION": url, "KEY_PREFIX": prefix, **more}


@pytest.mark.parametrize(
    ("outer", "inner", "warned"),
    [
        (entry("redis://h/1", "shop"), entry("redis://:pw@h:6379/1", "shop:1"), True),
        (entry("redis+cluster://a,b", "shop"), entry("redis+cluster://b,c", "shop:eu:1"), True),
        (entry("memory://a", "shop"), entry("memory://a", "shop:1"), True),
        (entry("redis://h/1", "shop"), entry("redis://h/2", "shop:1"), False),
        (entry("redis://h/1", "shop"), entry("redis://i/1", "shop:1"), False),
        (entry("redis://h/1", "shop"), entry("redis://h/1", "shop1"), False),
        (entry("redis://h/1", ""), entry("redis://h/1", "shop"), False),
        (entry("redis://h/1", "shop", KEY_FUNCTION=FOUND["slashes"]), entry("redis://h/1", "shop:1"), False),
    ],
)
def test_prefixes_that_contain_each_other_are_warned_of(outer, inner, warned):
    """Two aliases of one database whose prefixes contain each other see each other's entries: the check says so."""
    with override_settings(CACHES={"default": entry("memory://", ""), "inner": inner, "outer": outer}):
        found = [message for message in check_caches() if message.id == "fleetcache.W002"]

    assert len(found) == warned
    if warned:
        assert "'inner'" in found[0].msg
        assert "pw" not in found[0].msg


def bytes_for_some(key: Any, _prefix: str, _version: Any) -> Any:
    """Name by text only the key that is tried when a cache is made."""
    return key if key == KEY else str(key).encode()


def test_a_key_function_that_returns_no_text_is_named():
    """Where a glob has to be made of what it returns, the error says what is wrong with it."""
    cache = Cache("memory://bytes", {"KEY_PREFIX": "shop", "KEY_FUNCTION": bytes_for_some})
    for operation in (cache.clear, lambda: cache.keys("*"), lambda: cache.delete_pattern("a")):
        with pytest.raises(SettingsError, match="KEY_FUNCTION has to return text, not bytes"):
            operation()


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("a*", "abc", True),
        ("a*", "bac", False),
        ("*a*b", "xaxb", True),
        ("*a*b", "xaxbx", False),
        ("a?c", "abc", True),
        ("a?c", "ac", False),
        (r"a\*", "a*", True),
        (r"a\*", "ab", False),
        (r"a\[b]", "a[b]", True),
        ("a[b-d]e", "ax", True),  # a bracket is not looked into
        ("a[b-d]e", "xbe", False),
        ("a\\", "a\\", True),
        ("*a" * 30, "a" * 29, False),
        ("*a" * 30 + "b", "a" * 200, False),
    ],
)
def test_whether_a_glob_may_match(pattern, name, expected):
    """What is being loaded is given up if it may; a glob with many stars takes no long time."""
    assert may_match(pattern.encode(), name.encode()) is expected


def test_no_glob_matches_more_for_the_server():
    """Of many globs and names by chance."""
    random = Random(5)
    matched = 0
    for _ in range(20_000):
        pattern, name = ("".join(random.choices("ab*?[]\\^-", k=random.randint(0, 7))).encode() for _ in range(2))
        if glob(pattern).fullmatch(name):
            matched += 1
            assert may_match(pattern, name), (pattern, name)
    assert matched > 100
