"""What was mended is mended, and was broken: both outcomes of every entry in ``mended``."""

from __future__ import annotations

from typing import Any

import pytest
from tests.nearby import EVERYWHERE

from . import mended
from .conftest import close_their_pools
from .mended import ANY, MENDED, MISSED, NOT_CARRIED_OVER, OUTAGE, UNLIKE, Mended
from .outcomes import Raised, shape
from .sides import Cache, Entry, Result, Setup, plainly
from .test_cases import CASES

pytestmark = [pytest.mark.also(near=True), pytest.mark.also(on="cluster")]

ENTRIES = [
    pytest.param(entry, name, id=f"{entry.name}-{name}")
    for entry in MENDED
    for name in entry.setups
    if not (
        EVERYWHERE and ("REPLICA_READ_ONLY" in entry.options or "names that hide" in entry.name)
    )  # NEAR refuses both
]


@pytest.mark.parametrize("side", ["theirs", "blocking", "awaiting"])
@pytest.mark.parametrize(("entry", "name"), ENTRIES)
def test_mended(entry: Mended, name: str, side: str, setups, faces, clock) -> None:
    """django-redis does what the table says it does, and so does fleetcache."""
    setup = own_setup(entry, setups) if entry.own else setups[name]
    expected = entry.theirs if side == "theirs" else entry.ours

    for _ in range(5 if entry.hurried else 1):
        result = run(entry, setup, side, faces, clock)
        wrong = mismatches(expected, result.calls)
        if not wrong:
            break

    assert not wrong, "\n".join([entry.why, *wrong])


def own_setup(entry: Mended, setups) -> Setup:
    """Return a setup made for one entry."""
    setup = setups.single(entry.name, entry.options, **entry.params)
    port = setups.servers.single.port
    if isinstance(entry.location, str):
        setup.location = entry.location
    elif entry.location:
        setup.location = [url.format(port=port) for url in entry.location]
    return setup


def run(entry: Mended, setup: Setup, side: str, faces, clock) -> Result:
    if side == "theirs":
        # Its pools know only their URL, not their options.
        close_their_pools()
    try:
        backend = setup.theirs() if side == "theirs" else setup.ours()
    except Exception as error:
        return Result([Entry("made", "made", Raised(error))])

    def script(cache: Cache) -> None:
        cache.location = setup.location
        entry.script(cache, clock)

    return setup.run(script, backend, face=plainly if side == "theirs" else faces[side])


def mismatches(expected: list[Any], calls: list[Entry]) -> list[str]:
    """Return where *calls* did not come to what is *expected*."""
    if len(expected) != len(calls):
        return [f"{len(expected)} outcomes are expected of {len(calls)} calls:", *map(str, calls)]
    return [
        f"{call}, expected {wanted!r}"
        for wanted, call in zip(expected, calls, strict=True)
        if not is_as(wanted, call.outcome)
    ]


def is_as(wanted: Any, outcome: Any) -> bool:
    if wanted is ANY:
        return True
    if isinstance(outcome, Raised):
        return isinstance(wanted, (type, tuple)) and isinstance(outcome.error, wanted)
    return outcome in (wanted, shape(wanted))


def test_exceptions_name_entries() -> None:
    """A case that is left out for a setup names an entry of the table that is run in it."""
    known = {(entry.name, setup) for entry in MENDED for setup in entry.setups}
    named = {(entry, setup) for case in CASES for setup, entry in case.but.items()}

    assert named <= known
    assert len({entry.name for entry in MENDED}) == len(MENDED)


@pytest.mark.parametrize("side", ["theirs", "blocking", "awaiting"])
@pytest.mark.parametrize("name", OUTAGE)
def test_outage(name: str, side: str, faces) -> None:
    """With IGNORE_EXCEPTIONS and no server every method of fleetcache answers, and in its own type."""
    setup = Setup("outage", "redis://127.0.0.1:1/1", {"OPTIONS": {"IGNORE_EXCEPTIONS": True}}, [])
    call, theirs, ours = OUTAGE[name]
    backend = setup.theirs() if side == "theirs" else setup.ours()

    result = setup.run(call, backend, face=plainly if side == "theirs" else faces[side])

    assert is_as(theirs if side == "theirs" else ours, result.calls[-1].outcome), result.calls[-1]


def test_outages_are_told_as_django_redis_does() -> None:
    """Where django-redis does not raise, fleetcache returns the same, but for what the table has a reason for."""
    unlike = {name for name, (_, theirs, ours) in OUTAGE.items() if theirs is not MISSED and repr(theirs) != repr(ours)}

    assert unlike == UNLIKE.keys()


@pytest.mark.parametrize("side", ["theirs", "blocking", "awaiting"])
@pytest.mark.parametrize("name", OUTAGE)
def test_outage_told(name: str, side: str, faces) -> None:
    """Without IGNORE_EXCEPTIONS every method of both raises redis-py's ConnectionError."""
    setup = Setup("outage", "redis://127.0.0.1:1/1", {"OPTIONS": {"SOCKET_CONNECT_TIMEOUT": 1}}, [])
    call, _, _ = OUTAGE[name]
    backend = setup.theirs() if side == "theirs" else setup.ours()

    result = setup.run(call, backend, face=plainly if side == "theirs" else faces[side])

    assert is_as(None if name == "close" else mended.MISSED, result.calls[-1].outcome), result.calls[-1]


@pytest.mark.parametrize("name", NOT_CARRIED_OVER)
def test_not_carried_over(name: str, setups) -> None:
    """What the table calls machinery is there in django-redis and not in fleetcache."""
    assert hasattr(setups["default"].theirs().client, name)
    assert not hasattr(setups["default"].ours().client, name)
