"""Which functions have keys of their names alone: those whose module, name and arguments tell what they return."""

from __future__ import annotations

import functools

import pytest

from fleetcache import Cache, cached
from fleetcache.loading.recipes import named_by

there = Cache("memory://call-names")


def customers(page, *, size=10):
    return f"{page} of {size}"


def plain(page): ...


def copied(function, to):
    """Return a function that does the same as *function*, and wraps *to*."""
    return functools.update_wrapper(function, to)


def telling(function):
    """Return a function that refers to the one that it wraps, and to nothing else."""

    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    return wrapper


def for_tenant(name):
    def decorate(function):
        @functools.wraps(function)
        def wrapper(page):
            return f"{name}: {function(page)}"

        return wrapper

    return decorate


def with_default(name):
    def decorate(function):
        @functools.wraps(function)
        def wrapper(page, _tenant=name):
            return f"{_tenant}: {function(page)}"

        return wrapper

    return decorate


def with_keyword(name):
    def decorate(function):
        @functools.wraps(function)
        def wrapper(page, *, size=name):
            return function(page, size=size)

        return wrapper

    return decorate


def with_attribute(name):
    def decorate(function):
        @functools.wraps(function)
        def wrapper(page):
            return f"{wrapper.tenant}: {function(page)}"

        wrapper.tenant = name
        return wrapper

    return decorate


def under_its_own_name(function):
    @functools.wraps(function, assigned=())
    def wrapper(page):
        return function(page)

    return wrapper


class Tenant:
    def __init__(self, name="acme"):
        self.name = name

    def customers(self, page): ...

    @classmethod
    def all(klass, page): ...  # noqa: N804

    @cached(60, key="{self.name}:{page}", cache=there)
    def orders(self, page): ...

    def __call__(self, page): ...


class Kind(type):
    def customers(self, page): ...


class Partner(metaclass=Kind): ...


class Wrapped:
    """A decorator that is a class."""

    def __init__(self, function, tenant):
        functools.update_wrapper(self, function)
        self.function, self.tenant = function, tenant

    def __call__(self, page):
        return f"{self.tenant}: {self.function(page)}"


def local(tenant):
    def listing(page): ...

    return for_tenant(tenant)(listing)


def local_telling():
    @telling
    def listing(page): ...

    return listing


def local_class():
    return type("Partner", (), {"__init__": lambda self, page: None})


def nameless():
    def _(page): ...

    return _


wrapped_method = functools.wraps(plain)(lambda page: page)
wrapped_method.__wrapped__ = Tenant().customers

NEED_A_KEY = {
    "a method of an object": Tenant().customers,
    "a class method of a class": Tenant.all,
    "a method of a metaclass": Partner.customers,
    "a cached method of an object": Tenant().orders,
    "a wrapper of a method": telling(Tenant().customers),
    "a wrapper that says that it wraps a method": wrapped_method,
    "a remembered method": functools.lru_cache(Tenant().customers),
    "an object": copied(Tenant(), plain),
    "an object that wraps": Wrapped(plain, "acme"),
    "a partial with a name": copied(functools.partial(plain, 2), plain),
    "a wrapper of a partial": telling(copied(functools.partial(plain, 2), plain)),
    "a remembered partial": functools.lru_cache(copied(functools.partial(plain, 2), plain)),
    "a wrapper with a variable": for_tenant("acme")(customers),
    "a wrapper of a wrapper with a variable": telling(for_tenant("acme")(customers)),
    "a wrapper with a variable around a local function": local("acme"),
    "a wrapper with a default": with_default("acme")(customers),
    "a wrapper with another default": with_keyword(20)(customers),
    "a wrapper with an attribute": with_attribute("acme")(customers),
    "a wrapper that does not take the name": under_its_own_name(customers),
    "a wrapper of a function that has the name itself": telling(customers),
    "a class without a name": local_class(),
    "a function that is called _": nameless(),
}


@pytest.mark.parametrize("case", NEED_A_KEY)
def test_what_its_name_does_not_tell_needs_a_key(case):
    """A function is refused if two of them with the same name and arguments could return different things."""
    with pytest.raises(TypeError, match=r"key="):
        cached(60, cache=there)(NEED_A_KEY[case])
    assert cached(60, key="k", cache=there)(NEED_A_KEY[case]).key(1) == "k"


@telling
def told(page, *, size=10): ...


@functools.lru_cache
def remembered(page): ...


def mirrored(function):
    @functools.wraps(function)
    def wrapper(page, *, size=10):
        return function(page, size=size)

    return wrapper


@telling
@mirrored
def twice(page, *, size=10): ...


@for_tenant("acme")
def of_acme(page): ...


@telling
@with_default("acme")
def by_default(page): ...


TOLD = {
    "a wrapper with a variable, where the function is defined": (of_acme, "of_acme(page=1)"),
    "wrappers with a default, where the function is defined": (by_default, "by_default(page=1)"),
    "told": (told, "told(page=1,size=10)"),
    "twice": (twice, "twice(page=1,size=10)"),
    "plain": (plain, "plain(page=1)"),
    "remembered": (remembered, "remembered(page=1)"),
    "a function with a cache": (cached(60, key="{page}", cache=there)(plain), "plain(page=1)"),
    "a remembered function that has the name itself": (functools.lru_cache(plain), "plain(page=1)"),
    "a wrapped local function": (local_telling(), "local_telling.<locals>.listing(page=1)"),
}


@pytest.mark.parametrize("case", TOLD)
def test_what_its_name_tells_needs_none(case):
    """Decorators of a function where it is defined change no key, nor do those that refer only to their function."""
    function, key = TOLD[case]

    assert named_by(None, function)((1,), {}) == f"{__name__}.{key}"


def test_a_function_of_a_module_in_c():
    """Its module is no object that could change it."""
    assert named_by(None, abs)((-1,), {}) == "builtins.abs(x=-1)"
    with pytest.raises(TypeError, match="needs a key"):
        named_by(None, "abc".upper)


def test_two_wrappers_of_one_function_never_share_a_key():
    """Of the wrappers of one function none gives the results of another."""
    functions = [functools.wraps(plain)(lambda page, at=at: page + at) for at in (1, 2)]

    for function in (*functions, *(telling(function) for function in functions)):
        with pytest.raises(TypeError, match="give @cached a key="):
            named_by(None, function)


def test_a_class_method_that_was_reached_through_its_class(subtests):
    """With a key it is called like a function: its class is in it."""
    for klass in (Tenant, type("Other", (Tenant,), {})):
        with subtests.test(klass.__name__):
            method = cached(60, key=f"{klass.__name__}:{{page}}", cache=there)(
                ByClass.__dict__["of"].__get__(None, klass)
            )
            assert method(5) == (klass, 5)
            assert method.key(5) == f"{klass.__name__}:5"


class ByClass:
    @classmethod
    def of(cls, page):
        return cls, page
