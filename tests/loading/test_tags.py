"""Tags: what may be one, and which versions new entries get."""

from __future__ import annotations

import pytest
from tests.faces import AWAITING

from fleetcache.tagging import checked
from fleetcache.twin import complete


async def captured(cache, *args):
    """Return what `capture` returns, by the face of *cache*."""
    whole = cache.whole
    return await whole._capture(*args) if cache.face == AWAITING else complete(whole._still._capture(*args))


async def versions(cache, *args):
    """Return what `versions` returns, by the face of *cache*."""
    whole = cache.whole
    return await whole._versions(*args) if cache.face == AWAITING else complete(whole._still._versions(*args))


@pytest.mark.parametrize(
    ("tags", "error", "says"),
    [
        ("one", TypeError, "an iterable of texts, such as a list, not 'one'"),
        (b"one", TypeError, "an iterable of texts, such as a list, not b'one'"),
        (5, TypeError, "an iterable of texts, such as a list, not 5"),
        ([5], TypeError, "5 is of the type int"),
        ([""], ValueError, "not be an empty text"),
        (map(str, range(17)), ValueError, "at most 16 tags, not 17"),
    ],
)
def test_what_is_no_tag_is_refused(tags, error, says):
    """A single text is no list of tags, although it can be iterated over."""
    with pytest.raises(error, match=f"^tags.*{says}"):
        checked(tags)


def test_a_tag_that_is_named_twice_counts_once():
    """Sixteen different ones are accepted, in their order."""
    assert checked(["b", "a", "b"]) == ("b", "a")
    assert checked(iter(["b"])) == ("b",)
    assert checked([*map(str, range(16)), "5"]) == tuple(map(str, range(16)))
    assert checked(()) == ()


async def test_a_tag_keeps_the_version_of_its_first_use(cache):
    """All entries of a tag get the same version, until it is given up."""
    first = dict(await captured(cache, ("a", "b"), 60_000))
    second = dict(await captured(cache, ("b", "c"), 60_000))

    assert first.keys() == {"a", "b"}
    assert first["b"] == second["b"]
    assert len({first["a"], first["b"], second["c"]}) == 3
    assert await versions(cache, ("a", "b", "c", "d")) == {**first, **second, "d": None}


async def test_a_tag_lives_twice_as_long_as_its_entry(cache):
    """It is extended only if less than the life of a new entry is left, since that is announced."""
    name = cache.whole._tag_name("a")

    async def left():
        return await cache.pttl(cache.whole.make_key("~tag:a"))

    await captured(cache, ("a",), 10_000)
    assert 19_000 < await left() <= 20_000
    await captured(cache, ("a",), 15_000)
    assert await left() <= 20_000
    await captured(cache, ("a",), 30_000)
    assert 59_000 < await left() <= 60_000
    await captured(cache, ("a",), 5_000)
    assert 59_000 < await left() <= 60_000
    await captured(cache, ("a",), None)
    assert await left() is None
    assert name.endswith("~tag:a")


async def test_the_versions_of_a_version_are_its_own(cache):
    """A tag is one of the cache's prefix and version, like a key."""
    (one,) = await captured(cache, ("a",), 1000)
    (two,) = await captured(cache, ("a",), 1000, 2)

    assert one != two
    assert await versions(cache, ("a",), 2) == dict([two])


async def test_what_is_no_version_is_replaced(cache):
    """A foreign value under a tag's name does not get into entries."""
    await cache.set(cache.whole.make_key("~tag:a"), 5)

    ((_, version),) = await captured(cache, ("a",), 1000)

    assert len(version) == 8
