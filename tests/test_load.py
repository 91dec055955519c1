"""The load that tests put on a cache finds what is wrong."""

from __future__ import annotations

from typing import Any

import pytest
from tests.load import CROWDS, EVERYTHING, NOTHING, RECENT, Ledger, Load

from fleetcache import Cache


@pytest.mark.parametrize(
    ("loses", "allowed"), [(NOTHING, {2, 3}), (RECENT, {None, 1, 2, 3}), (EVERYTHING, {None, 2, 3})]
)
def test_what_may_be_read(loses, allowed):
    """The last write that succeeded, one that failed, and what the loss of a write leaves."""
    ledger = Ledger("a", loses)
    for number in (1, 2):
        ledger.begin(number)
        ledger.end(number)
    ledger.begin(3)

    values = {None: None} | {number: ["a", number] for number in range(5)}
    assert {number for number, value in values.items() if ledger.allows(value)} == allowed
    assert {number for number, value in values.items() if ledger.knows(value)} == {None, 1, 2, 3}
    assert not any(ledger.allows(value) or ledger.knows(value) for value in (["b", 2], 2, [], "a", ["a", "2"]))


WRONG: dict[str, tuple[str, Any]] = {
    "another key's": ("get", lambda value: value and ["another", value[1]]),
    "an older one": ("get", lambda value: value and [value[0], value[1] - 1]),
    "none": ("get", lambda value: None),
    "one that never was": ("get_many", lambda found: {key: [key, 10**6] for key in found}),
    "counted twice": ("incr", lambda total: total + 1),
    "not stored": ("set", lambda stored: None),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_reply_is_found(face, name):
    """Whatever a cache answers wrongly, and in which face, is listed."""
    method, falsify = WRONG[name]

    class Wrong(Cache):
        pass

    def falsified(*args: Any, **kwargs: Any) -> Any:
        return falsify(getattr(Cache, method)(*args, **kwargs))

    async def afalsified(*args: Any, **kwargs: Any) -> Any:
        return falsify(await getattr(Cache, f"a{method}")(*args, **kwargs))

    setattr(Wrong, method, falsified)
    setattr(Wrong, f"a{method}", afalsified)
    crowd = {**CROWDS[face], "pause": 0.001}

    with Load(Wrong(f"memory://wrong-{face}-{name}"), **crowd) as load:
        while not load.wrong and load.calls < 10_000:
            pass

    assert load.wrong
    assert load.failures == []


def test_nothing_is_wrong_with_a_cache(face):
    """A cache that answers rightly is not accused."""
    with Load(Cache(f"memory://right-{face}"), **{**CROWDS[face], "pause": 0.001}) as load:
        while load.calls < 2_000:
            pass

    assert (load.wrong, load.failures) == ([], [])
