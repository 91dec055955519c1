"""HerdClient as time goes by: which callers are told to renew an entry."""

from __future__ import annotations

import pytest

from .sides import Cache, agreeing

pytestmark = pytest.mark.also(near=True)


@pytest.mark.parametrize("face", ["blocking", "awaiting"])
@pytest.mark.parametrize("roll", [1, 30, 59, 60])
@pytest.mark.parametrize("late", [-10, -1, 0, 1, 29, 30, 31, 59, 60, 61])
def test_soft_expiry(late: int, roll: int, face: str, setups, faces, clock) -> None:
    """With the same time and the same die, the same callers are told that there is nothing."""
    start = clock.now

    def script(cache: Cache) -> None:
        clock.now = start
        cache.set("a", "value", 100)
        cache.set("none", None, 100)
        cache.set("for ever", 1, None)
        cache.set_many({"b": 1, "c": [1]}, 100)
        cache.set_many({"d": 1}, 100, herd=False)
        cache.add("e", 1, timeout=100.5)
        clock.now = start + 100 + late
        clock.roll = roll
        for key in ("a", "none", "for ever", "b", "d", "e", "missing"):
            cache.get(key)
            cache.get(key, "default")
        cache.get_many(["a", "none", "for ever", "b", "c", "d", "missing"])
        cache.touch("a", 200)
        cache.get_or_set("c", "made", 50)
        cache.has_key("a")
        cache.add("a", 2)

    setup = setups["herd"]
    theirs = setup.run(script, setup.theirs())
    ours = setup.run(script, setup.ours(), face=faces[face])

    agreeing(theirs, ours)


@pytest.mark.parametrize("face", ["blocking", "awaiting"])
def test_touch_asks_the_primary(face: str, setups, faces) -> None:
    """A replica that does not know an entry yet does not keep it from being touched."""

    def script(cache: Cache) -> None:
        cache.set("a", 1, 100)
        cache.touch("a", 200)
        cache.touch("missing", 200)

    setup = setups["herd_replicas"]
    theirs = setup.run(script, setup.theirs())
    ours = setup.run(script, setup.ours(), face=faces[face])

    agreeing(theirs, ours)


@pytest.mark.parametrize("face", ["blocking", "awaiting"])
def test_what_get_or_set_makes(face: str, setups, faces, clock) -> None:
    """What a function makes is stored byte for byte as django-redis stores it, and read as long as it is fresh."""
    start = clock.now

    def script(cache: Cache) -> None:
        clock.now = start
        for timeout in (100, 100.5, None, 0, -1):
            cache.get_or_set(f"text{timeout}", lambda: "made", timeout)
            cache.get_or_set(f"number{timeout}", lambda: 5, timeout)
            cache.get_or_set(f"none{timeout}", lambda: None, timeout)
            cache.get_or_set(f"text{timeout}", lambda: "again", timeout)
            cache.get(f"text{timeout}")
            cache.get(f"none{timeout}", "default")
        cache.get_or_set("usual", lambda: [1])
        cache.get_or_set("usual", lambda: [2])
        cache.set("old", 1, 100)
        clock.now, clock.roll = start + 50, 60
        cache.get_or_set("old", lambda: 2, 100)

    setup = setups["herd"]
    theirs = setup.run(script, setup.theirs())
    ours = setup.run(script, setup.ours(), face=faces[face])

    agreeing(theirs, ours)
