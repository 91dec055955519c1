"""Latencies in buckets, and the keys with the largest sums: exact where they can be, and within their bounds elsewhere."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetcache.stats.latency import BUCKETS, LIMITS, Latency
from fleetcache.stats.top import LONGEST, Top, largest, sure

times = st.floats(1e-6, 100)


@given(st.lists(times, min_size=1), st.sampled_from([50, 95, 99, 100]))
def test_percentiles_are_off_by_one_bucket_at_most(measured: list[float], percent: int):
    """The percentile is in the bucket of the time with that rank."""
    latency = Latency()
    for seconds in measured:
        latency.note(seconds)

    rank = -(-len(measured) * percent // 100)
    exact = sorted(measured)[max(rank, 1) - 1]
    assert exact / 1.2 <= latency.percentile(percent) <= exact * 1.2
    assert latency.count == len(measured)
    assert latency.sum == pytest.approx(sum(measured))


@given(st.lists(st.floats(0, 1e6)))
def test_each_time_has_a_bucket(measured: list[float]):
    """Also none at all, and more than the last bucket holds; in the bucket's limit, and above the one before."""
    for seconds in measured:
        latency = Latency()
        latency.note(seconds)
        place = latency.counts.index(1)
        assert place == BUCKETS - 1 or seconds <= LIMITS[place] * (1 + 1e-9)
        assert place == 0 or seconds >= LIMITS[place - 1] * (1 - 1e-9)


@given(st.lists(times), st.lists(times))
def test_distributions_are_added_also_as_json(one: list[float], two: list[float]):
    """What two processes have measured, added up, is as if one had measured all."""
    both = Latency()
    parts = []
    for measured in (one, two):
        part = Latency()
        for seconds in measured:
            part.note(seconds)
            both.note(seconds)
        parts.append(part)

    total = Latency()
    for part in parts:
        total.add(Latency.read(json.loads(json.dumps(part.figures()))))

    assert total.counts == both.counts
    assert total.figures()["p95"] == both.figures()["p95"]
    assert total.sum == pytest.approx(both.sum)


@pytest.mark.parametrize("nonsense", [{}, {"buckets": 5}, {"buckets": [[0, 1]]}, {"buckets": [["a", 1]]}, [], None])
def test_nonsense_is_no_distribution(nonsense: object):
    """What another process has written may be anything."""
    with pytest.raises(ValueError, match="no distribution"):
        Latency.read(nonsense)  # type: ignore[arg-type]


def test_nothing_measured():
    """An empty distribution has no percentiles."""
    assert Latency().figures() == {"count": 0, "sum": 0.0, "p50": None, "p95": None, "p99": None, "buckets": []}


@pytest.mark.parametrize(
    ("count", "known"), [(9, ""), (10, "p50"), (19, "p50"), (20, "p50 p95"), (99, "p50 p95"), (100, "p50 p95 p99")]
)
def test_percentiles_of_few_times_are_not_told(count: int, known: str):
    """The 99th percentile of three times is none."""
    latency = Latency()
    for _ in range(count):
        latency.note(0.001)

    figures = latency.figures()
    assert [name for name in ("p50", "p95", "p99") if figures[name] is not None] == known.split()


# --- the largest keys -----------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 10)), max_size=500), st.integers(2, 16))
def test_sums_are_within_their_bounds(adds: list[tuple[int, int]], room: int):
    """No sum is too large, none too small by more than the floor, and every key with a larger sum than the floor is there."""
    top, true = Top(room), Counter[str]()
    for key, weight in adds:
        top.add(str(key), weight)
        true[str(key)] += weight

    total = sum(true.values())
    assert top.floor <= total / room
    assert len(top.sums) <= 2 * room
    for key, (most, least, _) in top.sums.items():
        assert least <= true[key] <= most <= least + top.floor
    for key, sum_ in true.items():
        assert key in top.sums or sum_ <= top.floor


def test_large_keys_are_found_in_a_stream_of_small_ones():
    """A key that is read often stands out of a million others."""
    top = Top()
    for at in range(100_000):
        top.add(f"once:{at}", 1)
        if at % 20 == 0:
            top.add("often", 1)

    (first,) = largest(top.known(), 1)
    assert first[0] == "often"
    assert 5000 - top.floor <= first[1] <= 5000
    assert len(top.sums) <= 512


def test_few_keys_are_exact():
    """As long as all keys have room, their sums are exact."""
    top = Top()
    for at in range(64):
        for _ in range(3):
            top.add(f"key:{at}", at)

    assert {key: total for key, total, _ in largest(top.known(), 100)} == {f"key:{at}": 3 * at for at in range(64)}


def test_long_keys_are_cut():
    """The memory is bounded, whatever the keys are."""
    top = Top()
    top.add("x" * 100_000, 1)

    assert largest(top.known(), 1) == [["x" * LONGEST, 1, 0]]


def test_keys_that_were_met_by_chance_are_not_shown():
    """A sum with an error of more than half of it says nothing: three events of a sample are not enough, four are."""
    top = Top()
    for key, times in (("exact", 1), ("three", 3), ("four", 4)):
        for _ in range(times):
            weight = 1 if key == "exact" else 100
            top.add(key, weight, weight * (weight - 1))

    assert largest(top.known(), 3) == [["four", 400, 199.0], ["three", 300, 172.3], ["exact", 1, 0.0]]
    assert [key for key, *_ in sure(largest(top.known(), 3))] == ["four", "exact"]
