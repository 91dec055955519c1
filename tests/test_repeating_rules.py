"""The table of `fleetcache.exchange.repeating`, row by row."""

from __future__ import annotations

import pytest
from redis import exceptions as redis

from fleetcache import commands as c
from fleetcache.errors import CircuitOpen, ConnectionLost, NeverSent, ServerGone, ServerTimeout
from fleetcache.exchange import repeating

GET, SET, ADD, LOCK, PUSH = ((verb, "a", 1) for verb in (c.GET, c.SET, c.ADD, c.ACQUIRE, c.LPUSH))
LOST, NOBODY, OPEN = ConnectionLost("…"), NeverSent("…"), CircuitOpen("…")
READONLY = redis.ReadOnlyError("…")


@pytest.mark.parametrize(
    ("commands", "error", "same", "another"),
    [
        ([GET], LOST, True, True),
        ([SET], LOST, True, True),
        ([SET], ServerGone("…"), True, True),
        ([PUSH], LOST, False, False),
        ([ADD], LOST, False, True),
        ([LOCK], LOST, False, False),
        ([SET, PUSH], LOST, False, False),
        ([SET, ADD], LOST, False, True),
        ([PUSH], NOBODY, True, False),
        ([PUSH], OPEN, False, True),
        ([LOCK], OPEN, False, False),
        ([GET, LOCK], OPEN, False, False),
        ([GET], ServerTimeout("…"), False, True),
    ],
)
def test_after_a_failure(commands, error, same, another):
    """What may have run is sent again only where a second run does no harm; a lock goes to one server."""
    if error is not OPEN:  # no connection failed
        assert repeating.after_loss(commands, error) is same
    assert repeating.elsewhere(commands, error) is another


@pytest.mark.parametrize(
    ("commands", "replies", "may"),
    [
        ([PUSH], [READONLY], True),
        ([PUSH], [redis.AuthenticationError("…")], True),
        ([SET, PUSH], [b"OK", READONLY], True),
        ([PUSH, SET], [1, READONLY], False),
        ([PUSH, SET], [redis.ExecAbortError("…"), READONLY], True),
    ],
)
def test_after_a_refusal(commands, replies, may):
    """A batch is sent again to the primary of now if what was not refused may run twice."""
    assert repeating.after_refusal(commands, replies) is may


@pytest.mark.parametrize(
    ("found", "at_fault", "elsewhere"),
    [
        (LOST, True, True),
        (ServerTimeout("…"), True, False),
        (redis.DataError("…"), False, False),
        ([redis.MasterDownError("…")], True, True),
    ],
)
def test_reads_that_a_server_did_not_answer(found, at_fault, elsewhere):
    """Another server is asked to read unless the time is over, or the caller is at fault."""
    assert repeating.is_at_fault(found) is at_fault
    assert repeating.reads_elsewhere(found) is elsewhere


@pytest.mark.parametrize(
    ("error", "suspected", "again"),
    [
        (redis.ConnectionError("…"), False, True),
        (redis.TimeoutError("…"), False, False),
        (redis.TimeoutError("…"), True, True),
        (redis.AuthenticationError("…"), True, True),
        (redis.ResponseError("…"), True, False),
    ],
)
def test_a_greeting_that_failed(error, suspected, again):
    """A greeting is tried once more after a lost connection, or where the wait was cut short."""
    assert repeating.greets_again(error, suspected=suspected) is again
