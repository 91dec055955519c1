"""What all scenes share: a server, sites on it, visitors, and what these have seen so far."""

from __future__ import annotations

import json
import math
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from statistics import median
from typing import Any, Self

import redis
from atlas import characters
from load import COOKIE, Pages, Report, fetch
from screen import Screen
from sites import AFTER, BEFORE, HERE, DemoError, Site

from fleetcache.testing.servers import EmbeddedServer

CHARACTERS = 36
NEW = 8
"""The last pages, which nobody asks for until both sites are there."""
TURNS = 0.55
"""Seconds of two turns, about."""
LEAST = 60
"""Pages of a turn, at least, so that a busy machine does not make the figures meaningless."""
OLD_NAME, NEW_NAME = "django-redis", "fleetcache"


@dataclass(frozen=True)
class Plan:
    """A site that a scene needs.  One whose name begins with ``django-redis`` is on that, others are on fleetcache."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    frail: bool = False
    """Whether its server is the one that falls silent."""
    threads: int = 0
    """How many requests each worker answers at a time; 0: one."""


PLAIN = (Plan(OLD_NAME), Plan(NEW_NAME))


@dataclass
class Round:
    """One stretch of load and what it cost."""

    report: Report
    cpu: float
    """Seconds of CPU that the workers used."""
    commands: int
    others: float
    """The share of the machine's CPU that other programs used than the sites, the server and the visitors."""

    @property
    def pages(self) -> int:
        """How many pages were answered."""
        return len(self.report.latencies)

    @property
    def rate(self) -> float:
        """Pages per second."""
        return self.pages / self.report.seconds

    @property
    def cost(self) -> float:
        """The workers' CPU milliseconds for each page."""
        return 1000 * self.cpu / (self.pages or 1)

    @property
    def worth(self) -> float:
        """Pages for each second of the workers' CPU."""
        return self.pages / (self.cpu or math.nan)

    @property
    def middle(self) -> float:
        """The milliseconds of half of the pages."""
        return self.report.percentile(0.5)

    @property
    def late(self) -> float:
        """The milliseconds that one page of a hundred exceeded."""
        return self.report.percentile(0.99)

    @property
    def asked(self) -> float:
        """The server's commands for each page."""
        return self.commands / (self.pages or 1)


class Pairs:
    """Rounds of two sites that took turns; their number is odd."""

    def __init__(self, rounds: list[tuple[Round, Round]]) -> None:
        self.rounds = rounds

    def __len__(self) -> int:
        return len(self.rounds)

    @property
    def others(self) -> float:
        """The share of the machine's CPU that other programs used than the sites, the server and the visitors."""
        return median(turn.others for pair in self.rounds for turn in pair)

    def of(self, figure: str) -> list[tuple[float, float]]:
        """Return a figure of both sites in every pair: a property of `Round`."""
        return [(float(getattr(one, figure)), float(getattr(other, figure))) for one, other in self.rounds]

    def median(self, figure: str) -> tuple[float, float, float]:
        """Return a figure of both sites, and its ratio, in the pair of rounds that has the median ratio.

        Rounds that followed each other had the machine in the most alike state, and so figures and ratio agree.
        """
        one, other = self.of(figure)[self.chosen(figure)]
        return one, other, other / one if one else 1.0

    def agreeing(self, figure: str) -> int:
        """Return in how many pairs the site that has more is the one that has more in the pair of the median."""
        _, _, ratio = self.median(figure)
        return sum((other - one) * (ratio - 1) > 0 for one, other in self.of(figure))

    def chosen(self, figure: str) -> int:
        """Return the place of that pair."""
        ratios = [other / one if one else 1.0 for one, other in self.of(figure)]
        return sorted(range(len(ratios)), key=ratios.__getitem__)[len(ratios) // 2]


class Stage:
    """One server and the sites on it; a site is started when a scene first asks for it, and ends with the stage."""

    def __init__(self, screen: Screen) -> None:
        self.screen = screen
        self.total = Report()
        """What the visitors of character pages have seen, in all scenes."""
        self.pages = catalogue()
        self._sites: dict[str, Site] = {}
        self._warm: set[str] = set()
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fleetcache-demo-")))
            self.main = stack.enter_context(EmbeddedServer())
            self.frail = stack.enter_context(EmbeddedServer())
            self.server = stack.enter_context(redis.Redis.from_url(self.main.url(1)))
            stack.callback(self._close)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _close(self) -> None:
        for site in self._sites.values():
            site.stop()

    def start(self, plans: Iterable[Plan]) -> None:
        """Start sites, all at once, and wait until each has answered or has not started."""
        plans = {plan.name: plan for plan in plans if plan.name not in self._sites}
        for name, plan in plans.items():
            backend = BEFORE if name.startswith(OLD_NAME) else AFTER
            server = self.frail if plan.frail else self.main
            self._sites[name] = Site(name, backend, server.url(1), self.folder, plan.options, threads=plan.threads)
        if not plans:
            return
        with self.screen.step(f"starting {len(plans)} sites", 1 + len(plans)) as step:
            for place, name in enumerate(plans):
                with suppress(DemoError):  # the scene that needs it says so
                    self._sites[name].wait_until_ready()
                step.done((place + 1) / len(plans))

    def sites(self, plans: Sequence[Plan]) -> list[Site]:
        """Return sites that are ready."""
        self.start(plans)
        found = [self._sites[plan.name] for plan in plans]
        for site in found:
            site.wait_until_ready()
        return found

    def atlas(self) -> list[Site]:
        """Return the two plain sites, whose pages, but for the new ones, have been worked out."""
        found = self.sites(PLAIN)
        if "atlas" not in self._warm:
            self._warm.add("atlas")
            with self.screen.step(f"{OLD_NAME} works out {len(self.old_pages)} pages; each takes a while", 3):
                self.visit(found[:1], self.old_pages)
            self.visit(found[1:], self.old_pages)
        return found

    @property
    def old_pages(self) -> Pages:
        """The pages that are there from the beginning."""
        return dict(list(self.pages.items())[:-NEW])

    @contextmanager
    def visiting(self, sites: list[Site], pages: Pages, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
        """Send visitors to *sites* in turns; they end by themselves, or with the block."""
        order = self.folder / f"pages-{random.getrandbits(32)}.json"
        order.write_text(json.dumps(pages))
        command = [sys.executable, HERE / "load.py", order, *(str(site.port) for site in sites)]
        command += [f"--{name}={value}" for name, value in options.items()]
        # Without a buffer, so that the first line can be read alone.
        with subprocess.Popen(command, stdout=subprocess.PIPE, process_group=0, bufsize=0) as load:
            try:
                load.stdout.readline()
                yield load
            finally:
                load.kill()

    def visit(self, sites: list[Site], pages: Pages, **options: Any) -> Round:
        """Send visitors to *sites* in turns; without *seconds*, they want each page once."""
        before = Meter.read(sites, self.server)
        with self.visiting(sites, pages, **options) as load:
            report = report_of(load, options.get("seconds", 0))
        used = Meter.read(sites, self.server) - before
        self.total.add(report)
        return Round(report, used.workers, used.commands, used.others(report.cpu))

    def take_turns(self, one: Site, other: Site, pages: Pages, seconds: float, **options: Any) -> Pairs:
        """Load two sites in turns with the same walks."""
        count, span = turns(seconds)
        rounds: list[tuple[Round, Round]] = []
        with self.screen.step(f"{count} pairs of rounds, {span:.2f} s each", count * 2 * (span + 0.3)) as step:
            for pair in range(count):
                # The order changes too, in case the machine becomes slower.
                sites = [one, other][:: -1 if pair % 2 else 1]
                found = {
                    site: self.visit([site], pages, seconds=span, least=LEAST, seed=pair, **options) for site in sites
                }
                rounds.append((found[one], found[other]))
                step.done((pair + 1) / count)
        return Pairs(rounds)

    def session(self, site: Site) -> str:
        """Return the cookie of a new session."""
        cookie = COOKIE.search(fetch(site.port, "/enter/")[0])
        if cookie is None:
            raise DemoError(f"{site.name} begins no session")
        return cookie[1].decode()

    def faults(self) -> list[str]:
        """Return what was wrong with the pages of characters so far, one by one and taken together."""
        return [
            *self.total.errors,
            *(
                f"the visits of {code} were counted otherwise than 1 to {len(counts)}"
                for code, counts in self.total.visits.items()
                if sorted(counts) != list(range(1, len(counts) + 1))
            ),
            *(
                f"the page of {code} was worked out {len(makings)} times: {', '.join(makings)}"
                for code, makings in self.total.makings.items()
                if len(makings) > 1
            ),
        ]


def report_of(load: subprocess.Popen[bytes], seconds: float) -> Report:
    """Wait for visitors, and return what they saw; raise DemoError if they do not come back."""
    try:
        output, _ = load.communicate(timeout=seconds + 90)
    except subprocess.TimeoutExpired as error:
        raise DemoError(f"the visitors did not come back within {seconds + 90:.0f} s") from error
    if load.returncode:
        raise DemoError(f"the visitors ended with exit code {load.returncode}")
    return Report(**json.loads(output))


@dataclass
class Meter:
    """Seconds of time, and of CPU: of the workers, the server, all programs; and the server's commands."""

    time: float
    workers: float
    server: float
    machine: float
    commands: int

    @classmethod
    def read(cls, sites: Iterable[Site], server: redis.Redis) -> Self:
        """Return how much there has been so far."""
        info = server.info()
        return cls(
            time.monotonic(),
            sum(site.cpu() for site in sites),
            info["used_cpu_sys"] + info["used_cpu_user"],
            machine(),
            info["total_commands_processed"],
        )

    def __sub__(self, before: Self) -> Self:
        return type(self)(*(getattr(self, each.name) - getattr(before, each.name) for each in fields(self)))

    def others(self, visitors: float) -> float:
        """Return the share of the machine's CPU that other programs used; *visitors*: the seconds of the load itself."""
        used = self.machine - self.workers - self.server - visitors
        return max(0, used / self.time / (os.cpu_count() or 1))


def machine() -> float:
    """Return the CPU seconds that all programs of the machine have used, as far as Linux tells; else NaN."""
    try:
        user, nice, system, _idle, _waiting, irq, softirq = map(int, Path("/proc/stat").read_text().split()[1:8])
    except (OSError, ValueError):
        return math.nan
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def turns(seconds: float) -> tuple[int, float]:
    """Return how many pairs of turns fit into *seconds*, an odd number, and how long each turn is."""
    pairs = max(3, min(15, round(seconds / TURNS))) // 2 * 2 + 1
    return pairs, seconds / pairs / 2


def catalogue() -> Pages:
    """Return the pages and what each must contain, worked out here without any cache."""
    choice = random.Random(7)
    words = iter(choice.sample(list(characters.FAMILIES)[:100], 40))
    pages: Pages = {"/": [f"<h1>{len(characters.NAMES)} characters</h1>"]}
    for number, code in enumerate(choice.sample(characters.CODES, CHARACTERS)):
        pages[f"/character/{code}/"] = [
            f"<h1>{characters.label(code)}</h1>",
            f"<dd>{characters.entry(code)['category']}</dd>",
            *_links(characters.similar(code)),
            *_links(characters.neighbours(code)),
        ]
        if number % 12 == 4:
            word = next(words)
            pages[f"/family/{word}/"] = _links(characters.of_family(word))
        if number % 12 == 8:
            word = next(words)
            codes = characters.found(word)
            pages[f"/search/?q={word}"] = [f"<h1>{len(codes)} characters", *_links(codes[:40])]
    return pages


def shelves(count: int, *facts: str) -> Pages:
    """Return some pages that read 40 keys, and what each must contain, *facts* included."""
    return {f"/shelf/{number}/": [*facts, *_links(characters.shelf(number))] for number in range(count)}


def _links(codes: list[int]) -> list[str]:
    return [f'<a href="/character/{code}/">{characters.label(code)}</a>' for code in codes]
