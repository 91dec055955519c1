"""The sample of reads: what it says of keys is as exact as it says."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

import pytest

from fleetcache.forks import chance
from fleetcache.stats.groups import Grouping
from fleetcache.stats.tally import STEPS, Tally, _gap
from fleetcache.stats.top import largest

KEYS = [f"p:{at}" for at in range(100)]


def ask(tally: Tally, verb: bytes, *names: str) -> None:
    """Count a command as operations do, with a reply that has every value."""
    calls = tally.called(verb)
    calls.left -= 1
    if calls.left <= 0:
        began, values = calls.start(), [b"x" * 10] * len(names)
        reply: Any = values if verb == b"MGET" else values[0]
        tally.answered(calls, began, (verb, *names), (((verb, *names), reply),), timed=True)


@pytest.mark.parametrize(("calls", "many"), [(1500, 1), (12_000, 1), (300, 10), (200, 50)])
def test_sums_of_keys_are_as_exact_as_they_say(calls: int, many: int):
    """Of many processes: two in three sums are off by their error at most, few by more than twice that, and none leans."""
    off: list[float] = []
    for seed in range(40):
        chance.seed(seed)
        tally, random, true = Tally(Grouping()), Random(seed), Counter[str]()
        for _ in range(calls):
            if many > 1:
                names = random.sample(KEYS, many)
                ask(tally, b"MGET", *names)
            else:
                names = [KEYS[min(int(random.paretovariate(1)), 99)]]
                ask(tally, b"GET", *names)
            true.update(names)
        tally.settle()
        known = {key: (total, error) for key, total, error in largest(tally.hits.known(), 100)}
        off += [(known[key][0] - count) / known[key][1] for key, count in true.most_common(5) if key in known]

    assert abs(sum(off) / len(off)) < 0.35  # a small sum has a small error as well, which leans a little
    assert 0.55 < sum(abs(each) <= 1 for each in off) / len(off) < 0.8
    assert sum(abs(each) <= 2 for each in off) / len(off) > 0.88


def test_keys_that_are_read_in_turn():
    """A program in step with the sample does not deceive it."""
    chance.seed(3)
    tally = Tally(Grouping())
    for at in range(200_000):
        ask(tally, b"GET", KEYS[at % 64])
    tally.settle()

    sums = [total for total, _ in tally.hits.known().values()]
    assert len(sums) == 64
    assert abs(sum(sums) - 200_000) < 20_000
    assert max(sums) < 2.5 * 200_000 / 64


def test_how_dense_the_sample_is():
    """All of the first calls are in it, then fewer and fewer, each step as many as it says."""
    chance.seed(5)
    met = Counter[int]()
    for _ in range(100):
        at = 0
        while (at := at + _gap(at)) <= 2048:
            met[next(every for last, every in STEPS if at <= last)] += 1

    assert met[1] == 100 * 32
    assert met[4] / 100 == pytest.approx(480 / 4, rel=0.04)
    assert met[16] / 100 == pytest.approx(1536 / 16, rel=0.04)
