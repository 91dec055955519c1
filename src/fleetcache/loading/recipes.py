"""What the arguments of ``@cached`` mean for a function: how its calls are named and tagged."""

from __future__ import annotations

import inspect
import sys
from asyncio import coroutines
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias, TypeVar

from fleetcache.errors import InvalidKey
from fleetcache.loading.arguments import Parameters, shortened
from fleetcache.loading.many import Batches
from fleetcache.loading.templates import Template
from fleetcache.marks import Timeout
from fleetcache.policy import Policy, PolicyOptions

C = TypeVar("C", bound=Callable[..., Any])
OLD_MARK: Any = None if sys.version_info >= (3, 12) else vars(coroutines)["_is_coroutine"]
"""What marks an object as a coroutine function for asyncio and asgiref on Python 3.11."""

Key: TypeAlias = str | Callable[..., str] | None
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
    code = getattr(inspect.unwrap(function), "__code__", None)
    return code is not None and code.co_argcount > 0 and code.co_varnames[0] == "cls"


def named_by(key: Key, function: Callable[..., Any]) -> Naming:
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
    inner: Any = inspect.unwrap(function)
    name, module = called(function), getattr(function, "__module__", None)
    if not hasattr(function, "__qualname__") or not module or "<lambda>" in name:
        raise TypeError(f"{name} has no name of its own, so it needs a key: @cached(…, key=…)")
    if getattr(inner, "__closure__", None):
        captured = ", ".join(inner.__code__.co_freevars)
        raise TypeError(
            f"{name}() uses variables of the function around it ({captured}), which its name and arguments do not tell: "
            f"give @cached a key="
        )
    if parameters.names[:1] in {("self",), ("cls",)}:
        first = parameters.names[0]
        raise TypeError(f"{name}() is a method, so it needs a key, such as key='{inner.__name__}:{{{first}.pk}}'")
    return f"{module}.{name}"


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
