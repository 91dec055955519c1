"""Renewed locks while their server is away."""

from __future__ import annotations

import time

import pytest
from redis.exceptions import LockNotOwnedError
from tests.faces import FACES, Face, settled
from tests.renewals import awaited, passed, renewals
from tests.waiting import eventually, until

from fleetcache import Cache

pytestmark = [pytest.mark.timeout(60, method="thread"), pytest.mark.alone]
SHORT = 0.3
"""The timeout of a lock that a test lets pass, in seconds."""


@pytest.mark.parametrize("face", FACES)
async def test_a_short_outage_loses_no_lock(mortal, face):
    """A renewal that fails is tried again until the timeout is over."""
    cache = Face(Cache(mortal.tcp_url(), {"OPTIONS": {"socket_timeout": 0.1}}), face)
    lock = cache.lock("lock", timeout=3, renew=True)
    await lock.acquire()
    (renewal,) = renewals()
    began = renewal.until
    renewal.due = 0.0  # at once: the outage is then a third of the timeout at most
    mortal.pause()
    await passed(1)
    mortal.resume()

    await eventually(awaited(lambda: renewal.until > began), True)
    assert lock.lost is False
    await eventually(lambda: settled(lock.owned()), True)
    await lock.release()


@pytest.mark.parametrize("ignoring", [False, True])
@pytest.mark.parametrize("face", FACES)
async def test_an_outage_as_long_as_the_timeout_loses_it(mortal, face, ignoring, caplog):
    """The holder hears that others may have the lock, before it asks the server and when it releases."""
    options = {"socket_timeout": 0.1, "IGNORE_EXCEPTIONS": ignoring}
    cache = Face(Cache(mortal.tcp_url(), {"OPTIONS": options}), face)
    lock = cache.lock("lock", timeout=SHORT, renew=True)
    await lock.acquire()

    mortal.pause()
    await eventually(awaited(lambda: lock.lost), True)
    await eventually(awaited(renewals), [])
    mortal.resume()

    assert [record.event for record in caplog.records if record.name == "fleetcache.locks"] == ["lost"]
    assert isinstance(await settled(lock.release()), LockNotOwnedError)
    assert lock.lost is True


def test_a_server_that_stands_still_delays_no_other(mortal, valkey):
    """Locks of a healthy server are renewed while another server hangs."""
    hanging = Cache(mortal.tcp_url(), {"OPTIONS": {"socket_timeout": 5}})
    healthy = Cache(valkey.tcp_url(), {"KEY_PREFIX": "healthy"})
    with healthy.lock("lock", timeout=SHORT, renew=True) as lock:
        other = hanging.lock("lock", timeout=SHORT, renew=True)
        other.acquire()
        mortal.pause()
        until(lambda: other.lost)
        time.sleep(3 * SHORT)

        assert lock.owned() is True
        mortal.resume()
