"""``@cached``: a function whose results are kept in a cache.

::

    @cached(300, key="profile:{user_id}", tags=["user:{user_id}"])
    def profile(user_id: int) -> Profile: ...

    profile(5)
    profile.invalidate(5)

A decorated function is called as before; `inspect`, type checkers and other decorators see its own signature.  The
methods of a function block, except `ainvalidate` and `alookup`.  All methods of a coroutine function are awaited, with
or without the "a" in their names; blocking code gives up what such a function has made by its key:
``cache.delete(profile.key(5))``.

Without a key of its own a function has the keys ``module.name(user_id=5)``; see `fleetcache.loading.arguments`.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping
from functools import partial, update_wrapper
from types import MethodType
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, Unpack, overload

from fleetcache.loading.many import Batches, mapped, told_apart
from fleetcache.loading.recipes import (
    KeyOf,
    Recipe,
    Tags,
    is_coroutine_function,
    marked,
    named_by,
    tagged_by,
    takes_class,
)
from fleetcache.marks import DEFAULT_TIMEOUT, Timeout
from fleetcache.policy import Policy, PolicyOptions
from fleetcache.values import Lookup

P = ParamSpec("P")
Q = ParamSpec("Q")
T = TypeVar("T")
K = TypeVar("K")
C = TypeVar("C", bound=type[Any])
S = TypeVar("S")
Method_co = TypeVar("Method_co", covariant=True)
LoadMany = TypeVar("LoadMany", bound=Callable[..., Any])


class Cached(Generic[P, T]):
    """A function or a coroutine function with a cache; see `CachedFunction` and `CachedCoroutine`."""

    __name__: str
    __qualname__: str

    def __init__(self, function: Callable[..., Any], recipe: Recipe) -> None:
        wrapper: Any = self
        update_wrapper(wrapper, function)
        self._function = function
        self._recipe = recipe
        self._load_many: Callable[..., Any] | None = None
        self._held: tuple[Any, ...] = ()
        """The object whose method this is, if it was reached through one."""
        self._plain = not recipe.takes_class
        """Whether calls bring all arguments of the function."""

    def key(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """Return the key under which the result for these arguments is kept."""
        return self._recipe.naming(self._all(args), kwargs)

    async def ainvalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Give up the result for these arguments, stored or still being made; return whether one was stored."""
        recipe = self._recipe
        return await recipe.find().adelete(self.key(*args, **kwargs), recipe.version)

    async def alookup(self, *args: P.args, **kwargs: P.kwargs) -> Lookup:
        """Return what is known of the result for these arguments; the function is not called."""
        recipe = self._recipe
        return await recipe.find().alookup(self.key(*args, **kwargs), recipe.version)

    def loads_many(self, load: LoadMany) -> LoadMany:
        """Decorate the function that makes the results of `many`.

        It gets a list, and returns a mapping, in which absent items are missing::

            @profile.loads_many
            def profiles(user_ids: list[int]) -> dict[int, Profile]: ...
        """
        if not callable(load):
            raise TypeError(f"loads_many decorates a function, not {type(load).__name__}")
        self._load_many = load
        return load

    # --- what the calls below do ------------------------------------------------------------------

    def _all(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return the positional arguments of the function, with the object whose method it is."""
        if self._held:
            return (*self._held, *args)
        if self._recipe.takes_class and not (args and issubclass(type(args[0]), type)):
            raise TypeError(
                f"{self.__qualname__}() is a class method: write @cached above @classmethod, or pass the class first"
            )
        return args

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Any:
        raise NotImplementedError

    def _loading(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any], **more: Any
    ) -> tuple[Batches, tuple[Any, ...], dict[str, Any]]:
        """Return the cache, and the arguments with which it makes and keeps a result, *more* among them."""
        recipe, args = self._recipe, self._all(args)
        if recipe.tagging is not None:
            more["tags"] = recipe.tagging(args, kwargs)
        cache, make = recipe.find(), partial(self._function, *args, **kwargs)
        return cache, (recipe.naming(args, kwargs), make, recipe.policy(cache), recipe.version), more

    def _batch(self, items: Iterable[Any]) -> tuple[Batches, dict[Any, str], dict[str, Any], Any]:
        """Return the cache, the keys of the items, an item of each key, and the options with which results are made and kept."""
        recipe, held = self._recipe, self._held
        given = list(items)
        keys = [recipe.naming(self._all((item,)), {}) for item in given]
        placed, keyed = told_apart(f"{self.__qualname__}.many()", given, keys)
        cache, tagging = recipe.find(), recipe.tagging
        options = {"timeout": recipe.policy(cache), "version": recipe.version}
        if tagging is not None:
            options["tags"] = lambda key: tagging((*held, keyed[key]), {})
        return cache, placed, keyed, options

    # --- as a method of a class, and as an object -------------------------------------------------

    def _bound(self, instance: Any, owner: Any) -> Any:
        """Return this method of *instance*, or of the class *owner*."""
        if self._recipe.of_class:
            instance = type(instance) if owner is None else owner
        elif instance is None:
            return self
        elif issubclass(type(instance), type):
            # `classmethod` stands above.  From Python 3.13 on it calls without asking here, so on no version is the
            # class held.
            return MethodType(self, instance)
        bound = object.__new__(type(self))
        vars(bound).update(
            vars(self),
            _held=(instance,),
            _plain=False,
            __self__=instance,
            __wrapped__=MethodType(self._function, instance),
        )
        return bound

    def __set_name__(self, owner: type, name: str) -> None:
        if self._recipe.automatic:
            raise TypeError(f"{owner.__qualname__}.{name}: a method needs a key, such as key='{name}:{{self.pk}}'")

    def __repr__(self) -> str:
        return f"<cached {self._function!r}>"

    def __reduce__(self) -> Any:
        """Pickle by name, as functions are."""
        return (getattr, (*self._held, self.__name__)) if self._held else self.__qualname__


class CachedFunction(Cached[P, T]):
    """A function whose results are kept in a cache; it is called as before."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        recipe, given = self._recipe, args if self._plain else self._all(args)
        cache = recipe.find()
        tags = () if recipe.tagging is None else recipe.tagging(given, kwargs)
        make = partial(self._function, *given, **kwargs)
        key = recipe.naming(given, kwargs)
        found: T = cache.get_or_set(key, make, recipe.policy(cache), recipe.version, tags=tags)
        return found

    def refresh(self, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call the function in any case, keep its result, and return it."""
        cache, how, options = self._loading(args, kwargs, refresh=True)
        made: T = cache.get_or_set(*how, **options)
        return made

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Give up the result for these arguments, stored or still being made; return whether one was stored."""
        recipe = self._recipe
        return recipe.find().delete(self.key(*args, **kwargs), recipe.version)

    def lookup(self, *args: P.args, **kwargs: P.kwargs) -> Lookup:
        """Return what is known of the result for these arguments; the function is not called."""
        recipe = self._recipe
        return recipe.find().lookup(self.key(*args, **kwargs), recipe.version)

    def many(self, items: Iterable[K]) -> dict[K, T]:
        """Return the result for each of *items*, which are the function's only argument.

        Results that are kept are read together.  The others are made by one call of the function that `loads_many`
        decorated, or by one call of the function itself for each, and then stored together.
        """
        cache, placed, keyed, options = self._batch(items)
        load_many, held = self._load_many, self._held

        def load(keys: list[str]) -> dict[str, T]:
            if load_many is None:
                return {key: self._function(*held, keyed[key]) for key in keys}
            wanted = [keyed[key] for key in keys]
            made = mapped(load_many(*held, wanted), load_many, wanted)
            return {key: made[keyed[key]] for key in keys if keyed[key] in made}

        found = cache.get_or_set_many(list(keyed), load, **options)
        return {item: found[key] for item, key in placed.items() if key in found}

    @overload
    def __get__(self, instance: None, owner: Any = None) -> CachedFunction[P, T]: ...
    @overload
    def __get__(self: CachedFunction[Concatenate[S, Q], T], instance: S, owner: Any = None) -> CachedFunction[Q, T]: ...
    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self._bound(instance, owner)


class CachedCoroutine(Cached[P, T]):
    """A coroutine function whose results are kept in a cache; it is called and awaited as before."""

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        cache, how, options = self._loading(args, kwargs)
        found: T = await cache.aget_or_set(*how, **options)
        return found

    async def refresh(self, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call the function in any case, keep its result, and return it."""
        cache, how, options = self._loading(args, kwargs, refresh=True)
        made: T = await cache.aget_or_set(*how, **options)
        return made

    arefresh = refresh
    invalidate = Cached.ainvalidate
    lookup = Cached.alookup

    async def many(self, items: Iterable[K]) -> dict[K, T]:
        """Return the result for each of *items*, which are the function's only argument.

        Results that are kept are read together.  The others are made by one call of the coroutine function that
        `loads_many` decorated, or by the function itself, for one after another, and then stored together.
        """
        cache, placed, keyed, options = self._batch(items)
        load_many, held = self._load_many, self._held

        async def load(keys: list[str]) -> dict[str, T]:
            if load_many is None:
                return {key: await self._function(*held, keyed[key]) for key in keys}
            wanted = [keyed[key] for key in keys]
            made = mapped(await load_many(*held, wanted), load_many, wanted)
            return {key: made[keyed[key]] for key in keys if keyed[key] in made}

        found = await cache.aget_or_set_many(list(keyed), load, **options)
        return {item: found[key] for item, key in placed.items() if key in found}

    amany = many

    @overload
    def __get__(self, instance: None, owner: Any = None) -> CachedCoroutine[P, T]: ...
    @overload
    def __get__(
        self: CachedCoroutine[Concatenate[S, Q], T], instance: S, owner: Any = None
    ) -> CachedCoroutine[Q, T]: ...
    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self._bound(instance, owner)


class OfClass(Protocol[Method_co]):
    """A class method with a cache, as type checkers see it that tell it from a function; mypy does not."""

    def __get__(self, instance: Any, owner: Any = None) -> Method_co: ...


class TakesClass(CachedFunction[Concatenate[C, P], T], Generic[C, P, T]):
    """A function whose first argument is a class, as type checkers see it: a class method, if it is reached through that."""

    @overload  # type: ignore[override]  # the owner, and not the instance, decides
    def __get__(self, instance: Any, owner: C) -> CachedFunction[P, T]: ...
    @overload
    def __get__(self, instance: Any, owner: Any = None) -> CachedFunction[Concatenate[C, P], T]: ...
    def __get__(self, instance: Any, owner: Any = None) -> Any:
        raise NotImplementedError


class AwaitedTakesClass(CachedCoroutine[Concatenate[C, P], T], Generic[C, P, T]):
    """The same of a coroutine function."""

    @overload  # type: ignore[override]  # the owner, and not the instance, decides
    def __get__(self, instance: Any, owner: C) -> CachedCoroutine[P, T]: ...
    @overload
    def __get__(self, instance: Any, owner: Any = None) -> CachedCoroutine[Concatenate[C, P], T]: ...
    def __get__(self, instance: Any, owner: Any = None) -> Any:
        raise NotImplementedError


class Decorator(Protocol):
    """What ``@cached(…)`` returns: makes a `CachedFunction` of a function, a `CachedCoroutine` of a coroutine function."""

    @overload
    def __call__(  # type: ignore[overload-overlap]  # the first that fits is meant
        self, function: classmethod[S, P, Coroutine[Any, Any, T]], /
    ) -> OfClass[CachedCoroutine[P, T]]: ...
    @overload
    def __call__(self, function: classmethod[S, P, T], /) -> OfClass[CachedFunction[P, T]]: ...
    @overload
    def __call__(  # type: ignore[overload-overlap]  # the first that fits is meant
        self, function: Callable[Concatenate[C, P], Coroutine[Any, Any, T]], /
    ) -> AwaitedTakesClass[C, P, T]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[C, P], T], /) -> TakesClass[C, P, T]: ...
    @overload
    def __call__(  # type: ignore[overload-overlap]  # the first that fits is meant
        self, function: Callable[P, Coroutine[Any, Any, T]], /
    ) -> CachedCoroutine[P, T]: ...
    @overload
    def __call__(self, function: Callable[P, T], /) -> CachedFunction[P, T]: ...


ARGUMENTS = ("timeout", "key", "tags", "cache", "version")
"""Those of ``@cached`` that are no fields of a policy."""


class Caching:
    """Has the decorator `cached`; *find* returns the cache of an alias, "default" if the decorator is given none."""

    def __init__(self, find: Callable[[str], Batches]) -> None:
        self.find = find

    def cached(
        self,
        timeout: Timeout | Policy = DEFAULT_TIMEOUT,
        *,
        key: KeyOf = None,
        tags: Tags = (),
        cache: str | Batches = "default",
        version: Any = None,
        **policy: Unpack[PolicyOptions],
    ) -> Decorator:
        """Return a decorator that keeps the results of a function for *timeout* seconds, or as a `Policy` says.

        *key* is a template, ``"profile:{user_id}"``, whose fields are arguments of the function with their attributes;
        or a callable that gets the arguments and returns the key; without it the function's name and arguments are
        the key.  *tags* are templates, or a callable that gets the arguments and returns the tags.  *cache* is an alias,
        or a cache.  The fields of a `Policy` may be given as arguments.
        """
        if callable(timeout) and not isinstance(timeout, Policy):
            raise TypeError("write @cached() or @cached(300) above a function, with parentheses")
        find = partial(self.find, cache) if isinstance(cache, str) else partial(_same, cache)
        Policy.of(timeout, Policy(), policy, ARGUMENTS)  # a wrong option is refused here, not by each call

        def decorate(function: Any, /) -> Any:
            of_class = isinstance(function, classmethod)
            if of_class:
                function = function.__func__
            recipe = Recipe(
                find=find,
                naming=named_by(key, function),
                automatic=key is None,
                of_class=of_class,
                takes_class=takes_class(function),
                tagging=tagged_by(tags, function),
                timeout=timeout,
                version=version,
                options=policy,
            )
            if is_coroutine_function(function):
                return marked(CachedCoroutine(function, recipe))
            return CachedFunction(function, recipe)

        return decorate


def _same(cache: Batches) -> Batches:
    return cache
