"""``fleetcache stats`` adds up what a fleet has published, and ``top`` shows its rates."""

from __future__ import annotations

import argparse
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from types import SimpleNamespace

import pytest
from tests.cli.conftest import SECRET, Site, environment, unused_port
from tests.fleet_stats.sources import RISING, Source, group, latency, publisher, snapshot

from fleetcache import Cache
from fleetcache.cli import top
from fleetcache.cli.calls import Call
from fleetcache.cli.stats import age, document
from fleetcache.cli.top import lines
from fleetcache.fleet import Fleet, Worker
from fleetcache.fleet.figures import total
from fleetcache.inspection.keys import masked_key
from fleetcache.inspection.rates import Rates
from fleetcache.testing import cluster
from fleetcache.testing.servers import free_ports


def publish(site: Site, **parts) -> None:
    """Publish the figures of a process that does not exist."""
    publisher(Source(site.cache, snapshot(**parts))).publish()


# --- stats ----------------------------------------------------------------------------------------


def test_the_sum_everywhere(say, anywhere):
    """The figures of all processes, on every server and topology."""
    publish(anywhere, groups={"users": group(near=6, server=3, missed=1, loads=1, load_seconds=0.5, saved=4.5)})
    publish(anywhere, groups={"users": group(near=10, saved=5), "news": group(missed=5)})

    found = say(*anywhere.run("stats", "--json")).document

    assert len(found["workers"]) == 2
    assert found["groups"]["users"]["near"] == 16
    assert found["groups"]["users"]["hit_ratio"] == pytest.approx(19 / 20)
    assert found["groups"]["users"]["saved"] == pytest.approx(19 * 0.5)
    assert (found["totals"]["reads"], found["totals"]["missed"]) == (25, 6)
    assert found["commands"]["GET"]["calls"] == 8
    assert found["errors"] == {"ServerGone": 2}
    assert found["missing"] == []


def test_what_a_process_published_moves_no_cursor(say, site):
    """Whoever may write to the server could publish anything."""
    evil = "\x1b]0;evil\x07\nadded"
    source = Source(site.cache, snapshot(groups={evil: group(near=1)}))
    source.figures |= {"near": {**source.figures["near"], "state": evil, "why": evil}, "errors": {evil: 1}}
    publisher(source).publish()

    for by in ("group", "worker", "command"):
        said = say(*site.run("stats", "--by", by))
        assert "\x1b" not in said.out and "\nadded" not in said.out


@pytest.mark.parametrize("command", [["stats"], ["stats", "--since", "1h"], ["top", "--once"]], ids=" ".join)
def test_a_server_that_is_away(say, command):
    """A script can tell an outage from a wrong use."""
    found = say(*command, "--url", "redis://127.0.0.1:1/0", "--json")

    assert (found.code, found.document["kind"], found.document["away"]) == (2, "NeverSent", True)


def test_the_shape(say, site):
    """The names in the document are a promise."""
    publish(site)

    found = say(*site.run("stats", "--json")).document

    assert found.keys() == {
        *("at", "since", "totals", "groups", "commands", "loads", "errors", "servers", "near", "top", "audit"),
        *("advice", "workers", "missing", "rates", "last_hour"),
    }
    assert {
        "host",
        "pid",
        "version",
        "settings",
        "started",
        "at",
        "near_state",
        "near_bytes",
        "reads",
        "hit_ratio",
    } <= (found["workers"][0].keys())
    assert found["workers"][0]["near_state"] == "live"


def test_for_people(say, site):
    """What the cache is worth in a few lines, and a table of groups."""
    publish(site, servers=[{"address": "127.0.0.1:6379/0", "away": True}], advice=RISING)

    said = say(*site.run("stats"))

    assert (said.code, said.err) == (0, "")
    assert said.out.startswith("1 process on 1 host, counted since ")
    for row in (
        r"reads +10: 60.0 % near, 30.0 % server, 0.0 % stale, 10.0 % missed",
        r"loads +1, 500 ms each; 0 failed, 0 joined",
        r"saved +4.5 s of loading",
        r"errors +1 ServerGone",
        r"near caches +1 live",
        r"servers away +127.0.0.1:6379/0 \(for 1\)",
        r"near size +At 128 MB the near hit ratio would be 80 %, at 32 MB 60 %; now, at 64 MB, it is 70 %\.",
        r"audit +10 compared, 0 violations",
    ):
        assert re.search(rf"^ +{row}$", said.out, re.MULTILINE), row
    assert re.search(r"^users +10 +90.0 % +60.0 % ", said.out, re.MULTILINE)


@pytest.mark.parametrize(
    "figures, saved",
    [
        ({"missed": 3, "loads": 3, "load_seconds": 0.606}, "0 s: no loaded value was read again yet"),
        ({"missed": 3}, "not known: nothing was loaded by get_or_set or @cached"),
    ],
    ids=["loaded", "not loaded"],
)
def test_why_nothing_is_saved(say, site, figures, saved):
    """Values that were loaded, but not read again, are not called unknown."""
    publish(site, groups={"users": group(**figures)})

    assert re.search(rf"^ +saved +{saved}$", say(*site.run("stats")).out, re.MULTILINE)


def test_times_have_a_zone(say, site, monkeypatch):
    """Each time says its zone: its abbreviation, or its offset where it has none."""
    publish(site)
    for zone, shown in (("EST5", "EST"), ("<+03>-3", "[+]03")):
        with monkeypatch.context() as patched:
            patched.setenv("TZ", zone)
            time.tzset()
            said, rates = say(*site.run("stats")), say(*site.run("top", "--once", "--interval", "0.1"))
        time.tzset()

        assert re.search(rf"counted since [\d-]+ [\d:]+ {shown}, for", said.out)
        assert re.search(rf"1 process   [\d:]+ {shown}$", rates.out, re.MULTILINE)


@pytest.mark.parametrize("words", [("stats",), ("stats", "--since", "1h"), ("top", "--once")], ids=" ".join)
def test_a_server_that_is_away_is_named_once(say, words):
    """The error of a server names its address, and the line about it does not repeat that."""
    (port,) = free_ports(1)

    said = say(*words, "--url", f"redis://127.0.0.1:{port}/3")

    assert said.code == 2
    assert said.err.count(f"127.0.0.1:{port}") == 1
    assert f"127.0.0.1:{port}/3: Error 111 connecting. Connection refused." in said.err


@pytest.mark.parametrize(
    "by, row",
    [
        ("command", r"^GET +4 +1 +4 +- +- +-$"),
        ("worker", r":PID .* live .* ago +10 +90.0 %"),
        ("key", rf"^{masked_key('user:1')} +5 +± 2$"),
    ],
)
def test_other_tables(say, site, by, row):
    """Commands with their latencies, processes, and keys, which are masked."""
    publish(site)

    said = say(*site.run("stats", "--by", by))

    assert re.search(row.replace("PID", str(os.getpid())), said.out, re.MULTILINE), said.out
    assert "user:1" not in said.out


def test_keys_are_shown_if_asked_for(say, site):
    """``--show-keys`` shows them, also in JSON, where they are masked otherwise."""
    publish(site)

    assert re.search(r"^user:1 +5 +± 2$", say(*site.run("stats", "--by", "key", "--show-keys")).out, re.MULTILINE)
    assert say(*site.run("stats", "--json", "--show-keys")).document["top"]["hits"][0] == ["user:1", 5, 2]
    assert "user:1" not in say(*site.run("stats", "--json")).out


def test_the_last_hours(say, site):
    """``--since`` shows what was counted in that time, from the history."""
    publish(site, groups={"users": group(near=6, missed=2, loads=1, load_seconds=0.5, saved=3)})

    found = say(*site.run("stats", "--since", "30m", "--json")).document
    said = say(*site.run("stats", "--since", "1d"))

    assert (found["groups"]["users"]["near"], found["totals"]["reads"]) == (6, 8)
    assert len(found["periods"]) == 6
    assert found["periods"][-1]["hit_ratio"] == 0.75
    assert said.code == 0
    assert re.search(r"^ +reads +8: 75.0 % near", said.out, re.MULTILINE)
    assert say(*site.run("stats", "--since", "1h", "--by", "worker")).code == 2


def test_processes_that_began_at_different_times(say, site):
    """A process of yesterday beside one of a minute ago: both ages are told, and rates are the sums of their own."""
    now = time.time()
    publish(site, since=now - 6000, groups={"users": group(near=6000)})
    publish(site, since=now - 20, groups={"users": group(near=580, writes=40)})

    said, found = say(*site.run("stats")), say(*site.run("stats", "--json")).document

    assert re.match(
        r"2 processes on 1 host, counted for 20(\.\d)? s to 1 h 40 min: each since it began, the first at \d", said.out
    )
    assert re.search(r"^ +rate +(29|30)/s read, 0/s loaded, (1\.9|2|2\.0)/s written$", said.out, re.MULTILINE), said.out
    assert found["rates"]["reads"] == pytest.approx(1 + 29, rel=0.1)


def test_the_last_hour_is_there_after_a_deploy(say, site):
    """The first screen shows what the whole fleet did lately, although each process of now has hardly begun."""
    gone = publisher(Source(site.cache, snapshot(groups={"users": group(near=900, missed=100, loads=90, saved=30.0)})))
    gone.publish()
    assert site.cache.get_client().delete(gone.name)
    publish(site, groups={"users": group(near=5)}, errors={})

    said, found = say(*site.run("stats")), say(*site.run("stats", "--json")).document

    assert re.search(r"^ +reads +5: ", said.out, re.MULTILINE)
    row = r"^ +last hour +1,005 reads, 90\.0 % found; 90 loads, 30 s saved; 1 error; also of processes that are gone$"
    assert re.search(row, said.out, re.MULTILINE), said.out
    assert (found["totals"]["reads"], found["last_hour"]["reads"], found["last_hour"]["errors"]) == (5, 1005, 1)


def test_no_column_without_figures(say, site):
    """The history keeps no bytes, so there are no columns of them."""
    publish(site)

    heads = [say(*site.run("stats", *words)).out for words in ([], ["--since", "1h"])]

    assert [bool(re.search(r"^group .*written", out, re.MULTILINE)) for out in heads] == [True, False]


def test_nobody_publishes(say, site):
    """Then it says how a process would, and the exit code is 1."""
    for words in (["stats"], ["stats", "--since", "1h"], ["top", "--once"]):
        said = say(*site.run(*words))
        assert (said.code, said.out) == (1, "")
        assert "no process has published figures" in said.err
        assert say(*site.run(*words, "--json")).document["missing"] == []


def test_no_server(say):
    """The exit code is 2, also in JSON; no password is shown."""
    url = f"redis://:{SECRET}@127.0.0.1:{unused_port()}/0"
    for words in (["stats"], ["stats", "--since", "1h"], ["top", "--once"]):
        said, found = say(*words, url), say(*words, url, "--json")
        assert (said.code, said.out, found.code) == (2, "", 2)
        assert "127.0.0.1" in said.err
        assert "127.0.0.1" in found.document["error"]
        assert SECRET not in said.err + found.out


def test_a_cluster_with_a_node_away(say):
    """What is known is shown, and what is missing is named."""
    with cluster(replicas=0) as servers:
        url = f"{servers.url()}?key_prefix=p&socket_timeout=1"
        site = Site(Cache.from_url(url), url, servers)
        for _ in range(24):
            publish(site)
        servers.nodes[0].kill()

        said, found = say(*site.run("stats")), say(*site.run("stats", "--json"))

    assert (said.code, found.code) == (0, 0)
    assert 0 < len(found.document["workers"]) < 24
    assert "fleetcache: not complete: " in said.err
    assert f"127.0.0.1:{servers.nodes[0].port}" in found.document["missing"][0]


@pytest.mark.parametrize("text, seconds", [("90s", 90), ("30m", 1800), ("1.5h", 5400), ("1d", 86400)], ids=str)
def test_ages(text, seconds):
    """A number and a unit."""
    assert age(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "-1", "5", "90", "2d", "1w", "h", "1h30m", "nan", "9" * 30])
def test_wrong_ages(text):
    """Anything else is refused; a day is kept."""
    with pytest.raises(argparse.ArgumentTypeError, match="a time up to one day"):
        age(text)


# --- rates ----------------------------------------------------------------------------------------


def worker(name: str, at: float, started: float = 0.0, **parts) -> Worker:
    words = {"host": "h", "pid": int(name), "version": "1", "digest": "d", "interval": 10.0}
    return Worker(name=name, started=started, at=at, published=snapshot(**parts), **words)


def fleet(*workers: Worker) -> Fleet:
    return Fleet(workers=list(workers), totals=total(w.snapshot for w in workers), missing=[], at=0.0)


def test_rates_are_those_between_publications():
    """A process counts with the difference of its two latest publications, whenever they were read."""
    rates = Rates()
    rates.pace(fleet(worker("1", 10, groups={"g": group(near=100)}), worker("2", 10, groups={"g": group(near=0)})))

    first = rates.pace(
        fleet(worker("1", 20, groups={"g": group(near=150)}), worker("2", 10, groups={"g": group(near=0)}))
    )
    again = rates.pace(
        fleet(worker("1", 20, groups={"g": group(near=150)}), worker("2", 15, groups={"g": group(near=50)}))
    )

    assert first.groups["g"]["near"] == 5
    assert first.since_start == 1
    assert again.groups["g"]["near"] == again.totals["reads"] == 15
    assert again.since_start == 0
    assert again.workers["h:1"]["near"] == 5


def test_rates_of_a_process_seen_once():
    """It counts with its average since it began to count, not to publish."""
    pace = Rates().pace(
        fleet(worker("1", at=110, started=109, since=100.0, groups={"g": group(near=50)}, errors={"ServerGone": 20}))
    )

    assert pace.groups["g"]["near"] == 5
    assert pace.errors == {"ServerGone": 2}
    assert pace.since_start == 1


def test_rates_on_one_basis():
    """All processes by their averages, or only those that were seen twice."""
    rates = Rates()
    old = worker("2", 10, since=0.0, groups={"g": group(near=1000)})
    rates.pace(fleet(worker("1", 10, since=0.0, groups={"g": group(near=100)}), old))
    both = fleet(worker("1", 20, since=0.0, groups={"g": group(near=150)}), old)

    now, start = rates.pace(both, "now"), rates.pace(both, "start")

    assert (now.totals["near"], now.since_start, now.left_out) == (5, 0, 1)
    assert (start.totals["near"], start.since_start, start.left_out) == (7.5 + 100, 2, 0)


def test_rates_of_a_process_that_began_anew():
    """It counts with its average since it began."""
    rates = Rates()
    rates.pace(fleet(worker("1", 10, since=0.0, groups={"g": group(near=100)})))

    pace = rates.pace(fleet(worker("1", 20, since=17.0, groups={"g": group(near=30)})))

    assert pace.groups["g"]["near"] == 10


def test_rates_of_a_counter_that_falls():
    """A miss that became a stale read is no miss any more; no rate is negative, nor that of all misses."""
    rates = Rates()
    rates.pace(fleet(worker("1", 10, groups={"g": group(missed=100_000, stale=0)})))

    pace = rates.pace(fleet(worker("1", 20, groups={"g": group(missed=99_999, stale=10)})))

    assert (pace.groups["g"]["missed"], pace.groups["g"]["stale"]) == (0, 1)


def test_rates_of_processes_with_one_name():
    """Containers may have the same host name and number of the process; their rates are added up."""
    pace = Rates().pace(fleet(*(worker(name, 10, since=0.0, groups={"g": group(near=100)}) for name in ("1", "01"))))

    assert pace.workers["h:1"]["near"] == pace.groups["g"]["near"] == 20


def test_rates_of_saved_time():
    """Hits save what a load takes on average, also while nothing is loaded."""
    rates = Rates()
    rates.pace(fleet(worker("1", 10, groups={"g": group(near=100, saved=30)})))

    pace = rates.pace(fleet(worker("1", 20, groups={"g": group(near=200, saved=40)})))

    assert pace.groups["g"]["saved"] == pytest.approx(10 * 0.2)


def test_latencies_of_the_moment():
    """The percentiles are those of what was timed between the publications."""
    rates = Rates()
    old = {"GET": {"calls": 100, "errors": 0, "latency": latency((0.001, 100), (0.5, 1))}}
    new = {"GET": {"calls": 200, "errors": 2, "latency": latency((0.001, 100), (0.01, 100), (0.5, 1))}}
    rates.pace(fleet(worker("1", 10, commands=old)))

    pace = rates.pace(fleet(worker("1", 20, commands=new)))

    found = pace.commands["GET"]
    assert (found["calls"], found["errors"]) == (10, 0.2)
    assert [found[word] for word in ("p50", "p95", "p99")] == [pytest.approx(0.01, rel=0.2)] * 3


# --- top ------------------------------------------------------------------------------------------


def test_top_once(say, site):
    """``--once`` writes one screen, for scripts."""
    publish(site, advice=RISING)

    said = say(*site.run("top", "--once", "--interval", "0.1"))
    found = say(*site.run("top", "--json", "--interval", "0.1")).document

    assert said.code == 0
    assert said.out.startswith(
        f"fleetcache top   {site.cache.key_prefix} at 127.0.0.1:{site.server.port}/12   1 process   "
    )
    assert re.search(r"^users +\S+/s +90.0 %", said.out, re.MULTILINE)
    assert re.search(r"^near size: At 128 MB the near hit ratio would be 80 %", said.out, re.MULTILINE)
    assert "\x1b" not in said.out
    assert found.keys() == {
        *("at", "processes", "since_start", "totals", "groups", "commands", "errors", "advice", "workers", "missing"),
        *("basis", "left_out"),
    }
    assert (found["basis"], found["since_start"], found["left_out"]) == ("start", 1, 0)
    assert "all rates are averages since each process began" in said.out


def test_top_once_says_one_thing(say, site, monkeypatch):
    """Rates of the moment are not mixed with averages of all time: it waits for publications, and leaves out who sends none."""
    began = time.time() - 1000
    one = publisher(Source(site.cache, snapshot(groups={"users": group(near=1_000_000)}, since=began)))
    silent = publisher(Source(site.cache, snapshot(groups={"users": group(near=9_000_000)}, since=began)))
    one.publish()
    silent.publish()
    slept = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 2:
            one.source().figures["groups"]["users"]["near"] += 5
            one.publish()
        monkeypatch.setattr(top.time, "monotonic", lambda now=time.monotonic() + 1000 * (len(slept) > 5): now)

    monkeypatch.setattr(top.time, "sleep", sleep)

    found = say(*site.run("top", "--json")).document

    assert (found["basis"], found["processes"], found["since_start"], found["left_out"]) == ("now", 2, 0, 1)
    assert 0 < found["totals"]["near"] < 10_000  # an average would be 1,000 and more by the other process alone
    assert len(found["workers"]) == 1
    assert len(slept) == 6


def test_top_once_ends_when_all_have_published(say, site, monkeypatch):
    """It does not wait for longer than necessary, and says nothing of averages."""
    one = publisher(Source(site.cache, snapshot(groups={"users": group(near=100)})))
    one.publish()
    slept = []
    monkeypatch.setattr(top.time, "sleep", lambda seconds: (slept.append(seconds), one.publish()))

    said = say(*site.run("top", "--once"))

    assert len(slept) == 1
    assert "average" not in said.out and "not counted" not in said.out


@pytest.mark.parametrize("by", ["group", "command", "worker"])
def test_a_screen_fits(site, by):
    """No more lines than there is room for, however many groups there are."""
    groups = {f"g{number}": group(near=number) for number in range(100)}
    call = Call(argparse.Namespace(url=site.url))
    seen = fleet(worker("1", 10, groups=groups))

    assert len(lines(call, seen, Rates().pace(seen), by, os.terminal_size((200, 12)))) <= 12
    assert "g99" in "\n".join(lines(call, seen, Rates().pace(seen), "group", os.terminal_size((200, 12))))


class Terminal:
    """A terminal on which a command runs."""

    def __init__(self, *words: str, rows: int = 24, columns: int = 80, **env: str) -> None:
        import fcntl
        import termios

        self.own, self.its = pty.openpty()
        fcntl.ioctl(self.its, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.before = termios.tcgetattr(self.its)
        command = [sys.executable, "-W", "error", "-m", "fleetcache", *words]
        self.process = subprocess.Popen(
            command,
            stdin=self.its,
            stdout=self.its,
            stderr=self.its,
            env=environment(**{"TERM": "xterm", **env}),
            start_new_session=True,
        )
        self.written = b""

    def read_until(self, text: str, patience: float = 30.0) -> str:
        """Return all that was written, as soon as *text* is in it."""
        import select

        deadline = time.monotonic() + patience
        while text.encode() not in self.written:
            assert time.monotonic() < deadline, self.written
            if select.select([self.own], [], [], 0.1)[0]:
                with suppress(OSError):
                    self.written += os.read(self.own, 65536)
        return self.written.decode()

    def press(self, keys: str) -> None:
        os.write(self.own, keys.encode())

    def end(self) -> int:
        """Return the exit code; what was written last is in ``written``."""
        import select

        deadline = time.monotonic() + 30
        while self.process.poll() is None or select.select([self.own], [], [], 0.05)[0]:
            assert time.monotonic() < deadline
            if select.select([self.own], [], [], 0.05)[0]:
                try:
                    self.written += os.read(self.own, 65536)
                except OSError:
                    break
        return self.process.wait(10)


@contextmanager
def terminal(*words: str, **kwargs):
    """A command on a terminal; afterwards the terminal is as it was."""
    import termios

    shown = Terminal(*words, **kwargs)
    try:
        yield shown
        assert termios.tcgetattr(shown.its) == shown.before
    finally:
        shown.process.kill()
        shown.process.wait()
        os.close(shown.own)
        os.close(shown.its)


@pytest.mark.parametrize("ends", ["q", "interrupt", "terminate"])
def test_top_on_a_terminal(site, ends):
    """It has a screen of its own, shows other tables on a key, and leaves the terminal as it was."""
    publish(site)
    with terminal(*site.run("top", "--interval", "0.5")) as shown:
        shown.read_until("users")
        shown.press("c")
        shown.read_until("p99")
        shown.press("w")
        written = shown.read_until("process  ")
        if ends == "q":
            shown.press("q")
        else:
            shown.process.send_signal(signal.SIGINT if ends == "interrupt" else signal.SIGTERM)

        assert shown.end() == (128 + signal.SIGTERM if ends == "terminate" else 0)
        assert written.startswith("\x1b[?1049h")
        assert shown.written.endswith(b"\x1b[?7h\x1b[?25h\x1b[?1049l")
        assert b"Traceback" not in shown.written


def test_top_in_a_small_terminal(site):
    """No line is longer than the terminal is wide, and no screen higher."""
    publish(site, groups={f"g{number}": group(near=number) for number in range(100)})
    with terminal(*site.run("top", "--interval", "0.3"), rows=10, columns=40) as shown:
        written = shown.read_until("g99")
        shown.press("q")
        assert shown.end() == 0

    screen = written.split("\x1b[H")[1].split("\x1b[J")[0]
    rows = [re.sub(r"\x1b\[[\d;]*[mK]", "", line) for line in screen.split("\r\n")]
    assert len(rows) <= 10
    assert max(map(len, rows)) <= 40


def test_top_shows_whole_sentences_in_eighty_columns(site):
    """The advice on the size of near caches is longer, and goes on in the next line."""
    publish(site, advice=RISING)
    with terminal(*site.run("top", "--interval", "0.3"), rows=24, columns=80) as shown:
        written = shown.read_until("users")
        shown.press("q")
        assert shown.end() == 0

    assert "it is 70 %." in " ".join(re.sub(r"\x1b\[[\d;]*[mK]", "", written).split())


def test_keys_fit_the_terminal(site):
    """A long key is cut; in a file it stands whole."""
    key = f"pages:{'x' * 150}"
    publish(site, top={"hits": [[key, 5]], "bytes": [], "seconds": []})

    with terminal(*site.run("stats", "--by", "key", "--show-keys"), columns=80) as shown:
        shown.end()
    lines = re.sub(r"\x1b\[[\d;]*[mK]", "", shown.written.decode()).splitlines()
    (cut,) = [line for line in lines if line.startswith("pages:")]

    assert len(cut) <= 80 and cut.split()[0].endswith("…") and cut.split()[1] == "5"
    assert key in say_whole(site)


def say_whole(site):
    """What the same command writes into a pipe."""
    words = [sys.executable, "-m", "fleetcache", *site.run("stats", "--by", "key", "--show-keys")]
    return subprocess.run(words, capture_output=True, text=True, check=True, env=environment()).stdout


def test_top_on_a_dumb_terminal(site):
    """One screen below the other, without escapes; NO_COLOR forbids colours on any."""
    publish(site)
    with terminal(*site.run("top", "--interval", "0.3"), TERM="dumb") as shown:
        written = shown.read_until("users")
        shown.process.send_signal(signal.SIGINT)
        assert shown.end() == 0
    assert "\x1b" not in written
    with terminal(*site.run("stats"), NO_COLOR="1") as plain, terminal(*site.run("stats")) as coloured:
        plain.end(), coloured.end()
        assert b"\x1b[1m" in coloured.written
        assert b"\x1b" not in plain.written


def test_top_through_an_outage(site, valkey):
    """While the server is away it goes on, and says so."""
    from fleetcache.testing import FaultProxy

    publish(site)
    with FaultProxy(("127.0.0.1", valkey.port)) as proxy:
        url = f"redis://127.0.0.1:{proxy.port}/12?key_prefix={site.cache.key_prefix}&socket_timeout=0.3"
        with terminal("top", url, "--interval", "0.3", columns=120) as shown:
            shown.read_until("users")
            proxy.hold()
            shown.read_until("not complete")
            proxy.heal()
            shown.written = b""
            shown.read_until("users")
            shown.press("q")
            assert shown.end() == 0


def test_top_in_a_pipe(site):
    """A reader that has enough ends it."""
    publish(site)
    words = [sys.executable, "-W", "error", "-m", "fleetcache", *site.run("top", "--interval", "0.2")]
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    ) as process:
        assert process.stdout.readline().startswith("fleetcache top")
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(30) == 0


def test_json_of_what_is_not_finite(site):
    """The document is JSON, which has no infinity."""
    publish(site, groups={"users": group(near=1)})

    ran = subprocess.run(
        [sys.executable, "-m", "fleetcache", *site.run("stats", "--json")],
        capture_output=True,
        text=True,
        check=True,
        env=environment(),
    )

    json.loads(ran.stdout, parse_constant=lambda name: pytest.fail(name))


@pytest.mark.parametrize("shows", [False, True])
def test_keys_of_the_audit_are_masked(shows):
    """In JSON, too, keys are shown only with --show-keys."""
    events = [{"key": "user:ann", "promise": "bound"}]
    fleet = Fleet(workers=[], totals={"audit": {"compared": 1, "events": events}}, missing=[], at=0.0)

    written = json.dumps(document(SimpleNamespace(arguments=SimpleNamespace(show_keys=shows)), fleet))

    assert ("user:ann" in written) is shows
    assert "bound" in written
