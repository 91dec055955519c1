"""The Django site of docs/metrics.md serves its figures."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("prometheus_client")

HOME = Path(__file__).resolve().parent.parent.parent

MAIN = """
import time

import django
from django.conf import settings

settings.configure(
    ROOT_URLCONF="shop.urls",
    ALLOWED_HOSTS=["*"],
    INSTALLED_APPS=["fleetcache.django", "shop.apps.ShopConfig"],
    CACHES={
        "default": {
            "BACKEND": "fleetcache.django.RedisCache",
            "LOCATION": "%s",
            "KEY_PREFIX": "shop",
            "OPTIONS": {"STATS": {"PUBLISH": 0.2}},
        }
    },
)
django.setup()

from django.core.cache import cache
from django.test import Client

cache.get("user:1")
ends = time.monotonic() + 60
while True:  # until this process has published its figures
    reply = Client().get("/metrics")
    if b'group="user"' in reply.content or time.monotonic() > ends:
        break
    time.sleep(0.1)
print(reply["Content-Type"], reply.content.decode())
"""


@pytest.mark.newest
def test_the_site_of_the_page_serves_metrics(valkey, tmp_path):
    """Its two files are enough: the figures of this process, with its name, in Prometheus' format."""
    page = (HOME / "docs/metrics.md").read_text()
    (tmp_path / "shop").mkdir()
    for name, text in re.findall(r"^```python\n# (shop/\w+\.py)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL):
        (tmp_path / name).write_text(text)
    main = tmp_path / "main.py"
    main.write_text(MAIN % valkey.tcp_url(14))

    path = os.pathsep.join([str(HOME / "src"), str(tmp_path)])
    ran = subprocess.run(
        [sys.executable, str(main)], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=120
    )

    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("text/plain")
    assert re.search(
        r'^fleetcache_requests_total\{cache="default",group="user",level="none",result="miss",worker="\S+"\} 1\.0$',
        ran.stdout,
        re.MULTILINE,
    ), ran.stdout[:2000]
