"""What loading calls, policies and tags refuse, each with an error that says what was found and what to do."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from itertools import count
from time import monotonic
from typing import Any

import pytest
import redis
from tests.caches import own_prefix
from tests.faces import Face, settled

from fleetcache import Cache, cached
from fleetcache.errors import InvalidKey, InvalidTimeout, SettingsError
from fleetcache.policy import Policy


@pytest.fixture
def memory(face) -> Face:
    """A cache for cases that no server decides."""
    return Face(Cache("memory://bad", {"KEY_PREFIX": own_prefix()}), face)


NONSENSE: dict[str, tuple[dict[str, Any], str]] = {
    "negative": ({"lease": -1}, "lease has to be a finite number, 0 or more, not -1"),
    "not a number": ({"early": float("nan")}, "early has to be a finite number, 0 or more, not nan"),
    "infinite": ({"wait": float("inf")}, "wait has to be a finite number"),
    "more than a server can count": ({"stale_if_error": 1e18}, "stale_if_error has to be 1e.12 at most"),
    "a negative timedelta": ({"stale_if_error": timedelta(-1)}, "stale_if_error has to be a finite number"),
    "a text": ({"stale_while_revalidate": "60"}, "stale_while_revalidate has to be a number of seconds, not str"),
    "true": ({"retry_after": True}, "retry_after has to be a number of seconds, not bool"),
    "None": ({"jitter": None}, "jitter has to be a number from 0 to 1 .0.1 is usual., not NoneType"),
    "no factor": ({"early": "1"}, "early has to be a number .1.0 is usual., not str"),
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


# --- the same where it is called, and in the settings ---------------------------------------------


@pytest.mark.parametrize(("options", "message"), NONSENSE.values(), ids=NONSENSE)
async def test_a_call_refuses_nonsense(memory, options, message):
    """`get_or_set` and `get_or_set_many` refuse it before anything is made."""
    unwanted = partial(pytest.fail, "made")

    for call in (memory.get_or_set("key", unwanted, **options), memory.get_or_set_many(["key"], unwanted, **options)):
        error = await settled(call)
        assert isinstance(error, (ValueError, TypeError))
        with pytest.raises(type(error), match=message):
            raise error


async def test_a_call_names_an_option_that_is_not_there(memory):
    """An error names the nearest right option."""
    with pytest.raises(TypeError, match="Did you mean 'stale_while_revalidate'?"):
        await memory.get_or_set("key", lambda: 1, stale_while_revalidat=60)
    with pytest.raises(TypeError, match=r"unknown option 'ttl'\. A policy has absent_for, early"):
        await memory.get_or_set_many(["key"], lambda keys: {}, ttl=60)


WRITTEN: dict[str, tuple[Any, str]] = {
    "negative": ({"LEASE": -1}, "lease has to be a finite number"),
    "misspelt": ({"STALE_IF_EROR": 60}, "unknown option 'STALE_IF_EROR'. Did you mean 'STALE_IF_ERROR'?"),
    "no dict": (60, "a dict or a Policy is expected, not int"),
    "nobody renews": ({"RENEW": "background"}, "renew has to be one of .*, not 'background'"),
    "a contradiction": ({"SOFT_TIMEOUT": 3, "HARD_TIMEOUT": 2}, "hard_timeout"),
    "a timeout in words": ({"TIMEOUT": "soon"}, "a timeout is a number of seconds"),
}


@pytest.mark.parametrize(("written", "message"), WRITTEN.values(), ids=WRITTEN)
def test_the_settings_refuse_nonsense(written, message):
    """The error says in which cache, and under which option, it stands."""
    with pytest.raises(SettingsError, match=rf"CACHES\['pages'\]\['OPTIONS'\]: LOADING(: | cannot be 60: ){message}"):
        Cache("memory://", {"OPTIONS": {"LOADING": written}}, alias="pages")


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("loading=lease:-1", "LOADING: lease has to be a finite number"),
        ("loading=jitter:nan", "jitter has to be a finite number, 0 or more, not nan"),
        ("loading=jiter:1", "unknown option 'jiter'. Did you mean 'JITTER'?"),
        ("loading=60", "or a text such as 'early:1,jitter:0.1'"),
        ("loading=", "or a text such as 'early:1,jitter:0.1'"),
        ("outage_ttl=-1", "OUTAGE_TTL cannot be '-1'"),
        ("lease=5", "unknown parameter 'lease'"),
    ],
)
def test_a_url_refuses_nonsense(query, message):
    """The query of a URL is read as the settings are."""
    with pytest.raises(SettingsError) as caught:
        Cache.from_url(f"memory://?{query}")
    assert message in str(caught.value)


def test_a_policy_in_a_url():
    """The fields of a policy stand in a URL with colons and commas."""
    cache = Cache.from_url(
        "memory://?loading=stale_while_revalidate:60,jitter:0.1,wait:None,renew:thread&outage_ttl=2.5"
    )

    found = cache.settings.options.loading
    assert found == Policy(stale_while_revalidate=60, jitter=0.1, renew="thread")
    assert cache.settings.options.outage_ttl == 2.5


@pytest.mark.parametrize(("tags", "message"), TAGS.values(), ids=TAGS)
async def test_loading_with_tags_that_are_none(memory, tags, message):
    """Tags are refused before anything is made."""
    unwanted = partial(pytest.fail, "made")

    for call in (memory.get_or_set("key", unwanted, tags=tags), memory.get_or_set_many(["key"], unwanted, tags=tags)):
        error = await settled(call)
        assert isinstance(error, (ValueError, TypeError))
        with pytest.raises(type(error), match=message):
            raise error


@pytest.mark.parametrize("key", [None, b"key", ["key"], {"key": 1}, object()], ids=lambda key: type(key).__name__)
async def test_keys_that_are_none(memory, key):
    """A key is refused before anything is made."""
    with pytest.raises(InvalidKey, match="a key must be a string"):
        await memory.get_or_set(key, partial(pytest.fail, "made"))
    with pytest.raises(InvalidKey, match="a key must be a string"):
        await memory.get_or_set_many([key], partial(pytest.fail, "made"))


async def test_a_batch_without_a_function(memory):
    """What is to make the values has to be callable."""
    with pytest.raises(TypeError, match="load_many has to be a function that takes a list of keys .* not dict"):
        await memory.get_or_set_many(["a"], {"a": 1})


def test_a_template_with_an_unknown_argument():
    """It is refused where the function is decorated, and the error shows the arguments that there are."""
    with pytest.raises(ValueError, match=r"'user'.*user_id"):

        @cached(300, key="profile:{user}")
        def profile(user_id: int) -> int:
            return user_id


# --- functions and values -------------------------------------------------------------------------


async def test_a_function_that_asks_for_its_own_key(cache, face):
    """It does not wait for itself: the inner call makes the value by its own function."""
    if face == "blocking":

        def outer() -> int:
            return cache.whole.get_or_set("key", lambda: 1, 10) + 1
    else:

        async def outer() -> int:
            return await cache.whole.aget_or_set("key", lambda: 1, 10) + 1

    assert await cache.get_or_set("key", outer, 10) == 2
    assert await cache.get("key") == 2


async def test_a_value_that_cannot_be_stored(cache, caplog):
    """Its callers get it, each anew; it is logged once a minute."""
    made: list[Any] = []

    def load() -> Any:
        made.append(threading.Lock())
        return made[-1]

    found = [await cache.get_or_set("key", load, 10) for _ in range(3)]

    assert found == made
    assert len(made) == 3
    assert await cache.get("key") is None
    lines = [record for record in caplog.records if record.name == "fleetcache.loading"]
    assert [record.event for record in lines] == ["stored"]
    assert "loaded, but not stored: PickleSerializer cannot store a lock" in lines[0].getMessage()
    assert await cache.get_or_set("key", lambda: 1, 10) == 1


# --- users with few rights ------------------------------------------------------------------------

FEW = {
    "no scripts": ("~*", "+@all", "-@scripting"),
    "no scripts, no time": ("~*", "+@all", "-@scripting", "-time"),
    "only its own keys": ("~loader*", "+@all"),
    "no deleting": ("~*", "+@all", "-del", "-unlink"),
    "no time": ("~*", "+@all", "-time"),
    "no lives": ("~*", "+@all", "-pttl"),
}
_users = count()


@pytest.fixture
def restricted(valkey, face) -> Iterator[Callable[..., Face]]:
    """Make caches as a user with certain rights."""
    admin, users = redis.Redis.from_url(valkey.url()), []

    def make(*rules: str) -> Face:
        user = f"loader{next(_users)}"
        users.append(user)
        admin.execute_command("ACL", "SETUSER", user, "reset", "on", ">p", *rules)
        options = {"USERNAME": user, "PASSWORD": "p"}
        return Face(Cache(valkey.tcp_url(), {"KEY_PREFIX": user, "OPTIONS": options}), face)

    yield make
    admin.acl_deluser(*users)
    admin.close()


@pytest.mark.parametrize("rules", FEW.values(), ids=FEW)
async def test_a_user_with_few_rights_loads_and_stores(restricted, rules):
    """Whatever a user may not do, values are made, stored and found again, with old values and tags, without a wait."""
    cache = restricted(*rules)
    began = monotonic()

    for options in ({}, {"stale_while_revalidate": 60}, {"tags": ["tag"]}, {"stale_if_error": 60, "tags": ["tag"]}):
        key = f"key{len(options)}{'tags' in options}"
        assert await cache.get_or_set(key, lambda: 1, 10, **options) == 1
        assert await cache.get_or_set(key, lambda: 2, 10, **options) == 1, options
        assert await cache.get(key) == 1
    assert await cache.get_or_set_many(["a", "b"], lambda keys: dict.fromkeys(keys, 1), 10) == {"a": 1, "b": 1}
    assert await cache.get_or_set_many(["a", "b"], lambda keys: dict.fromkeys(keys, 2), 10) == {"a": 1, "b": 1}
    with pytest.raises(ZeroDivisionError):
        await cache.get_or_set("fails", lambda: 1 // 0, 10)
    assert await cache.get_or_set("fails", lambda: 3, 10) == 3

    assert monotonic() - began < 5


async def test_a_user_who_may_only_read(restricted, caplog):
    """What was made is returned, though it cannot be stored."""
    cache = restricted("~*", "-@all", "+@read", "+eval", "+evalsha")

    assert await cache.get_or_set("key", lambda: 1, 10) == 1
    assert await cache.get_or_set("key", lambda: 2, 10, stale_if_error=60) == 2
    assert await cache.get_or_set_many(["a"], lambda keys: {"a": 1}, 10) == {"a": 1}

    events = [record.event for record in caplog.records if record.name == "fleetcache.loading"]
    assert events.count("scripts") == events.count("leases") == 1
    assert "stored" in events


async def test_what_a_user_without_rights_is_told(restricted, caplog):
    """It is logged once that loads are protected less, and `info` says it too."""
    cache = restricted("~*", "+@all", "-@scripting")
    for number in range(3):
        await cache.get_or_set(f"key{number}", lambda: 1, 10)

    assert [record.event for record in caplog.records if record.name == "fleetcache.loading"] == ["scripts"]
    assert cache.whole.info()["loading"]["protection"] == "partial"
