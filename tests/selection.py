"""Which cases of a test are run: all of them, or with ``--sample`` those that ``make test`` has time for.

A sample runs every test function.  Of a function with parameters it takes cases until each value of each parameter
has been used, so that a test of nine transports and two faces has nine cases instead of eighteen.  All workers, and all
runs, choose the same cases.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable
from itertools import groupby
from zlib import crc32

import pytest

Value = tuple[str, Hashable]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option by which `make test` is short."""
    parser.addoption("--sample", action="store_true", help="run every test, but not with every combination of values")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what ``--sample`` has no time for, and let what measures time run again if the machine was busy."""
    for item in items:
        if item.get_closest_marker("alone"):
            item.add_marker(pytest.mark.flaky(reruns=2))
    if config.getoption("--sample"):
        chosen = sample(items)
        kept = set(chosen)
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = chosen


def sample(items: Iterable[pytest.Item]) -> list[pytest.Item]:
    """Return the *items* to run: those without parameters, and of each other test function some."""
    chosen: list[pytest.Item] = []
    for function, group in groupby(items, key=lambda item: item.nodeid.partition("[")[0]):
        cases = list(group)
        few = cases[0].get_closest_marker("few")
        chosen += cases[: few.args[0]] if few else covering(cases, start=crc32(function.encode()))
    return chosen


def covering(cases: list[pytest.Item], start: int) -> list[pytest.Item]:
    """Return some of *cases* that use every value of every parameter; *start* says with which of them to begin."""
    begin = start % len(cases)
    values = {case: values_of(case) for case in (*cases[begin:], *cases[:begin])}
    unused = {value for case in values for value in values[case]}
    uses: Counter[Value] = Counter()
    chosen: set[pytest.Item] = set()
    while unused:
        best = max(values, key=lambda case: (len(unused & values[case]), -sum(uses[value] for value in values[case])))
        chosen.add(best)
        unused -= values[best]
        uses.update(values[best])
    return [case for case in cases if case in chosen or not values[case]]


def values_of(case: pytest.Item) -> set[Value]:
    """Return the parameters of *case*, each with its value, or with what stands for an object."""
    params = getattr(case, "callspec", None) and case.callspec.params  # type: ignore[attr-defined]
    plain = (str, bytes, int, float, type(None))
    return {(name, value if issubclass(type(value), plain) else id(value)) for name, value in (params or {}).items()}
