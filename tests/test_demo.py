"""The demo's arithmetic, its report, and one scene played by real sites."""

from __future__ import annotations

import errno
import importlib
import io
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.admin import browser
from tests.waiting import until

from fleetcache.errors import ServerNotFound

HOME = Path(__file__).parent.parent / "demo"
MODULES = ("findings", "load", "plots", "report", "run", "screen", "sites", "stage")

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


def turn(demo: Any, pages: int, cpu: float, others: float = 0.0) -> Any:
    """A round of one second."""
    report = demo.load.Report(seconds=1.0, latencies=[0.01] * pages)
    return demo.stage.Round(report, cpu, 10 * pages, others)


def outcome(demo: Any, **changes: Any) -> Any:
    """What a scene found."""
    pairs = demo.stage.Pairs([(turn(demo, 100, 0.3), turn(demo, 150, 0.2))] * 3)
    facts = {
        "scene": "switch",
        "question": "Is 1 < 2 & why?",
        "number": "1.50×",
        "meaning": "the pages",
        "claims": [demo.findings.Claim("It is faster.", True)],
        "table": [["", "one", "other"], ["pages", "100", "150"]],
        "plot": demo.switch.plot(pairs, "rate", (("one", "old"), ("other", "new"))),
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


def test_columns_are_of_the_pair_with_the_median_ratio(demo: Any) -> None:
    """The columns and the ratio of a row belong together, whatever the other rounds are."""
    rounds = [(100, 110), (1000, 1500), (10, 90)]
    pairs = demo.stage.Pairs([(turn(demo, one, 1), turn(demo, other, 1)) for one, other in rounds])

    assert pairs.median("rate") == (1000, 1500, 1.5)
    assert pairs.chosen("rate") == 1
    assert pairs.median("asked") == (10, 10, 1)


@pytest.mark.parametrize("seconds", [0.1, 1.2, 1.6, 4, 60])
def test_rounds_are_odd_in_number_and_keep_to_the_time(demo: Any, seconds: float) -> None:
    """One pair has the median ratio, and all rounds together take the time they are given."""
    count, span = demo.stage.turns(seconds)

    assert count % 2 == 1
    assert count >= 3
    assert 2 * count * span == pytest.approx(seconds)


def test_claims_of_a_quiet_machine_are_by_the_clock(demo: Any) -> None:
    """The number is that of the pages per second, and both claims hold."""
    pairs = demo.stage.Pairs([(turn(demo, 100, 0.2), turn(demo, 130, 0.2))] * 3)

    verdict = demo.switch.judged(pairs, "It serves", "of the other", "A page costs")

    assert (verdict.figure, verdict.number) == ("rate", "1.30×")
    assert [claim.holds for claim in verdict.claims] == [True, True]
    assert "23 % less CPU" in verdict.claims[1].text


def test_claims_of_a_busy_machine_are_by_the_cpu(demo: Any) -> None:
    """While other programs use most of the CPU, the pages per second are told, and not judged."""
    pairs = demo.stage.Pairs([(turn(demo, 100, 0.4, 0.9), turn(demo, 90, 0.27, 0.9))] * 3)

    verdict = demo.switch.judged(pairs, "It serves", "of the other", "A page costs")

    assert (verdict.figure, verdict.number) == ("cost", "25 %")
    assert [claim.holds for claim in verdict.claims] == [True, None]
    assert "90 % of the CPU" in verdict.claims[1].text


def test_a_slower_site_is_said_to_be_slower(demo: Any) -> None:
    """A claim that does not hold says so with its figure."""
    pairs = demo.stage.Pairs([(turn(demo, 100, 0.2), turn(demo, 90, 0.2))] * 3)

    verdict = demo.switch.judged(pairs, "It serves", "of the other", "A page costs", "; the copies are few")

    assert [claim.holds for claim in verdict.claims] == [False, False]
    assert "0.90 times the pages per second of the other: not faster in this run; the copies are few" in (
        verdict.claims[0].text
    )
    assert "1.11 times the CPU" in verdict.claims[1].text


def test_rounds_that_disagree_are_not_judged(demo: Any) -> None:
    """The claim and the headline say in how many rounds it was so."""
    better, worse = (turn(demo, 100, 0.2), turn(demo, 130, 0.2)), (turn(demo, 100, 0.2), turn(demo, 90, 0.2))
    mixed = demo.switch.judged(demo.stage.Pairs([better, worse, better]), "It serves", "", "A page costs")
    losing = demo.switch.judged(demo.stage.Pairs([worse, better, worse]), "It serves", "", "A page costs")

    for pair in (better, worse):
        pair[0].others = pair[1].others = 0.9
    busy = demo.switch.judged(demo.stage.Pairs([better, worse, better]), "It serves", "", "A page costs")

    assert mixed.meaning == "the pages per second in 2 of 3 rounds"
    assert busy.meaning == "less CPU for a page in 2 of 3 rounds"
    for verdict in (mixed, losing, busy):
        assert [claim.holds for claim in verdict.claims] == [None, None]
    assert all("in 2 of 3 rounds" in claim.text for claim in (*mixed.claims, *losing.claims, busy.claims[0]))


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


def test_claims_that_do_not_hold_are_no_error(demo: Any, monkeypatch: Any, tmp_path: Path) -> None:
    """The run ends well, and says plainly what does not hold."""
    stream = io.StringIO()
    slower = [demo.findings.Claim("It is not faster: 0.90 times.", False)]
    monkeypatch.setattr(demo.run, "SCENES", {"switch": scene(lambda stage, seconds: outcome(demo, claims=slower))})

    code = demo.run.Demo(demo.screen.Screen(stream), 8, tmp_path / "report.html").play(["switch"])

    assert code == 0
    assert "NOT It is not faster: 0.90 times." in stream.getvalue()
    assert "does not hold" in stream.getvalue()


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
