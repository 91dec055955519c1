"""One run: a server, a proxy, processes under load, a foreign writer, a scenario, and the checker at the end."""

from __future__ import annotations

import multiprocessing
import random
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError
from tests.coherence import keys
from tests.coherence.checker import (
    EVERY_KEY,
    LOSS,
    READ,
    Operation,
    Recorder,
    Violation,
    check,
    stalest,
)
from tests.coherence.foreign import FLUSH, Foreign
from tests.coherence.load import Outcome, Workload, main
from tests.coherence.topologies import TOPOLOGIES, Cluster, One, Proxies, Sentinel, peers

from fleetcache import Cache
from fleetcache.testing import valkey_server
from fleetcache.testing.clusters import ClusterNode, wait_for
from fleetcache.testing.clusters import run as command
from fleetcache.testing.servers import EmbeddedServer

if TYPE_CHECKING:
    from tests.coherence.scenarios import Scenario

T_LIVE, CANARY, T_TOPO = 0.3, 0.5, 1.0
NEAR = {"T_LIVE": T_LIVE, "CANARY": CANARY, "T_TOPO": T_TOPO, "MAX_TTL": 60, "MAX_BYTES": 8_000_000}

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["tests.coherence.load"])


@dataclass
class Report:
    """What came of a run."""

    command: str
    violations: list[Violation]
    history: list[Operation]
    outcomes: list[Outcome]
    seconds: float
    checking: float

    @property
    def reads(self) -> int:
        return sum(each.kind == READ for each in self.history)

    @property
    def hits(self) -> int:
        return sum(outcome.stats.get("hits", 0) for outcome in self.outcomes)

    def audited(self, what: str) -> int:
        """Return the sum of a figure of the audits of all processes."""
        return sum(outcome.stats.get("audit", {}).get(what, 0) for outcome in self.outcomes)

    @property
    def stalest(self) -> float:
        return stalest(self.history)

    def __str__(self) -> str:
        shown = [f"{len(self.violations)} violations; again by: {self.command}", *map(str, self.violations[:5])]
        if self.violations:
            shown.append("  what happened to that key around then:")
            shown += [f"    {each}" for each in self.around(self.violations[0])]
        return "\n".join(shown)

    def around(self, violation: Violation) -> list[Operation]:
        """Return the writes of that key, and the reads of that process, from the proof to the violation."""
        wrong = violation.operation
        since = (violation.because or wrong).invoked - 0.05
        return sorted(
            (
                each
                for each in self.history
                if each.key in {wrong.key, EVERY_KEY}
                and each.returned >= since
                and each.invoked <= wrong.returned
                and (each.kind != READ or each.process == wrong.process)
            ),
            key=lambda each: each.invoked,
        )[-40:]


class Run:
    """What a scenario works with."""

    def __init__(
        self,
        scenario: Scenario,
        seed: int,
        *,
        face: str,
        server: str,
        processes: int,
        topology: str,
        mutant: str | None,
        audit: int,
    ) -> None:
        self.scenario = scenario
        self.stack = ExitStack()
        self.recorder = Recorder("nemesis")
        self.children: list[tuple[Any, Any]] = []
        self.chance = random.Random(f"{seed} nemesis")
        try:
            self.ground: One = TOPOLOGIES[topology](self.stack, server, scenario.replicas, scenario.server)
            self.server = self.chance.choice(self.ground.primaries)
            """The one that fails; others may fail with it."""
            hit = [self.server] if seed % 2 else self.ground.primaries
            self.proxy = Proxies(map(self.ground.proxy, hit))
            load = Workload(
                seed,
                face=face,
                url=self.ground.url,
                near=NEAR | scenario.near,
                mutant=mutant,
                audit=audit,
                **scenario.load,
            )
            self.load = load
            self.foreign = Foreign(
                self.ground.client(), seed, shared=load.shared, expiring=load.expiring, rate=scenario.rate
            )
            self.foreign.seed()
            for number in range(processes):
                self.spawn(number)
        except BaseException:
            self.stack.close()
            raise

    @property
    def cluster(self) -> Cluster:
        """The cluster that this is on."""
        assert isinstance(self.ground, Cluster)
        return self.ground

    @property
    def sentinel(self) -> Sentinel:
        """The servers under Sentinels that this is on."""
        assert isinstance(self.ground, Sentinel)
        return self.ground

    def another_server(self) -> EmbeddedServer:
        """Start one more server, empty."""
        return self.stack.enter_context(valkey_server())

    def spawn(self, number: int) -> None:
        ours, theirs = _context.Pipe()
        load = replace(self.load, process="abcdefgh"[number])
        child = _context.Process(target=main, args=(load, theirs), daemon=True)
        child.start()
        theirs.close()
        self.children.append((child, ours))
        self.stack.callback(_end, child, ours)

    @property
    def pids(self) -> list[int]:
        return [child.pid for child, _ in self.children]

    def order(self, verb: str, what: Any = None, *, only: int | None = None) -> list[Any]:
        """Tell all processes to do something, and return what they answer."""
        pipes = [pipe for _, pipe in self.children[: None if only is None else only + 1]]
        for pipe in pipes:
            pipe.send((verb, what))
        for pipe in pipes:
            if not pipe.poll(30):
                raise RuntimeError(f"a process does not {verb}")
        return [pipe.recv() for pipe in pipes]

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def fork(self) -> None:
        """Let the first process fork."""
        directory = self.stack.enter_context(tempfile.TemporaryDirectory())
        self.order("fork", Path(directory, "history"), only=0)

    def flush(self) -> None:
        """Remove everything, and go on counting versions where they were."""
        with self.loss():
            for node in self.ground.primaries:
                held = self.ground.held((*self.foreign.shared, *self.foreign.expiring), node)
                command(node, "EVAL", FLUSH, 0, *(name for key in held for name in (keys.name(key), keys.floor(key))))

    @contextmanager
    def replaced(self, happen: Callable[[], object]) -> Iterator[ClusterNode]:
        """Let a replica take the place of `server`, to which *happen* happens, and which hears nothing of it meanwhile."""
        heir = self.cluster.cluster.replica(self.server)
        others = [node for node in self.cluster.servers if node is not self.server]
        self.cluster.proxy(heir).hold(peers)
        with self.foreign.turn:  # nothing is lost that was acknowledged, so everything is demanded
            command(self.server, "WAIT", 1, 1000)
            happen()
            command(heir, "CLUSTER", "FAILOVER", "TAKEOVER")
            wait_for(lambda: all(self.cluster.slots(heir, by=node) for node in others), "all know the heir")
            self.foreign.client = self.cluster.client(without=self.server)
        yield heir

    def write(self, names: Iterable[str]) -> None:
        """Let the foreigner write each of these."""
        for name in names:
            with suppress(RedisError):
                self.foreign.set(name, None)

    @property
    def known(self) -> list[str]:
        """The keys that are looked at in the end."""
        return [*self.foreign.shared, *self.foreign.expiring, "sa.0", "sa.1", "sa.4", "sa.5"]

    @contextmanager
    def loss(self) -> Iterator[None]:
        """Note that in this time everything is lost."""
        with self.recorder.noting(LOSS, EVERY_KEY):
            yield


def run(
    scenario: Scenario,
    seed: int,
    *,
    face: str = "both",
    server: str = "valkey",
    processes: int = 1,
    topology: str = "one",
    mutant: str | None = None,
    audit: int = 0,
) -> Report:
    """Let a scenario happen, and return what the checker says; one of *audit* hits is audited, 0 for none."""
    began = time.monotonic()
    this = Run(
        scenario, seed, face=face, server=server, processes=processes, topology=topology, mutant=mutant, audit=audit
    )
    with this.stack:
        this.order("warm")
        this.order("start")
        this.foreign.start()
        try:
            scenario.script(this)
        finally:
            this.foreign.stop()
            this.ground.settle()
        this.order("stop")
        time.sleep(scenario.settle)
        this.foreign.client = this.ground.client()
        this.foreign.truth(this.known, Cache("memory://").codec.decode)
        time.sleep(scenario.delta + 0.01)
        this.order("look", this.known)
        outcomes: list[Outcome] = this.order("end")
    history = [*this.recorder.history, *this.foreign.recorder.history]
    for outcome in outcomes:
        history += outcome.history
    crashes = {crash for outcome in outcomes for crash in outcome.crashes}
    assert not crashes, "\n".join(crashes)
    checking = time.monotonic()
    violations = check(history, delta=scenario.delta, deadline=scenario.deadline)
    again = (
        f"python -m tests.soak --scenario {scenario.name} --seed {seed} --face {face} --server {server} "
        f"--topology {topology} --processes {processes}" + (f" --mutant {mutant}" if mutant else "")
    )
    ended = time.monotonic()
    return Report(again, violations, history, outcomes, ended - began, ended - checking)


def _end(child: Any, pipe: Any) -> None:
    pipe.close()
    child.join(2)
    if child.is_alive():
        child.kill()
        child.join(5)
    child.close()
