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
from io import BufferedReader
from math import ceil
from pathlib import Path
from typing import Any, Self

import redis
from atlas import characters
from load import COOKIE, Pages, Report, fetch
from pairs import Pairs, Round
from screen import Screen
from sites import AFTER, BEFORE, HERE, DemoError, Site

from fleetcache.testing.servers import EmbeddedServer

CHARACTERS = 36
NEW = 8
"""The last pages, which nobody asks for until both sites are there."""
ROUNDS = 21
"""Rounds of two sites side by side: an odd number, so that one has the median ratio."""
LEAST = 24
"""Pages of each site in a round, at least, so that a busy machine does not make the figures meaningless."""
ALONE = 60
"""Pages of each site, at least, for which the server's commands are counted."""
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
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0, bufsize=0
        ) as load:
            try:
                load.stdout.readline()
                yield load
            finally:
                load.kill()

    def visit(self, sites: list[Site], pages: Pages, **options: Any) -> Round:
        """Send visitors to *sites* in turns; without *seconds*, they want each page once, or *times* times."""
        before = Meter.read(sites, self.server)
        with self.visiting(sites, pages, **options) as load:
            report = report_of(load, options.get("seconds", 0))
        used = Meter.read(sites, self.server) - before
        self.total.add(report)
        return Round(report, used.workers, used.commands, used.others(report.cpu))

    def compare(self, one: Site, other: Site, pages: Pages, seconds: float, **options: Any) -> Pairs:
        """Load two sites side by side, in rounds; the first round warms up, and does not count."""
        sites, span = [one, other], seconds / ROUNDS
        with self.screen.step(f"{ROUNDS} rounds of {span:.2f} s, both sites in each", seconds + 2) as step:
            times = ceil(ALONE / len(pages))
            alone = self.visit([one], pages, times=times, **options), self.visit([other], pages, times=times, **options)
            rounds = []
            with self.visiting(sites, pages, rounds=ROUNDS + 1, seconds=span, least=LEAST, **options) as load:
                lines = BufferedReader(load.stdout)
                for number in range(ROUNDS + 1):
                    rounds.append(self.round(load, lines, sites))
                    step.done((number + 1) / (ROUNDS + 1))
        return Pairs(rounds[1:], alone)

    def round(self, load: subprocess.Popen[bytes], lines: BufferedReader, sites: Sequence[Site]) -> tuple[Round, Round]:
        """Let the visitors go through a round; return what it was on each site."""
        before, cpus = Meter.read(sites, self.server), [site.cpu() for site in sites]
        load.stdin.write(b"\n")
        load.stdin.flush()
        line = lines.readline()
        cpus = [site.cpu() - cpu for site, cpu in zip(sites, cpus, strict=True)]
        if not line:
            raise DemoError(f"the visitors ended with exit code {load.wait()}")
        reports = [Report(**report) for report in json.loads(line)]
        others = (Meter.read(sites, self.server) - before).others(sum(report.cpu for report in reports))
        for report in reports:
            self.total.add(report)
        one, other = (Round(report, cpu, 0, others) for report, cpu in zip(reports, cpus, strict=True))
        return one, other

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
