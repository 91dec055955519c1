"""Copies of entries with metadata: of the plain value, for no longer than it is fresh, and of no other."""

from __future__ import annotations

import pytest
from tests.loading.entries import MINUTE, called, put
from tests.near.test_near import SERIALIZERS, VALUES
from tests.waiting import until

from fleetcache import reading
from fleetcache.codec.metadata import Metadata
from fleetcache.judging import Standing
from fleetcache.near.near import clock
from fleetcache.reading import Found, _life

from .conftest import copied, copy, one_face

STALE = {"fresh": -MINUTE, "stale": 10 * MINUTE}


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
async def test_a_copy_holds_the_plain_value(near, asked, value):
    """A hit costs what any hit costs."""
    await put(near, "key", value)
    assert await copied(near, "key") == value
    asked()

    found = [await near.get("key", "default") for _ in range(5)]

    assert found == [value] * 5
    assert {type(each) for each in found} == {type(value)}
    assert asked() == 0
    payload = copy(near, near.name("key")).payload
    assert payload is None or payload == near.codec.encode(value)


@pytest.mark.parametrize("options", SERIALIZERS.values(), ids=SERIALIZERS)
async def test_copies_with_each_codec(copies, asked, options):
    """Also if the copy has to hold the metadata, because it is compressed with the value."""
    near = copies(**options)
    values = {"dict": {"a": [1, "x" * 1000, None], "b": 1.5}, "text": "text" * 100, "none": None, "int": 53, "list": []}
    for key, value in values.items():
        await put(near, key, value)
        await copied(near, key)
    asked()

    assert await near.get_many(values) == values
    assert {key: await near.get(key, "missing") for key in values} == values
    assert asked() == 0


@pytest.mark.parametrize("fresh", [None, 800, 4 * MINUTE])
async def test_a_copy_ends_with_the_fresh_life(copies, fresh):
    """Or with the entry, or with the longest life of a copy, whichever is first."""
    near = copies(near={"MAX_TTL": 120})
    await put(near, "key", "text", fresh=fresh)
    began = clock()
    await copied(near, "key")

    left = copy(near, near.name("key")).deadline - began

    life = min(120, (fresh or 120_000) / 1000)
    assert life - 2 < left <= life + 0.1


async def test_many_copies_end_with_their_fresh_lives(near):
    """Read by `get_many`, each copy has the life of its own entry."""
    await near.fence()
    for key, fresh in (("a", 1500), ("b", None), ("c", -10)):
        await put(near, key, [key], fresh=fresh)
    await near.set("d", "plain")
    await near.fence()
    began = clock()

    until(lambda: near.whole.get_many(list("abcd")).keys() == {"a", "b", "d"} and copy(near, near.name("d")))

    lefts = {key: copy(near, near.name(key)) for key in "abcd"}
    assert 1 < lefts["a"].deadline - began <= 1.6
    assert lefts["b"].deadline - began > 5
    assert lefts["c"] is None


@pytest.mark.parametrize("how", [STALE, {"tags": (("no such tag", b"version1"),)}], ids=["stale", "given up"])
async def test_no_copy_of_what_is_not_fresh(near, asked, how):
    """Neither of the value nor of "missing": others may be served the stale one."""
    await put(near, "key", "text", **how)
    await near.fence()

    for read in (near.get, near.get_many, near.get) * 3:
        assert await read(["key"] if read == near.get_many else "key") in (None, {})
        assert copy(near, near.name("key")) is None
    for _ in range(3):
        assert await near.get("key", "missing", stale=True) == ("text" if how is STALE else "missing")
        assert copy(near, near.name("key")) is None
    asked()
    await near.get("key")
    assert asked() > 0


async def test_a_stale_answer_ends_the_copy(near):
    """Who has seen that a value is stale is not served its copy afterwards."""
    await put(near, "key", "text")
    await copied(near, "key")
    held = copy(near, near.name("key"))
    await put(near, "key", "text", **STALE)
    with near.near.lock:  # as if the announcement were still to come
        near.near.store.put(held.name, held.value, held.payload, held.deadline, held.epoch)

    assert await near.get("key", fresh=True) is None

    assert copy(near, near.name("key")) is None
    assert await near.get("key") is None


async def test_a_find_leaves_a_copy(near, asked):
    """A loading call that finds a fresh value has read it for the next reader too."""
    await put(near, "key", "text")
    await near.fence()
    for _ in range(50):
        found = await called(near, "_find", near.name("key"))
        if copy(near, near.name("key")) is not None:
            break
    asked()

    assert found.standing is Standing.FRESH
    assert await near.get("key") == "text"
    assert asked() == 0


@one_face
@pytest.mark.parametrize(
    ("left", "fresh", "early", "life"),
    [
        (-1, None, 0, -1),
        (5000, None, 0, 5000),
        (5000, 3000, 0, 3000),
        (2000, 3000, 0, 2000),
        (-1, 3000, 0, 3000),
        (5000, 3000, 1, 2500),
        (5000, 3000, 2.5, 2125),
        (5000, 500, 1, None),
        (-1, None, 1, -1),
        (-2, 3000, 0, None),
        (None, 3000, 0, None),
        (0, 3000, 0, None),
    ],
)
async def test_the_life_of_a_copy(monkeypatch, face, left, fresh, early, life):
    """A copy ends early by the time of a load, 250 ms, and β times a draw more, which here is 1."""
    monkeypatch.setattr(reading, "drawn", lambda _: 1.0)
    metadata = Metadata(fresh_until=1, cost=250, early=early)

    assert _life(Found("text", b"", metadata, Standing.FRESH, fresh), left) == life


async def test_early_renewal_is_drawn_once(copies, monkeypatch):
    """The draw is in the deadline of the copy, and no hit draws again."""
    near = copies(near={"MAX_TTL": 120})
    draws = []
    monkeypatch.setattr(reading, "drawn", lambda stamp: draws.append(stamp) or 3.0)
    await put(near, "key", "text", cost=5000, early=2)
    began = clock()
    await copied(near, "key")
    drawn = len(draws)

    left = copy(near, near.name("key")).deadline - began
    assert [await near.get("key") for _ in range(10)] == ["text"] * 10

    assert 23 < left <= 25.1
    assert len(draws) == drawn


async def test_lookup_of_a_copy(near, asked):
    """It says that `get` asks nobody, and asks the server what the copy does not know; with ``fresh`` it knows of no copy."""
    await put(near, "key", "text", fresh=5000)
    await copied(near, "key")
    asked()

    found = await near.lookup("key")

    assert (found.value, found.state) == ("text", "near")
    assert 0 < found.left <= 5.1
    assert asked() > 0
    assert await near.get("key") == "text"
    assert asked() == 0
    assert (await near.lookup("key", fresh=True)).state == "fresh"
