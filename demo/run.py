"""``make demo``: one Django site on django-redis, then on fleetcache, then on both at once.

A small site about the Unicode database runs under gunicorn and under checked HTTP load, on an
embedded Valkey.  Only the BACKEND line of its settings differs between the first two runs.
The exit code is 0 if every response was right and both backends agreed, whichever was faster.
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
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from socket import create_server
from statistics import median
from typing import Self

import redis
from atlas import characters
from load import VISITORS, Pages, Report, WrongPageError, fetch

from fleetcache.topology.embedded import EmbeddedServer

HERE = Path(__file__).parent
PROC = Path("/proc")
WORKERS = 2
CHARACTERS = 96
NEW = 16
"""The pages that only the mixed fleet is asked for."""
PAIRED = 0.75
"""The share of the time in which the backends take turns; the rest is the mixed fleet's."""
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Site:
    """The demo site on one backend: gunicorn with some worker processes on a free port."""

    def __init__(self, backend: str, location: str, folder: Path) -> None:
        self.name = backend.partition(".")[0]
        self.log = folder / f"{self.name}.log"
        settings = {
            "DJANGO_SETTINGS_MODULE": "atlas.settings",
            "ATLAS_BACKEND": backend,
            "ATLAS_LOCATION": location,
        }
        # gunicorn inherits the listening socket, so nobody else can take the port meanwhile.
        with create_server(("127.0.0.1", 0), backlog=64) as listener, self.log.open("wb") as log:
            self.port: int = listener.getsockname()[1]
            self.master = subprocess.Popen(
                [
                    *(sys.executable, "-m", "gunicorn", "django.core.wsgi:get_wsgi_application()"),
                    *("--bind", f"fd://{listener.fileno()}", "--workers", str(WORKERS)),
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
class Round:
    """One stretch of load and what it cost."""

    report: Report
    cpu: float
    commands: int

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
        }


@dataclass
class Demo:
    """Two sites on one server, and all that their visitors saw so far."""

    before: Site
    after: Site
    server: redis.Redis
    folder: Path
    total: Report = field(default_factory=Report)

    def load(self, sites: list[Site], pages: Pages, *, seconds: float = 0, seed: int = 0) -> Round:
        """Send visitors to *sites* in turns; without *seconds*, they want each page once."""
        order = self.folder / "pages.json"
        order.write_text(json.dumps(pages))
        ports = [str(site.port) for site in sites]
        limits = [f"--seconds={seconds}", f"--seed={seed}"]
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
        return Round(report, cpu, commands)

    def commands(self) -> int:
        """Return how many commands the server has carried out."""
        return int(self.server.info("stats")["total_commands_processed"])

    def run(self, seconds: float) -> None:
        """Go through the three phases; print what happens and the figures."""
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
        pairs = max(2, min(10, round(PAIRED * seconds / 1.2)))
        span = PAIRED * seconds / pairs / 2
        print(
            f"2. {one} and {other} take turns, {pairs} times {span:.1f} s each:\n"
            f"   the same walks on the same warm keys; {other} reads what {one} left there."
        )
        rounds: list[tuple[Round, Round]] = []
        for pair in range(pairs):
            # Who goes first changes too, in case the machine tires.
            sites = [self.before, self.after][:: -1 if pair % 2 else 1]
            turns = {site: self.load([site], old, seconds=span, seed=pair) for site in sites}
            rounds.append((turns[self.before], turns[self.after]))

        self.before.shrink()
        self.after.shrink()
        span = (1 - PAIRED) * seconds
        print(
            f"3. A mixed fleet, one worker on each, for {span:.1f} s:\n"
            f"   visitors change sides with every click; {len(new)} pages are new to both.\n"
        )
        sites = [self.before, self.after]
        mixed = self.load(sites, shuffled(pages | programs(old)), seconds=span, seed=pairs)
        print(table([one, other], rounds, mixed))

    def faults(self) -> list[str]:
        """Return what was wrong with the responses, one by one and taken together."""
        names = {self.before.name, self.after.name}
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
        one, other, read = self.before.name, self.after.name, self.total.readings
        faults = self.faults()
        print(
            f"{len(self.total.latencies):,} responses checked, {len(faults)} faults.\n"
            f"{other} read {read[f'{other} {one}']:,} values that {one} wrote, "
            f"{one} read {read[f'{one} {other}']:,} that {other} wrote."
        )
        if not faults:
            print("Every visit counted once, every page worked out once, no session lost a step.")
            return 0
        for fault in faults[:8]:
            print(f"  {fault}")
        for site in (self.before, self.after):
            print(site.complaints(), end="")
        return 1


def table(names: list[str], rounds: list[tuple[Round, Round]], mixed: Round) -> str:
    """Return the figures: medians over the rounds, and what they come to."""
    one, other = names
    lines = [f"{'':32}{one:>14}{other:>14}{'ratio':>8}{'mixed fleet':>14}"]
    ratios = {}
    for row, together in mixed.figures().items():
        figures = [(a.figures()[row], b.figures()[row]) for a, b in rounds]
        before, after = (median(column) for column in zip(*figures, strict=True))
        # Rounds that followed each other had the machine in the most alike state.
        ratios[row] = median(b / a for a, b in figures)
        lines.append(f"{row:32}{before:14,.1f}{after:14,.1f}{ratios[row]:8.2f}{together:14,.1f}")
    lines.append(
        "ratio: the median over pairs of neighbouring rounds.  The mixed fleet has one worker a side and\n"
        "works out new pages meanwhile: it is there to agree, not to be fast."
    )
    rate, cpu = ratios["requests/s"], ratios["worker CPU, s per 1000 requests"]
    summary = f"\n{other} served {rate:.2f} times the requests/s for {cpu:.2f} of the CPU per request."
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
    """Start the server and both sites, run the demo, and leave nothing behind."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=8, help="of load, in all")
    parser.add_argument("--before", default="django_redis.cache.RedisCache", help="a BACKEND")
    parser.add_argument("--after", default="fleetcache.django.RedisCache", help="another BACKEND")
    options = parser.parse_args()
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
            f"   before   BACKEND = {options.before!r}\n    after   BACKEND = {options.after!r}\n"
        )
        before = stack.enter_context(Site(options.before, location, folder))
        after = stack.enter_context(Site(options.after, location, folder))
        demo = Demo(before, after, server, folder)
        demo.run(options.seconds)
        return demo.verdict()


if __name__ == "__main__":
    sys.exit(main())
