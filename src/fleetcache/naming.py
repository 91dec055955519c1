"""How a cache names its entries: by a key function, or by a method that a site's class overrides.

A class is looked at once, when it is made (`adopt`), so that a cache whose class overrides nothing pays nothing: it puts the
text of KEY_PREFIX and VERSION before a key.  The name of a site's own `make_key` passes every operation through `name`.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

from fleetcache.errors import InvalidKey
from fleetcache.keys import MAX_LENGTH, CacheKey, KeyFunction, check, default_key_function, doubtful
from fleetcache.twin import Twinned


class Naming(Twinned):
    """The methods that name entries."""

    key_prefix: str
    """KEY_PREFIX; may be set."""
    version: Any
    """VERSION; may be set."""
    key_func: KeyFunction
    """KEY_FUNCTION: makes the name of an entry of key, prefix and version; may be set."""
    near: Any

    _plain_head: str | None = None
    """The text before the key in this cache's names, in its own prefix and version; None with a KEY_FUNCTION."""

    _names_itself = False
    """Whether a site's class names entries: it overrides `name`, or `make_key`."""

    _makes_keys = False
    """Whether `name` asks `make_key`, so that this must not ask `name`."""

    _validates = False
    """Whether a site's class overrides `validate_key`, which then sees every name."""

    _head: str | None = None
    """The same if there may be copies near, else None: `get` looks for copies by it."""

    _warns = False
    """Whether names that memcached would refuse are passed to `validate_key`."""

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name in {"key_prefix", "version", "key_func", "near"} and "key_func" in vars(self):
            plain = self._is_plain() and not self._computes_names()
            self._plain_head = f"{self.key_prefix}:{self.version}:" if plain else None
            self._head = None if self.near is None else self._plain_head

    def _is_plain(self) -> bool:
        """Whether names are those of `default_key_function`, and no method of a site's class makes or looks at them."""
        return self.key_func is default_key_function and not (self._names_itself or self._validates)

    def _computes_names(self) -> bool:
        """Whether the prefix or the version may differ from one call to the next, as the property of a class does."""
        return any(
            hasattr(type(self), part) or type(vars(self).get(part)) not in {str, int}
            for part in ("key_prefix", "version")
        )

    def name(self, key: Any, version: Any = None, prefix: str | None = None) -> str:
        """Return the name of *key*'s entry on the server."""
        if version is None and prefix is None and type(key) is str and self._plain_head is not None:
            name = self._plain_head + key  # written out: every operation begins here
        else:
            if type(key) is not str:
                if isinstance(key, CacheKey):
                    return key
                check(key)
            prefix = self.key_prefix if prefix is None else prefix
            name = self.key_func(key, prefix, self.version if version is None else version)
        if self._warns:
            self._warn(name)
        return name

    @property
    def _namer(self) -> KeyFunction:
        """What names entries, as a function of key, prefix and version: `key_func`, or this class."""
        return self._name_as if self._names_itself else self.key_func

    def _keyed(self, key: Any, version: Any, prefix: str | None) -> str:
        """Return the name that the key function gives *key*, for a `make_key` of a site that changes it."""
        if isinstance(key, CacheKey):
            return key
        check(key)
        prefix = self.key_prefix if prefix is None else prefix
        return self.key_func(key, prefix, self.version if version is None else version)

    def _name_as(self, key: Any, prefix: str, version: Any) -> str:
        """Return the name of *key*, or the glob of names; nothing is warned of."""
        return self._face(key_prefix=prefix, validate_key=lambda _: None).name(key, version)

    def _warn(self, name: str) -> None:
        if len(name) > MAX_LENGTH or doubtful(name):
            self.validate_key(name)

    def _validate(self, name: str) -> None:
        """Do as `_warn` in a class whose `validate_key` sees every name."""
        self.validate_key(name)

    def validate_key(self, key: str) -> None:
        """Warn of a name that memcached would refuse; overridden under Django."""

    def _names(self, keys: Iterable[Any], version: Any = None) -> list[str]:
        """Return the names of *keys*."""
        if self._plain_head is None and not self._is_plain():
            return [self.name(key, version) for key in keys]
        head = f"{self.key_prefix}:{self.version if version is None else version}:"
        names = [head + key if type(key) is str else self.name(key, version) for key in keys]
        if self._warns and (doubtful("".join(names)) or max(map(len, names), default=0) > MAX_LENGTH):
            for name in names:
                self._warn(name)
        return names


# --- a site's own methods -------------------------------------------------------------------------


def named_by_make_key(self: Any, key: Any, version: Any = None, prefix: str | None = None) -> str:
    """Return the name of *key*'s entry on the server: what this class's `make_key` returns."""
    if isinstance(key, CacheKey):
        return key
    name = _text(self, "make_key", self.make_key(key, version=version, **_unless_none(prefix)))
    if self._warns:
        self._warn(name)
    return name


def named_and_validated(self: Any, key: Any, version: Any = None, prefix: str | None = None) -> str:
    """Return the name of *key*'s entry on the server: what this class's `make_and_validate_key` returns."""
    if isinstance(key, CacheKey):
        return key
    made = self.make_and_validate_key(key, version=version, **_unless_none(prefix))
    return _text(self, "make_and_validate_key", made)


MADE = (named_by_make_key, named_and_validated)


def adopt(kind: Any, method: str, original: Any, name: Any) -> None:
    """Let *name* be the method `name` of the class *kind* if a site overrides *method*, whose *original* is the library's.

    A `name` of the site's own stays.
    """
    if getattr(kind, method) is not original and kind.name in {Naming.name, named_by_make_key}:
        kind.name, kind._makes_keys = name, True
    kind._names_itself = kind.name is not Naming.name


def _unless_none(prefix: str | None) -> dict[str, str]:
    """Return *prefix* as an argument, if there is one: Django's `make_key` takes none."""
    return {} if prefix is None else {"prefix": prefix}


def _text(cache: Any, method: str, name: Any) -> str:
    """Return *name*, which a site's *method* has made, as text."""
    if isinstance(name, str):
        return name if type(name) is str else str(name)
    if isinstance(name, bytes):
        return name.decode()
    raise InvalidKey(f"{type(cache).__qualname__}.{method}() has to return text, not {type(name).__name__}")


class Following:
    """The client of a cache whose class names entries itself: it asks the cache for names."""

    _named_by: Any

    def name(self, key: Any, version: Any = None, prefix: str | None = None) -> str:
        name: str = self._named_by.name(key, version, **_unless_none(prefix))
        return name

    def make_key(self, key: Any, version: Any = None, prefix: str | None = None) -> CacheKey:
        """Return the name of *key* on the server."""
        return CacheKey(self.name(key, version, prefix))

    def reverse_key(self, name: str) -> str:
        """Return the key within *name*."""
        key: str = self._named_by.reverse_key(name)
        return key

    def _name_as(self, key: Any, prefix: str, version: Any) -> str:
        name: str = self._named_by._name_as(key, prefix, version)
        return name


@cache
def following(kind: Any, leader: Any) -> Any:
    """Return the class of a client, *kind*, with the names of the cache class *leader*."""
    if issubclass(leader, Following):
        return leader
    if kind.name is leader.name and kind.make_key is leader.make_key:
        return kind
    return type(kind.__name__, (Following, kind), {"__module__": kind.__module__, "__doc__": kind.__doc__})
