"""The CPU time that the advice may take."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetcache.near import credit
from fleetcache.near.advice import LEAST
from fleetcache.near.credit import FIRST, GRANTED, LOAN, SAVED, SHARE, Credit


@dataclass
class Process:
    """A process whose CPU time the test sets."""

    used: float = 100.0

    def __call__(self) -> float:
        return self.used


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> Process:
    process = Process()
    monkeypatch.setattr(credit, "process_time", process)
    return process


def test_first_seconds_have_a_grant(process: Process) -> None:
    """It may be taken at once."""
    found = Credit()

    found.take(GRANTED - 0.01)
    assert not found.is_used_up()

    found.take(0.02)
    assert found.is_used_up()


def test_grant_lapses(process: Process) -> None:
    """What is left of it after the first seconds cannot be taken later, so a rate that costs a little too much ends too."""
    found = Credit()

    process.used += FIRST / 2
    assert not found.is_used_up()
    assert found.seconds == pytest.approx(GRANTED / 2)

    process.used += FIRST
    assert not found.is_used_up()
    assert found.seconds == SAVED


def test_share_is_added(process: Process) -> None:
    """In the long run the advice takes what the process earns for it."""
    found = Credit()
    found.take(GRANTED)

    for _ in range(1000):
        process.used += 1
        found.take(SHARE * 0.999)
        assert not found.is_used_up()
    for _ in range(1000):
        process.used += 1
        found.take(SHARE * 1.001)
    assert found.seconds < SAVED


def test_each_rate_has_a_loan(process: Process) -> None:
    """A halved rate is not halved again for what the rate before has taken."""
    found = Credit()
    found.take(GRANTED)
    assert found.is_used_up()

    assert not found.is_used_up()
    found.take(LOAN)
    assert found.is_used_up()
    assert not found.is_used_up()


def test_loans_are_paid_back(process: Process) -> None:
    """Until then each loan adds to those before."""
    found = Credit()
    found.take(GRANTED)
    assert found.is_used_up()
    found.take(LOAN / 2)

    process.used += LOAN / 4 / SHARE
    assert not found.is_used_up()
    assert found.lent == LOAN

    process.used += LOAN / 2 / SHARE
    assert not found.is_used_up()
    assert found.lent == 0


@given(steps=st.lists(st.tuples(st.floats(0, 100), st.floats(0, 0.03)), max_size=200))
def test_all_that_is_ever_taken_is_bounded(steps: list[tuple[float, float]]) -> None:
    """By the share, the grant and a loan for each rate, whatever the process does, if each halving makes events half as dear."""
    with pytest.MonkeyPatch.context() as patch:
        process = Process()
        patch.setattr(credit, "process_time", process)
        began, found, shift, dearest = process.used, Credit(), 0, 0.0
        for used, taken in steps:
            process.used += used
            found.take(taken / 2**shift)
            dearest = max(dearest, taken)
            if shift < LEAST and found.is_used_up():
                shift += 1
            elif shift and found.seconds >= SAVED:
                shift -= 1

            assert found.taken <= SHARE * (process.used - began) + GRANTED + LOAN * LEAST + 2 * dearest
