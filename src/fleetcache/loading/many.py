"""get_or_set_many: read many values, and produce and store those that are missing, together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, TypeAlias, Unpack

from fleetcache.loading.get_or_set import Loading
from fleetcache.marks import DEFAULT_TIMEOUT, Timeout
from fleetcache.policy import Policy, PolicyOptions
from fleetcache.twin import blocking

TagsOf: TypeAlias = Iterable[str] | Callable[[Any], Iterable[str]]
"""The tags of all values, or a callable that returns those of the value of one key."""


class Batches(Loading):
    """Operations that make and store many values where there are none."""

    async def aget_or_set_many(
        self,
        /,
        keys: Iterable[Any],
        load_many: Callable[[list[Any]], Any],
        timeout: Timeout | Policy = DEFAULT_TIMEOUT,
        version: Any = None,
        *,
        tags: TagsOf = (),
        refresh: bool = False,
        **policy: Unpack[PolicyOptions],
    ) -> dict[Any, Any]:
        """Return the values of *keys*; those that are missing are made by one call of *load_many*, and stored.

        *load_many* gets a list of keys, and returns a mapping; a key that is not in it has no value, and is not in the
        result either.  For the a-method it may be a coroutine function.
        """
        await self.runtime.alone()
        keys = list(dict.fromkeys(keys))
        found = {} if refresh else await self.aget_many(keys, version)
        missing = [key for key in keys if key not in found]
        if missing:
            made = mapped(await self.runtime.produce(partial(load_many, missing)), load_many)
            new = {key: made[key] for key in missing if key in made}
            await self.aset_many(new, timeout, version)
            found |= new
        return {key: found[key] for key in keys if key in found}

    get_or_set_many = blocking(aget_or_set_many)


def mapped(made: Any, load_many: Callable[..., Any]) -> Mapping[Any, Any]:
    """Return *made*, the result of *load_many*, if it is a mapping."""
    if not isinstance(made, Mapping):
        name = getattr(load_many, "__qualname__", None) or type(load_many).__qualname__
        raise TypeError(
            f"{name}() has to return a mapping of keys to values, not {type(made).__name__}: a dict without the keys that "
            f"have no value"
        )
    return made
