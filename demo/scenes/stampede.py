"""Scene 4: an expensive page expires while visitors reload it."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import plots
from atlas import characters
from findings import NEW, OLD, THIRD, Outcome, claimed, many
from load import Pages, Report, fetch
from plots import Panel, Series
from screen import bar
from sites import Site
from stage import NEW_NAME, OLD_NAME, Plan, Stage

NAME = "stampede"
QUESTION = "What happens when a hot, slow page expires?"
SHARE = 0.26

VISITORS = 12
PAUSE = 0.05
"""Seconds between two requests of a visitor."""
KEPT = 0.4
"""Seconds for which the page is kept; `atlas.views.CENSUS_KEPT`."""
APART = 0.75 * KEPT
"""Runs of the slow function that begin more seconds apart are of two expiries."""
STALE = {"LOADING": {"STALE_WHILE_REVALIDATE": 5, "RENEW": "thread"}}
STALE_NAME = "fleetcache, stale"

SITES = tuple(
    Plan(f"{name} census", options, threads=VISITORS)
    for name, options in ((OLD_NAME, {}), (NEW_NAME, {}), (f"{NEW_NAME} stale", STALE))
)
LEAST = 1.6
"""Seconds of load on each site, at least."""

SETUP = f"""\
# on all sites
cache.get_or_set("census", take_census, timeout={KEPT})

# {STALE_NAME}: visitors get the old page
# while a thread makes the new one
"OPTIONS": {{"LOADING": {{
    "STALE_WHILE_REVALIDATE": 5, "RENEW": "thread",
}}}}"""


@dataclass
class Seen:
    """What the visitors of a site saw, and when its slow function ran."""

    report: Report
    seconds: float
    """The time in which the visitors came."""
    runs: list[float]
    """When the function ran, in seconds since the visitors came."""

    @property
    def slowest(self) -> float:
        """The milliseconds of the slowest visit."""
        return 1000 * max(self.report.latencies, default=float("nan"))

    @property
    def expiries(self) -> int:
        """How many times the page expired: the bursts of runs.

        A page that has just been made is there for `KEPT` seconds, so runs that begin sooner after each other are of one expiry.
        """
        return sum(run - before > APART for before, run in pairwise([float("-inf"), *sorted(self.runs)]))

    @property
    def each(self) -> float:
        """How many times the function ran for each expiry."""
        return len(self.runs) / (self.expiries or 1)

    @property
    def needed(self) -> int:
        """How often the page can have expired at most."""
        return 1 + int(self.seconds / KEPT)

    def points(self) -> list[tuple[float, float]]:
        """When each visit began, and the milliseconds that it took."""
        visits = zip(self.report.moments, self.report.latencies, strict=True)
        return [(began - self.report.began, 1000 * taken) for began, taken in visits]


def play(stage: Stage, seconds: float) -> Outcome:
    """Let visitors reload the page of each site in turn."""
    database = stage.folder / "names.sqlite3"
    if not database.exists():
        with stage.screen.step("the names go into a database", 0.4):
            characters.make_database(database)
    sites = stage.sites(SITES)
    pages = {"/census/": [json.dumps(characters.census_by_hand())]}
    span = max(LEAST, seconds / len(sites))
    found = []
    for place, site in enumerate(sites):
        text = f"{VISITORS} visitors reload the page of site {place + 1} of 3 for {span:.1f} s"
        with stage.screen.step(text, 1 + span):
            found.append(reload(stage, site, pages, span))
    return outcome(found)


def reload(stage: Stage, site: Site, pages: Pages, seconds: float) -> Seen:
    """Let visitors reload the page; when they come it has just been made."""
    notes = Path(f"{stage.folder}/names.sqlite3.{site.name}")
    stage.visit([site], {f"/search/?q={number}": [] for number in range(2 * VISITORS)}, visitors=VISITORS)
    fetch(site.port, "/census/")
    notes.write_text("")
    turn = stage.visit([site], pages, seconds=seconds, visitors=VISITORS, pause=PAUSE)
    time.sleep(0.1)  # the last run in a thread
    runs = [float(line) - turn.report.began for line in notes.read_text().split()]
    return Seen(turn.report, seconds, [run for run in runs if run <= seconds])


def outcome(found: list[Seen]) -> Outcome:
    """Return what was seen."""
    old, new, stale = found
    names = (OLD_NAME, NEW_NAME, STALE_NAME)
    each = [f"{seen.each:.3g}" for seen in found]
    once = new.each == 1 and len(new.runs) <= new.needed
    slowest = [seen.slowest for seen in found]
    series = [
        Series(name, kind, seen.points()) for name, kind, seen in zip(names, (OLD, NEW, THIRD), found, strict=True)
    ]
    panels = [
        Panel(one, seen.runs, f"{many(seen.expiries, 'expiry')}, {runs} {'run' if runs == '1' else 'runs'} each")
        for one, seen, runs in zip(series, found, each, strict=True)
    ]
    seconds = max(seen.report.seconds for seen in found)
    return Outcome(
        NAME,
        QUESTION,
        number=f"{each[1]} instead of {each[0]}",
        meaning="runs of the slow function per expiry",
        claims=[
            claimed(
                f"{NEW_NAME} runs the function once per expiry: {counted(new)}; {OLD_NAME}: {counted(old)}.",
                f"{NEW_NAME} did not run the function once per expiry in this run: {counted(new)}; {OLD_NAME}: {counted(old)}.",
                once and new.each < old.each,
            ),
            claimed(
                f"The slowest visitor waits {slowest[1]:,.0f} ms, with {OLD_NAME} {slowest[0]:,.0f} ms.",
                f"The slowest visitor waited no less in this run: {slowest[1]:,.0f} ms, with {OLD_NAME} {slowest[0]:,.0f} ms.",
                slowest[1] < slowest[0],
            ),
        ],
        table=[
            ["", *names],
            ["expiries of the page", *(str(seen.expiries) for seen in found)],
            ["runs of the slow function", *(str(len(seen.runs)) for seen in found)],
            ["runs per expiry", *each],
            ["visits", *(f"{len(seen.report.latencies):,}" for seen in found)],
            ["slowest visit, ms", *(f"{worst:,.0f}" for worst in slowest)],
            ["visit, 95th percentile, ms", *(f"{seen.report.percentile(0.95):,.0f}" for seen in found)],
        ],
        plot=plots.waits("How long each visitor waited, and when the slow function ran", panels, seconds),
        caption="A dot is a visit: when it began, and how long it took. A stroke below the axis is a run of the slow function.",
        chart=[
            f"{'runs per expiry' if not place else '':28}{name:19}{bar(seen.each, max(one.each for one in found), 30)} {runs}"
            for place, (name, seen, runs) in enumerate(zip(names, found, each, strict=True))
        ],
        setup=SETUP,
        notes=[
            f"{VISITORS} visitors reload a page that a database takes a while to work out, and that is kept for {KEPT} s. "
            "Two workers of 12 threads answer.",
            f"With STALE_WHILE_REVALIDATE the function ran {counted(stale)}, and the slowest visitor waited {slowest[2]:,.0f} ms.",
        ],
        faults=[error for seen in found for error in seen.report.errors],
    )


def counted(seen: Seen) -> str:
    """Return the runs and the expiries as a phrase."""
    return f"{many(len(seen.runs), 'time')} for {many(seen.expiries, 'expiry')}"
