"""The classes of caches, pipelines and locks that watchers see: the same classes, with their operations wrapped.

They are made while there is a watcher (`fleetcache.stats.operations`), so nothing is slower while there is none.  Such a
class knows more than its operations: it looks at reads and payloads, for the `Facts` of an operation.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from copy import copy
from functools import cache
from inspect import Parameter, isasyncgenfunction, iscoroutinefunction, isgeneratorfunction, signature
from types import FunctionType
from typing import Any, TypeVar

from fleetcache.codec.herding import Herded
from fleetcache.codec.metadata import Described
from fleetcache.codec.payloads import Codec
from fleetcache.judging import Standing
from fleetcache.locks.lock import Lock
from fleetcache.marks import MISSING
from fleetcache.pipeline import Pipeline
from fleetcache.stats.operations import Begin, Facts, Noted, Operation, Span, around, is_watched, noted

T = TypeVar("T")

NO_OPERATIONS = frozenset(("close", "lock"))
"""Methods with an a-method that tell a server nothing."""

GUARDED = frozenset(("acquire", "release"))
"""Methods of a lock that protect what they have acquired against interrupts, so watchers are called within: by the a-method."""

READS = frozenset(("get", "get_many", "get_or_set", "get_or_set_many", "get_with_ttl", "has_key", "lookup"))
"""Operations that find a value or not."""

ONE = ("key", "source", "src", "dest", "destination")
MANY = ("keys", "data")
"""The parameters in which operations take one key, and several."""


# --- which class ----------------------------------------------------------------------------------


PLAIN = "_watched_of"
"""The attribute of a watched class that has the class of which it is one."""


def plain(kind: Any) -> Any:
    """Return the class of which *kind* is the watched one; *kind* itself if it is none."""
    return vars(kind).get(PLAIN, kind)


def watched_if(kind: type[T], *, yes: bool | None = None) -> type[T]:
    """Return *kind*, or while there is a watcher its watched class."""
    return _watched(kind) if (is_watched() if yes is None else yes) else kind


def alike(kind: type[T], other: object) -> type[T]:
    """Return *kind*, or its watched class if *other* is of such a class."""
    return watched_if(kind, yes=PLAIN in vars(type(other)))


def _watched(kind: Any) -> Any:
    return kind if PLAIN in vars(kind) else _made(kind)


@cache
def _made(kind: Any) -> Any:
    """Return a subclass of *kind* with the same name, whose operations are wrapped."""
    of_cache = not issubclass(kind, (Pipeline, Lock))
    begins = _begin if of_cache else _begin_pipeline if issubclass(kind, Pipeline) else _begin_lock
    wrapped = {
        each: around(getattr(kind, each), begins(name, getattr(kind, each), each != name))
        for name in _operations(kind)
        for each in (name, f"a{name}")
        if not (issubclass(kind, Lock) and each in GUARDED)
    }
    bases = (Noting, kind) if of_cache else (kind,)
    made: Any = type(
        kind.__name__, bases, {"__module__": kind.__module__, "__doc__": kind.__doc__, PLAIN: kind, **wrapped}
    )
    made.__qualname__ = kind.__qualname__
    for name in ("shares_loads", "_shares_batches"):  # computed from where operations are defined
        if hasattr(kind, name):
            setattr(made, name, getattr(kind, name))
    return made


def _operations(kind: Any) -> list[str]:
    """Return the names of the operations of *kind*: the methods that have an a-method."""
    return [
        name
        for name in dir(kind)
        if not name.startswith("_")
        and name not in NO_OPERATIONS
        and isinstance(getattr(kind, name), FunctionType)
        and _is_awaited(getattr(kind, f"a{name}", None))
    ]


def _is_awaited(method: Any) -> bool:
    return isinstance(method, FunctionType) and (iscoroutinefunction(method) or isasyncgenfunction(method))


# --- the begin of an operation --------------------------------------------------------------------


def _begin(name: str, method: Any, awaited: bool) -> Begin:
    """Return what begins the operation *name* of a cache."""
    iterates = isgeneratorfunction(method) or isasyncgenfunction(method)
    places = _places(method)
    facts = _facts_of_reads if name in READS else _facts

    def begin(cache: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        keys, args, kwargs = _keys(places, args, kwargs)
        operation = Operation(name, awaited, cache, keys, args, kwargs, iterates=iterates)
        return Span(operation, facts), args, kwargs

    return begin


def _begin_pipeline(name: str, method: Any, awaited: bool) -> Begin:
    def begin(pipeline: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        parts = tuple(operation.__name__.removeprefix("a") for operation in pipeline._collected)
        operation = Operation("pipeline", awaited, pipeline._recorder, (), args, kwargs, parts)
        return Span(operation, _facts), args, kwargs

    return begin


def _begin_lock(name: str, method: Any, awaited: bool) -> Begin:
    def begin(lock: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        operation = Operation(
            f"lock.{name}", awaited and not lock._runtime.blocks, lock.cache, (lock.name,), args, kwargs
        )
        return Span(operation, _facts), args, kwargs

    return begin


Place = tuple[int, str, str]
"""A parameter: its place among the positional arguments, its name, and what it takes: "one" key, "many" or the "rest"."""


def _places(method: Any) -> list[Place]:
    """Return the parameters of *method* that take keys."""
    parameters = list(signature(method).parameters.values())[1:]
    found: list[Place] = []
    for place, parameter in enumerate(parameters):
        if parameter.kind is Parameter.VAR_POSITIONAL:
            if parameter.name == "keys":
                found.append((place, parameter.name, "rest"))
            elif place == 0 and parameter.name == "args":  # a client class of a site passes on what it gets
                found.append((0, "key", "one"))
        elif parameter.name in ONE:
            found.append((place, parameter.name, "one"))
        elif parameter.name in MANY:
            found.append((place, parameter.name, "many"))
    return found


def _keys(
    places: Iterable[Place], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], tuple[Any, ...], dict[str, Any]]:
    """Return the keys among these arguments, and the arguments: an iterator of keys is replaced by a list."""
    keys: list[Any] = []
    for place, name, takes in places:
        if takes == "rest":
            keys += args[place:]
            continue
        if place >= len(args) and name not in kwargs:
            continue
        value = args[place] if place < len(args) else kwargs[name]
        if takes == "one":
            keys.append(value)
        elif isinstance(value, Collection):
            keys += value
        elif isinstance(value, Iterable):
            value = list(value)
            keys += value
            if place < len(args):
                args = (*args[:place], value, *args[place + 1 :])
            else:
                kwargs = {**kwargs, name: value}
    return tuple(keys), args, kwargs


# --- what came of it ------------------------------------------------------------------------------


def _facts(seen: Noted, operation: Operation, result: Any) -> Facts:
    """Return the facts of an operation that does not read values, or not only."""
    return Facts(None, None, seen.written or seen.read or None)


def _facts_of_reads(seen: Noted, operation: Operation, result: Any) -> Facts:
    hit, loaded = seen.found, seen.loaded and seen.kept is None
    match operation.name:
        case "get":
            # A HerdClient finds the value, and tells some callers that there is none.
            default = operation.args[1] if len(operation.args) > 1 else operation.kwargs.get("default")
            found = seen.value.value if type(seen.value) is Herded else seen.value
            hit = hit and not (result is default and found is not default)
            if hit and seen.stale:  # which the caller has asked for
                return Facts("stale", hit, seen.read or None)
        case "get_many":
            hit = bool(result)
        case "has_key":
            hit = bool(result)
        case "lookup":
            hit = result.state != "missing"
            level = {"near": "near", "stale": "stale"}.get(result.state, "server")
            return Facts(level, hit, seen.read or None)  # type: ignore[arg-type]  # one of the levels
        case "get_or_set":
            hit = not loaded and (hit or seen.kept is not None)
        case "get_or_set_many":
            hit = hit or seen.kept is not None
    if loaded:
        return Facts("loaded", hit, seen.written or None)
    return Facts(seen.kept or ("near" if seen.near else "server"), hit, seen.read or seen.written or None)


class Noting:
    """Notes what an operation on values does; the first base of a watched cache."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "codec" in vars(self):  # else the settings were refused
            self.codec: Any = _noting(self.codec)

    @property
    def _head(self) -> None:
        """None: `get` then looks for copies as every other operation does, and that is noted."""
        return

    @_head.setter
    def _head(self, value: Any) -> None:
        return

    async def _read(self, *args: Any, **kwargs: Any) -> Any:
        up: Any = super()
        value = await up._read(*args, **kwargs)
        if (seen := noted()) is not None and value is not MISSING:
            seen.found, seen.value = True, value
        return value

    async def _read_many(self, *args: Any, **kwargs: Any) -> Any:
        up: Any = super()
        values = await up._read_many(*args, **kwargs)
        if (seen := noted()) is not None and values:
            seen.found = True
        return values

    async def _fetch_many(self, *args: Any, **kwargs: Any) -> Any:
        up: Any = super()
        values = await up._fetch_many(*args, **kwargs)
        if (seen := noted()) is not None and any(value is not MISSING for value in values.values()):
            seen.near = False  # not all that were found are copies
        return values

    async def _is_there(self, name: str, client: Any = None, *, fresh: bool = False, **more: Any) -> Any:
        near: Any = None if client is not None or fresh else vars(self)["near"]
        if near is not None and (seen := noted()) is not None:
            seen.near = near.copy(name) is not None
        up: Any = super()
        return await up._is_there(name, client, fresh=fresh, **more)

    def _served(self, *args: Any, **kwargs: Any) -> Any:
        up: Any = super()
        value = up._served(*args, **kwargs)
        if (seen := noted()) is not None:
            seen.near, seen.found = True, value is not MISSING
        return value

    def _entry(self, *args: Any, **kwargs: Any) -> Any:
        up: Any = super()
        value = up._entry(*args, **kwargs)
        if (seen := noted()) is not None:
            seen.found = value is not MISSING and type(value) is not Described
        return value

    def _prompt(self, *args: Any, **kwargs: Any) -> Any:
        up: Any = super()
        return _judged(up._prompt(*args, **kwargs))

    async def _judgement(self, *args: Any, **kwargs: Any) -> Any:
        up: Any = super()
        return _judged(await up._judgement(*args, **kwargs))

    async def _examine(self, *args: Any, **kwargs: Any) -> Any:
        up: Any = super()
        found = await up._examine(*args, **kwargs)
        if (seen := noted()) is not None:
            seen.found = found.served() is not MISSING
        return found

    async def _seen(self, *args: Any, **kwargs: Any) -> Any:
        up: Any = super()
        found = await up._seen(*args, **kwargs)
        if (seen := noted()) is not None:
            seen.found = found.served() is not MISSING
        return found

    async def _fulfil(self, *args: Any, **kwargs: Any) -> Any:
        up: Any = super()
        value = await up._fulfil(*args, **kwargs)
        if (seen := noted()) is not None and value is not MISSING:
            seen.found = True
        return value

    async def _renewed(self, wish: Any, found: Any, *args: Any, **kwargs: Any) -> Any:
        up: Any = super()
        value = await up._renewed(wish, found, *args, **kwargs)
        if (seen := noted()) is not None and value is found.value:
            seen.kept = "stale" if found.standing is Standing.STALE else "server"
        return value

    def _renew_later(self, *args: Any, **kwargs: Any) -> None:
        up: Any = super()
        up._renew_later(*args, **kwargs)
        if (seen := noted()) is not None:
            seen.kept = "stale"

    def _spared(self, *args: Any, **kwargs: Any) -> Any:
        up: Any = super()
        value = up._spared(*args, **kwargs)
        if (seen := noted()) is not None:
            seen.kept = "stale"
        return value

    def _copy(self, *args: Any, **kwargs: Any) -> Any:
        if (seen := noted()) is not None:
            seen.loaded = True
        up: Any = super()
        return up._copy(*args, **kwargs)


def _judged(judgement: Any) -> Any:
    if judgement is not None and (seen := noted()) is not None:
        seen.stale = judgement.standing is Standing.STALE
    return judgement


# --- payloads -------------------------------------------------------------------------------------


def _noting(codec: Codec) -> Codec:
    """Return *codec* as one that notes the sizes of payloads."""
    seeing = copy(codec)
    seeing.__class__ = _noting_kind(type(codec))  # type: ignore[arg-type]  # classes are hashable
    return seeing


@cache
def _noting_kind(kind: type[Codec]) -> type[Codec]:
    def counting(name: str, count: Callable[[Noted, Any, Any], None]) -> Any:
        original = getattr(kind, name)

        def method(self: Any, first: Any, *args: Any, **kwargs: Any) -> Any:
            if (seen := noted()) is None:
                return original(self, first, *args, **kwargs)
            before = seen.read, seen.written
            made = original(self, first, *args, **kwargs)
            seen.read, seen.written = before  # one of these methods may have called another
            count(seen, first, made)
            return made

        return method

    methods = {name: counting(name, count) for name, count in COUNTED.items()}
    return type(kind.__name__, (kind,), {"__module__": kind.__module__, **methods})


def _size(payload: bytes | int) -> int:
    return len(payload) if type(payload) is bytes else len(str(payload))


def _read(seen: Noted, payload: bytes, _: Any) -> None:
    seen.read += len(payload)


def _read_all(seen: Noted, payloads: Collection[bytes], _: Any) -> None:
    seen.read += sum(map(len, payloads))


def _wrote(seen: Noted, _: Any, payload: bytes | int) -> None:
    seen.written += _size(payload)


def _wrote_all(seen: Noted, _: Any, payloads: Collection[bytes | int]) -> None:
    seen.written += sum(map(_size, payloads))


COUNTED: dict[str, Callable[[Noted, Any, Any], None]] = {
    "decode": _read,
    "behind": _read,
    "decode_all": _read_all,
    "encode": _wrote,
    "describe": _wrote,
    "redescribe": _wrote,
    "encode_all": _wrote_all,
}
