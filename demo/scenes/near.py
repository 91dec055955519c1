"""Scene 2: a page that reads 40 keys, with copies of them in each process and without."""

from __future__ import annotations

import json
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from math import ceil
from statistics import median

from findings import NEW, THIRD, Claim, Outcome, claimed
from load import VISITORS, WrongPageError, fetch
from sites import WORKERS, DemoError, Site
from stage import NEW_NAME, Plan, Stage, shelves

from scenes import switch

NAME = "near"
QUESTION = "What does the near cache save on a page of 40 keys?"
SHARE = 0.15
NEAR_NAME = "fleetcache near"

# What is kept near is read more often than it changes: not the sessions, nor what each view of a page changes.
KEPT = ("flag:", "entry:", "template.", "banner")
OPTIONS = {"NEAR": {"PREFIXES": [f"atlas:1:{kind}" for kind in KEPT]}}

SETUP = f"""\
CACHES = {{"default": {{
    "BACKEND": "fleetcache.django.RedisCache",
    "LOCATION": …, "KEY_PREFIX": "atlas", "TIMEOUT": 3600,
+   "OPTIONS": {{"NEAR": {{"PREFIXES": [
+       {", ".join(f'"{prefix}"' for prefix in OPTIONS["NEAR"]["PREFIXES"][:2])},
+       {", ".join(f'"{prefix}"' for prefix in OPTIONS["NEAR"]["PREFIXES"][2:])},
+   ]}}}},
}}}}"""

SITES = (Plan(NEW_NAME), Plan(NEAR_NAME, OPTIONS))
SHELVES = 10
WARM = 0.9
"""The site is measured once this share of its reads finds a copy."""
ATTEMPTS = 8
"""How often the site is visited for that."""
EDITS = 20
BOUND = 1000.0
"""No worker may show for more milliseconds what was there before an edit: NEAR's default."""


def play(stage: Stage, seconds: float) -> Outcome:
    """Compare the site with and without NEAR, then edit a text that is kept near."""
    plain, near = stage.sites(SITES)
    pages = shelves(SHELVES, "Visitor</h1>")
    cookie = stage.session(plain)
    with stage.screen.step("the workers read what they are to keep", 2):
        stage.visit([plain], pages, cookie=cookie)
        warm_up(stage, near, cookie)

    before = counts(near)
    pairs = stage.compare(plain, near, pages, seconds, cookie=cookie)
    share = found_near(before, counts(near))
    with stage.screen.step(f"one worker edits a text {EDITS} times, {VISITORS} visitors reload it", 1):
        edits = Edits(near)
        edits.play()

    verdict = switch.judged(pairs, "With NEAR a page", "With NEAR the median page")
    one, other, ratio = pairs.asked
    commands = claimed(
        f"With NEAR a page sends {other:.1f} commands to the server instead of {one:.1f}.",
        f"With NEAR a page did not send fewer commands in this run: {other:.1f}, without {one:.1f}.",
        ratio < 1,
    )
    table = switch.table(pairs, (NEW_NAME, NEAR_NAME))
    table.append(["keys found in the process, %", "0", f"{100 * share:.0f}", ""])
    names = ((NEW_NAME, NEW), (NEAR_NAME, THIRD))
    return Outcome(
        NAME,
        QUESTION,
        number=verdict.number,
        meaning=f"{verdict.meaning}, by one option",
        claims=[*verdict.claims, commands, edits.claim],
        table=table,
        plot=switch.plot(pairs, verdict.figure, names),
        caption=verdict.caption,
        chart=switch.chart(pairs, verdict.figure, (NEW_NAME, NEAR_NAME)),
        setup=SETUP,
        notes=[
            "The page reads a session, 11 flags one by one, 4 fragments of templates, and 24 entries by get_many. "
            "The session is not kept near.",
            *switch.measured(pairs),
            edits.note,
        ],
        faults=[*stage.faults(), *edits.faults],
    )


def warm_up(stage: Stage, near: Site, cookie: str) -> None:
    """Visit the site until its workers find most keys in their memory."""
    for _ in range(ATTEMPTS):
        before = counts(near)
        for _ in range(2):
            stage.visit([near], shelves(SHELVES, "Visitor</h1>"), cookie=cookie)
        if found_near(before, counts(near)) >= WARM:
            return


def counts(near: Site) -> tuple[int, int]:
    """Return how many keys the workers have read from their memory, and how many not."""
    workers: dict[int, tuple[int, int]] = {}
    deadline = time.monotonic() + 10
    with ThreadPoolExecutor(2 * WORKERS) as pool:
        # The kernel chooses the worker that answers, so ask several at once until all have answered.
        while len(workers) < WORKERS:
            if time.monotonic() > deadline:
                raise DemoError(f"only {len(workers)} of {WORKERS} workers answer")
            for _, body in pool.map(lambda _: fetch(near.port, "/near/"), range(2 * WORKERS)):
                answer = json.loads(body)
                workers[answer["worker"]] = answer["hits"], answer["misses"]
    hits, misses = zip(*workers.values(), strict=True)
    return sum(hits), sum(misses)


def found_near(before: tuple[int, int], after: tuple[int, int]) -> float:
    """Return the share of reads that found a copy, between two counts."""
    hits, misses = after[0] - before[0], after[1] - before[1]
    return hits / (hits + misses or 1)


@dataclass
class Edit:
    """A change that one worker made, and what the readers of all got of it; nanoseconds of the one monotonic clock."""

    number: int
    acknowledged: int
    outdated: int = 0
    """When the last read began that returned what was there before."""
    shown: dict[int, int] = field(default_factory=dict)
    """Worker -> when its first page with the change had arrived."""

    @property
    def stale(self) -> float:
        """The milliseconds after the acknowledgement in which reads began that were out of date."""
        return max(0, self.outdated - self.acknowledged) / 1e6

    @property
    def everywhere(self) -> float:
        """The milliseconds until every worker had shown it."""
        return (max(self.shown.values()) - self.acknowledged) / 1e6


class Reloader(threading.Thread):
    """A visitor who reloads one page, and remembers every answer."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.port = port
        self.done = threading.Event()
        self.answers: list[tuple[int, int, int, int]] = []
        """Worker, number of the edit, when it was read there, when the page was here."""
        self.errors: list[str] = []

    def run(self) -> None:
        """Reload until it is enough."""
        while not self.done.is_set():
            try:
                answer = json.loads(fetch(self.port, "/banner/")[1])
            except (OSError, ValueError, WrongPageError) as error:
                self.errors.append(f"/banner/: {type(error).__name__}: {error}")
            else:
                self.answers.append((answer["worker"], answer["edit"], answer["read"], time.monotonic_ns()))


class Edits:
    """Changes of a text that is kept near, and when the workers showed them."""

    def __init__(self, near: Site) -> None:
        self.port = near.port
        self.edits: list[Edit] = []
        self.faults: list[str] = []

    def play(self) -> None:
        """Let one worker edit the text while visitors reload it."""
        reloaders = [Reloader(self.port) for _ in range(VISITORS)]
        fetch(self.port, "/banner/0/")
        for each in reloaders:
            each.start()
        for number in range(1, EDITS + 1):
            acknowledged = json.loads(fetch(self.port, f"/banner/{number}/")[1])["acknowledged"]
            self.edits.append(Edit(number, acknowledged))
            time.sleep(random.uniform(0.02, 0.04))
        self._wait_for_last(reloaders)
        for each in reloaders:
            each.done.set()
        for each in reloaders:
            each.join()
            self.faults += each.errors
        self._compare([answer for each in reloaders for answer in each.answers])

    def _wait_for_last(self, reloaders: list[Reloader]) -> None:
        """Wait until every worker was asked since the last edit."""
        deadline = time.monotonic() + 2
        while time.monotonic() < deadline:
            after = {a[0] for each in reloaders for a in list(each.answers) if a[2] > self.edits[-1].acknowledged}
            if len(after) == WORKERS:
                return
            time.sleep(0.02)

    def _compare(self, answers: list[tuple[int, int, int, int]]) -> None:
        for edit in self.edits:
            for worker, number, read, arrived in answers:
                if number < edit.number:
                    edit.outdated = max(edit.outdated, read)
                else:
                    edit.shown[worker] = min(arrived, edit.shown.get(worker, arrived))
            if len(edit.shown) < WORKERS:
                self.faults.append(f"edit {edit.number} was shown by {len(edit.shown)} of {WORKERS} workers")
            if edit.stale > BOUND:
                self.faults.append(f"edit {edit.number} was still unknown after {edit.stale:.0f} ms")
        latest: dict[int, int] = {}
        for worker, number, _read, _arrived in sorted(answers, key=lambda answer: answer[2]):
            # A worker answers one request after another.
            if number < latest.get(worker, 0):
                self.faults.append(f"worker {worker} showed edit {number} after {latest[worker]}")
            latest[worker] = number

    @property
    def claim(self) -> Claim:
        """What was seen of old versions."""
        worst = max(edit.stale for edit in self.edits)
        old = sum(edit.stale > 0 for edit in self.edits)
        if not old:
            return claimed(
                f"None of {len(self.edits)} edits was read in the old version after it was acknowledged.", "", True
            )
        text = f"{old} of {len(self.edits)} edits {'was' if old == 1 else 'were'} read in the old version, for {ceil(10 * worst) / 10:.1f} ms at most"
        return claimed(f"{text} (the bound is {BOUND:.0f} ms).", f"{text}: longer than {BOUND:.0f} ms.", worst <= BOUND)

    @property
    def note(self) -> str:
        """How soon the edits were seen."""
        times = [edit.everywhere for edit in self.edits if len(edit.shown) == WORKERS] or [float("nan")]
        return (
            f"One worker edits a text {len(self.edits)} times while {VISITORS} visitors reload it. Every worker's page showed "
            f"an edit {median(times):.1f} ms after its acknowledgement (median), {max(times):.1f} ms at the latest."
        )
