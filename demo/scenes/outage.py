"""Scene 3: the server is silent for some seconds, while two sites are under load."""

from __future__ import annotations

import time
from dataclasses import dataclass

import plots
import redis
from findings import NEW, OLD, Outcome, claimed, many
from load import Report
from plots import Series
from screen import spark
from stage import NEW_NAME, OLD_NAME, Meter, Plan, Stage, report_of, shelves

from fleetcache.testing.servers import EmbeddedServer

NAME = "outage"
QUESTION = "What do visitors see while the cache server is silent?"
SHARE = 0.30

BEFORE, AFTER = 0.15, 0.2
"""The shares of the time before the server falls silent, and after it is back."""
TIMEOUT = 0.5
OPTIONS = {"IGNORE_EXCEPTIONS": True, "SOCKET_TIMEOUT": TIMEOUT, "SOCKET_CONNECT_TIMEOUT": TIMEOUT}
SITES = tuple(Plan(f"{name} outage", OPTIONS, frail=True) for name in (OLD_NAME, NEW_NAME))
SHELVES = 6
BUSY = 0.2
"""The share of the CPU for other programs from which they make dips that can be seen."""
BIN = 0.2
"""Seconds of a point in the plot."""

SETUP = """\
CACHES = {"default": {
    "BACKEND": …, "LOCATION": …, "KEY_PREFIX": "atlas", "TIMEOUT": 3600,
    "OPTIONS": {  # the same on both sites
        "IGNORE_EXCEPTIONS": True,
        "SOCKET_TIMEOUT": 0.5,
        "SOCKET_CONNECT_TIMEOUT": 0.5,
    },
}}"""


@dataclass
class Silence:
    """When the server was silent, in seconds of the one monotonic clock."""

    start: float
    end: float

    def answered(self, report: Report) -> int:
        """Return how many pages were answered meanwhile."""
        return sum(self.start <= end < self.end for end in ends(report))

    def slowest(self, report: Report) -> float:
        """Return the seconds that the slowest page took of those that began or ended meanwhile."""
        visits = zip(report.moments, ends(report), strict=True)
        return max((end - began for began, end in visits if end > self.start and began < self.end), default=0.0)

    def slowest_later(self, report: Report) -> float:
        """Return the seconds of the slowest page that began when the first requests had had two time-outs of time."""
        visits = zip(report.moments, report.latencies, strict=True)
        return max((taken for began, taken in visits if self.start + 2 * TIMEOUT <= began < self.end), default=0.0)


def ends(report: Report) -> list[float]:
    """Return when each page arrived."""
    return [began + taken for began, taken in zip(report.moments, report.latencies, strict=True)]


def play(stage: Stage, seconds: float) -> Outcome:
    """Let both sites be visited at once, and stop the server for a while."""
    sites = stage.sites(SITES)
    pages = shelves(SHELVES)
    cookie = stage.session(sites[0])
    with stage.screen.step("both sites work out their pages", 0.8):
        for site in sites:
            stage.visit([site], pages, cookie=cookie)

    options = {"seconds": seconds, "cookie": cookie}
    silent = seconds * (1 - BEFORE - AFTER)
    text = f"both sites are visited for {seconds:.1f} s; the server is silent for {silent:.1f} s"
    with redis.Redis.from_url(stage.frail.url(1)) as server:
        before = Meter.read(sites, server)
        with (
            stage.screen.step(text, seconds),
            stage.visiting(sites[:1], pages, **options) as one,
            stage.visiting(sites[1:], pages, **options) as other,
        ):
            silence = fall_silent(stage.frail, seconds)
            reports = [report_of(one, seconds), report_of(other, seconds)]
        used = Meter.read(sites, server) - before
    return outcome(silence, reports, used.others(sum(report.cpu for report in reports)))


def fall_silent(server: EmbeddedServer, seconds: float) -> Silence:
    """Freeze the server's process for a part of the time: connections stay open, and no command is answered."""
    time.sleep(BEFORE * seconds)
    start = time.monotonic()
    server.pause()
    try:
        time.sleep((1 - BEFORE - AFTER) * seconds)
    finally:
        end = time.monotonic()
        server.resume()
    return Silence(start, end)


def outcome(silence: Silence, reports: list[Report], others: float) -> Outcome:
    """Return what was seen; *others* is the share of the CPU that other programs used."""
    silent = silence.end - silence.start
    answered = [silence.answered(report) for report in reports]
    slowest = [silence.slowest(report) for report in reports]
    failed = [len(report.errors) for report in reports]
    began = min(report.began for report in reports)
    whole = max(end for report in reports for end in ends(report)) - began
    series = [
        Series(f"{name}: {many(count, 'page')}", kind, rates(report, began, whole))
        for name, kind, count, report in zip((OLD_NAME, NEW_NAME), (OLD, NEW), answered, reports, strict=True)
    ]
    band = silence.start - began, silence.end - began, f"server silent, {silent:.1f} s"
    return Outcome(
        NAME,
        QUESTION,
        number=f"{many(answered[1], 'page')} instead of {answered[0]:,}",
        meaning=f"while the server is silent for {silent:.1f} s",
        claims=[
            claimed(
                f"{NEW_NAME} answers {many(answered[1], 'page')} in the silence, {OLD_NAME} {answered[0]:,}.",
                f"{NEW_NAME} did not answer more pages in this run: {answered[1]:,}, {OLD_NAME} {answered[0]:,}.",
                answered[1] > answered[0],
            ),
            claimed(
                f"Its slowest page takes {slowest[1]:.1f} s, with {OLD_NAME} {slowest[0]:.1f} s.",
                f"Its slowest page did not take less time in this run: {slowest[1]:.1f} s, with {OLD_NAME} {slowest[0]:.1f} s.",
                slowest[1] < slowest[0],
            ),
        ],
        table=[
            ["", OLD_NAME, NEW_NAME],
            [f"pages answered in {silent:.1f} s of silence", *(f"{count:,}" for count in answered)],
            ["slowest page, s", *(f"{worst:.1f}" for worst in slowest)],
            ["pages that failed", *map(str, failed)],
        ],
        plot=plots.timeline("Pages answered per second", series, band, whole, "pages per second"),
        caption=caption(silence.slowest_later(reports[1]), others),
        chart=chart(series, band),
        setup=SETUP,
        notes=[
            "Both sites use one server and are visited at the same time. The server's process is stopped (SIGSTOP): "
            "connections stay open, and no command is answered.",
            "The page reads 40 keys in 17 calls. Both sites have the settings above; the retries of redis-py are as it sets them.",
        ],
        faults=reports[1].errors,
    )


def caption(later: float, others: float) -> str:
    """Return why the curve of fleetcache has dips; *later* are the seconds of the slowest page after the beginning."""
    first = f"The first requests of {NEW_NAME} wait for one time-out, {TIMEOUT} s."
    busy = f"other programs used {100 * others:.0f} % of the CPU."
    slowest = f"From {2 * TIMEOUT:.0f} s on, the slowest page took {1000 * later:,.0f} ms"
    if later >= TIMEOUT:
        return f"{first} {slowest}; {busy}"
    why = "Later dips are those of a busy machine: " if others > BUSY else "Meanwhile "
    return f"{first} {slowest}, so none waited for the server. {why}{busy}"


def rates(report: Report, began: float, whole: float) -> list[tuple[float, float]]:
    """Return the pages per second over time."""
    bins = [0] * (int(whole / BIN) + 1)
    for end in ends(report):
        bins[int((end - began) / BIN)] += 1
    return [((place + 0.5) * BIN, count / BIN) for place, count in enumerate(bins[:-1])]


def chart(series: list[Series], band: tuple[float, float, str]) -> list[str]:
    """Return the pages per second over time, in blocks."""
    most = max(y for one in series for _, y in one.points)
    group = 1 + len(series[0].points) // 50
    lines = []
    for title, one in zip(("pages per second, by time", ""), series, strict=True):
        values = [y for _, y in one.points]
        means = [sum(values[at : at + group]) / len(values[at : at + group]) for at in range(0, len(values), group)]
        lines.append(f"{title:28}{one.name.partition(':')[0]:14}{spark(means, most)}")
    first, last = (round(band[side] / BIN / group) for side in (0, 1))
    return [*lines, " " * (42 + first) + "└" + "silent".center(max(6, last - first - 2), "─") + "┘"]
