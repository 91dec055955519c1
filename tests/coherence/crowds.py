"""Crowds that load and invalidate while things go wrong, and the checker of loads at the end.

``python -m tests.coherence.crowds`` runs seeds of each scenario on each topology, and prints a table.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import random
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from tests.coherence.callers import BOTH, TASKS, THREADS, Workload, main
from tests.coherence.database import FOREIGN, read_journal
from tests.coherence.loads import (
    CLEAR,
    DELETE,
    DONE,
    EVERYTHING,
    HUNG,
    LOSS,
    SET,
    SOFT,
    TAG,
    Call,
    Invalidation,
    Load,
    Operation,
    Rules,
    Terms,
    Violation,
    check,
)
from tests.coherence.runs import NEAR, T_LIVE
from tests.coherence.topologies import TOPOLOGIES, Cluster, One, Proxies, Sentinel

from fleetcache.testing.clusters import role, wait_for
from fleetcache.testing.clusters import run as command
from fleetcache.topology.cluster import slot_of

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["tests.coherence.callers"])

MEMORY = "memory"
PLACES = {
    "valkey": ("one", "valkey"),
    "redis": ("one", "redis"),
    "cluster": ("cluster", "valkey"),
    "sentinel": ("sentinel", "redis"),
    MEMORY: (MEMORY, MEMORY),
}
"""Where crowds load: a topology, and the kind of its servers."""

ALL_KINDS = (DELETE, SET, SOFT, TAG, CLEAR)
RECOVERY = 0.8
"""Seconds after an outage in which calls may still fail, because connections are made anew."""


def calm(run: Run) -> None:
    """Nothing goes wrong."""
    run.sleep(1.2)


def slowed(run: Run) -> None:
    """Replies take a while, each another one, so that much happens between two commands."""
    run.proxy.delay(0.002, jitter=0.015)
    run.sleep(1.2)


def reset(run: Run) -> None:
    """Connections are reset in the middle of everything."""
    for _ in range(3):
        run.sleep(0.25)
        with run.outage(0.3):
            run.proxy.reset()
    run.sleep(0.3)


def held(run: Run) -> None:
    """Nothing is answered for a while."""
    run.sleep(0.3)
    with run.outage():
        run.proxy.hold()
        run.sleep(0.7)
        run.proxy.heal()
    run.sleep(0.9)


def stopped(run: Run) -> None:
    """The server is stopped, and goes on."""
    run.sleep(0.3)
    with run.outage():
        run.server.pause()
        run.sleep(0.4 + 0.4 * run.chance.random())
        run.server.resume()
    run.sleep(0.9)


def restarted(run: Run) -> None:
    """The server is killed, and comes back empty."""
    run.sleep(0.3)
    with run.outage(1.3), run.loss():
        run.server.kill()
        run.sleep(0.2 * run.chance.random())
        run.server.restart()
        if isinstance(run.ground, Cluster):
            run.ground.cluster.settle()
    run.sleep(0.9)


def moved(run: Run) -> None:
    """Slots move with what is in them."""
    assert isinstance(run.ground, Cluster)
    for _ in range(3):
        for name in run.load.names:
            slot = slot_of(f"{run.load.prefix}:1:{name}")
            others = [node for node in run.ground.primaries if node is not run.ground.cluster.owner(slot)]
            with run.outage(0.1):
                run.ground.cluster.move_slot(slot, run.chance.choice(others))
        run.sleep(0.2)


def promoted(run: Run) -> None:
    """A replica takes the place of its primary."""
    run.sleep(0.3)
    if isinstance(run.ground, Cluster):
        with run.outage(), run.epoch():
            run.ground.cluster.failover(run.server)
    else:
        assert isinstance(run.ground, Sentinel)
        with run.outage(1.0), run.epoch():
            run.ground.watched.failover()
            ground = run.ground
            wait_for(lambda: len({id(each) for each in ground.named}) == 1, "all Sentinels name the same primary")
            wait_for(lambda: role(ground.watched.primary)[0] == b"master", "it knows")
    run.sleep(0.9)


@dataclass(frozen=True)
class Scenario:
    """A crowd, and what happens to it."""

    name: str
    script: Callable[[Run], None] = calm
    terms: Terms = Terms()
    load: dict[str, Any] = field(default_factory=dict)
    places: tuple[str, ...] = tuple(PLACES)
    mortal: int = 0
    """Processes that kills may befall."""
    replicas: int = 0
    grace: float = 1.0
    ignoring: bool = False
    """Whether `IGNORE_EXCEPTIONS` is on."""


SERVERS = ("valkey", "redis", "cluster", "sentinel")
WHOLE = ("valkey", "redis", "sentinel")
LIVES = Terms(timeout=0.2)
SHORT = Terms(timeout=0.15, stale_while_revalidate=0.4)
HASTY: dict[str, Any] = {"timeout": 0.5, "kinds": (DELETE, TAG, SET), "invalidates": 0.02}

SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("cold", load={"kinds": (DELETE,), "invalidates": 0.01}),
        Scenario("slow replies", slowed, load={"kinds": ALL_KINDS}, places=SERVERS),
        Scenario("expiring", terms=LIVES),
        Scenario("renewed", terms=SHORT),
        Scenario(
            "seldom",
            terms=Terms(timeout=0.1, stale_while_revalidate=0.1),
            load={"keys": 40, "longest": 0.05, "pause": 0.12},
        ),
        Scenario("early", terms=Terms(timeout=0.4, early=1.0)),
        *(
            Scenario(f"{kind} while loading", load={"kinds": (kind,), "invalidates": 0.05})
            for kind in (DELETE, SET, SOFT, TAG, CLEAR)
        ),
        *(
            Scenario(f"{kind} while renewing", terms=SHORT, load={"kinds": (kind,), "invalidates": 0.05})
            for kind in (DELETE, SET, SOFT, TAG, CLEAR)
        ),
        Scenario(
            "short set while loading",
            load={"kinds": (SET,), "lives": (0.02, 0.04), "longest": 0.25, "shortest": 0.05, "invalidates": 0.1},
        ),
        Scenario("flush while loading", load={"kinds": (CLEAR,), "invalidates": 0.05, "prefix": ""}),
        Scenario("foreign set while loading", load={"kinds": (FOREIGN, DELETE), "invalidates": 0.05}, places=WHOLE),
        Scenario(
            "foreign set while renewing",
            terms=SHORT,
            load={"kinds": (FOREIGN, DELETE), "invalidates": 0.05},
            places=WHOLE,
        ),
        Scenario("failing", terms=Terms(timeout=0.1, stale_if_error=0.5), load={"fails": 0.4, "kinds": ALL_KINDS}),
        Scenario("failing without a fallback", load={"fails": 0.4, "kinds": (DELETE, TAG), "invalidates": 0.1}),
        Scenario("skipping", terms=LIVES, load={"skips": 0.5}),
        Scenario(
            "renewed in threads",
            terms=SHORT,
            load={"renew": "thread", "kinds": ALL_KINDS, "face": THREADS, "workers": 6},
        ),
        Scenario(
            "spared",
            terms=Terms(timeout=0.1, stale_if_error=2.0, soft_timeout=0.05, hard_timeout=0.15),
            load={"longest": 0.3, "kinds": (DELETE, SOFT, TAG)},
            grace=2.0,
        ),
        Scenario("throttled", terms=Terms(timeout=0.1, retry_after=0.3), load={"fails": 0.4}),
        Scenario("refreshed", terms=SHORT, load={"refreshes": 0.03, "kinds": ALL_KINDS}),
        Scenario(
            "cancelled",
            terms=LIVES,
            load={"cancels": 0.4, "face": TASKS, "workers": 8, "kinds": (DELETE,), "longest": 0.15},
        ),
        Scenario("quitting", terms=LIVES, load={"quits": 0.3, "face": THREADS, "workers": 6}),
        Scenario(
            "killed",
            terms=Terms(timeout=0.3, lease=0.6, wait=1.2),
            load={"kinds": (DELETE,), "kills": 0.1},
            mortal=2,
            places=SERVERS,
        ),
        Scenario(
            "impatient",
            terms=Terms(timeout=0.3, lease=2.0, wait=0.3),
            load={"shortest": 0.5, "longest": 0.8, "kinds": (DELETE,), "pause": 0.02},
        ),
        Scenario(
            "overlong",
            terms=Terms(timeout=0.5, lease=0.3, wait=0.8),
            load={"shortest": 0.4, "longest": 0.7, "kinds": (DELETE,), "pause": 0.02},
        ),
        Scenario("reset", reset, terms=LIVES, load=HASTY, places=SERVERS),
        Scenario("held", held, terms=LIVES, load=HASTY, places=SERVERS, grace=2.0),
        Scenario("stopped", stopped, terms=SHORT, load=HASTY, places=("valkey", "redis", "cluster"), grace=2.0),
        Scenario("restarted", restarted, terms=SHORT, load=HASTY, places=("valkey", "redis", "cluster"), grace=2.0),
        Scenario("ignoring", stopped, terms=SHORT, load=HASTY, places=("valkey", "redis"), grace=2.0, ignoring=True),
        Scenario(
            "kept in an outage",
            stopped,
            terms=SHORT,
            load=HASTY | {"options": {"IGNORE_EXCEPTIONS": True, "OUTAGE_TTL": 0.3}},
            places=("valkey", "redis"),
            grace=2.0,
            ignoring=True,
        ),
        Scenario("moved", moved, load=HASTY, places=("cluster",), grace=2.0),
        Scenario("promoted", promoted, load=HASTY, places=("cluster", "sentinel"), replicas=1, grace=3.0),
    )
}


@dataclass
class Report:
    """What came of a run."""

    command: str
    violations: list[Violation]
    history: list[Operation]
    seconds: float

    @property
    def loads(self) -> int:
        """How often was loaded."""
        return sum(isinstance(each, Load) for each in self.history)

    @property
    def calls(self) -> int:
        """How many calls returned."""
        return sum(isinstance(each, Call) and each.outcome != HUNG for each in self.history)

    @property
    def joined(self) -> int:
        """How many calls got what was loaded while they waited, by another."""
        loads = {each.id: each for each in self.history if isinstance(each, Load)}
        return sum(
            isinstance(each, Call)
            and each.origin in loads
            and loads[each.origin].call != each.id
            and loads[each.origin].ended > each.invoked
            for each in self.history
        )

    @property
    def invalidations(self) -> int:
        """How often was invalidated."""
        return sum(isinstance(each, Invalidation) and each.outcome == DONE for each in self.history)

    def __str__(self) -> str:
        shown = [f"{len(self.violations)} violations; again by: {self.command}"]
        shown += [f"  {number} x {promise}" for promise, number in Counter(v.promise for v in self.violations).items()]
        kinds = {violation.promise: violation for violation in reversed(self.violations)}
        for violation in kinds.values():
            shown += [str(violation), "  what happened to that key around then:"]
            shown += [f"    {each.process} {each}" for each in self.around(violation)]
        return "\n".join(shown)

    def around(self, violation: Violation) -> list[Operation]:
        """Return what befell that key, from the proof to the violation, without calls of no interest."""
        wrong, because = violation.operation, violation.because or violation.operation
        since, until = min(_began(wrong), _began(because)) - 0.05, _ended(wrong)
        shown = [
            each
            for each in self.history
            if (each.key in {wrong.key, because.key, EVERYTHING} or getattr(each, "kind", "") == TAG)
            and _ended(each) >= since
            and _began(each) <= until
            and (not isinstance(each, Call) or each.id in {getattr(wrong, "call", ""), getattr(because, "call", "")})
        ]
        return sorted(shown, key=_began)[-30:]


def _began(each: Operation) -> float:
    return each.began if isinstance(each, Load) else each.invoked


def _ended(each: Operation) -> float:
    return each.ended if isinstance(each, Load) else each.returned


class Grounds:
    """Servers, started when they are first needed, and used for one run after the other."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._started: dict[tuple[str, int], One] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def get(self, place: str, replicas: int = 0) -> One | None:
        """Return the servers of *place*, empty."""
        if place == MEMORY:
            return None
        topology, kind = PLACES[place]
        if (place, replicas) not in self._started:
            ground = TOPOLOGIES[topology](self._stack, kind, replicas, {})
            self._started[place, replicas] = ground
        ground = self._started[place, replicas]
        for server in ground.primaries:
            command(server, "FLUSHALL")
        return ground


class Run:
    """What a scenario works with."""

    def __init__(self, scenario: Scenario, seed: int, load: Workload, ground: One | None) -> None:
        self.scenario, self.load, self._ground = scenario, load, ground
        self.stack = ExitStack()
        self.chance = random.Random(f"{seed} nemesis")
        self.outages: list[tuple[float, float]] = []
        self.returns: list[tuple[float, float]] = []
        self.epochs: list[tuple[float, float]] = []
        self.losses: list[Invalidation] = []
        self.children: list[tuple[Any, Any, Workload]] = []
        if ground is not None:
            self.server = self.chance.choice(ground.primaries)
            """The one that fails; others may fail with it."""
            hit = [self.server] if seed % 2 else ground.primaries
            self.proxy = Proxies(map(ground.proxy, hit))

    @property
    def ground(self) -> One:
        """The servers."""
        assert self._ground is not None
        return self._ground

    def spawn(self, number: int) -> None:
        """Start a process, which waits for orders."""
        ours, theirs = _context.Pipe()
        mortal = number < self.scenario.mortal
        load = replace(self.load, process="abcdefgh"[number], kills=self.load.kills if mortal else 0.0)
        child = _context.Process(target=main, args=(load, theirs), daemon=True)
        child.start()
        theirs.close()
        self.children.append((child, ours, load))
        self.stack.callback(_end, child, ours)

    def order(self, verb: str) -> None:
        """Tell all processes to do something, and wait until it is done; those that may die do not hinder."""
        for _, pipe, load in self.children:
            try:
                pipe.send(verb)
            except OSError:
                if not load.kills:
                    raise
        for _, pipe, load in self.children:
            try:
                if not pipe.poll(30):
                    raise RuntimeError(f"a process does not {verb}")
                pipe.recv()
            except (EOFError, OSError):
                if not load.kills:
                    raise

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        time.sleep(seconds)

    @contextmanager
    def outage(self, recovery: float = RECOVERY) -> Iterator[None]:
        """Note that calls may fail, in the block and for a while after it."""
        begun = time.monotonic()
        yield
        healed = time.monotonic()
        self.outages.append((begun, healed + recovery))
        self.returns.append((healed, healed + recovery))

    @contextmanager
    def epoch(self) -> Iterator[None]:
        """Note that others take the place of servers."""
        begun = time.monotonic()
        yield
        self.epochs.append((begun, time.monotonic() + RECOVERY))

    @contextmanager
    def loss(self) -> Iterator[None]:
        """Note that everything is lost."""
        begun = time.monotonic()
        yield
        found = Invalidation("loss", "nemesis", LOSS, EVERYTHING, begun, time.monotonic(), DONE)
        self.losses.append(found)


def run(
    scenario: Scenario,
    seed: int,
    grounds: Grounds,
    *,
    place: str = "valkey",
    face: str = BOTH,
    processes: int = 4,
    near: bool = False,
    mutant: str | None = None,
) -> Report:
    """Let a scenario happen, and return what the checker says."""
    began = time.monotonic()
    ground = grounds.get(place, scenario.replicas)
    processes = 1 if ground is None else max(processes, 2 * scenario.mortal)
    with tempfile.TemporaryDirectory(prefix="crowd-") as directory:
        load = Workload(seed, **{
            "directory": Path(directory),
            "face": face,
            "url": ground.url if ground else f"memory://crowd-{os.getpid()}-{seed}",
            "prefix": f"c{seed}",
            "near": NEAR if near and ground else None,
            "terms": replace(scenario.terms, longest=scenario.load.get("longest", Workload.longest) + 0.1),
            "mutant": mutant,
            "options": {"IGNORE_EXCEPTIONS": True} if scenario.ignoring else {},
            **scenario.load,
        })  # fmt: skip
        this = Run(scenario, seed, load, ground)
        with this.stack:
            for number in range(processes):
                this.spawn(number)
            this.order("warm")
            this.order("start")
            try:
                scenario.script(this)
            finally:
                if ground:
                    ground.settle()
            this.order("stop")
        history = [*this.losses, *_history(this)]
    rules = Rules(
        usual=load.terms,
        lag=T_LIVE if load.near else 0.0,
        late_clears=0.3 if place == "cluster" else 0.0,
        outages=this.outages,
        returns=this.returns,
        epochs=this.epochs,
        failing_since=min((begin for begin, _ in this.outages), default=math.inf),
        swallows=scenario.ignoring,
        grace=scenario.grace,
    )
    again = (
        f"python -m tests.coherence.crowds --scenario '{scenario.name}' --seed {seed} --seeds 1 --place {place} "
        f"--face {load.face} --processes {processes} {'--near' if near else ''}"
        + (f" --mutant {mutant}" if mutant else "")
    )
    return Report(again, check(history, rules), history, time.monotonic() - began)


def _history(this: Run) -> Iterator[Operation]:
    """Yield what all processes noted; what a killed one had begun never ended."""
    for _, _, load in this.children:
        path = load.directory / load.process
        for each in read_journal(path, load.process) if path.exists() else ():
            if not (load.kills and isinstance(each, Call) and each.outcome == HUNG):
                yield each


def _end(child: Any, pipe: Any) -> None:
    pipe.close()
    child.join(2)
    if child.is_alive():
        child.kill()
        child.join(5)
    child.close()


# --- many runs ----------------------------------------------------------------------------------------


def plan(place: str, scenario: str, seed: int) -> dict[str, Any]:
    """Return how a seed is run, if nothing else is said: processes, near caches and faces take turns."""
    chance = random.Random(f"{place} {scenario} {seed}")
    return {
        "face": chance.choice((BOTH, THREADS, TASKS)),
        "processes": (4, 1, 4)[seed % 3],
        "near": place != MEMORY and chance.random() < 0.5,
    }


def table() -> int:
    """Run what the command line says; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1, help="the first seed")
    parser.add_argument("--seconds", type=float, default=math.inf, help="stop after this time")
    parser.add_argument("--scenario", action="append", choices=SCENARIOS)
    parser.add_argument("--place", action="append", choices=PLACES)
    parser.add_argument("--face", choices=[THREADS, TASKS, BOTH])
    parser.add_argument("--processes", type=int)
    parser.add_argument("--near", action=argparse.BooleanOptionalAction)
    parser.add_argument("--mutant")
    chosen = parser.parse_args()
    until = time.monotonic() + chosen.seconds
    found: dict[tuple[str, str], list[Report]] = defaultdict(list)
    wrong = 0
    with Grounds() as grounds:
        for seed in range(chosen.seed, chosen.seed + chosen.seeds):
            for place in chosen.place or PLACES:
                for name in chosen.scenario or SCENARIOS:
                    if place not in SCENARIOS[name].places or time.monotonic() > until:
                        continue
                    given = {"face": chosen.face, "processes": chosen.processes, "near": chosen.near}
                    how = plan(place, name, seed) | {key: value for key, value in given.items() if value is not None}
                    report = run(SCENARIOS[name], seed, grounds, place=place, mutant=chosen.mutant, **how)
                    found[name, place].append(report)
                    wrong += bool(report.violations)
                    if report.violations:
                        print(report, flush=True)
                    print(_line(name, place, [report]), f"seed {seed} {how}", flush=True)
    print(f"\n{'scenario':28} {'place':9} runs  seconds  calls  joined  loads  invalidations  broken runs")
    for (name, place), reports in found.items():
        print(_line(name, place, reports))
    return 1 if wrong else 0


def _line(name: str, place: str, reports: list[Report]) -> str:
    calls, loads = sum(each.calls for each in reports), sum(each.loads for each in reports)
    joined, gone = sum(each.joined for each in reports), sum(each.invalidations for each in reports)
    seconds, broken = sum(each.seconds for each in reports), sum(bool(each.violations) for each in reports)
    return f"{name:28} {place:9} {len(reports):4} {seconds:8.1f} {calls:6} {joined:7} {loads:6} {gone:14} {broken:12}"


if __name__ == "__main__":
    sys.exit(table())
