"""``python -m tests.soak``: let everything go wrong for a while, with ever new seeds, and check what caches answered.

A line of the table is a scenario; the exit code is 1 if any promise was broken, and what was is
printed with the command that repeats it.
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
import time
from collections import defaultdict

from tests.coherence.load import BOTH, TASKS, THREADS
from tests.coherence.runs import Report, run
from tests.coherence.scenarios import SCENARIOS
from tests.coherence.topologies import TOPOLOGIES


def main() -> int:
    """Run, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600, help="how long to go on")
    parser.add_argument("--seed", type=int, default=1, help="the first seed")
    parser.add_argument("--seeds", type=int, help="how many rounds; left out: as many as there is time for")
    parser.add_argument("--scenario", action="append", choices=SCENARIOS, help="only these")
    parser.add_argument("--face", choices=[THREADS, TASKS, BOTH], help="left out: all in turn")
    parser.add_argument("--server", choices=["valkey", "redis"], help="left out: both in turn")
    parser.add_argument("--topology", choices=TOPOLOGIES, help="left out: all in turn that a scenario is for")
    parser.add_argument("--processes", type=int, help="left out: 1, 2 and 4 in turn")
    parser.add_argument("--mutant", help="break a rule of the near cache")
    chosen = parser.parse_args()
    until = time.monotonic() + chosen.seconds
    table: dict[str, list[Report]] = defaultdict(list)
    seeds = itertools.count(chosen.seed) if chosen.seeds is None else range(chosen.seed, chosen.seed + chosen.seeds)
    for seed, name in ((seed, name) for seed in seeds for name in chosen.scenario or SCENARIOS):
        if time.monotonic() > until:
            break
        chance = random.Random(f"{seed} {name}")
        face = chosen.face or chance.choice((THREADS, TASKS, BOTH))
        server = chosen.server or chance.choice(SCENARIOS[name].servers)
        topology = chosen.topology or chance.choice(SCENARIOS[name].topologies)
        if topology not in SCENARIOS[name].topologies:
            continue
        processes = chosen.processes or chance.choice((1, 1, 2, 4))
        report = run(
            SCENARIOS[name],
            seed,
            face=face,
            server=server,
            processes=processes,
            topology=topology,
            mutant=chosen.mutant,
        )
        if report.violations:
            print(report, flush=True)
        table[name].append(report)
        print(_line(name, [report]), f" seed {seed} {face} {server} {processes} {topology}", flush=True)
    print("\nscenario          runs   seconds     reads  near   stalest  violations")
    for name, reports in table.items():
        print(_line(name, reports))
    return any(report.violations for reports in table.values() for report in reports)


def _line(name: str, reports: list[Report]) -> str:
    reads, hits = sum(report.reads for report in reports), sum(report.hits for report in reports)
    seconds, wrong = sum(report.seconds for report in reports), sum(len(report.violations) for report in reports)
    stalest = max(report.stalest for report in reports)
    return f"{name:16} {len(reports):5} {seconds:9.1f} {reads:9} {hits / max(reads, 1):5.0%} {stalest * 1000:6.1f} ms {wrong:11}"


if __name__ == "__main__":
    sys.exit(main())
