"""Messages: each names what was found, whose it is, and what to do."""

from __future__ import annotations

from typing import Any

import pytest
from tests.caches import own_prefix
from tests.faces import Face

from fleetcache import Cache
from fleetcache.client import DefaultClient, HerdClient
from fleetcache.codec.payloads import Codec
from fleetcache.codec.serializers import JSONSerializer
from fleetcache.errors import UnstorableValue


@pytest.fixture
def memory(face) -> Face:
    """A cache for cases that no server decides."""
    return Face(Cache("memory://messages", {"KEY_PREFIX": own_prefix()}), face)


# --- arguments ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "kind"), [(["a"], "a list"), ("abc", "a str"), ([("a", 1)], "a list"), (5, "an int")]
)
async def test_methods_that_take_mappings_say_so(memory, wrong, kind):
    """A list or a text in place of a mapping is refused by the name of the method."""
    with pytest.raises(TypeError, match=f"^set_many takes a mapping of keys and their values, not {kind}$"):
        await memory.set_many(wrong)
    with pytest.raises(TypeError, match=f"^zadd takes a mapping of members and their scores, not {kind}$"):
        await memory.zadd("z", wrong)

    assert await memory.keys("*") == []


@pytest.mark.parametrize(("wrong", "kind"), [(["ab1"], "a list"), ("abc", "a str"), (5, "an int")])
async def test_hset_takes_a_mapping(memory, wrong, kind):
    """What a dict cannot be updated with is refused by the name of the method; pairs are as good as a mapping."""
    with pytest.raises(TypeError, match=f"^hset takes a mapping of fields and their values, not {kind}$"):
        await memory.hset("h", mapping=wrong)

    assert await memory.hset("h", mapping=[("a", 1)]) == 1


def test_set_many_of_a_herd_takes_a_mapping():
    """A HerdClient packs the values first, and says the same."""
    with pytest.raises(TypeError, match="^set_many takes a mapping of keys and their values, not a list$"):
        HerdClient("memory://messages").set_many(["a"])


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("key_prefix", "{'KEY_PREFIX': …}"),
        ("TIMEOUT", "{'TIMEOUT': …}"),
        ("options", "{'OPTIONS': …}"),
        ("serializer", "{'OPTIONS': {'SERIALIZER': …}}"),
        ("socket_timeout", "{'OPTIONS': {'socket_timeout': …}}"),
    ],
)
def test_a_setting_as_an_argument(name, place):
    """The error says where the setting stands."""
    for kind in (Cache, DefaultClient):
        with pytest.raises(TypeError) as caught:
            kind("memory://messages", **{name: "secret"})

        assert str(caught.value) == (
            f"{kind.__name__}() takes no argument {name!r}. Settings are the second argument, a dict: Cache(url, {place}), "
            "or parameters of a URL: Cache.from_url(url)"
        )


def test_other_arguments():
    """A word that is no setting is only named; a class with arguments of its own takes these."""

    class Coloured(Cache):
        def __init__(self, location: Any, *, key_prefix: str) -> None:
            super().__init__(location, {"KEY_PREFIX": key_prefix})

    with pytest.raises(TypeError, match=r"^Cache\(\) takes no argument 'colour'\.$"):
        Cache("memory://messages", colour="red")  # type: ignore[call-arg]
    assert Coloured("memory://messages", key_prefix="red").name("a") == "red:1:a"


# --- serializers and compressors ------------------------------------------------------------------


@pytest.mark.parametrize(("value", "kind"), [(object(), "an object"), (iter([]), "a list_iterator")])
def test_a_value_has_its_article(value, kind):
    """The name of a class is read aloud: an object, a list."""
    text = f"cannot store {kind}:"
    with pytest.raises(UnstorableValue, match=text):
        Codec(JSONSerializer).encode(value)
