"""How an interpreter ends that has used caches: no thread of the library is left, nothing is said, nothing is waited for."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time

import pytest

from fleetcache.testing import valkey_server

BEGIN = """
import atexit, sys, threading, time
atexit.register(lambda: print([thread.name for thread in threading.enumerate()], flush=True))
from fleetcache import Cache
url = sys.argv[1]
def near(**options):
    cache = Cache(url, {"OPTIONS": options}, near=True)
    until(lambda: (cache.get("a"), cache.near.state == "live")[1])
    return cache
def until(condition):
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)
"""

WAYS = {
    "plain": "Cache(url).set('a', 1)",
    "near": "near().set('a', 1)",
    "connecting": "Cache(url, near=True).get('a')",
    "two": "near(); Cache(url, {'KEY_PREFIX': 'two'}, near=True).get('a')",
    "awaiting": "import asyncio; cache = near(); asyncio.run(cache.aset('a', 1)); asyncio.run(cache.afence())",
    "probing": """
        cache = Cache("redis://127.0.0.1:1/0", {"OPTIONS": {"IGNORE_EXCEPTIONS": True, "BREAKER_COOLDOWN": 0.05}})
        for _ in range(5):
            cache.get("a")
        time.sleep(0.1)
    """,
    "used at exit": "cache = near(); atexit.register(lambda: cache.set('a', cache.get('a'))); cache.set('a', 1)",
    "used after": "cache = near(); cache.set('a', 1)\nclass Late:\n    def __del__(self): cache.get('a')\nlate = Late()",
}


def end(source: str, url: str) -> tuple[float, str]:
    """Run a program; return how long it took, and what threads it had at its end."""
    began = time.monotonic()
    program = [sys.executable, "-X", "dev", "-W", "error", "-c", BEGIN + textwrap.dedent(source), url]
    done = subprocess.run(program, capture_output=True, timeout=30, text=True)
    said = [line for line in done.stderr.splitlines() if not line.startswith("127.0.0.1:1/0: ")]  # an outage is logged
    assert (done.returncode, said) == (0, [])
    return time.monotonic() - began, done.stdout.strip()


@pytest.mark.parametrize("way", WAYS)
def test_threads_are_ended(way, valkey):
    """Each has ended when the last function registered with atexit runs."""
    _, threads = end(WAYS[way], valkey.url(6))

    assert threads == "['MainThread']"


@pytest.mark.alone
@pytest.mark.parametrize("way", ["near", "connecting"])
def test_a_server_that_hangs(way):
    """It is not waited for."""
    with valkey_server() as server:
        stop = "import os, signal; os.kill(int(sys.argv[2]), signal.SIGSTOP); import time; time.sleep(0.05)"
        begin = {
            "near": f"near(); {stop}",
            "connecting": f"{stop}; cache = Cache(url, near=True); cache.near.depart(cache.make_key('a')); time.sleep(0.1)",
        }
        source = begin[way].replace("sys.argv[2]", str(server.pid))
        usual, _ = end("pass", server.url())
        took, _ = end(source, server.url())
        server.resume()

    assert took < usual + 3


SUB_INTERPRETER = """
import sys, _interpreters
interpreter = _interpreters.create("legacy")
failed = _interpreters.run_string(interpreter, f'''
import sys, time
sys.path[:0] = {sys.path!r}
from fleetcache import Cache
cache = Cache({sys.argv[1]!r}, near=True)
deadline = time.monotonic() + 5
while cache.near.state != "live":
    cache.get("a")
    assert time.monotonic() < deadline
    time.sleep(0.001)
''')
assert failed is None, failed
_interpreters.destroy(interpreter)
"""


@pytest.mark.skipif(sys.version_info < (3, 13), reason="before, what has threads cannot be destroyed at all")
def test_a_sub_interpreter_ends(valkey):
    """One with a near cache can be destroyed; CPython would abort the process over a thread that goes on."""
    program = [sys.executable, "-W", "ignore", "-c", SUB_INTERPRETER, valkey.url(6)]
    done = subprocess.run(program, capture_output=True, timeout=30, text=True)
    if "hiredis" in done.stderr:
        pytest.skip("hiredis cannot be imported there")

    assert (done.returncode, done.stderr) == (0, "")
