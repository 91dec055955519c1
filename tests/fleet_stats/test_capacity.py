"""The advice of a fleet: the mean of what its processes advise."""

from __future__ import annotations

from typing import Any

import pytest
from tests.fleet_stats.sources import RISING, advice, snapshot

from fleetcache.fleet import figures

FLAT = advice(0.4, 0.4, 0.4, 0.4, 0.4, reads=300, error=0.02)


def of(*several: Any) -> Any:
    return figures.total(snapshot(advice=each) for each in several)["advice"]


def test_advice_is_the_mean_by_reads():
    """A process with three times as many reads counts three times as much."""
    mean = of(RISING, FLAT)

    assert [size["hit_ratio"] for size in mean["sizes"]] == pytest.approx([0.425, 0.45, 0.475, 0.5, 0.525])
    assert [size["max_bytes"] for size in mean["sizes"]] == [16e6, 32e6, 64e6, 128e6, 256e6]
    assert (mean["reads"], mean["workers"], mean["now"]) == (400, 2, pytest.approx(0.475))
    assert mean["sizes"][0]["error"] == pytest.approx(0.016)
    assert not mean["enough"]
    assert mean["text"].startswith(
        "At 128 MB the near hit ratio would be 50 %, at 32 MB 45 %; now, at 64 MB, it is 48 %."
    )


def test_processes_with_another_size_do_not_count():
    """Figures of different sizes have no mean: those that most reads stand behind are shown, and of how many processes."""
    mean = of(RISING, FLAT, advice(1.0, 1.0, 1.0, 1.0, 1.0, max_bytes=32, reads=399))

    assert (mean["workers"], mean["sizes"][4]["max_bytes"]) == (2, 256e6)


@pytest.mark.parametrize(
    "nonsense",
    [
        None,
        {},
        [],
        "no",
        {"sizes": 3},
        {**RISING, "sizes": RISING["sizes"][:4]},
        {**RISING, "sizes": [*RISING["sizes"][:4], 5]},
        {**RISING, "reads": "many"},
        {**RISING, "reads": 0},
        {**RISING, "now": None},
        {**RISING, "reads": -5},
        {**RISING, "sizes": [{**size, "hit_ratio": float("nan")} for size in RISING["sizes"]]},
    ],
)
def test_what_is_no_advice_is_left_out(nonsense: Any):
    """Neither a process without a near cache nor an entry of another hand changes the mean."""
    assert of(nonsense) is None
    assert of(nonsense, RISING)["workers"] == 1
    assert figures.restored(snapshot(advice=nonsense))["advice"] is None


def test_advice_of_a_process_is_read_as_it_was_published():
    """Its text too, which is shown on its page."""
    assert figures.restored(snapshot(advice={**RISING, "more": 5}))["advice"] == RISING
