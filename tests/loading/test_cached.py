"""``@cached``: functions and coroutine functions, methods, decorators around it, and its methods."""

from __future__ import annotations

import asyncio
import copy
import functools
import inspect
import pickle
import sys
import threading

import pytest
from asgiref.sync import iscoroutinefunction
from tests.caches import own_prefix
from tests.faces import AWAITING

import fleetcache
from fleetcache import Cache, InvalidCacheBackendError, cached
from fleetcache import commands as c
from fleetcache.errors import InvalidKey
from fleetcache.loading.cached import CachedCoroutine, CachedFunction
from fleetcache.policy import Policy

pytestmark = pytest.mark.newest


@pytest.fixture
def there():
    """A cache in this process."""
    return Cache("memory://cached", {"KEY_PREFIX": own_prefix()})


@pytest.fixture
def of(face):
    """Make the function of a face: itself, or a coroutine function that does the same."""

    def of(function):
        if face != AWAITING:
            return function

        @functools.wraps(function)
        async def awaited(*args, **kwargs):
            await asyncio.sleep(0)
            return function(*args, **kwargs)

        return awaited

    return of


async def got(result):
    """Return *result*, or what awaiting it returns."""
    return await result if inspect.isawaitable(result) else result


def counting(made):
    """Return a function that notes its calls in *made*."""

    def profile(user_id, language="en"):
        """Return a profile."""
        made.append((user_id, language))
        return f"{user_id} in {language}, {len(made)}"

    return profile


async def test_a_result_is_kept(there, of):
    """The function runs once for each key, however its arguments are passed."""
    made = []
    profile = cached(300, key="profile:{user_id}:{language}", cache=there)(of(counting(made)))

    first = await got(profile(5))
    assert first == "5 in en, 1"
    assert (
        await got(profile(user_id=5))
        == await got(profile(5, "en"))
        == await got(profile(language="en", user_id=5))
        == first
    )
    assert await got(profile(6)) == "6 in en, 2"
    assert made == [(5, "en"), (6, "en")]
    assert there.get("profile:5:en") == first == there.get(profile.key(5))
    assert 299 <= there.ttl(profile.key(5)) <= 300


@pytest.mark.parametrize("value", [None, False, 0, "", ()])
async def test_any_result_is_a_value(there, of, value):
    """None and what is false are kept as any other result."""
    made = []
    function = cached(key="key", cache=there)(of(lambda: made.append(1) or value))

    assert [await got(function()), await got(function())] == [value, value]
    assert made == [1]


async def test_an_exception_is_not_kept(there, of):
    """What the function raises reaches the caller, and the next call tries again."""
    made = []
    function = cached(key="key", cache=there)(of(lambda: made.append(1) or 1 // (len(made) - 1)))

    with pytest.raises(ZeroDivisionError):
        await got(function())
    assert await got(function()) == 1


async def test_invalidate_gives_up_one_result(there, of):
    """invalidate() says whether there was one; other keys stay."""
    made = []
    profile = cached(300, key="profile:{user_id}", cache=there)(of(counting(made)))
    await got(profile(5))
    await got(profile(6))

    assert await got(profile.invalidate(5)) is True
    assert await got(profile.invalidate(user_id=5)) is False
    assert await profile.ainvalidate(7) is False
    assert await got(profile(5)) == "5 in en, 3"
    assert await got(profile(6)) == "6 in en, 2"
    assert await profile.ainvalidate(5) is True


async def test_many_reads_together_and_calls_for_the_missing(there, of):
    """many() calls the function for each item that is missing, and keeps all; an item that comes twice counts once."""
    made = []
    profile = cached(300, key="profile:{user_id}", cache=there)(of(counting(made)))
    await got(profile(2))

    assert await got(profile.many([1, 2, 3, 1])) == {1: "1 in en, 2", 2: "2 in en, 1", 3: "3 in en, 3"}
    assert await got(profile.many(iter([3, 1]))) == {3: "3 in en, 3", 1: "1 in en, 2"}
    assert await got(profile(3)) == "3 in en, 3"
    assert await got(profile.many([])) == {}
    assert len(made) == 3


async def test_many_has_a_result_for_each_item(there, of):
    """Items that share a key, as 1 and "1" in a template, share the result: each is found by itself."""
    made = []
    profile = cached(300, key="profile:{user_id}", cache=there)(of(counting(made)))

    for _ in range(2):
        found = await got(profile.many([1, "1", 2]))
        assert found == {1: "1 in en, 1", "1": "1 in en, 1", 2: "2 in en, 2"}
        assert list(found) == [1, "1", 2]
    assert len(made) == 2

    @profile.loads_many
    @of
    def profiles(user_ids):
        return {user_id: f"{user_id} of many" for user_id in user_ids}

    assert await got(profile.many(["3", 3])) == {"3": "3 of many", 3: "3 of many"}


@pytest.mark.parametrize("items", [[True, 1], [5, 1, 1.0], [0.0, -0.0], [(1, 2), (True, 2)]])
async def test_many_refuses_items_that_a_dict_cannot_tell_apart(there, of, items):
    """True and 1 are equal, and have other results: neither stands for the other."""

    def told(value):
        return repr(value)

    function = cached(300, cache=there)(told)
    with pytest.raises(ValueError, match=r"many\(\): items \d \(\w+\) and \d \(\w+\) are equal.*their keys differ"):
        function.many(items)
    with pytest.raises(ValueError, match=r"get_or_set_many\(\): items 0 \(bool\) and 1 \(int\) are equal"):
        await there.aget_or_set_many([True, 1], of(lambda keys: {key: repr(key) for key in keys}))
    by_text = cached(300, key="{value!s:.1}", cache=there)(told)
    assert by_text.many([1, 1.0]) == {1: "1"}


async def test_keys_of_one_name_share_a_value(there, of):
    """get_or_set_many returns a value for each key that was given."""
    asked = []
    load = of(lambda keys: asked.append(keys) or {key: f"value of {key}" for key in keys})

    for _ in range(2):
        assert await there.aget_or_set_many([1, "1", "b"], load) == {
            1: "value of 1",
            "1": "value of 1",
            "b": "value of b",
        }
    assert asked == [[1, "b"]]
    pipe = there.pipeline().get_or_set_many([2, "2", 2], lambda keys: {key: key for key in keys})
    assert pipe.execute() == [{2: 2, "2": 2}]
    with pytest.raises(ValueError, match="items 0 [(]bool[)] and 1 [(]int[)] are equal"):
        there.pipeline().get_or_set_many([True, 1], lambda keys: {key: key for key in keys}).execute()


async def test_many_with_a_loader_of_many(there, of):
    """The function that loads_many decorates gets all missing items at once; who it leaves out is missing."""
    made, asked = [], []
    profile = cached(300, key="profile:{user_id}", cache=there)(of(counting(made)))

    def profiles(user_ids):
        asked.append(user_ids)
        return {user_id: f"{user_id} of many" for user_id in user_ids if user_id != 3}

    loader = of(profiles)
    assert profile.loads_many(loader) is loader
    await got(profile(2))

    assert await got(profile.many([1, 2, 3])) == {1: "1 of many", 2: "2 in en, 1"}
    assert await got(profile.many([1, 2, 3])) == {1: "1 of many", 2: "2 in en, 1"}
    assert asked == [[1, 3], [3]]
    assert await got(profile(1)) == "1 of many"
    assert len(made) == 1


async def test_a_loader_of_many_returns_a_mapping(there, of):
    """A list is a clear error, with the loader's name."""
    profile = cached(key="profile:{user_id}", cache=there)(of(counting([])))
    with pytest.raises(TypeError, match="loads_many decorates a function, not dict"):
        profile.loads_many({})

    @profile.loads_many
    @of
    def profiles(user_ids):
        return list(user_ids)

    with pytest.raises(TypeError, match=r"profiles\(\) has to return a mapping of keys to values, not list"):
        await got(profile.many([1]))


def test_a_wrong_use_shows_at_once(there):
    """What cannot work is refused where the function is decorated."""
    with pytest.raises(TypeError, match="with parentheses"):
        cached(counting([]))
    with pytest.raises(TypeError, match="stale_while_revalidat"):
        cached(300, stale_while_revalidat=5)
    with pytest.raises(ValueError, match="jitter"):
        cached(300, jitter=7)
    with pytest.raises(ValueError, match="no argument 'user'"):
        cached(300, key="{user}")(counting([]))
    with pytest.raises(ValueError, match="tag 'user:{user}'.*no argument 'user'"):
        cached(300, key="k", tags=["user:{user}"])(counting([]))
    with pytest.raises(TypeError, match="tags has to be a list of templates, or a callable, not str"):
        cached(300, key="k", tags="user:{user_id}")(counting([]))
    with pytest.raises(TypeError, match="tags has to be a list"):
        cached(300, key="k", tags=5)(counting([]))


def test_a_wrong_argument_is_refused_by_the_call(there):
    """An argument that cannot be part of a key is named."""
    profile = cached(key="profile:{user_id}", cache=there)(counting([]))

    for call in (profile, profile.key, profile.invalidate, profile.refresh):
        with pytest.raises(InvalidKey, match="the argument 'user_id' is of type list"):
            call([5])
    with pytest.raises(InvalidKey, match="the argument 'user_id' is of type object"):
        profile.many([5, object()])


# --- which cache --------------------------------------------------------------------------------------


@cached(300)
def square(number: int) -> int:
    return number * number


@cached(300, cache="other", version=7)
async def cube(number: int) -> int:
    return number**3


@pytest.fixture
def configured():
    fleetcache.configure(
        {"default": f"memory://a?key_prefix={own_prefix()}", "other": f"memory://b?key_prefix={own_prefix()}"}
    )
    yield fleetcache.caches
    fleetcache.configure({})


async def test_the_cache_of_an_alias(configured):
    """A function finds its cache when it is called: "default", or that of its alias."""
    assert square(3) == 9
    assert await cube(3) == 27

    assert configured["default"].get(f"{__name__}.square(number=3)") == 9
    assert configured["other"].get(f"{__name__}.cube(number=3)", version=7) == 27
    assert configured["other"].get(cube.key(3)) is None
    assert await cube.invalidate(3) is True

    found = []
    thread = threading.Thread(target=lambda: found.append(square(3)))
    thread.start()
    thread.join(10)
    assert found == [9]


def test_an_alias_that_does_not_exist():
    """The error says which caches there are; decorating needs none yet."""
    lost = cached(300, key="lost", cache="lost")(lambda: 1)

    with pytest.raises(InvalidCacheBackendError, match="'lost'"):
        lost()


# --- as a function ------------------------------------------------------------------------------------


def test_it_looks_like_the_function(there):
    """Name, documentation, attributes, signature and kind are those of the function."""

    def plain(user_id: int, *, language: str = "en") -> str:
        """Return a profile."""

    async def coroutine(user_id: int) -> str: ...

    plain.short_description = "Profile"
    first, second = (cached(key="k", cache=there)(function) for function in (plain, coroutine))

    assert (first.__name__, first.__doc__, first.short_description) == ("plain", "Return a profile.", "Profile")
    assert first.__qualname__ == plain.__qualname__
    assert inspect.signature(first) == inspect.signature(plain)
    assert first.__wrapped__ is plain
    assert type(first) is CachedFunction and type(second) is CachedCoroutine
    assert repr(first).startswith("<cached <function test_it_looks_like_the_function.<locals>.plain")
    assert (iscoroutinefunction(first), iscoroutinefunction(second)) == (False, True)
    if sys.version_info >= (3, 12):
        assert (inspect.iscoroutinefunction(first), inspect.iscoroutinefunction(second)) == (False, True)


def test_it_is_pickled_by_name():
    """As a function is: for process pools and task queues; copies are itself."""
    assert pickle.loads(pickle.dumps(square)) is square
    assert pickle.loads(pickle.dumps(cube)) is cube
    assert copy.deepcopy(square) is copy.copy(square) is square


async def test_decorators_above_and_below(there, of):
    """Decorators that wrap see a function, from both sides."""
    made = []

    def loud(function):
        if iscoroutinefunction(function):

            @functools.wraps(function)
            async def louder(*args, **kwargs):
                return (await function(*args, **kwargs)).upper()
        else:

            @functools.wraps(function)
            def louder(*args, **kwargs):
                return function(*args, **kwargs).upper()

        return louder

    above = loud(cached(key="above:{user_id}", cache=there)(of(counting(made))))
    below = cached(key="below:{user_id}", cache=there)(loud(of(counting(made))))

    assert await got(above(5)) == await got(above(5)) == "5 IN EN, 1"
    assert await got(below(5)) == await got(below(5)) == "5 IN EN, 2"
    assert there.get("above:5") == "5 in en, 1"
    assert there.get("below:5") == "5 IN EN, 2"


async def test_a_coroutine_function_is_awaited_by_many_at_once(there):
    """Tasks may call it together."""
    made = []

    @cached(key="slow:{number}", cache=there)
    async def slow(number):
        await asyncio.sleep(0.01)
        made.append(number)
        return number

    assert await asyncio.gather(*(slow(number) for number in (1, 2, 3))) == [1, 2, 3]
    assert sorted(made) == [1, 2, 3]


# --- as a method --------------------------------------------------------------------------------------

methods = Cache("memory://cached-methods")


class Cart:
    made: list = []

    def __init__(self, pk):
        self.pk = pk

    @cached(60, key="cart:{self.pk}:{currency}", cache=methods)
    def total(self, currency="EUR"):
        self.made.append(currency)
        return f"{self.pk} {currency} {len(self.made)}"

    @cached(60, key="cart:{self.pk}:items", cache=methods)
    async def items(self):
        self.made.append("items")
        return [self.pk, len(self.made)]

    @cached(60, key="carts:{cls.kind}:{limit}", cache=methods)
    @classmethod
    def best(cls, limit=1):
        cls.made.append("best")
        return f"{cls.kind} {limit} {len(cls.made)}"

    @classmethod
    @cached(60, key="worst:{cls.kind}:{limit}", cache=methods)
    def worst(cls, limit=1):
        cls.made.append("worst")
        return f"{cls.kind} {limit} {len(cls.made)}"

    @staticmethod
    @cached(60, cache=methods)
    def rate(currency):
        Cart.made.append("rate")
        return len(Cart.made)

    @property
    @cached(60, key="cart:{self.pk}:weight", cache=methods)
    def weight(self):
        self.made.append("weight")
        return len(self.made)

    @total.loads_many
    def totals(self, currencies):
        return {currency: f"{self.pk} {currency} of many" for currency in currencies}

    kind = "cart"


class Basket(Cart):
    kind = "basket"


@pytest.fixture
def carts():
    methods.clear()
    Cart.made.clear()
    return Cart(1), Cart(2)


def test_a_method_is_kept_for_each_object(carts):
    """A method and its own methods know their object."""
    first, second = carts

    assert [first.total(), second.total(), first.total("EUR"), Cart(1).total()] == [
        "1 EUR 1",
        "2 EUR 2",
        "1 EUR 1",
        "1 EUR 1",
    ]
    assert first.total.key() == Cart.total.key(first) == "cart:1:EUR"
    assert first.total.invalidate() is True
    assert first.total() == "1 EUR 3"
    assert second.total() == "2 EUR 2"
    assert Cart.total.invalidate(second) is True
    assert first.total.many(["EUR", "USD"]) == {"EUR": "1 EUR 3", "USD": "1 USD of many"}
    assert inspect.signature(first.total) == inspect.signature(Cart(1).total)
    assert list(inspect.signature(first.total).parameters) == ["currency"]


async def test_a_coroutine_method(carts):
    """The same for a method that is awaited."""
    first, second = carts

    assert await first.items() == await first.items() == [1, 1]
    assert await second.items() == [2, 2]
    assert await first.items.invalidate() is True
    assert await first.items() == [1, 3]


def test_a_bound_method_is_pickled(carts):
    """As every method is: by its object and its name."""
    bound = pickle.loads(pickle.dumps(carts[0].total))

    assert bound.key() == "cart:1:EUR"


def test_a_class_method(carts):
    """Above @classmethod the decorator's methods know the class, also a derived one."""
    assert Cart.best() == Cart.best(1) == carts[0].best() == "cart 1 1"
    assert Basket.best() == "basket 1 2"
    assert Basket.best.key(5) == "carts:basket:5"
    assert carts[0].best.invalidate() is True
    assert Basket.best() == "basket 1 2"


def test_below_classmethod_the_class_is_passed(carts):
    """Below @classmethod calls work; the decorator's methods take the class first, on every Python."""
    assert Cart.worst() == Cart.worst(1) == carts[0].worst() == "cart 1 1"
    assert Basket.worst() == "basket 1 2"
    assert Cart.worst.key(Basket, 5) == "worst:basket:5"
    for call in (lambda: Cart.worst.key(5), lambda: Cart.worst.invalidate(), lambda: Cart.worst.many([5])):
        with pytest.raises(TypeError, match="write @cached above @classmethod, or pass the class first"):
            call()


def test_a_static_method_and_a_property(carts):
    """Neither needs more than below the usual decorators."""
    assert Cart.rate("EUR") == carts[0].rate("EUR") == carts[1].rate("EUR") == 1
    assert Cart.rate.invalidate("EUR") is True
    assert carts[0].weight == carts[0].weight == 2


def test_a_method_without_a_key_is_refused():
    """An object has no text of its own; the error says what to write."""
    with pytest.raises(TypeError, match="is a method, so it needs a key, such as key='total:{self.pk}'"):

        class Shop:
            @cached(60)
            def total(self): ...

    with pytest.raises((TypeError, RuntimeError)) as raised:  # before 3.12 Python wraps it

        class Stall:
            @cached(60)
            def total(this): ...

    error = raised.value if isinstance(raised.value, TypeError) else raised.value.__cause__
    assert "total: a method needs a key" in str(error)


# --- the options of a policy --------------------------------------------------------------------------


async def test_a_policy_and_its_fields(there, of):
    """A Policy stands for the timeout, its fields may be given one by one."""
    by_policy = cached(Policy(timeout=100, stale_while_revalidate=50), key="a:{user_id}", cache=there)(of(counting([])))
    by_fields = cached(100, stale_while_revalidate=50, key="b:{user_id}", cache=there)(of(counting([])))

    for profile in (by_policy, by_fields):
        await got(profile(5))
        assert 99 <= there.ttl(profile.key(5)) <= 100
        name = there.name(profile.key(5))
        (left,) = there.topology.home(name).exchange(((c.PTTL_NOW, name),))
        assert 149_000 <= left <= 150_000


async def test_refresh_makes_anew(there, of):
    """refresh() runs the function in any case, and keeps what it returned."""
    made = []
    profile = cached(300, key="profile:{user_id}", cache=there)(of(counting(made)))
    await got(profile(5))

    assert await got(profile.refresh(5)) == "5 in en, 2"
    assert await got(profile(5)) == "5 in en, 2"


@pytest.mark.parametrize(
    "tags", [["user:{user_id}", "profiles"], lambda user_id, language="en": [f"user:{user_id}", "profiles"]]
)
async def test_tags(there, of, tags):
    """Tags are made of the arguments; each gives up all results that carry it."""
    made = []
    profile = cached(300, key="profile:{user_id}:{language}", tags=tags, cache=there)(of(counting(made)))
    for user_id in (5, 6):
        await got(profile(user_id))
        await got(profile(user_id, "de"))

    await there.ainvalidate_tags("user:5")

    assert await got(profile(6)) == "6 in en, 3"
    assert await got(profile(5)) == "5 in en, 5"
    assert await got(profile(5, "de")) == "5 in de, 6"
    await there.ainvalidate_tags("profiles")
    assert await got(profile.many([5, 6])) == {5: "5 in en, 7", 6: "6 in en, 8"}
    await there.ainvalidate_tags("user:6")
    assert await got(profile.many([5, 6])) == {5: "5 in en, 7", 6: "6 in en, 9"}


def test_a_callable_for_tags_returns_a_list(there):
    """One text would be taken letter by letter."""
    function = cached(key="k", tags=lambda: "tag", cache=there)(lambda: 1)

    with pytest.raises(TypeError, match="the callable given as tags= returned str, not a list of tags"):
        function()


async def test_lookup_tells_of_one_result(there, of):
    """lookup() says what is kept, and runs nothing."""
    made = []
    profile = cached(300, key="profile:{user_id}", cache=there)(of(counting(made)))

    assert (await got(profile.lookup(5))).state == "missing"
    await got(profile(5))
    found = await got(profile.lookup(5))
    assert (found.value, found.state) == ("5 in en, 1", "fresh")
    assert (await profile.alookup(5)).value == found.value
    assert len(made) == 1
