"""The demo's arithmetic, its report, and one scene played by real sites."""

from __future__ import annotations

import errno
import importlib
import io
import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.admin import browser
from tests.waiting import until

from fleetcache.errors import ServerNotFound

HOME = Path(__file__).parent.parent / "demo"
MODULES = ("findings", "load", "pairs", "plots", "report", "run", "screen", "sites", "stage")

pytestmark = pytest.mark.newest


@pytest.fixture(scope="module")
def demo() -> Iterator[Any]:
    """The demo's modules, which find each other in their own directory."""
    before = set(sys.modules)
    sys.path.insert(0, str(HOME))
    try:
        found = {name: importlib.import_module(name) for name in MODULES}
        scenes = {name: importlib.import_module(f"scenes.{name}") for name in found["run"].SCENES}
        yield SimpleNamespace(**found, **scenes)
    finally:
        sys.path.remove(str(HOME))
        for name in set(sys.modules) - before:
            if str(HOME) in str(getattr(sys.modules[name], "__file__", "")):
                del sys.modules[name]


def turn(demo: Any, pages: int = 10, cpu: float = 0.02, taken: float = 0.01) -> Any:
    """A round on one site: *taken* are the seconds of each page, *cpu* those of the workers for all pages."""
    report = demo.load.Report(seconds=1.0, latencies=[taken] * pages)
    return demo.pairs.Round(report, cpu, 10 * pages, 0.0)


def pairs_of(demo: Any, *rounds: tuple[float, float]) -> Any:
    """Rounds of ten pages in which one site and the other needed some milliseconds for a page, of CPU and of time."""
    found = [tuple(turn(demo, 10, taken / 100, taken / 1000) for taken in pair) for pair in rounds]
    return demo.pairs.Pairs(found, (turn(demo, 10), turn(demo, 5)))


def judged(demo: Any, won: int, lost: int, equal: int = 0) -> Any:
    """What is said of a site that needed less in some rounds, more in others, and as good as equal in the rest."""
    rounds = [(2.0, 1.5)] * won + [(2.0, 2.2)] * lost + [(2.0, 1.95)] * equal
    return demo.switch.judged(pairs_of(demo, *rounds), "A page", "The median page")


def outcome(demo: Any, **changes: Any) -> Any:
    """What a scene found."""
    pairs = pairs_of(demo, *[(3.0, 2.0)] * 3)
    facts = {
        "scene": "switch",
        "question": "Is 1 < 2 & why?",
        "number": "1.50×",
        "meaning": "the pages",
        "claims": [demo.findings.Claim("It is faster.", True)],
        "table": [["", "one", "other"], ["pages", "100", "150"]],
        "plot": demo.switch.plot(pairs, "cost", (("one", "old"), ("other", "new"))),
        "caption": "Ringed: <one>.",
        "chart": ["▁▂"],
        "setup": "BACKEND",
    }
    return demo.findings.Outcome(**facts | changes)


def report_of(demo: Any, visits: list[tuple[float, float]]) -> Any:
    """What visitors saw who came at some moments, for some seconds each."""
    return demo.load.Report(
        began=visits[0][0], moments=[began for began, _ in visits], latencies=[taken for _, taken in visits]
    )


# ---- Figures ----


def test_columns_are_of_the_round_with_the_median_ratio(demo: Any) -> None:
    """The columns and the ratio of a row belong together, whatever the other rounds are."""
    pairs = pairs_of(demo, (10, 11), (4, 3), (10, 1))

    assert pairs.chosen("cost") == 1
    assert pairs.median("cost") == pytest.approx((4, 3, 0.75))
    assert pairs.percentile(0.99) == pytest.approx((10, 11, 1.1))
    assert pairs.asked == (10, 10, 1)


@pytest.mark.parametrize(("count", "wins"), [(3, 4), (7, 8), (8, 8), (15, 13), (21, 17), (504, 282)])
def test_a_claim_needs_more_wins_than_equal_sites_have_by_chance(demo: Any, count: int, wins: int) -> None:
    """All outcomes of fair coins are counted; some comparisons are too few for any claim."""
    assert demo.pairs.needed(count) == wins
    if count <= 15:
        often = sum(number.bit_count() >= wins for number in range(2**count)) / 2**count
        less = sum(number.bit_count() >= wins - 1 for number in range(2**count)) / 2**count
        assert often <= 0.005 < less


@pytest.mark.parametrize(
    ("won", "lost", "equal", "holds"),
    [
        (21, 0, 0, True),
        (17, 4, 0, True),
        (16, 5, 0, None),
        (16, 0, 5, None),
        (11, 10, 0, None),
        (4, 17, 0, False),
        (0, 21, 0, False),
        (0, 0, 21, None),
        (3, 0, 0, None),
    ],
)
def test_claims_hold_if_enough_rounds_agree(demo: Any, won: int, lost: int, equal: int, holds: bool | None) -> None:
    """The same number of rounds is needed to say that a site is better, and to say that it is worse."""
    cost, _time = judged(demo, won, lost, equal).claims

    assert cost.holds is holds


@pytest.mark.parametrize(("won", "lost", "holds"), [(14, 7, True), (11, 10, None), (7, 14, False)])
def test_times_are_compared_page_by_page(demo: Any, won: int, lost: int, holds: bool | None) -> None:
    """210 pages that were opened on both sites, ten in a round, prove more than 21 rounds."""
    _cost, time = judged(demo, won, lost).claims

    assert demo.pairs.needed(210) == 125
    assert time.holds is holds


def test_a_ratio_that_comparisons_do_not_share_is_not_judged(demo: Any) -> None:
    """Most pages came sooner, and yet half of all take more time: neither is claimed."""
    score = demo.pairs.Score(won=20, lost=1, count=21)

    assert demo.switch.agreed(0.9, score) is True
    assert demo.switch.agreed(1.1, score) is None


def test_claims_say_how_many_rounds_agree(demo: Any) -> None:
    """The headline has the figure of the claim; one that is not judged says so with its rounds."""
    better, mixed, worse = judged(demo, 19, 2), judged(demo, 12, 9), judged(demo, 2, 19)

    assert (better.figure, better.number, better.meaning) == ("cost", "25 %", "less CPU for a page")
    assert better.claims[0].text == "A page costs 25 % less CPU (19 of 21 rounds)."
    assert better.claims[1].text == "The median page takes 25 % less time (190 of 210 visits)."
    assert mixed.meaning == "less CPU for a page in 12 of 21 rounds"
    assert mixed.claims[0].text == (
        "A page costs 25 % less CPU (12 of 21 rounds; 17 are needed, so this is not judged)."
    )
    assert (worse.number, worse.meaning) == ("1.10×", "the CPU for a page")
    assert worse.claims[0].text == "A page costs 1.10× the CPU (19 of 21 rounds)."


def test_a_system_that_does_not_tell_the_cpu_is_judged_by_the_time(demo: Any) -> None:
    """Only Linux tells what the workers used; elsewhere nothing is said of it."""
    rounds = [(turn(demo, cpu=float("nan")), turn(demo, cpu=float("nan"), taken=0.008))] * 21
    pairs = demo.pairs.Pairs(rounds, (turn(demo), turn(demo)))

    verdict = demo.switch.judged(pairs, "A page", "The median page")

    assert (verdict.number, verdict.meaning) == ("20 %", "less time for the median page")
    assert [claim.text for claim in verdict.claims] == ["The median page takes 20 % less time (210 of 210 visits)."]


def test_visitors_open_each_page_on_both_sites(demo: Any) -> None:
    """One right after the other, and either site is the first as often."""
    pages = [("/a", []), ("/b", []), ("/c", [])]

    steps = [(port, path) for port, (path, _) in demo.load.side_by_side([1, 2], pages, 0)]

    assert steps == [(1, "/a"), (2, "/a"), (2, "/b"), (1, "/b"), (1, "/c"), (2, "/c")]
    assert next(demo.load.side_by_side([1, 2], pages, 1))[0] == 2


class Page(BaseHTTPRequestHandler):
    """A site with one page."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer, and close the connection."""
        self.send_response(200)
        self.send_header("Content-Length", "4")
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(b"page")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_visitors_wait_between_rounds(tmp_path: Path) -> None:
    """A round begins with a line and ends with a report of each site, of the same pages; visitors end with the demo."""
    pages = tmp_path / "pages.json"
    pages.write_text('{"/": ["page"]}')
    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as one, ThreadingHTTPServer(("127.0.0.1", 0), Page) as other:
        for server in (one, other):
            threading.Thread(target=server.serve_forever, daemon=True).start()
        ports = [str(server.server_address[1]) for server in (one, other)]
        command = [sys.executable, str(HOME / "load.py"), str(pages), *ports]
        command += ["--rounds=3", "--seconds=0.01", "--least=8"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as load:
            assert load.stdin
            assert load.stdout
            assert load.stdout.readline() == "begun\n"
            for _ in range(2):
                load.stdin.write("\n")
                here, there = json.loads(load.stdout.readline())
                assert len(here["latencies"]) == len(there["latencies"]) >= 8
                assert here["errors"] == there["errors"] == []
            load.stdin.close()
            assert load.wait(20) == 0
        for server in (one, other):
            server.shutdown()


def test_outage_counts_pages_that_arrive_in_the_silence(demo: Any) -> None:
    """Pages before and after do not count; the slowest may have begun before, or ended after."""
    silence = demo.outage.Silence(10.0, 14.0)
    report = report_of(demo, [(9.0, 0.5), (9.9, 0.6), (11.0, 0.1), (11.2, 4.0), (15.0, 9.0)])

    assert silence.answered(report) == 2
    assert silence.slowest(report) == pytest.approx(4.0)
    assert silence.slowest_later(report) == pytest.approx(4.0)


def test_outage_tells_both_counts(demo: Any) -> None:
    """The number, the claims and the table have the same figures; with equal counts the claim does not hold."""
    silence = demo.outage.Silence(10.0, 14.0)
    blocked = report_of(demo, [(9.0, 0.1), (9.9, 4.5)])
    serving = report_of(demo, [(9.0, 0.1), (9.9, 0.6), *((10.5 + 0.1 * n, 0.1) for n in range(20))])

    found = demo.outage.outcome(silence, [blocked, serving], 0.3)
    same = demo.outage.outcome(silence, [blocked, blocked], 0.3)

    assert found.number == "21 pages instead of 0"
    assert found.holds
    assert found.table[1][1:] == ["0", "21"]
    assert found.table[2][1:] == ["4.5", "0.6"]
    assert [claim.holds for claim in same.claims] == [False, False]


@pytest.mark.parametrize(("later", "waited"), [(0.12, False), (0.5, True)])
def test_outage_explains_its_dips(demo: Any, later: float, waited: bool) -> None:
    """Only if no later page took as long as a time-out, none is said to have waited for the server."""
    caption = demo.outage.caption(later, 0.55)

    assert ("none waited" in caption) is not waited
    assert f"{1000 * later:.0f} ms" in caption
    assert "55 % of the CPU" in caption
    assert "dips" not in demo.outage.caption(later, 0.05)


def test_stampede_compares_runs_with_expiries(demo: Any) -> None:
    """A function that ran more often than the page can have expired is not said to run once for each expiry."""
    visits = report_of(demo, [(5.0, 0.9), (5.5, 0.1)])
    quick = report_of(demo, [(5.0, 0.2), (5.5, 0.1)])
    many = demo.stampede.Seen(visits, 1.0, [0.1 * n for n in range(9)])
    once = demo.stampede.Seen(quick, 1.0, [0.1, 0.6])
    often = demo.stampede.Seen(quick, 1.0, [0.1, 0.2, 0.3, 0.9])

    assert once.needed == 3
    assert demo.stampede.outcome([many, once, once]).holds
    assert demo.stampede.outcome([many, once, once]).number == "1 instead of 9"
    assert (many.expiries, once.expiries, often.expiries) == (1, 2, 2)
    assert "2 times for 2 expiries; django-redis: 9 times for 1 expiry" in (
        demo.stampede.outcome([many, once, once]).claims[0].text
    )
    assert [claim.holds for claim in demo.stampede.outcome([many, often, once]).claims] == [False, True]


def test_rollback_needs_reads_of_the_other_side(demo: Any) -> None:
    """Without such a read on the way back, or with a miss, the claim does not hold."""
    mixed = demo.load.Report(readings={"fleetcache django-redis": 3, "django-redis fleetcache": 2})
    back = demo.load.Report(readings={"django-redis fleetcache": 4})

    assert demo.rollback.outcome(mixed, back, 0, []).holds
    assert "9 reads" in demo.rollback.outcome(mixed, back, 0, []).meaning
    assert not demo.rollback.outcome(mixed, demo.load.Report(), 0, []).holds
    assert not demo.rollback.outcome(mixed, back, 1, []).holds


# ---- Plots, the terminal, the report ----


@pytest.mark.parametrize("most", [0.0, 0.3, 1.0, 3.2, 99.0, 1234.0])
def test_axis_covers_its_values(demo: Any, most: float) -> None:
    """The ticks are even, begin at zero, and end above the greatest value."""
    ticks = demo.plots.ticks(most)

    assert ticks[0] == 0
    assert ticks[-1] >= most
    assert len(ticks) <= 7


def test_labels_keep_their_distance(demo: Any) -> None:
    """Labels that would overlap are moved, and stay in their order."""
    assert demo.plots.apart([50, 51], 20, 0, 100) == [50, 70]
    assert demo.plots.apart([99, 98], 20, 0, 100) == [100, 80]
    assert demo.plots.apart([10, 90], 20, 0, 100) == [10, 90]


@pytest.mark.parametrize(("count", "said"), [(0, "0 misses"), (1, "1 miss"), (1200, "1,200 misses")])
def test_counts_agree_with_their_nouns(demo: Any, count: int, said: str) -> None:
    """One thing is in the singular."""
    assert demo.findings.many(2, "expiry") == "2 expiries"
    assert demo.findings.many(count, "miss") == said


def test_blocks(demo: Any) -> None:
    """The longest bar has the whole width, and the highest column is full."""
    assert demo.screen.bar(1, 2, 4) == "██"
    assert demo.screen.bar(2, 2, 4) == "████"
    assert demo.screen.spark([0, 1, 8]) == " ▂█"


def test_progress_moves_on_terminals_only(demo: Any) -> None:
    """Others get a line when a step begins, and no control characters."""
    stream = io.StringIO()
    with demo.screen.Screen(stream).step("loading", 2):
        pass

    terminal = io.StringIO()
    screen = demo.screen.Screen(terminal)
    screen.moves = True
    drawn = threading.Event()
    terminal.flush = drawn.set  # type: ignore[method-assign]
    with screen.step("loading", 2):
        assert drawn.wait(10)

    assert stream.getvalue() == "   … loading\n"
    assert terminal.getvalue().endswith("loading\x1b[K\r\x1b[K")


def test_report_needs_nothing_else(demo: Any) -> None:
    """It has no script and asks for no other file; text is escaped; a claim that does not hold is marked."""
    doubtful = outcome(demo, claims=[demo.findings.Claim("It is <not> faster.", False)])

    text = demo.report.page([outcome(demo), doubtful], ["Python"], [("near", "it broke")])

    assert "<script" not in text
    assert not re.search(r"(?:src|href)=|url\(|@import|https?://", text)
    assert "Is 1 &lt; 2 &amp; why?" in text
    assert '<li class="not">It is &lt;not&gt; faster.' in text
    assert "it broke" in text
    assert '<p class="caption">Ringed: &lt;one&gt;.</p>' in text
    assert "prefers-color-scheme: dark" in text


@pytest.mark.parametrize("dark", [False, True])
def test_report_opens_in_chromium(demo: Any, tmp_path: Path, dark: bool) -> None:
    """The browser finds nothing to complain of, shows the plot, and has the colours that its user prefers."""
    path = demo.report.write(demo.report.page([outcome(demo)], ["Python"]), tmp_path / "some" / "report.html")

    with suppress(ServerNotFound), browser.chromium() as driver:
        browser.dark(driver, dark)

        driver.get(path.as_uri())

        assert browser.said(driver) == []
        others = ("chrome:", "chrome-untrusted:", "data:")  # of the browser's own first page
        assert [url for url in browser.requested(driver) if not url.startswith(others)] == [path.as_uri()]
        assert driver.find_element("css selector", "svg").rect["width"] > 300
        colour = driver.find_element("css selector", "body").value_of_css_property("background-color")
        assert (int(re.findall(r"\d+", colour)[0]) < 60) is dark
        assert driver.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")


# ---- The run ----


def scene(play: Any) -> Any:
    """A scene without sites."""
    return SimpleNamespace(NAME="", QUESTION="Well?", SHARE=0.5, SITES=(), play=play)


def test_a_scene_that_fails_does_not_stop_the_others(demo: Any, monkeypatch: Any, tmp_path: Path) -> None:
    """Its error is shown, the next scene is played, and the exit code is 1."""

    def fail(stage: Any, seconds: float) -> Any:
        raise demo.sites.DemoError("the site is ill")

    stream = io.StringIO()
    scenes = {"switch": scene(fail), "near": scene(lambda stage, seconds: outcome(demo, number=f"{seconds}"))}
    monkeypatch.setattr(demo.run, "SCENES", scenes)
    path = tmp_path / "report.html"

    code = demo.run.Demo(demo.screen.Screen(stream), 8, path).play(["switch", "near"])

    assert code == 1
    assert "the site is ill" in stream.getvalue()
    assert "4.0 the pages" in stream.getvalue()
    assert "the site is ill" in path.read_text()


@pytest.mark.parametrize(
    ("changes", "code", "said"),
    [
        ({}, 0, "ok  It is faster."),
        ({"faults": ["a page was wrong"]}, 1, "FAULT a page was wrong"),
    ],
)
def test_exit_code_is_of_faults(
    demo: Any, monkeypatch: Any, tmp_path: Path, changes: Any, code: int, said: str
) -> None:
    """A wrong page is an error of the run; the lines fit into the screen."""
    stream = io.StringIO()
    monkeypatch.setattr(demo.run, "SCENES", {"switch": scene(lambda stage, seconds: outcome(demo, **changes))})

    found = demo.run.Demo(demo.screen.Screen(stream), 8, tmp_path / "report.html").play(["switch"])

    assert found == code
    assert said in stream.getvalue()
    assert max(map(len, stream.getvalue().splitlines()[:-1])) <= demo.screen.WIDTH


@pytest.mark.parametrize(
    ("holds", "sign", "doubt"), [(False, "NOT", "the pages  does not hold"), (None, "–  ", "the pages  not all judged")]
)
def test_claims_that_do_not_hold_are_no_error(
    demo: Any, monkeypatch: Any, tmp_path: Path, holds: bool | None, sign: str, doubt: str
) -> None:
    """The run ends well, and says plainly what does not hold, and what is not judged."""
    stream = io.StringIO()
    slower = [demo.findings.Claim("It is not faster: 0.90 times.", holds)]
    monkeypatch.setattr(demo.run, "SCENES", {"switch": scene(lambda stage, seconds: outcome(demo, claims=slower))})

    code = demo.run.Demo(demo.screen.Screen(stream), 8, tmp_path / "report.html").play(["switch"])

    assert code == 0
    assert f"{sign} It is not faster: 0.90 times." in stream.getvalue()
    assert doubt in stream.getvalue()


def test_one_scene_runs_for_real(tmp_path: Path) -> None:
    """Two real sites share the keys without a miss, and the report says where it lies."""
    path = tmp_path / "report.html"
    command = [sys.executable, str(HOME / "run.py"), "--scene", "rollback", "--seconds", "8", "--report", str(path)]

    run = subprocess.run(command, capture_output=True, text=True, timeout=200)

    assert run.returncode == 0, run.stdout + run.stderr
    assert "0 misses, 0 errors" in " ".join(run.stdout.split())
    assert str(path) in run.stdout
    assert "\x1b" not in run.stdout
    assert "<svg" in path.read_text()


def test_sites_end_with_a_demo_that_was_killed(tmp_path: Path) -> None:
    """A process that is killed stops nothing: its sites see the end of the pipe that it held."""
    program = """
import sys
from pathlib import Path
from sites import AFTER, Site
site = Site("atlas", AFTER, "memory://", Path(sys.argv[1]), {})
site.wait_until_ready()
print(site.port, flush=True)
sys.stdin.read()
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(HOME), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-c", program, str(tmp_path)]
    killed = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
    with killed:
        assert killed.stdout
        port = int(killed.stdout.readline())
        killed.kill()

    def refused() -> bool:
        with socket.socket() as visitor:
            return visitor.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED

    until(refused)
