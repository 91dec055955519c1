"""What loading calls, policies and tags refuse, each with an error that says what was found and what to do."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from tests.faces import settled

from fleetcache.errors import InvalidTimeout
from fleetcache.policy import Policy

NONSENSE: dict[str, tuple[dict[str, Any], str]] = {
    "negative": ({"lease": -1}, "lease has to be a finite number, 0 or more, not -1"),
    "not a number": ({"early": float("nan")}, "early has to be a finite number, 0 or more, not nan"),
    "infinite": ({"wait": float("inf")}, "wait has to be a finite number"),
    "a negative timedelta": ({"stale_if_error": timedelta(-1)}, "stale_if_error has to be a finite number"),
    "a text": ({"stale_while_revalidate": "60"}, "stale_while_revalidate has to be a number of seconds, not str"),
    "true": ({"retry_after": True}, "retry_after has to be a number of seconds, not bool"),
    "None": ({"jitter": None}, "jitter has to be a number of seconds, not NoneType"),
    "more jitter than there is": ({"jitter": 1.5}, "jitter is a part of the timeout, from 0 to 1, not 1.5"),
    "no lease at all": ({"lease": 0}, "lease has to be more than 0 seconds"),
    "hard before soft": (
        {"soft_timeout": 5, "hard_timeout": 1},
        r"hard_timeout \(1 s\) is less than soft_timeout \(5 s\)",
    ),
    "nobody renews": ({"renew": "nobody"}, "'caller', 'thread', 'response', or a callable, not 'nobody'"),
    "a timeout in words": ({"timeout": "soon"}, "a timeout is a number of seconds.*not 'soon'"),
    "an endless number": ({"timeout": float("inf")}, "a timeout is a number of seconds.*None for ever, not inf"),
}


@pytest.mark.parametrize(("options", "message"), NONSENSE.values(), ids=NONSENSE)
def test_a_policy_refuses_nonsense(options, message):
    """A number that is none, and fields that contradict each other, are refused where the policy is written."""
    with pytest.raises((ValueError, TypeError), match=message):
        Policy(**options)


@pytest.mark.parametrize("timeout", [None, 0, -1, 1.5, timedelta(hours=1), object()])
def test_a_policy_takes_any_timeout(timeout):
    """A timeout is whatever it is elsewhere, Django's mark for the timeout of the cache included."""
    assert Policy(timeout=timeout).timeout is timeout


TAGS: dict[str, tuple[Any, str]] = {
    "too many": ([f"tag{number}" for number in range(17)], "an entry has at most 16 tags, not 17"),
    "a text": ("reports", "tags takes an iterable of texts, such as a list, not 'reports'"),
    "bytes": (b"reports", "tags takes an iterable of texts"),
    "a number": (5, "tags takes an iterable of texts, such as a list, not 5"),
    "a number in a list": (["a", 5], "tags takes texts; 5 is of the type int"),
    "None in a list": ([None], "tags takes texts; None is of the type NoneType"),
    "a list in a list": ([["a", "b"]], "is of the type list. Write a star before it"),
    "an empty text": ([""], "not be an empty text"),
    "a novel": (["x" * 1001], "has 1001 letters; 1000 are the most"),
}


@pytest.mark.parametrize(("tags", "message"), TAGS.values(), ids=TAGS)
async def test_tags_that_are_none(cache, tags, message):
    """Tags are texts, sixteen at most, in anything that can be iterated but a text; nothing is stored otherwise."""
    for operation in (cache.set("key", 1, tags=tags), cache.set_many({"key": 1}, tags=tags)):
        error = await settled(operation)
        assert isinstance(error, (TypeError, ValueError))
        with pytest.raises(type(error), match=message):
            raise error
    assert await cache.get("key") is None


async def test_sixteen_tags_are_not_too_many(cache):
    """The most that an entry can have, however often each is named, in any iterable."""
    tags = [f"tag{number}" for number in range(16)]

    assert await cache.set("key", 1, tags=(tag for tag in [*tags, *tags])) is True
    assert await cache.get("key") == 1
    assert await cache.invalidate_tags(*tags) == 16
    assert await cache.get("key") is None


@pytest.mark.parametrize("tag", [["a", "b"], {"a"}, None, 5, b"a"])
async def test_invalidating_what_is_no_tag(cache, tag):
    """A list of tags needs a star before it, and the error says so."""
    hint = "Write a star before it" if isinstance(tag, (list, set)) else "is of the type"
    with pytest.raises(TypeError, match=hint):
        await cache.invalidate_tags(tag)


# --- functions that make values -------------------------------------------------------------------


def generate() -> Any:
    yield 1


async def generate_slowly() -> Any:
    yield 1


async def promise() -> int:
    return 1


async def promise_twice() -> Any:
    return promise()


@pytest.mark.parametrize("load", [generate, generate_slowly])
async def test_what_only_one_caller_could_read(cache, load):
    """A generator cannot be given to all who asked at the same time."""
    with pytest.raises(TypeError, match=r"generator generate.*which only one caller could read: return a list"):
        await cache.get_or_set("key", load, 10)
    assert await cache.get("key") is None


async def test_functions_that_must_be_awaited(cache, face):
    """The blocking face refuses a coroutine function; the awaiting one a coroutine that a coroutine returns."""
    if face == "blocking":
        for make in (promise, promise(), lambda: promise()):
            with pytest.raises(TypeError, match="promise is a coroutine function; a blocking call cannot await it"):
                await cache.get_or_set("key", make, 10)
    else:
        with pytest.raises(TypeError, match="returned a coroutine, promise, that it should have awaited"):
            await cache.get_or_set("key", promise_twice, 10)
        for make in (promise, promise(), lambda: promise()):
            assert await cache.get_or_set("key", make, 10) == 1
            await cache.delete("key")


async def test_a_function_that_needs_arguments(cache):
    """Its own TypeError is the caller's."""
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        await cache.get_or_set("key", lambda row: row, 10)


@pytest.mark.parametrize("timeout", [0, -1, timedelta(0), timedelta(-1), -0.5])
async def test_a_timeout_that_is_over(cache, timeout):
    """Nothing is stored for no time, and the value is returned."""
    made = []

    def make() -> int:
        made.append(1)
        return len(made)

    assert await cache.get_or_set("key", make, timeout) == 1
    assert await cache.get_or_set("key", make, timeout) == 2
    assert await cache.get("key") is None


@pytest.mark.parametrize("timeout", ["soon", float("nan"), float("inf"), [], 1e300])
async def test_a_timeout_that_is_none(cache, timeout):
    """It is refused before anything is made."""
    with pytest.raises(InvalidTimeout):
        await cache.get_or_set("key", lambda: pytest.fail("made"), timeout)


@pytest.mark.parametrize("made", [[1], None, "ab", 5], ids=repr)
async def test_a_batch_that_is_no_mapping(cache, made):
    """`get_or_set_many` needs to know which value belongs to which key."""

    def load_many(keys: list[str]) -> Any:
        return made

    with pytest.raises(TypeError, match=r"load_many\(\) has to return a mapping of keys to values, not"):
        await cache.get_or_set_many(["a", "b"], load_many, 10)
