"""Which cases of a test are run: all of them, or with ``--sample`` those that ``make test`` has time for.

A sample runs every test function.  Of a function with parameters it takes cases until each value of each parameter
has been used, so that a test of nine transports and two faces has nine cases instead of eighteen.  All workers, and all
runs, choose the same cases.

``--thin`` is a sample of fewer cases, which use each value of each parameter but the transport (`url`), of which each
test function has other ones.  ``--rest`` runs the cases that ``--sample`` leaves out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Hashable, Iterable
from itertools import groupby
from zlib import crc32

import pytest

Value = tuple[str, Hashable]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options by which `make test` and a part of `make test-all` are short."""
    add = parser.addoption
    add("--sample", action="store_true", help="run every test, but not with every combination of values")
    add("--thin", action="store_true", help="as --sample, and each test not over every transport")
    add("--rest", action="store_true", help="run the combinations that --sample leaves out")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what the options do not ask for, and let what measures time run again if the machine was busy."""
    for item in items:
        if item.get_closest_marker("alone"):
            item.add_marker(pytest.mark.flaky(reruns=2))
    asked = [each for each in ("--sample", "--thin", "--rest") if config.getoption(each)]
    if len(asked) > 1:
        raise pytest.UsageError(f"{' and '.join(asked)} exclude each other")
    if asked:
        chosen = sample(items, thin="--thin" in asked)
        sampled = set(chosen)
        rest = [item for item in items if item not in sampled]
        kept, left = (rest, chosen) if "--rest" in asked else (chosen, rest)
        config.hook.pytest_deselected(items=left)
        items[:] = kept


def sample(items: Iterable[pytest.Item], *, thin: bool = False) -> list[pytest.Item]:
    """Return the *items* to run: those without parameters, and of each other test function some."""
    chosen: list[pytest.Item] = []
    for function, group in groupby(items, key=lambda item: item.nodeid.partition("[")[0]):
        cases = list(group)
        few = cases[0].get_closest_marker("few")
        spared = {"url"} if thin else set()
        chosen += cases[: few.args[0]] if few else covering(cases, spared, start=crc32(function.encode()))
    return chosen


def covering(cases: list[pytest.Item], spared: Container[str], start: int) -> list[pytest.Item]:
    """Return some of *cases* that use every value of every parameter but the *spared*; *start* says where to begin."""
    begin = start % len(cases)
    values = {case: values_of(case) for case in (*cases[begin:], *cases[:begin])}
    unused = {value for case in values for value in values[case] if value[0] not in spared}
    uses: Counter[Value] = Counter()
    chosen = {case for case in values if not values[case]}
    while unused or not chosen:
        best = max(values, key=lambda case: (len(unused & values[case]), -sum(uses[value] for value in values[case])))
        chosen.add(best)
        unused -= values[best]
        uses.update(values[best])
    return [case for case in cases if case in chosen]


def values_of(case: pytest.Item) -> set[Value]:
    """Return the parameters of *case*, each with its value, or with what stands for an object."""
    params = getattr(case, "callspec", None) and case.callspec.params  # type: ignore[attr-defined]
    plain = (str, bytes, int, float, type(None))
    return {(name, value if issubclass(type(value), plain) else id(value)) for name, value in (params or {}).items()}
