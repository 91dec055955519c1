"""In Django the app publishes by itself, and metrics bear the aliases of CACHES."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import django
from django.conf import settings

entry = {{"BACKEND": "fleetcache.django.RedisCache", "LOCATION": {url!r}, "KEY_PREFIX": {prefix!r}}}
off = {{**entry, "KEY_PREFIX": "off", "OPTIONS": {{"STATS": {{"PUBLISH": 0}}}}}}
settings.configure(CACHES={{"default": entry, "other": {{**entry, "VERSION": 2}}, "off": off}}, INSTALLED_APPS={apps!r})
django.setup()
from django.core.cache import caches
from fleetcache.fleet.publishing import PUBLISHING, USUAL

caches["default"].get("a"), caches["other"].get("a"), caches["off"].get("a")
print(USUAL.seconds, PUBLISHING.thread is not None, PUBLISHING.of(caches["off"]._common))
print(sorted(caches[alias].tally.alias for alias in caches))
"""


@pytest.mark.parametrize(
    ("apps", "expected"), [(["fleetcache.django"], "10.0 True None"), ([], "0.0 False None")], ids=["app", "no app"]
)
def test_the_app_publishes_every_ten_seconds(apps, expected, valkey):
    """Without it in INSTALLED_APPS, and with PUBLISH = 0, nothing is published; each cache knows its alias."""
    program = PROGRAM.format(url=valkey.tcp_url(3), prefix="django", apps=apps)

    ran = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=30)

    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.splitlines() == [expected, "['default', 'off', 'other']"]
