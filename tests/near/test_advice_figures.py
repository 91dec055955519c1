"""How exact the advice on MAX_BYTES is: its figures, next to those of real stores of these sizes on the same reads."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack
from functools import cache
from itertools import islice
from math import inf
from multiprocessing import get_context
from statistics import fmean
from typing import Any

import pytest
from benchmarks.eviction import NAMES, PAYLOAD, TRACES, size_of, weigh

from fleetcache.interrupts import let_pass
from fleetcache.near import advice, credit, door
from fleetcache.near.advice import FACTORS, Advisor, estimate, share_of
from fleetcache.near.counts import Counts
from fleetcache.near.door import Doorkeeper
from fleetcache.near.minisim import limit_of
from fleetcache.near.store import PACKED, Epoch, Store, Watched

READS = 150_000
RANKED = 5_000
SHARE = 0.1
"""The store's part of what all names take."""

MAX_BYTES = int(SHARE * sum(weigh(name, size_of(name)) for name in (f"page:{rank}" for rank in range(NAMES))))
OTHERS = [at for at, factor in enumerate(FACTORS) if factor != 1]
STEADY = [name for name in TRACES if name != "loop"]

size_of = cache(size_of)


class Bench:
    """A near cache without a server: a store, its doorkeeper, and an advisor if *shift* is given."""

    size_of = staticmethod(size_of)

    def __init__(self, max_bytes: int, shift: int | None = None, *, advised: bool = False) -> None:
        self.door = Doorkeeper(max_bytes)
        self.store = Store(max_bytes, self.door)
        self.counts = Counts()
        self.advisor = Advisor(self.store, self.counts, inf, shift) if advised else None

    def read(self, name: str) -> None:
        entry = self.store.copies.get(name)
        if entry is not None:
            if type(entry.epoch) is Watched:
                watched, entry.epoch = entry.epoch, entry.epoch.first
                watched.hit(entry)
            entry.hits += 1
            return
        self.counts.misses += 1
        known, payload = self.door.knows(name), PAYLOAD[: self.size_of(name)]
        if self.advisor is not None and hash(name) < self.advisor.limit:
            self.advisor.missed(name, PACKED, payload, -1 if known else None, kept=True)
        if known:
            self.store.put(name, PACKED, payload, inf, Epoch(inf))

    def ratio(self, reads: Sequence[str]) -> float:
        """Return the hit ratio of *reads*."""
        for number, name in enumerate(reads):
            self.read(name)
            if self.advisor is not None and number % RANKED == 0:
                self.advisor.rank()  # as the listener's thread does now and then
        return self.store.hits / len(reads)


def fail(error: BaseException) -> None:
    """Raise what the advice would log."""
    raise error


@pytest.fixture(autouse=True)
def loud(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a bug of the simulation fail the test."""
    monkeypatch.setattr(advice, "let_pass", fail)


@cache
def reads_of(trace: str) -> list[str]:
    return list(islice(TRACES[trace](random.Random(trace), int(NAMES * SHARE)), READS))


@cache
def measured(trace: str) -> list[float]:
    """Return the hit ratios of real stores of all sizes."""
    return [Bench(int(MAX_BYTES * factor)).ratio(reads_of(trace)) for factor in FACTORS]


def advised(trace: str, shift: int | None = None) -> dict[str, Any]:
    bench = Bench(MAX_BYTES, shift, advised=True)
    bench.ratio(reads_of(trace))
    assert bench.advisor is not None
    return bench.advisor.advice()


SEEDS = range(1, 7)
"""Each process samples other names, by the salt of its hashes: `PYTHONHASHSEED`."""

SLOW = 25e-6 / advice.ALL
"""The seconds that the advice is told that an event takes, so that the speed of the machine does not matter: more than on most."""


@pytest.mark.newest
@pytest.mark.few(1)
@pytest.mark.timeout(600)  # some 30 seconds of CPU time, on a machine that may be doing much else
@pytest.mark.parametrize("trace", STEADY)
def test_figures_are_those_of_real_stores(trace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the rate that the advisor chooses, at four sizes on five traces: each of six processes within two points.

    The same in every run: the salts, the chance of the doorkeepers and the cost of an event are given.
    """
    with ExitStack() as stack:

        def apart(seed: int, function: Callable[..., list[float]], *arguments: Any) -> Future[list[float]]:
            monkeypatch.setenv("PYTHONHASHSEED", str(seed))
            executor = stack.enter_context(ProcessPoolExecutor(1, get_context("spawn")))
            return executor.submit(function, seed, trace, *arguments)

        real = apart(0, measured_by).result()
        found = []
        for one, other in zip(SEEDS[::2], SEEDS[1::2], strict=True):
            found += [future.result() for future in (apart(one, errors_of, real), apart(other, errors_of, real))]

    for at, factor in enumerate(FACTORS[at] for at in OTHERS):
        wrong = [errors[at] for errors in found]
        assert abs(fmean(wrong)) < 0.01, (factor, wrong)
        assert max(map(abs, wrong)) < 0.02, (factor, wrong)


def measured_by(seed: int, trace: str) -> list[float]:
    """Return what `measured` returns in a process of this seed."""
    door.chance = random.Random(seed).random
    return measured(trace)


def errors_of(seed: int, trace: str, real: Sequence[float]) -> list[float]:
    """Return by how much each figure is wrong in this process."""
    door.chance = random.Random(seed).random
    advice.let_pass = fail
    advice.thread_time = Ticking(SLOW)  # type: ignore[attr-defined]
    credit.process_time = float  # type: ignore[attr-defined]  # nothing is earned
    found = advised(trace)
    assert found["rate"] <= 1 / 4
    assert found["now"] == pytest.approx(real[FACTORS.index(1)], abs=0.01)
    return [found["sizes"][at]["hit_ratio"] - real[at] for at in OTHERS]


class Ticking:
    """A clock that is *step* later at each look."""

    def __init__(self, step: float) -> None:
        self.now, self.step = 0.0, step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


@pytest.mark.newest
@pytest.mark.few(1)
@pytest.mark.timeout(120)
@pytest.mark.parametrize("trace", ["zipf and scans", "loop"])
def test_simulation_of_all_names_is_the_store(trace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a rate of 1 nothing is estimated: the simulated stores do what real stores do, chance of the doorkeepers aside."""
    monkeypatch.setattr(advice, "COARSER", (0,) * len(FACTORS))
    bench = Bench(MAX_BYTES, 0, advised=True)
    bench.ratio(reads_of(trace))

    assert bench.advisor is not None
    (span,) = bench.advisor.spans
    found = [1 - sum(missed) / READS for missed in span.missed]
    assert found == pytest.approx(measured(trace), abs=0.05 if trace == "loop" else 0.01)


@pytest.mark.newest
@pytest.mark.timeout(120)
def test_loop_is_judged_roughly() -> None:
    """Names read in turn, more than fit, are the worst case: right at larger sizes, up to a tenth too low at smaller ones.

    With a quarter of the names, whatever that costs: each read is a miss, so that the credit would soon be used up.
    """
    found = advised("loop", 2)

    for at in OTHERS:
        wrong = abs(found["sizes"][at]["hit_ratio"] - measured("loop")[at])
        assert wrong < (0.15 if FACTORS[at] < 1 else 0.04), found


@pytest.mark.newest
@pytest.mark.timeout(120)
@pytest.mark.parametrize("trace", ["zipf 0.8", "zipf 1.0"])
def test_stores_are_plausible_to_libcachesim(trace: str) -> None:
    """libCacheSim's S3-FIFO comes to ratios similar to those of real stores, with which the advice is compared.

    It charges no memory for tables, and remembers ghosts in a queue of as many bytes as their entries had.  A doorkeeper
    is put in front of it here, since it has none.
    """
    # In a process of its own: the threads of its libraries would disturb the processes that other tests fork.
    with ProcessPoolExecutor(1, get_context("spawn")) as apart:
        oracles = list(apart.map(ratio_of_oracle, [trace] * len(OTHERS), OTHERS))

    assert [measured(trace)[at] for at in OTHERS] == pytest.approx(oracles, abs=0.03)


def ratio_of_oracle(trace: str, at: int) -> float:
    """Return the hit ratio of libCacheSim's S3-FIFO, of the size with this number, behind a doorkeeper."""
    import libcachesim

    reads, max_bytes = reads_of(trace), int(MAX_BYTES * FACTORS[at])
    numbers = {name: number for number, name in enumerate({*reads})}
    oracle, door = libcachesim.S3FIFO(max_bytes, move_to_main_threshold=1), Doorkeeper(max_bytes)
    request, hits = libcachesim.Request(), 0
    for name in reads:
        request.obj_id, request.obj_size = numbers[name], weigh(name, size_of(name))
        if oracle.find(request, update_cache=True):
            hits += 1
        elif door.knows(name):
            oracle.get(request)
    return hits / READS


def test_number_of_simulated_copies_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """When more names come than were expected, the rate is halved until their copies are few enough."""
    monkeypatch.setattr(Bench, "size_of", staticmethod(lambda _: 50))
    bench = Bench(2_000_000, advised=True)
    assert bench.advisor is not None
    monkeypatch.setattr(advice, "MOST", 100)

    for number in range(24_000):
        bench.read(f"n{number // 6 * 3 + number % 3}")  # each name twice, and soon

    advisor = bench.advisor
    assert advisor.shift > 1
    assert advisor.held <= 100 + advice.TIMED * len(FACTORS)
    for name, sampled in advisor.known.items():
        assert len(sampled.copies) == sum(hash(name) < mini.limit for mini in advisor.minis)
        assert sampled.count == sum(copy is not None for copy in sampled.copies) > 0
    for mini in advisor.minis:
        copies = [
            copies[mini.at]
            for copies in (sampled.copies for sampled in advisor.known.values())
            if mini.at < len(copies)
        ]
        assert mini.entries == sum(copy is not None for copy in copies)


@pytest.mark.parametrize(
    ("misses", "there", "here", "estimated"),
    [
        (100, [75, 75], [50, 50], (150, 0)),
        (100, [75, 75], [40, 40], (170, 0)),  # the sample misses too seldom, here and there
        (100, [20, 20], [80, 80], (25, 0)),  # too often; a quarter of its misses is left there
        (100, [0, 0], [50, 50], (0, 0)),
        (100, [0, 0], [0, 0], (100, 100)),
        (100, [50, 100], [50, 50], (150, 50)),  # the groups differ
    ],
)
def test_misses_are_estimated_as_a_difference(
    misses: int, there: list[float], here: list[float], estimated: tuple[float, float]
) -> None:
    """The misses that are known correct those of the sample."""
    assert estimate(misses, there, here) == pytest.approx(estimated)


@pytest.fixture
def full() -> Bench:
    """A store with room for all of 500 names, which are read again and again."""
    bench = Bench(3_000_000, advised=True)
    for _ in range(40):
        for number in range(500):
            bench.read(f"page:{number}")
    return bench


def used(seconds: float, advisor: Advisor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the process have used so many *seconds* of CPU time since it was last looked, and no more."""
    now = advisor.credit.used + seconds
    monkeypatch.setattr(credit, "process_time", lambda: now)


def test_rate_is_halved_at_once_when_the_credit_is_used_up(full: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not at the next look of some thread: the process may do nothing but read."""
    advisor = full.advisor
    assert advisor is not None
    used(0, advisor, monkeypatch)
    first, held, paid = advisor.shift, advisor.held, advice.ALL * advice.TIMED * advice.CHARGED

    advisor.credit.seconds = paid * 1.5
    advisor._pay(advice.CHARGED)
    assert advisor.shift == first

    advisor._pay(advice.CHARGED)
    assert advisor.shift == first + 1
    assert advisor.held < held

    advisor._pay(0.0)  # the new rate has a loan, and is judged by what it costs itself
    assert advisor.shift == first + 1


@pytest.mark.parametrize("size", [1_000_000, 4_000_000])
def test_what_is_taken_in_the_life_of_a_process_is_bounded(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that does nothing but read takes its credit and no more, even if an event takes ten times as long as it should."""
    monkeypatch.setattr(advice, "thread_time", Ticking(0.0004))
    monkeypatch.setattr(credit, "process_time", float)
    bench = Bench(size, advised=True)
    advisor = bench.advisor
    assert advisor is not None

    for name in islice(reads_of("zipf 0.8"), 60_000):
        bench.read(name)

    most = credit.GRANTED + credit.LOAN * advisor.shift
    assert credit.GRANTED < advisor.credit.taken < most + 2 * advice.ALL * advice.TIMED * advice.CHARGED
    assert advisor.shift > 3


def test_pause_within_an_event_is_no_cost_of_it(full: Bench) -> None:
    """A garbage collection may fall into the event that is timed; it is not taken for what each of the others costs."""
    advisor = full.advisor
    assert advisor is not None
    first, taken = advisor.shift, advisor.credit.taken

    advisor._pay(5.0)

    assert advisor.shift == first
    assert advisor.credit.taken - taken < 0.1


def test_rate_may_cost_a_part_of_what_the_process_does(full: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that renders pages besides its reads is not noticeably slower by a larger sample."""
    advisor = full.advisor
    assert advisor is not None
    first = advisor.shift

    used(10, advisor, monkeypatch)
    advisor.credit.seconds = 0.0
    advisor._pay(0.09 / advice.TIMED / advice.ALL)
    advisor._pay(0.0)

    assert advisor.shift == first


def test_idle_process_does_no_upkeep(full: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """To rank the copies and to look for expired ones takes a thousandth of the CPU time of the process, however long it lives."""
    advisor = full.advisor
    assert advisor is not None
    ranked = []
    monkeypatch.setattr(advice, "thread_time", Ticking(0.002))
    monkeypatch.setattr(advisor, "rank", lambda: ranked.append(None))

    used(0, advisor, monkeypatch)
    for _ in range(3):
        advisor.turn(advisor.turned + 3600)
    assert len(ranked) == 1

    used(advice.UPKEEP * 0.002, advisor, monkeypatch)
    advisor.turn(advisor.turned + 3600)
    assert len(ranked) == 2


def test_hottest_copies_show_the_room_of_a_smaller_store(full: Bench) -> None:
    """If the sample happens to have all the hot copies, which fill a quarter of the store, its quarter-sized store gets more."""
    advisor = full.advisor
    assert advisor is not None
    while not advisor.shift:
        advisor._lower()
    filled = 0
    for entry in full.store.copies.values():
        if hash(entry.name) < advisor.limit and filled < full.store.held / 4:
            entry.hits += 1000
            filled += entry.weight

    advisor.rank()

    quarter, half, same, *_ = advisor.minis
    whole = sum(entry.weight for entry in full.store.copies.values() if hash(entry.name) < same.limit) / full.store.held
    assert quarter.max_bytes == pytest.approx(quarter.size * 1.0, rel=0.05)
    assert half.max_bytes > half.size * whole * 1.1
    assert same.max_bytes == pytest.approx(same.size * whole, rel=0.05)


@pytest.mark.parametrize(
    ("part", "share"),
    [
        (0.1, 1.0),  # the hottest tenth is ours
        (0.2, 0.75),  # then half of what is left is
        (0.5, 0.4),
        (1.0, 0.2),
    ],
)
def test_share_of_the_hottest(part: float, share: float) -> None:
    """Copies with as many hits as others count by the part of them that fits."""
    every = {9: 100, 5: 200, 0: 700}
    ours = {9: 100, 5: 100}

    assert share_of(every, ours, part) == pytest.approx(share)


def test_doorkeeper_of_half_the_sample_knows_its_names() -> None:
    """When the rate is halved, the names that stay in the sample are known as before, and the others are forgotten."""
    door, limit = Doorkeeper(1_000_000), limit_of(1)
    names = [f"page:{number}" for number in range(2_000)]
    for name in names:
        door.knows(name)

    half = door.half(500_000, limit)

    mine = [name for name in names if hash(name) < limit]
    assert half.bytes == door.bytes // 2
    assert sum(map(half.knows, mine)) > 0.6 * sum(map(door.knows, mine))  # two cells become one
    assert half.knows("page:new") is False


def test_rate_is_doubled_when_the_sample_is_small(full: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the end of a window; not in an idle process, which earns nothing."""
    monkeypatch.setattr(advice, "GROWS", 1)
    advisor = full.advisor
    assert advisor is not None
    advisor._lower()
    first, now = advisor.shift, advisor.turned

    used(1_000, advisor, monkeypatch)
    advisor.turn(now + advice.WINDOW)
    assert advisor.shift == first - 1
    assert advisor.advice()["reads"] == 0

    advisor._lower()
    advisor.turn(now + 3 * advice.WINDOW)
    assert advisor.shift == first


def test_rate_recovers_from_a_burst(full: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was halved because it cost too much.  When it costs little again, it is doubled, once in each window."""
    monkeypatch.setattr(advice, "GROWS", 1)
    advisor = full.advisor
    assert advisor is not None
    first, now = advisor.shift, advisor.turned
    used(0, advisor, monkeypatch)
    for _ in range(2):
        advisor.credit.seconds = -1.0
        advisor._pay(0.0)
    assert advisor.shift == first + 2

    found = []
    for window in range(1, 4):
        used(1_000, advisor, monkeypatch)
        advisor.turn(now + window * advice.WINDOW)
        found.append(advisor.shift)

    assert found == [first + 1, first, max(first - 1, 0)]


def test_rate_is_not_doubled_before_a_burst_is_paid_back(full: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """So bursts, too, cost no more than the credit and a hundredth."""
    monkeypatch.setattr(advice, "GROWS", 1)
    advisor = full.advisor
    assert advisor is not None
    advisor._lower()
    first, now = advisor.shift, advisor.turned

    advisor.credit.seconds = 0.0
    used(credit.SAVED / credit.SHARE - 1, advisor, monkeypatch)
    advisor.turn(now + advice.WINDOW)

    assert advisor.shift == first


def test_figures_follow_the_traffic() -> None:
    """They are those of the last two windows."""
    bench = Bench(1_000_000, 0, advised=True)
    advisor = bench.advisor
    assert advisor is not None
    now = advisor.turned
    for number in range(1_000):
        bench.read(f"once:{number}")
    assert advisor.advice()["now"] == 0

    for window in (1, 2):
        advisor.turn(now + window * advice.WINDOW)
        for _ in range(100):
            bench.read("page")

    found = advisor.advice()
    assert found["reads"] == 200
    assert found["now"] == 0.99
    assert [size["hit_ratio"] for size in found["sizes"]] == [0.99] * len(FACTORS)


def test_expired_copies_are_removed() -> None:
    """A simulated copy ends with its entry, and gives its room back."""
    bench = Bench(1_000_000, 0, advised=True)
    advisor = bench.advisor
    assert advisor is not None
    for _ in range(2):
        advisor.missed("a", PACKED, b"text", 1000, kept=True)
    assert advisor.known

    advisor.turn(advisor.turned + 3)

    assert not advisor.known


def test_failure_within_is_no_failure_of_a_read(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug of the simulation is logged, and it starts anew."""
    monkeypatch.setattr(advice, "let_pass", let_pass)
    bench = Bench(1_000_000, 0, advised=True)
    advisor = bench.advisor
    assert advisor is not None
    for _ in range(3):
        bench.read("a")
    advisor.minis[0].door = None
    advisor.minis[0].keep = None  # type: ignore[assignment,method-assign]

    bench.read("b")

    assert "the advice on MAX_BYTES failed" in caplog.text
    assert not advisor.known
    bench.read("b")
    assert "b" in advisor.known or advisor.minis[0].door is not None
