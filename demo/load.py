"""The demo's HTTP load generator: visitors in a closed loop who check every page they get.

A visitor has a session cookie and a memory.  A character page must show the true facts, exactly
this visitor's last characters, a note that the visitor before left there, and a count of visits
that ``stage.py`` adds up in the end.  Runs as a process of its own; prints a line when
it begins, and in the end its `Report` as JSON.  With ``--rounds`` it compares sites: before each
round it waits for a line, and after it prints a list of reports, one of each site.
"""

import argparse
import json
import random
import re
import socket
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import accumulate, count, cycle
from pathlib import Path

VISITORS = 4
TIMEOUT = 60
"""Seconds that a visitor waits for a page: longer than any page of the demo takes."""
PATIENCE = 4
"""Seconds for which visitors stay longer to see a least number of pages."""

Pages = dict[str, list[str]]
"""Path -> what the page must contain; the most popular path first."""
Page = tuple[str, list[str]]
Step = tuple[int, Page]
"""The port from which a visitor wants a page."""

LENGTH = re.compile(rb"(?i)^content-length: (\d+)", re.MULTILINE)
SERVER = re.compile(rb"(?i)^x-served-by: ([\w-]+)", re.MULTILINE)
COOKIE = re.compile(rb"(?i)^set-cookie: (sessionid=\w+)", re.MULTILINE)
PERSONAL = re.compile(r'data-visits="(\d+)" data-made="([^"]+)" data-last="([\w-]*) (\d*)" data-seen="([^"]*)"')


class WrongPageError(Exception):
    """A response is not what it must be."""


@dataclass
class Report:
    """What some requests saw.  Reports add up."""

    began: float = 0.0
    """On the machine's monotonic clock."""
    seconds: float = 0.0
    cpu: float = 0.0
    """The CPU seconds of the visitors themselves."""
    latencies: list[float] = field(default_factory=list)
    moments: list[float] = field(default_factory=list)
    """When each of these requests began, on the machine's monotonic clock."""
    errors: list[str] = field(default_factory=list)
    visits: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    """The counts of visits that the pages of a character showed: each once, if all is well."""
    makings: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """By whom and when the page of a character was worked out: one making, if all is well."""
    readings: Counter[str] = field(default_factory=Counter)
    """``reader writer`` -> how often the one's workers read a value that the other's wrote."""

    def __post_init__(self) -> None:
        """Take plain dicts, as they come out of JSON."""
        self.visits = defaultdict(list, self.visits)
        self.makings = defaultdict(list, self.makings)
        self.readings = Counter(self.readings)

    def add(self, other: "Report") -> None:
        """Take in what *other* saw, after or beside this one's own."""
        self.began = self.began or other.began
        self.seconds = max(self.seconds, other.seconds)
        self.cpu += other.cpu
        self.latencies += other.latencies
        self.moments += other.moments
        self.errors += other.errors
        self.readings.update(other.readings)
        for code, counts in other.visits.items():
            self.visits[code] += counts
        for code, makings in other.makings.items():
            self.makings[code] = sorted({*self.makings[code], *makings})

    def percentile(self, share: float) -> float:
        """Return the milliseconds that *share* of the requests did not exceed."""
        ordered = sorted(self.latencies) or [float("nan")]
        return 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def fetch(port: int, path: str, cookie: str = "") -> tuple[bytes, str]:
    """Make one exchange on a connection of its own, as a proxy without keep-alive does."""
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nCookie: {cookie}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT) as connection:
        connection.sendall(request.encode())
        pieces = list(iter(lambda: connection.recv(65536), b""))
    head, _, body = b"".join(pieces).partition(b"\r\n\r\n")
    length = LENGTH.search(head)
    if not head.startswith(b"HTTP/1.1 200 ") or not length or int(length[1]) != len(body):
        raise WrongPageError(f"{head[:40]!r} and {len(body)} bytes")
    return head, body.decode()


class Visitor:
    """Asks for one page after another, and remembers what was seen."""

    def __init__(self, *, cookie: str = "", pause: float = 0) -> None:
        self.reports: dict[int, Report] = defaultdict(Report)
        """Port -> what the pages from there were like."""
        self.cookie = cookie
        self.pause = pause
        self.seen: list[str] = []

    def walk(self, steps: Iterable[Step]) -> None:
        """Walk to the end; a wrong page is noted and does not end the walk."""
        for port, (path, facts) in steps:
            report = self.reports[port]
            started = time.monotonic()
            try:
                head, body = fetch(port, path, self.cookie)
                report.latencies.append(time.monotonic() - started)
                report.moments.append(started)
                self.check(report, path, facts, head, body)
            except (OSError, ValueError, WrongPageError) as error:
                report.errors.append(f"{path}: {type(error).__name__}: {error}")
            if self.pause:
                time.sleep(self.pause)

    def check(self, report: Report, path: str, facts: list[str], head: bytes, body: str) -> None:
        """Compare a page with the facts."""
        missing = [fact for fact in facts if fact not in body]
        if cookie := COOKIE.search(head):
            self.cookie = cookie[1].decode()
        if path.startswith("/character/"):
            self.compare(report, path.split("/")[2], head, body)
        if missing:
            raise WrongPageError(f"{len(missing)} facts are missing, one is {missing[0]!r}")

    def compare(self, report: Report, code: str, head: bytes, body: str) -> None:
        """Compare a character page with what this visitor remembers, and remember it."""
        server, personal = SERVER.search(head), PERSONAL.search(body)
        if not server or not personal:
            raise WrongPageError("the page does not say who served it to whom")
        reader = server[1].decode()
        visits, made, last_by, last_code, seen = personal.groups()

        report.visits[code].append(int(visits))
        report.makings[code] = sorted({*report.makings[code], made})
        report.readings.update(f"{reader} {writer}" for writer in (made.split("@")[0], last_by) if writer)
        expected, self.seen = (
            self.seen,
            [code, *(other for other in self.seen if other != code)][:8],
        )
        if seen.split() != expected:
            raise WrongPageError(f"the session remembers {seen.split()}, not {expected}")
        # The first visitors may all arrive before one of them has left a note.
        if last_code != code and (last_code or int(visits) > VISITORS):
            raise WrongPageError(f"the note of the visitor before says {last_code!r}")


def stroll(pages: Pages, seed: int, until: float, least: float) -> Iterator[Page]:
    """Yield pages by Zipf's law until the clock says *until*; the same ones for the same *seed*.

    On a busy machine it goes on until there were *least* pages, but not for long.
    """
    choice = random.Random(seed)
    wanted = list(pages.items())
    weights = list(accumulate(1 / rank for rank in range(1, len(pages) + 1)))
    for number in count():
        now = time.monotonic()
        if now >= until and (number >= least or now >= until + PATIENCE):
            return
        yield choice.choices(wanted, cum_weights=weights)[0]


def side_by_side(ports: list[int], pages: Iterable[Page], first: int) -> Iterator[Step]:
    """Yield each page from every port, at once one after another; the ports come first in turns."""
    for number, page in enumerate(pages, first):
        for port in ports[:: -1 if number % 2 else 1]:
            yield port, page


def main() -> None:
    """Send the visitors, and print what they saw."""
    parser = argparse.ArgumentParser(description="Load the demo site on loopback.")
    parser.add_argument("pages", type=Path, help="JSON: path -> what the page must contain")
    parser.add_argument("ports", type=int, nargs="+")
    parser.add_argument("--seconds", type=float, help="without it, each page is asked for *times* times")
    parser.add_argument("--times", type=int, default=1)
    parser.add_argument(
        "--rounds", type=int, help="of so many seconds, in which every port is asked for the same pages"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--least", type=int, default=0, help="pages that are to be seen, if it takes a little longer")
    parser.add_argument("--visitors", type=int, default=VISITORS)
    parser.add_argument("--cookie", default="", help="of the session in which every visitor comes")
    parser.add_argument("--pause", type=float, default=0, help="seconds between two requests of a visitor")
    options = parser.parse_args()

    visitors = [Visitor(cookie=options.cookie, pause=options.pause) for _ in range(options.visitors)]
    pages: Pages = json.loads(options.pages.read_text())
    print("begun", flush=True)
    if not options.rounds:
        total = Report()
        for report in send(visitors, options, pages, options.seed):
            total.add(report)
        print(json.dumps(vars(total)))
    for number in range(options.rounds or 0):
        if not sys.stdin.readline():  # the demo has ended
            return
        print(json.dumps([vars(report) for report in send(visitors, options, pages, number)]), flush=True)


def send(visitors: list[Visitor], options: argparse.Namespace, pages: Pages, seed: int) -> list[Report]:
    """Send the visitors, wait for all of them, and return what they saw at each port."""
    started, cpu = time.monotonic(), time.process_time()
    threads = []
    for number, visitor in enumerate(visitors):
        visitor.reports.clear()
        walk: Iterable[Page] = list(pages.items())[number :: len(visitors)] * options.times
        if options.seconds:
            until, least = started + options.seconds, options.least / len(visitors)
            walk = stroll(pages, len(visitors) * seed + number, until, least)
        steps = side_by_side(options.ports, walk, number + seed) if options.rounds else zip(cycle(options.ports), walk)
        threads.append(threading.Thread(target=visitor.walk, args=(steps,), daemon=True))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ended, used = time.monotonic(), time.process_time() - cpu
    found = []
    for port in options.ports:
        report = Report(began=started, seconds=ended - started, cpu=used / len(options.ports))
        for visitor in visitors:
            report.add(visitor.reports[port])
        found.append(report)
    return found


if __name__ == "__main__":
    main()
