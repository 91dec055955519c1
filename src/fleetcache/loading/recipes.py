"""What the arguments of ``@cached`` mean for a function: how its calls are named and tagged."""

from __future__ import annotations

import inspect
import sys
from asyncio import coroutines
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from types import FunctionType, ModuleType
from typing import Any, TypeAlias, TypeVar

from fleetcache.errors import InvalidKey
from fleetcache.loading.arguments import WRITERS, Parameters, is_found, shortened
from fleetcache.loading.many import Batches
from fleetcache.loading.templates import Template
from fleetcache.marks import Timeout
from fleetcache.policy import Policy, PolicyOptions

C = TypeVar("C", bound=Callable[..., Any])
OLD_MARK: Any = None if sys.version_info >= (3, 12) else vars(coroutines)["_is_coroutine"]
"""What marks an object as a coroutine function for asyncio and asgiref on Python 3.11."""

LRU_CACHE = type(lru_cache(repr))

KeyOf: TypeAlias = str | Callable[..., str] | None
Tags: TypeAlias = Iterable[str] | Callable[..., Iterable[str]]
Naming: TypeAlias = Callable[[tuple[Any, ...], Mapping[str, Any]], str]
"""Arguments to the key."""
Tagging: TypeAlias = Callable[[tuple[Any, ...], Mapping[str, Any]], Iterable[str]]
"""Arguments to the tags."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How the results of a function are kept."""

    find: Callable[[], Batches]
    """Returns the cache of the current thread or task."""
    naming: Naming
    automatic: bool
    """Whether the keys are made of the function's name and arguments."""
    of_class: bool
    """Whether a `classmethod` was decorated."""
    takes_class: bool
    """Whether the first argument is a class."""
    tagging: Tagging | None
    timeout: Timeout | Policy
    version: Any
    options: PolicyOptions
    """Fields of a policy."""
    policies: dict[int, tuple[Any, Policy]] = field(default_factory=dict)
    """The policy for each of the defaults that caches had, which are kept here so that their ``id`` stays theirs."""

    def policy(self, cache: Batches) -> Policy:
        """Return the policy for *cache*, whose settings have the defaults."""
        usual = cache.settings.options.loading
        known = self.policies.get(id(usual))
        if known is None:
            known = self.policies[id(usual)] = usual, cache._policy_of(self.timeout, self.options)
        return known[1]


def check(function: Any) -> None:
    """Refuse what cannot be decorated."""
    if isinstance(function, staticmethod):
        raise TypeError("write @staticmethod above @cached, not below it")
    if not callable(function):
        raise TypeError(f"@cached decorates a function, not {type(function).__name__}")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(f"{called(function)} is a generator, which can run only once: return a list")


def called(function: Any) -> str:
    """Return what errors call *function*."""
    return str(getattr(function, "__qualname__", None) or type(function).__qualname__)


def takes_class(function: Any) -> bool:
    """Whether the first parameter of *function* is called ``cls``."""
    inner = unwrapped(function)[-1]
    code = None if _belongs(inner) else getattr(inner, "__code__", None)
    return code is not None and code.co_argcount > 0 and code.co_varnames[0] == "cls"


def named_by(key: KeyOf, function: Callable[..., Any]) -> Naming:
    """Return what makes the key of a call, by the argument *key* of ``@cached``."""
    check(function)
    if callable(key):
        return partial(_computed, key, called(function))
    parameters = Parameters(function, called(function))
    if key is None:
        head = automatic(function, parameters)
        return lambda args, kwargs: shortened(head + parameters.text(args, kwargs))
    template = Template(key, parameters, "key")
    return lambda args, kwargs: shortened(template.text(parameters.bind(args, kwargs)))


def _computed(key: Callable[..., str], name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    made = key(*args, **kwargs)
    if not isinstance(made, str):
        raise InvalidKey(f"{name}(): the callable given as key= returned {type(made).__name__}, not a str")
    return shortened(made)


def automatic(function: Callable[..., Any], parameters: Parameters) -> str:
    """Return the beginning of the keys of *function*, its module and name; refuse a function that needs a key."""
    name, module = called(function), getattr(function, "__module__", None)
    if not hasattr(function, "__qualname__") or not module or "<lambda>" in name or name.rpartition(".")[2] == "_":
        raise TypeError(f"{name} has no name of its own, so it needs a key: @cached(…, key=…)")
    layers = unwrapped(function)
    here = "<locals>" not in name and not any(map(is_found, layers[1:]))
    for place, layer in enumerate(layers):
        if hidden := _hidden(layer, layers[place + 1 :], parameters.defaults, here=here):
            raise TypeError(f"{name}() {hidden}, which its name and arguments do not tell: give @cached a key=")
    if parameters.names[:1] in {("self",), ("cls",)}:
        first = parameters.names[0]
        raise TypeError(f"{name}() is a method, so it needs a key, such as key='{layers[-1].__name__}:{{{first}.pk}}'")
    wrapped = any(type(layer) is FunctionType for layer in layers[:-1])
    if wrapped and any(map(is_found, layers[1:])):
        # A function that is decorated where it is defined does not have its name yet.
        raise TypeError(
            f"{name}() is wrapped, and its name is that of the function inside, whose results may be others: "
            f"give @cached a key="
        )
    return f"{module}.{name}"


def unwrapped(function: Any) -> list[Any]:
    """Return *function* and the functions that it wraps, the innermost last."""
    layers = [function]
    while not _belongs(function) and (function := getattr(function, "__wrapped__", None)) is not None:
        if any(function is each for each in layers):
            break
        layers.append(function)
    return layers


def _belongs(function: Any) -> bool:
    """Whether *function* is a method that was reached through its object; a function of a module written in C has that module."""
    owner = getattr(function, "__self__", None)
    return owner is not None and not isinstance(owner, ModuleType)


def _hidden(layer: Any, inner: Sequence[Any], defaults: Mapping[str, Any], *, here: bool) -> str:
    """Return what decides about the results of *layer* besides its name and arguments; it wraps the functions *inner*.

    A wrapper may refer to what it wraps, and have the *defaults* of that.  If the function is decorated *here*, where its
    module or class defines it, it is the only one of its name, so its wrappers may have arguments, as ``@retry(3)`` has.
    """
    kind = type(layer)
    if issubclass(kind, partial):
        return "is a partial with arguments of its own"
    if _belongs(layer):
        return "is a method of an object"
    if type(getattr(layer, "_recipe", None)) is Recipe or kind is LRU_CACHE:
        return ""
    if issubclass(kind, type):
        return "" if is_found(layer) else "is a class that is not found under its name"
    if isinstance(kind.__call__, FunctionType) or (inner and kind is not FunctionType):
        return f"is an object of type {kind.__name__}, which may have a state"
    if inner and here:
        return ""
    known = inner if all(_full_name(each) == _full_name(layer) for each in inner) else ()
    captured = [name for name, cell in _cells(layer) if not _holds_one_of(cell, known)]
    if captured:
        return f"uses variables of the function around it ({', '.join(captured)})"
    changed = [name for name, value in _defaults(layer) if inner and not _is_default(value, name, defaults)]
    return f"is wrapped by a function with defaults of its own ({', '.join(changed)})" if changed else ""


def _full_name(function: Any) -> tuple[Any, Any]:
    return getattr(function, "__module__", None), getattr(function, "__qualname__", None)


def _cells(function: Any) -> Iterable[tuple[str, Any]]:
    """Return the variables of the function around *function* that it uses."""
    closure = getattr(function, "__closure__", None)
    return zip(function.__code__.co_freevars, closure, strict=True) if closure else ()


def _holds_one_of(cell: Any, functions: Sequence[Any]) -> bool:
    try:
        return any(cell.cell_contents is each for each in functions)
    except ValueError:  # it holds nothing yet
        return False


def _defaults(function: Any) -> Iterable[tuple[str, Any]]:
    """Return the default values that *function* has itself; `inspect.signature` has those of what it wraps."""
    if type(function) is not FunctionType:
        return ()
    positional = function.__code__.co_varnames[: function.__code__.co_argcount]
    values = function.__defaults__ or ()
    return (
        *zip(positional[len(positional) - len(values) :], values, strict=True),
        *(function.__kwdefaults__ or {}).items(),
    )


def _is_default(value: Any, name: str, defaults: Mapping[str, Any]) -> bool:
    if name not in defaults:
        return False
    other = defaults[name]
    return value is other or (type(value) is type(other) and type(value) in WRITERS and repr(value) == repr(other))


def tagged_by(tags: Tags, function: Callable[..., Any]) -> Tagging | None:
    """Return what makes the tags of a call, by the argument *tags* of ``@cached``; None if there are none."""
    if callable(tags):
        return partial(_computed_tags, tags, called(function))
    if isinstance(tags, str) or not isinstance(tags, Iterable):
        raise TypeError(f"tags has to be a list of templates, or a callable, not {type(tags).__name__}")
    given = list(tags)
    if not given:
        return None
    parameters = Parameters(function, called(function))
    templates = [Template(each, parameters, "tag") for each in given]

    def tagging(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[str]:
        values = parameters.bind(args, kwargs)
        return [template.text(values) for template in templates]

    return tagging


def _computed_tags(
    tags: Callable[..., Iterable[str]], name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> list[str]:
    made = tags(*args, **kwargs)
    if isinstance(made, str) or not isinstance(made, Iterable):
        raise TypeError(f"{name}(): the callable given as tags= returned {type(made).__name__}, not a list of tags")
    return list(made)


def is_coroutine_function(function: Any) -> bool:
    """Whether *function* has to be awaited."""
    call: Any = type(function).__call__
    found = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)
    return found or (OLD_MARK is not None and getattr(function, "_is_coroutine", None) is OLD_MARK)


def marked(wrapper: C) -> C:
    """Mark an object as a coroutine function, for `inspect.iscoroutinefunction` and asgiref."""
    if sys.version_info >= (3, 12):
        inspect.markcoroutinefunction(wrapper)
    else:
        vars(wrapper)["_is_coroutine"] = OLD_MARK
    return wrapper
