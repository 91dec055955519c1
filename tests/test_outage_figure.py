"""The README's figure for a silent server comes from a program that works."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

HOME = Path(__file__).resolve().parent.parent
SHORT = """
import sys
from benchmarks import outage

outage.BEFORE = outage.AFTER = 0.3
outage.BACKENDS = {name: given for name, given in outage.BACKENDS.items() if "SOCKET_TIMEOUT" in name}
sys.argv = ["outage", "--seconds", "2.5"]
outage.main()
"""


@pytest.mark.alone
@pytest.mark.newest
def test_pages_are_sent_while_the_server_is_silent():
    """A site on fleetcache waits for one time-out and then answers; on django-redis each read waits."""
    ran = subprocess.run([sys.executable, "-c", SHORT], cwd=HOME, capture_output=True, text=True, timeout=60)

    assert ran.returncode == 0, ran.stderr
    pages = {
        name: int(sent.replace(",", ""))
        for name, sent in re.findall(r"\| ([\w-]+), \w+ 1 +\| +([\d,]+) \|", ran.stdout)
    }
    assert pages["fleetcache"] > 300  # of 750
    assert pages["django-redis"] < 30
