"""``make demo``: a Django site on django-redis and on fleetcache, in five scenes.

A small site about the Unicode database runs under gunicorn and under checked HTTP load, on an embedded Valkey.  Each
scene asks a question, and answers it with a number that was measured in this run.  The report is an HTML file.

The exit code is 0 if every scene was played and every page was right; which site was faster does not matter for it.
"""

import argparse
import math
import os
import platform
import signal
import sys
import time
import traceback
from importlib.metadata import version
from pathlib import Path

import report
from findings import Outcome
from scenes import near, outage, rollback, stampede, switch
from screen import WIDTH, Screen, columns
from sites import WORKERS, DemoError
from stage import Stage

SCENES = {scene.NAME: scene for scene in (switch, near, outage, stampede, rollback)}
SIGNS = {True: "ok  ", False: "NOT ", None: "–   "}
"""Whether a claim holds -> what stands before it."""
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Demo:
    """Plays scenes, prints what they found, and writes the report."""

    def __init__(self, screen: Screen, seconds: float, path: Path = report.REPORT) -> None:
        self.screen, self.seconds, self.path = screen, seconds, path
        self.outcomes: list[Outcome] = []
        self.errors: list[tuple[str, str]] = []

    def play(self, names: list[str]) -> int:
        """Play scenes one after another; return the exit code."""
        began = time.monotonic()
        with Stage(self.screen) as stage:
            environment = self.environment(stage)
            self.screen.line("The same Django site on django-redis and on fleetcache")
            self.screen.line(f"{' · '.join(environment[:4])}\n{' · '.join(environment[4:])}")
            stage.start(plan for name in names for plan in SCENES[name].SITES)
            for name in names:
                self.scene(stage, name)
        report.write(report.page(self.outcomes, environment, self.errors), self.path)
        return self.end(time.monotonic() - began)

    def environment(self, stage: Stage) -> list[str]:
        """Return where it is measured."""
        info = stage.server.info("server")
        return [
            f"django-redis {version('django-redis')}",
            f"fleetcache {version('fleetcache')}",
            f"redis-py {version('redis')}",
            f"Django {version('django')}",
            f"Python {platform.python_version()}",
            f"Valkey {info.get('valkey_version', '?')}",
            f"gunicorn with {WORKERS} workers",
            f"{os.cpu_count()} CPUs",
        ]

    def scene(self, stage: Stage, name: str) -> None:
        """Play one scene; if it ends with an error, show that and go on."""
        scene = SCENES[name]
        self.screen.line(f"\n{list(SCENES).index(name) + 1}. {name}: {scene.QUESTION}")
        try:
            outcome = scene.play(stage, self.seconds * scene.SHARE)
        except DemoError as error:
            self.fail(name, str(error))
        except Exception:
            self.fail(name, traceback.format_exc())
        else:
            self.outcomes.append(outcome)
            self.show(outcome)

    def fail(self, name: str, text: str) -> None:
        """Remember that a scene could not be played, and say why."""
        self.errors.append((name, text))
        self.screen.line(f"   This scene ended with an error:\n{text}")

    def show(self, outcome: Outcome) -> None:
        """Print what a scene found."""
        lines = [columns(outcome.table), "", *(f"   {line}" for line in outcome.chart), ""]
        for claim in outcome.claims:
            lines += wrapped(SIGNS[claim.holds] + claim.text)
        for fault in outcome.faults[:8]:
            lines += wrapped(f"FAULT {fault}")
        self.screen.line("\n".join(lines))

    def end(self, seconds: float) -> int:
        """Print the numbers of all scenes, and where the report is; return the exit code."""
        rows = [[outcome.scene, f"{outcome.number} {outcome.meaning}", outcome.doubt] for outcome in self.outcomes]
        wide = max((len(row[1]) for row in rows), default=0)
        self.screen.line("\n" + "─" * WIDTH)
        for scene, text, doubt in rows:
            self.screen.line(f"   {scene:9} {text:{wide}}  {doubt}".rstrip())
        for scene, _ in self.errors:
            self.screen.line(f"   {scene:9} ended with an error")
        self.screen.line(f"\n   {seconds:.0f} s.  The report, with plots: {self.path}")
        return 1 if self.errors or any(outcome.faults for outcome in self.outcomes) else 0


def wrapped(text: str) -> list[str]:
    """Return *text* in lines that fit."""
    words, lines = text.split(" "), ["  "]
    for word in words:
        if len(lines[-1]) + 1 + len(word) > WIDTH:
            lines.append("      ")
        lines[-1] += " " + word
    return lines


def stop(number: int, _frame: object) -> None:
    """End the demo, once, on a signal: children are stopped on the way out."""
    for each in STOPS:
        signal.signal(each, signal.SIG_IGN)
    sys.exit(128 + number)


def seconds(text: str) -> float:
    """Return the seconds in *text*; for ``type=`` of an argument."""
    if not math.isfinite(value := float(text)):
        raise ValueError
    return value


def main() -> int:
    """Read the arguments, and play."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--seconds", type=seconds, default=20, help="of load, in all scenes together, about; at least 8"
    )
    parser.add_argument("--scene", choices=SCENES, action="append", help="play this scene only; may be repeated")
    parser.add_argument("--report", type=Path, default=report.REPORT, help="where to write the report")
    options = parser.parse_args()
    for each in STOPS:
        signal.signal(each, stop)
    names = [name for name in SCENES if name in (options.scene or SCENES)]
    return Demo(Screen(), max(8, options.seconds), options.report).play(names)


if __name__ == "__main__":
    sys.exit(main())
