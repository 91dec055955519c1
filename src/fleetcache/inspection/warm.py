"""Warms a cache: calls a site's function for many arguments, so that its results are in the cache before anybody asks.

A function with ``@cached`` loads what is missing; with *refresh* it loads all anew.  If it has `loads_many`, arguments are
loaded in batches.  Any other function is called as it is.  Several calls run at the same time: functions in threads,
coroutine functions in tasks.  A call that raises is counted, and the others go on.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from importlib import import_module
from itertools import islice
from time import monotonic
from typing import Any, TypeAlias

from fleetcache.errors import SettingsError
from fleetcache.loading.cached import Cached
from fleetcache.loading.recipes import is_coroutine_function

SHOWN = 5
"""How many failures are kept to be shown."""
LONGEST = 200
"""How many letters of a failure are shown."""

Given: TypeAlias = tuple[tuple[Any, ...], dict[str, Any]]
"""The arguments of one call."""


@dataclass
class Warmed:
    """What came of it."""

    called: int = 0
    """How many sets of arguments were taken."""
    loads: int | None = None
    """How many loads ran, a batch counted once; None if the function is not one of ``@cached``'s.  All else was in the cache."""
    failed: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    """How many calls failed, by the class of the exception."""
    examples: list[str] = field(default_factory=list)
    """The first failures, each with its arguments."""
    seconds: float = 0.0
    stopped: bool = False
    """Whether it was interrupted before the end of the arguments."""

    def as_dict(self) -> dict[str, Any]:
        """Return the result for JSON."""
        return {
            "called": self.called,
            "loads": self.loads,
            "failed": self.failed,
            "errors": dict(self.errors),
            "examples": self.examples,
            "seconds": self.seconds,
            "stopped": self.stopped,
        }

    def fail(self, given: Given, error: BaseException) -> None:
        """Count a call that failed."""
        self.failed += 1
        kind = type(error).__name__
        self.errors[kind] += 1
        if len(self.examples) < SHOWN:
            args, kwargs = given
            words = ", ".join([*map(repr, args), *(f"{name}={value!r}" for name, value in kwargs.items())])
            self.examples.append(f"({words}): {kind}: {error}"[:LONGEST])


def named(path: str) -> Any:
    """Return the object at *path*, ``module:name``, where the name may have dots."""
    module, colon, name = path.partition(":")
    if not colon or not module or not name:
        raise SettingsError(f"{path!r}: write module:function, such as shop.profiles:profile")
    try:
        found = import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise SettingsError(f"{path}: {error}") from error
    except (Exception, SystemExit) as error:
        raise SettingsError(f"{path}: the module cannot be imported: {type(error).__name__}: {error}") from error
    return found


def arguments_in(lines: Iterable[str], *, text: bool = False) -> Iterator[Given]:
    """Yield the arguments in *lines*, each JSON: a list of arguments, an object of named ones, or the only argument.

    With *text* each line is the only argument, as it is.  Empty lines are passed over.
    """
    for number, line in enumerate(lines, 1):
        line = line.rstrip("\r\n")  # noqa: PLW2901 - the same line, without its end
        if not line.strip():
            continue
        if text:
            yield (line,), {}
            continue
        try:
            found = json.loads(line)
        except ValueError as error:
            raise SettingsError(f"line {number} is no JSON ({error}). Write texts in quotes, or give --text") from error
        yield (
            (tuple(found), {})
            if isinstance(found, list)
            else ((), found)
            if isinstance(found, dict)
            else ((found,), {})
        )


def arguments_of(source: str) -> Iterator[Given]:
    """Yield the arguments that the function at the path *source* returns: tuples of arguments, dicts of named ones, or single ones."""
    produce = named(source)
    try:
        for each in produce():
            yield (each, {}) if isinstance(each, tuple) else ((), each) if isinstance(each, dict) else ((each,), {})
    except (Exception, SystemExit) as error:
        raise SettingsError(f"{source}(): {type(error).__name__}: {error}") from error


def warm(
    function: Callable[..., Any],
    arguments: Iterable[Given],
    *,
    refresh: bool = False,
    concurrency: int = 4,
    batch: int = 100,
    step: Callable[[Warmed], None] = lambda _: None,
) -> Warmed:
    """Call *function* for each of *arguments*; *step* is called after each call, or batch of calls.

    Ctrl-C ends it after the calls that are under way; the result says how far it came.
    """
    if not callable(function):
        raise SettingsError(f"{function!r} is not callable")
    cached = function if isinstance(function, Cached) else None
    if refresh and cached is None:
        raise SettingsError("--refresh is for functions with @cached")
    warmed, began = Warmed(), monotonic()
    before = _loads(cached)
    together = batch if cached is not None and not refresh and cached._load_many is not None else 1
    work = _Work(function, refresh, warmed, step)
    batches = _batches(arguments, together)
    try:
        if is_coroutine_function(function):
            asyncio.run(work.in_tasks(batches, concurrency))
        else:
            work.in_threads(batches, concurrency)
    except KeyboardInterrupt:
        warmed.stopped = True
    after = _loads(cached)
    warmed.loads = None if before is None or after is None else after - before
    warmed.seconds = monotonic() - began
    return warmed


def _loads(cached: Cached[..., Any] | None) -> int | None:
    """Return how many loads the cache of *cached* has run in this process."""
    if cached is None:
        return None
    loads: int = cached._recipe.find().stats.loads
    return loads


def _batches(arguments: Iterable[Given], most: int) -> Iterator[list[Given]]:
    """Yield *arguments* in lists of up to *most*; a call that has not exactly one argument is a list of its own."""
    rest = iter(arguments)
    while some := list(islice(rest, most)):
        single = [given for given in some if len(given[0]) == 1 and not given[1]]
        if single:
            yield single
        yield from ([given] for given in some if len(given[0]) != 1 or given[1])


class _Work:
    """The calls, and what came of them."""

    def __init__(self, function: Any, refresh: bool, warmed: Warmed, step: Callable[[Warmed], None]) -> None:
        self.function, self.warmed, self.step = function, warmed, step
        self.call = function.refresh if refresh else function

    def in_threads(self, batches: Iterator[list[Given]], concurrency: int) -> None:
        """Make the calls in threads."""
        threads = ThreadPoolExecutor(concurrency, "fleetcache-warm")
        sizes: dict[Future[list[tuple[Given, BaseException]]], int] = {}
        running: set[Future[list[tuple[Given, BaseException]]]] = set()
        try:
            for given in batches:
                running.add(call := threads.submit(self._done, given))
                sizes[call] = len(given)
                self.warmed.called += len(given)
                if len(running) >= 2 * concurrency:
                    running = self._settle(*wait(running, return_when=FIRST_COMPLETED))
            while running:
                running = self._settle(*wait(running, return_when=FIRST_COMPLETED))
        finally:  # after Ctrl-C no further call begins
            threads.shutdown(cancel_futures=True)
            self.warmed.called -= sum(size for call, size in sizes.items() if call.cancelled())

    def _settle(self, done: set[Future[Any]], running: set[Future[Any]]) -> set[Future[Any]]:
        for each in done:
            self._note(each.result())
        return running

    def _note(self, failures: list[tuple[Given, BaseException]]) -> None:
        for given, error in failures:
            self.warmed.fail(given, error)
        self.step(self.warmed)

    def _done(self, batch: list[Given]) -> list[tuple[Given, BaseException]]:
        """Make the calls of *batch*; return those that failed."""
        if len(batch) > 1:
            try:
                self.function.many([args[0] for args, _ in batch])
            except (Exception, SystemExit):  # one by one, to find which failed
                return [failure for given in batch for failure in self._done([given])]
            return []
        ((args, kwargs),) = batch
        try:
            self.call(*args, **kwargs)
        except (Exception, SystemExit) as error:  # a function that ends the process would end it with a code of its own
            return [((args, kwargs), error)]
        return []

    async def in_tasks(self, batches: Iterator[list[Given]], concurrency: int) -> None:
        """Make the calls in tasks."""
        running: set[asyncio.Task[list[tuple[Given, BaseException]]]] = set()
        for given in batches:
            running.add(asyncio.create_task(self._adone(given)))
            self.warmed.called += len(given)
            while len(running) >= concurrency:
                running = await self._asettle(running)
        while running:
            running = await self._asettle(running)

    async def _asettle(self, running: set[asyncio.Task[Any]]) -> set[asyncio.Task[Any]]:
        done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        for each in done:
            self._note(each.result())
        return running

    async def _adone(self, batch: list[Given]) -> list[tuple[Given, BaseException]]:
        """Make the calls of *batch*; return those that failed."""
        if len(batch) > 1:
            try:
                await self.function.many([args[0] for args, _ in batch])
            except (Exception, SystemExit):
                return [failure for given in batch for failure in await self._adone([given])]
            return []
        ((args, kwargs),) = batch
        try:
            await self.call(*args, **kwargs)
        except (Exception, SystemExit) as error:
            return [((args, kwargs), error)]
        return []
