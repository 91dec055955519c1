"""``make demo``: one Django site on django-redis, on fleetcache, with its near cache, and on all at once.

A small site about the Unicode database runs under gunicorn and under checked HTTP load, on an
embedded Valkey.  Only the BACKEND line of its settings differs between the first two runs, and only
``OPTIONS["NEAR"]`` between the second and the third.  In the end an expensive page expires under load, and its
database goes away, on django-redis and on fleetcache with ``OPTIONS["LOADING"]``.  The exit code is 0 if every
response was right and all of them agreed, whichever was faster.
"""

import argparse
import json
import math
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from socket import create_server
from statistics import median
from typing import Self

import expiry
import redis
from atlas import characters
from load import VISITORS, Pages, Report, WrongPageError, fetch

from fleetcache.testing.servers import EmbeddedServer

HERE = Path(__file__).parent
PROC = Path("/proc")
WORKERS = 2
CHARACTERS = 96
NEW = 16
"""The pages that only the mixed fleet is asked for."""
PAIRED, NEARED = 0.45, 0.4
"""The shares of the time in which two sites take turns, without and with NEAR; the rest is the mixed fleet's."""
TURNS = 1.2
"""Seconds of two turns, about."""
PART = 0.15
"""Seconds of an expiring page on each of two sites, as a part of the time; they come on top of it."""
EDITS = 40
BOUND = 1.0
"""No worker may show for more seconds what was there before an edit: NEAR's default."""
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Site:
    """The demo site on one backend: gunicorn with some worker processes on a free port."""

    def __init__(
        self, backend: str, location: str, folder: Path, *, near: bool = False, expiring: bool = False
    ) -> None:
        self.name = backend.partition(".")[0] + "_near" * near + "_census" * expiring
        self.log = folder / f"{self.name}.log"
        settings = {
            "DJANGO_SETTINGS_MODULE": "atlas.settings",
            "ATLAS_BACKEND": backend,
            "ATLAS_LOCATION": location,
            "ATLAS_NEAR": "1" * near,
            "ATLAS_LOADING": "1" * (expiring and backend.startswith("fleetcache.")),
            "ATLAS_DATABASE": str(folder / expiry.DATABASE),
            "ATLAS_NAME": self.name,
        }
        # gunicorn inherits the listening socket, so nobody else can take the port meanwhile.
        with create_server(("127.0.0.1", 0), backlog=64) as listener, self.log.open("wb") as log:
            self.port: int = listener.getsockname()[1]
            self.master = subprocess.Popen(
                [
                    *(sys.executable, "-m", "gunicorn", "django.core.wsgi:get_wsgi_application()"),
                    *("--bind", f"fd://{listener.fileno()}", "--workers", str(WORKERS)),
                    *("--threads", str(expiry.VISITORS), "--keep-alive", "0") * expiring,
                    *(
                        "--chdir",
                        HERE,
                        "--preload",
                        "--log-level",
                        "warning",
                        "--no-control-socket",
                    ),
                ],
                env=os.environ | settings,
                pass_fds=[listener.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,  # Ctrl-C is for this process, which then stops the others
            )

    def __enter__(self) -> Self:
        """Return the site; it may still be starting."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the workers and their master; no visitor is waiting any more."""
        self.master.send_signal(signal.SIGINT)
        try:
            self.master.wait(5)
        except subprocess.TimeoutExpired:
            os.killpg(self.master.pid, signal.SIGKILL)
            self.master.wait()

    def wait_until_ready(self) -> None:
        """Wait for the first page, or end the demo with what the site complains of."""
        try:
            fetch(self.port, "/")
        except (OSError, WrongPageError) as error:
            sys.exit(f"The site on {self.name} does not start: {error}\n{self.complaints()}")

    def complaints(self) -> str:
        """Return the end of what the workers printed."""
        return self.log.read_text(errors="replace")[-3000:]

    def workers(self) -> list[str]:
        """Return the process ids of the workers."""
        master = str(self.master.pid)
        return (PROC / master / "task" / master / "children").read_text().split()

    def cpu(self) -> float:
        """Return the CPU seconds that the present workers have used, as far as Linux tells."""
        if not PROC.exists():
            return math.nan
        ticks = 0
        for worker in self.workers():
            # The fields after the name, which is in brackets and may hold anything.
            fields = (PROC / worker / "stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def shrink(self) -> None:
        """Go on with one worker."""
        for _ in range(WORKERS - 1):
            self.master.send_signal(signal.SIGTTOU)
        deadline = time.monotonic() + 5
        while PROC.exists() and len(self.workers()) > 1 and time.monotonic() < deadline:
            time.sleep(0.02)


@dataclass
class Edit:
    """A change that one worker made, and what the others' readers got of it; nanoseconds of the one monotonic clock."""

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
        self.latencies: list[float] = []
        self.errors: list[str] = []

    def run(self) -> None:
        """Reload until it is enough."""
        while not self.done.is_set():
            started = time.perf_counter()
            try:
                answer = json.loads(fetch(self.port, "/banner/")[1])
            except (OSError, ValueError, WrongPageError) as error:
                self.errors.append(f"/banner/: {type(error).__name__}: {error}")
            else:
                self.answers.append((answer["worker"], answer["edit"], answer["read"], time.monotonic_ns()))
                self.latencies.append(time.perf_counter() - started)


@dataclass
class Round:
    """One stretch of load and what it cost."""

    report: Report
    cpu: float
    commands: int
    near: float | None = None
    """The share of the keys that were answered from process memory."""

    def figures(self) -> dict[str, float]:
        """Return the rows of the table."""
        requests = len(self.report.latencies) or 1
        return {
            "requests/s": requests / self.report.seconds,
            "latency p50, ms": self.report.percentile(0.50),
            "latency p99, ms": self.report.percentile(0.99),
            "worker CPU, s per 1000 requests": 1000 * self.cpu / requests,
            "server commands per request": self.commands / requests,
            "server commands/s": self.commands / self.report.seconds,
            **({} if self.near is None else {"keys read from process memory, %": 100 * self.near}),
        }


@dataclass
class Demo:
    """Two or three sites on one server, and all that their visitors saw so far."""

    before: Site
    after: Site
    near: Site | None
    expiring: tuple[Site, Site]
    server: redis.Redis
    folder: Path
    total: Report = field(default_factory=Report)

    def load(self, sites: list[Site], pages: Pages, *, seconds: float = 0, seed: int = 0) -> Round:
        """Send visitors to *sites* in turns; without *seconds*, they want each page once."""
        order = self.folder / "pages.json"
        order.write_text(json.dumps(pages))
        ports = [str(site.port) for site in sites]
        limits = [f"--seconds={seconds}", f"--seed={seed}"]
        near = sites == [self.near]
        hits, misses = self.near_counts() if near else (0, 0)
        cpu, commands = sum(site.cpu() for site in sites), self.commands()
        visit = subprocess.run(
            [sys.executable, HERE / "load.py", order, *ports, *limits],
            stdout=subprocess.PIPE,
            check=True,
            timeout=seconds + 60,
            process_group=0,
        )
        cpu, commands = sum(site.cpu() for site in sites) - cpu, self.commands() - commands
        report = Report(**json.loads(visit.stdout))
        self.total.add(report)
        if not near:
            return Round(report, cpu, commands)
        then = self.near_counts()
        hits, misses = then[0] - hits, then[1] - misses
        return Round(report, cpu, commands, near=hits / (hits + misses or 1))

    def commands(self) -> int:
        """Return how many commands the server has carried out."""
        return int(self.server.info("stats")["total_commands_processed"])

    def near_counts(self) -> tuple[int, int]:
        """Return how many keys the workers with NEAR have read from process memory, and how many not."""
        workers: dict[int, tuple[int, int]] = {}
        deadline = time.monotonic() + 5
        with ThreadPoolExecutor(2 * WORKERS) as pool:
            # The kernel chooses the worker that answers, so ask several at once until all have answered.
            while len(workers) < WORKERS and time.monotonic() < deadline:
                for _, body in pool.map(lambda _: fetch(self.near.port, "/near/"), range(2 * WORKERS)):
                    answer = json.loads(body)
                    workers[answer["worker"]] = answer["hits"], answer["misses"]
        hits, misses = zip(*workers.values(), strict=True)
        return sum(hits), sum(misses)

    def edit(self, near: Site) -> tuple[list[Edit], float]:
        """Let one worker edit a text while visitors reload it; return the edits and the milliseconds of a page."""
        reloaders = [Reloader(near.port) for _ in range(VISITORS)]
        fetch(near.port, "/banner/0/")
        for each in reloaders:
            each.start()
        edits = []
        for number in range(1, EDITS + 1):
            edits.append(Edit(number, json.loads(fetch(near.port, f"/banner/{number}/")[1])["acknowledged"]))
            time.sleep(random.uniform(0.02, 0.04))
        for each in reloaders:
            each.done.set()
        for each in reloaders:
            each.join()
            self.total.errors += each.errors
            self.total.latencies += each.latencies
        answers = [answer for each in reloaders for answer in each.answers]
        for edit in edits:
            for worker, number, read, arrived in answers:
                if number < edit.number:
                    edit.outdated = max(edit.outdated, read)
                else:
                    edit.shown[worker] = min(arrived, edit.shown.get(worker, arrived))
            if len(edit.shown) < WORKERS:
                self.total.errors.append(f"edit {edit.number} was shown by {len(edit.shown)} of {WORKERS} workers")
            if edit.stale > 1000 * BOUND:
                self.total.errors.append(f"edit {edit.number} was still unknown after {edit.stale:.0f} ms")
        latest: dict[int, int] = {}
        for worker, number, _read, _arrived in sorted(answers, key=lambda answer: answer[2]):
            # A worker answers one request after another.
            if number < latest.get(worker, 0):
                self.total.errors.append(f"worker {worker} showed edit {number} after {latest[worker]}")
            latest[worker] = number
        return edits, 1000 * median(latency for each in reloaders for latency in each.latencies)

    def run(self, seconds: float) -> None:
        """Go through the phases; print what happens and the figures."""
        pages = catalogue()
        new = dict(list(pages.items())[-NEW:])
        old = {path: facts for path, facts in pages.items() if path not in new}
        one, other = self.before.name, self.after.name
        self.before.wait_until_ready()
        self.after.wait_until_ready()

        cold = self.load([self.before], old).report
        print(
            f"1. {one} meets an empty cache and works out each of {len(old)} pages once:\n"
            f"   p50 {cold.percentile(0.5):.0f} ms, p99 {cold.percentile(0.99):.0f} ms."
        )
        self.load([self.after], old)
        print(
            f"2. {one} and {other} take turns, {{}} times {{:.1f}} s each:\n"
            f"   the same walks on the same warm keys; {other} reads what {one} left there.".format(
                *_turns(PAIRED * seconds)
            )
        )
        rounds = self.take_turns(self.before, self.after, old, PAIRED * seconds)
        if self.near:
            nearer = self.go_near(self.near, old, NEARED * seconds)

        for site in self.sites:
            site.shrink()
        span = (1 - PAIRED - NEARED) * seconds
        print(
            f"4. A mixed fleet, one worker on each, for {span:.1f} s:\n"
            f"   visitors change sides with every click; {len(new)} pages are new to all.\n"
        )
        mixed = self.load(self.sites, shuffled(pages | programs(old)), seconds=span, seed=len(rounds))
        print(table([one, other], rounds, mixed))
        if self.near:
            print("\n" + table([other, self.near.name], nearer))
        self.expire(PART * seconds)

    def expire(self, seconds: float) -> None:
        """Let an expensive page expire under load on two more sites, and take its database away."""
        print(
            f"\n5. A page that takes a slow query expires every second while {expiry.VISITORS} visitors reload it,\n"
            f"   on {WORKERS} workers of {expiry.VISITORS} threads.  {self.after.name} has OPTIONS['LOADING'].",
            flush=True,
        )
        found = expiry.compare(*self.expiring, (self.before.name, self.after.name), self.folder, seconds)
        self.total.errors += found.faults
        self.total.latencies += found.latencies
        print(f"\n{found}\n")

    @property
    def sites(self) -> list[Site]:
        """All sites there are."""
        return [site for site in (self.before, self.after, self.near) if site]

    def take_turns(self, one: Site, other: Site, pages: Pages, seconds: float) -> list[tuple[Round, Round]]:
        """Load two sites in turns with the same walks."""
        pairs, span = _turns(seconds)
        rounds: list[tuple[Round, Round]] = []
        for pair in range(pairs):
            # The order changes too, in case the machine becomes slower.
            sites = [one, other][:: -1 if pair % 2 else 1]
            turns = {site: self.load([site], pages, seconds=span, seed=pair) for site in sites}
            rounds.append((turns[one], turns[other]))
        return rounds

    def go_near(self, near: Site, pages: Pages, seconds: float) -> list[tuple[Round, Round]]:
        """Compare the site with one that also reads from process memory, and see how fast that notices edits."""
        near.wait_until_ready()
        for _ in range(2 * WORKERS):
            self.load([near], pages)  # each worker has to read once what it is to keep
        print(
            f"3. {self.after.name} and the same with NEAR take turns, {{}} times {{:.1f}} s each.".format(
                *_turns(seconds)
            )
        )
        rounds = self.take_turns(self.after, near, pages, seconds)
        edits, page = self.edit(near)
        late = [edit.stale for edit in edits]
        whole = [edit.everywhere for edit in edits]
        print(
            f"   Then one worker edits a text {len(edits)} times while {VISITORS} visitors reload it.  Every worker's page\n"
            f"   showed the edit {median(whole):.1f} ms after it was acknowledged, {max(whole):.1f} at the latest (a page takes {page:.1f}).\n"
            f"   {sum(map(bool, late))} edits were read in the old version after their acknowledgement, at the latest {max(late):.1f} ms after it."
        )
        return rounds

    def faults(self) -> list[str]:
        """Return what was wrong with the responses, one by one and taken together."""
        names = {site.name for site in self.sites}
        pairs = {f"{reader} {writer}" for reader in names for writer in names}
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
            *(f"nothing was read and written by {pair}" for pair in pairs - {*self.total.readings}),
        ]

    def verdict(self) -> int:
        """Print whether both sites agreed; return the exit code."""
        faults = self.faults()
        print(f"{len(self.total.latencies):,} responses checked, {len(faults)} faults.")
        for site in self.sites:
            theirs = sum(self.total.readings[f"{site.name} {other.name}"] for other in self.sites if other is not site)
            print(f"{site.name} read {theirs:,} values that others wrote.")
        if not faults:
            print("Every visit counted once, every page worked out once, no session lost a step.")
            return 0
        for fault in faults[:8]:
            print(f"  {fault}")
        for site in self.sites:
            print(site.complaints(), end="")
        return 1


def _turns(seconds: float) -> tuple[int, float]:
    """Return how many pairs of turns fit into *seconds*, and how long each turn is."""
    pairs = max(2, min(10, round(seconds / TURNS)))
    return pairs, seconds / pairs / 2


def table(names: list[str], rounds: list[tuple[Round, Round]], mixed: Round | None = None) -> str:
    """Return the figures: medians over the rounds, and what they come to."""
    one, other = names
    lines = [f"{'':34}{one:>14}{other:>16}{'ratio':>8}" + f"{'mixed fleet':>14}" * (mixed is not None)]
    ratios = {}
    for row in rounds[0][1].figures():
        figures = [(a.figures().get(row, 0), b.figures()[row]) for a, b in rounds]
        before, after = (median(column) for column in zip(*figures, strict=True))
        # Rounds that followed each other had the machine in the most alike state.
        ratios[row] = median(b / a for a, b in figures) if before else math.nan
        lines.append(f"{row:34}{before:14,.1f}{after:16,.1f}" + (f"{ratios[row]:8.2f}" if before else ""))
        if mixed:
            lines[-1] += f"{mixed.figures()[row]:14,.1f}"
    if mixed:
        lines.append(
            "ratio: the median over pairs of neighbouring rounds.  The mixed fleet has one worker a side and\n"
            "works out new pages meanwhile: it is there to agree, not to be fast."
        )
    rate, cpu = ratios["requests/s"], ratios["worker CPU, s per 1000 requests"]
    summary = f"\n{other} served {rate:.2f} times the requests/s of {one} for {cpu:.2f} of the CPU per request."
    if rate <= 1:
        summary += "\nIt was not faster in this run.  Other work on the machine?  Try more SECONDS."
    return "\n".join([*lines, summary])


def catalogue() -> Pages:
    """Return the pages and what each must contain, worked out here without any cache."""

    def links(codes: list[int]) -> list[str]:
        return [f'<a href="/character/{code}/">{characters.label(code)}</a>' for code in codes]

    choice = random.Random(7)
    words = iter(choice.sample(list(characters.FAMILIES)[:100], 40))
    pages: Pages = {"/": [f"<h1>{len(characters.NAMES)} characters</h1>"]}
    for number, code in enumerate(choice.sample(characters.CODES, CHARACTERS)):
        pages[f"/character/{code}/"] = [
            f"<h1>{characters.label(code)}</h1>",
            f"<dd>{characters.entry(code)['category']}</dd>",
            *links(characters.similar(code)),
            *links(characters.neighbours(code)),
        ]
        if number % 12 == 4:
            word = next(words)
            pages[f"/family/{word}/"] = links(characters.of_family(word))
        if number % 12 == 8:
            word = next(words)
            codes = characters.found(word)
            pages[f"/search/?q={word}"] = [f"<h1>{len(codes)} characters", *links(codes[:40])]
    return pages


def programs(pages: Pages) -> Pages:
    """Return the paths where a program reads some of the characters of *pages*."""
    codes = [int(path.split("/")[2]) for path in pages if path.startswith("/character/")]
    return {f"/api/character/{code}/": [f'"{characters.label(code)}"'] for code in codes[::8]}


def shuffled(pages: Pages) -> Pages:
    """Return *pages* in another order of popularity."""
    return dict(random.Random(8).sample(list(pages.items()), len(pages)))


def stop(number: int, _frame: object) -> None:
    """End the demo, once, on a signal: children are stopped on the way out."""
    for each in STOPS:
        signal.signal(each, signal.SIG_IGN)
    sys.exit(128 + number)


def main() -> int:
    """Start the server and the sites, run the demo, and leave nothing behind."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=8, help="of load, in all")
    parser.add_argument("--before", default="django_redis.cache.RedisCache", help="a BACKEND")
    parser.add_argument("--after", default="fleetcache.django.RedisCache", help="another BACKEND")
    options = parser.parse_args()
    goes_near = options.after.startswith("fleetcache.")
    for each in STOPS:
        signal.signal(each, stop)

    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        location = stack.enter_context(EmbeddedServer()).url(1)
        server = stack.enter_context(redis.Redis.from_url(location))
        version = server.info("server")
        print(
            f"An atlas of {len(characters.NAMES):,} characters on gunicorn with {WORKERS} workers, "
            f"{VISITORS} visitors at a time, Valkey {version.get('valkey_version', '?')}.\n"
            f"   before   BACKEND = {options.before!r}\n    after   BACKEND = {options.after!r}"
        )
        if goes_near:
            print("     near   the same, with OPTIONS = {'NEAR': …}")
        print()
        before = stack.enter_context(Site(options.before, location, folder))
        after = stack.enter_context(Site(options.after, location, folder))
        near = stack.enter_context(Site(options.after, location, folder, near=True)) if goes_near else None
        expiring = tuple(
            stack.enter_context(Site(backend, location, folder, expiring=True))
            for backend in (options.before, options.after)
        )
        demo = Demo(before, after, near, expiring, server, folder)
        demo.run(options.seconds)
        return demo.verdict()


if __name__ == "__main__":
    sys.exit(main())
