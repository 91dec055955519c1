"""``fleetcache warm`` calls a site's function, counts what fails, and says how far it came."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest
from tests.cli.conftest import environment
from tests.waiting import until

from fleetcache import caches
from fleetcache.inspection.warm import arguments_in, warm

FUNCTIONS = """
import threading
from fleetcache import cached

calls, together, most = [], 0, 0
gate = threading.Lock()

def note(number):
    calls.append(number)
    if number == "bad" or number == 13:
        raise LookupError(f"there is no {number}")
    return number

@cached(300, key="one:{number}")
def one(number):
    return note(number)

@cached(300, key="co:{number}")
async def co(number):
    return note(number)

@cached(300, key="many:{number}")
def many(number):
    return note(number)

@many.loads_many
def many_of(numbers):
    calls.append(list(numbers))
    if 13 in numbers:
        raise LookupError("there is a 13")
    return {number: number for number in numbers}

def plain(*args, **kwargs):
    calls.append((args, kwargs))

def leaves(*args):
    raise SystemExit(0)

async def leaves_soon(*args):
    raise SystemExit(0)

def numbers():
    return [1, 2, 3]

def broken():
    yield 1
    raise LookupError("no more")

def endless():
    for number in range(10**9):
        if number == 1000:
            open("begun", "w").close()
        yield number
"""


@pytest.fixture
def functions(module, site, monkeypatch):
    """A module with functions, whose cache is that of the site."""
    for attribute in ("_entries", "_made"):
        monkeypatch.setattr(caches, attribute, getattr(caches, attribute))  # the command configures it
    module("functions", FUNCTIONS)
    module("unreadable", "def (")
    module("leaving", "raise SystemExit(0)")
    import functions

    return functions


def lines(tmp_path, *texts: str) -> str:
    path = tmp_path / "arguments"
    path.write_text("\n".join(texts) + "\n")
    return str(path)


@pytest.mark.parametrize("name", ["one", "co", "many"])
def test_what_is_missing_is_loaded(say, site, functions, tmp_path, name):
    """Afterwards all results are in the cache; what was there before is not loaded again."""
    site.cache.set(f"{name}:2", "old", 300)
    file = lines(tmp_path, "1", "2", "3")

    said = say(*site.run("warm", f"functions:{name}", "--arguments", file))

    assert (said.code, said.err) == (0, "")
    assert said.out.startswith(f"3 called, {1 if name == 'many' else 2} loads, 0 failed, in ")
    assert site.cache.get_many([f"{name}:{n}" for n in (1, 2, 3)]) == {
        f"{name}:1": 1,
        f"{name}:2": "old",
        f"{name}:3": 3,
    }


def test_refresh_loads_all(say, site, functions, tmp_path):
    """With ``--refresh`` what is there is loaded anew."""
    site.cache.set("one:2", "old", 300)

    said = say(*site.run("warm", "functions:one", "--arguments", lines(tmp_path, "2"), "--refresh"))

    assert said.code == 0
    assert site.cache.get("one:2") == 2


def test_batches(say, site, functions, tmp_path):
    """A function with `loads_many` gets its arguments in batches; one that fails is called again one by one."""
    file = lines(tmp_path, *map(str, range(10, 20)))

    said = say(*site.run("warm", "functions:many", "--arguments", file, "--batch", "5", "--concurrency", "1", "--json"))

    assert said.code == 1
    found = said.document
    assert (found["called"], found["failed"], found["errors"]) == (10, 1, {"LookupError": 1})
    assert found["loads"] == 7
    assert functions.calls == [[10, 11, 12, 13, 14], 10, 11, 12, 13, 14, [15, 16, 17, 18, 19]]


@pytest.mark.parametrize("name", ["one", "co"])
def test_failures_are_counted(say, site, functions, tmp_path, name):
    """A call that raises stops none of the others; the exit code is 1, and the first failures are shown."""
    said = say(*site.run("warm", f"functions:{name}", "--arguments", lines(tmp_path, "1", '"bad"', "3")))

    assert said.code == 1
    assert said.out.startswith("3 called, 3 loads, 1 failed")
    assert "LookupError: 1" in said.out
    assert "('bad'): LookupError: there is no bad" in said.out
    assert site.cache.get(f"{name}:3") == 3


@pytest.mark.parametrize("name", ["leaves", "leaves_soon"])
def test_a_function_that_ends_the_process_has_failed(say, site, functions, tmp_path, name):
    """Its exit code, which may be 0, is not that of the command."""
    said = say(*site.run("warm", f"functions:{name}", "--arguments", lines(tmp_path, "1", "2"), "--json"))

    assert said.code == 1
    assert (said.document["called"], said.document["errors"]) == (2, {"SystemExit": 2})


def test_arguments_of_all_kinds(say, site, functions, tmp_path):
    """A line is JSON: a list, an object, or a single argument; a function without ``@cached`` is just called."""
    file = lines(tmp_path, "[1, 2]", '{"a": 3}', '"x"', "", "null")

    said = say(*site.run("warm", "functions:plain", "--arguments", file, "--json", "--concurrency", "1"))

    assert said.document["loads"] is None
    assert functions.calls == [((1, 2), {}), ((), {"a": 3}), (("x",), {}), ((None,), {})]


def test_without_arguments(say, site, functions):
    """Then the function is called once, without arguments."""
    assert say(*site.run("warm", "functions:plain")).code == 0
    assert functions.calls == [((), {})]


def test_arguments_from_a_function(say, site, functions):
    """``--from`` names a function that returns the arguments."""
    assert say(*site.run("warm", "functions:one", "--from", "functions:numbers")).code == 0
    assert sorted(functions.calls) == [1, 2, 3]


def test_texts(say, site, functions, tmp_path):
    """With ``--text`` a line need not be JSON."""
    file = lines(tmp_path, "a b", "5")

    assert say(*site.run("warm", "functions:one", "--arguments", file, "--text")).code == 0
    assert sorted(functions.calls) == ["5", "a b"]


@pytest.mark.parametrize(
    "arguments, fault",
    [
        (["functions"], "write module:function"),
        (["functions:nothing"], "has no attribute 'nothing'"),
        (["no_such_module:f"], "No module named 'no_such_module'"),
        (["functions:calls"], "is not callable"),
        (["functions:plain", "--refresh"], "--refresh is for functions with @cached"),
        (["functions:one", "--from", "functions:broken"], "functions:broken(): LookupError: no more"),
        (["leaving:f"], "leaving:f: the module cannot be imported: SystemExit"),
        (["functions:one", "--from", "functions:leaves"], "functions:leaves(): SystemExit: 0"),
        (["unreadable:f"], "unreadable:f: the module cannot be imported: SyntaxError"),
        (["functions:one", "--arguments", "/nowhere/at/all"], "/nowhere/at/all"),
        (["functions:one", "--text"], "--text goes with --arguments"),
        (["functions:one", "--concurrency", "0"], "a whole number above 0"),
    ],
)
def test_wrong_use(say, site, functions, arguments, fault):
    """Each has the exit code 2 and one line that says what is wrong."""
    said = say(*site.run("warm", *arguments))

    assert (said.code, said.out) == (2, "")
    assert fault in said.err
    assert said.err.count("\n") == 1


def test_a_wrong_line_stops_nothing_half_way(say, site, functions, tmp_path):
    """The file is read before the first call."""
    said = say(*site.run("warm", "functions:one", "--arguments", lines(tmp_path, "1", "{oh"), "--json"))

    assert said.code == 2
    assert "line 2 is no JSON" in said.document["error"]
    assert functions.calls == []


def test_concurrency():
    """As many calls as asked for run at the same time, and no more."""
    import threading

    barrier, running, most = threading.Barrier(3, timeout=10), [], []

    def function(number):
        running.append(number)
        most.append(len(running))
        barrier.wait()
        running.remove(number)

    warmed = warm(function, arguments_in(map(str, range(9))), concurrency=3)

    assert (warmed.called, warmed.failed) == (9, 0)
    assert max(most) == 3


@pytest.mark.alone
def test_interrupted(site, module, tmp_path):
    """Ctrl-C ends it: it says how far it came, without a traceback."""
    module("functions", FUNCTIONS)
    command = [sys.executable, "-m", "fleetcache", *site.run("warm", "functions:plain", "--from", "functions:endless")]
    with subprocess.Popen(
        [*command, "--json"], cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        until((tmp_path / "begun").exists, 30)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)

    assert (process.returncode, err) == (130, "")
    assert json.loads(out)["stopped"] is True
    assert json.loads(out)["called"] > 0


def test_interrupted_it_begins_no_further_call():
    """Calls that wait for a thread when Ctrl-C comes are not made, and not counted."""
    import threading

    gate, calls = threading.Event(), []

    def function(number):
        calls.append(number)
        if number:
            gate.wait(30)

    def step(_):
        threading.Timer(1, gate.set).start()
        raise KeyboardInterrupt

    warmed = warm(function, arguments_in(map(str, range(99))), concurrency=10, step=step)

    assert warmed.stopped
    assert warmed.called == len(calls) <= 11  # of 20 that were given to the threads
