"""``fleetcache probe``: does a server offer what the near cache needs?  Its answers are checked, not believed.

The data on the server are safe: one key with a random name is written, and it expires by itself.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from copy import copy
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from redis.exceptions import AskError, MovedError, NoPermissionError, RedisError

from fleetcache.errors import FleetcacheError, ServerGone, ServerTimeout, SettingsError, UnsupportedServer, fault_of
from fleetcache.exchange.blocking import Conversation
from fleetcache.exchange.connecting import Way, address_of, connect
from fleetcache.exchange.contract import Server
from fleetcache.exchange.runtime import BLOCKING
from fleetcache.exchange.sentinels import ASK, Sentinels
from fleetcache.exchange.wire import NEED_DATA, Push, facts_in, new_parser, pack, place_in
from fleetcache.near.refusals import PRIMARY, too_old
from fleetcache.settings import Settings, from_url
from fleetcache.topology.cluster import Cluster
from fleetcache.topology.contract import Topology
from fleetcache.twin import complete

LAGS = 20
FENCES = 200
LONGEST = 10.0
"""How many seconds the repetitions of a check may take."""

LIFE = 60_000
"""How many milliseconds the key lives: long enough for all repetitions."""

NOT_HERE = "No setting on this side helps; {} has to offer it, or another server has to be used"
TRACKING_OFFERED = NOT_HERE.format("the server, the service or the proxy before it")


@dataclass(frozen=True)
class Check:
    """One thing that was checked."""

    name: str
    passed: bool | None
    """None: for information only, or unknown."""
    found: str
    remedy: str = ""


@dataclass
class Report:
    """The result of `probe`."""

    address: str
    prefix: str
    server: str = "unknown"
    checks: list[Check] = field(default_factory=list)
    lags: list[float] = field(default_factory=list)
    """Seconds from sending a write to receiving its announcement on another connection."""
    nodes: list[Report] = field(default_factory=list)
    """Of a cluster: the report of each primary."""
    error: str = ""
    """Why the server could not be asked; only of a node of a cluster."""

    @property
    def works(self) -> bool:
        """Whether the near cache would work."""
        return bool(self.checks) and not self.missing

    @property
    def missing(self) -> list[Check]:
        """The checks that were not passed."""
        return [check for check in self.checks if check.passed is False]

    @property
    def conclusion(self) -> str:
        """The result in one line."""
        if self.works:
            return f"The near cache works here{f', with each of {len(self.nodes)} primaries' if self.nodes else ''}."
        if self.nodes and all(node.works or node.error for node in self.nodes):
            works = sum(node.works for node in self.nodes)
            away = ", ".join(node.address for node in self.nodes if node.error)
            return f"The near cache works with {works} of {len(self.nodes)} primaries. No answer from {away}."
        missing = self.missing[0]
        return f"The near cache is off here: {missing.name}: {missing.found}. {missing.remedy}."

    def as_dict(self) -> dict[str, Any]:
        """Return the report as ``--json`` prints it."""
        lag = median(self.lags) if self.lags else None
        return {
            "address": self.address,
            "prefix": self.prefix,
            "server": self.server,
            "checks": [asdict(check) for check in self.checks],
            "works": self.works,
            "conclusion": self.error or self.conclusion,
            "lag_seconds": lag,
            "away": bool(self.error) or any(node.error for node in self.nodes),
            "nodes": [node.as_dict() for node in self.nodes],
        }

    def note(self, name: str, passed: bool | None, found: str, remedy: str = "") -> None:
        """Add a check; the inquiry ends with the first one that is not passed."""
        self.checks.append(Check(name, passed, found, remedy if passed is False else ""))
        if passed is False:
            raise Missing


class Missing(Exception):
    """The last check was not passed, so the inquiry ends."""


def probe(url: str, prefix: str | None = None, *, options: Mapping[str, Any] | None = None) -> Report:
    """Check whether the near cache works with the server at *url*.

    *url* is a URL as ``Cache.from_url`` takes it, and *options* are further ``OPTIONS``; of a cluster each primary is asked.  *prefix*
    begins the name of the key that is written, by default the KEY_PREFIX in the URL, or ``fleetcache``.  If there is no server, or the
    server refuses the password, the exception is that of a cache.  Of a cluster's primary that is away, the report says so.
    """
    location, params = from_url(url)
    return examine(Settings.read(location, {**params, "OPTIONS": {**params["OPTIONS"], **(options or {})}}), prefix)


def examine(settings: Settings, prefix: str | None = None) -> Report:
    """Check whether the near cache works with the server of *settings*; see `probe`."""
    place = settings.location[0]
    if place.kind not in {"server", "cluster", "service"}:
        raise SettingsError(f"{place.masked}: there is no server to ask; give the URL of one: redis://host:6379/0")
    prefix = prefix or f"{settings.key_prefix or 'fleetcache'}:"
    topology = _topology_of(settings)
    is_cluster = isinstance(topology, Cluster)
    try:
        servers = complete(topology.survey(BLOCKING))
    except UnsupportedServer:  # its own report says what it is instead
        return _examine_server(settings, topology.servers[0], prefix, is_cluster=is_cluster)
    finally:
        topology.close_idle()
    if is_cluster or len(servers) > 1:
        return _examine_several(settings, servers, prefix, is_cluster=is_cluster)
    (server,) = servers
    report = _examine_server(settings, server, prefix)
    if server.remote.sentinels is not None:
        report.checks.insert(0, _sentinels(server.remote.sentinels))
    return report


def _topology_of(settings: Settings) -> Topology:
    """Return the servers of *settings*, as a cache would ask them."""
    topology: Topology = settings.options.client_class.make_topology(settings)
    return topology


def _examine_several(settings: Settings, servers: Sequence[Server], prefix: str, *, is_cluster: bool) -> Report:
    """Return the report of each primary, in one."""
    nodes, errors = [], []
    for server in servers:
        try:
            nodes.append(_examine_server(settings, server, prefix, is_cluster=is_cluster))
        except (FleetcacheError, RedisError, OSError) as error:
            nodes.append(Report(server.address, prefix, error=fault_of(error)))
            errors.append(error)
    if len(errors) == len(nodes):
        raise errors[0]
    kinds = ", ".join(dict.fromkeys(node.server for node in nodes if not node.error))
    report = Report(", ".join(node.address for node in nodes), prefix, kinds, nodes=nodes)
    report.lags = [lag for node in nodes for lag in node.lags]
    report.checks.append(Check("primaries", None, str(len(nodes))))
    report.checks += {check.found: check for node in nodes for check in node.checks if check.name == "slots"}.values()
    report.checks += map(_of_node, nodes)
    return report


def _of_node(node: Report) -> Check:
    """Return the report of one primary as a check of them all."""
    if node.error:
        return Check(node.address, False, node.error, "Start it, or let a replica take its place")
    if node.works:
        return Check(node.address, True, f"{node.server}, {milliseconds(median(node.lags))} to an announcement")
    missing = node.missing[0]
    return Check(node.address, False, f"{missing.name}: {missing.found}", missing.remedy)


def _sentinels(sentinels: Sentinels) -> Check:
    """Return which Sentinels answer, and whether they agree."""
    named: dict[str, int] = {}
    silent = []
    for sentinel in sentinels.known:
        try:
            (said,) = sentinel.server.exchange([(ASK, "GET-MASTER-ADDR-BY-NAME", sentinels.service)])
            host, port = place_in(*said)
        except (FleetcacheError, RedisError, TypeError, ValueError) as error:
            silent.append(f"{sentinel.server.address}: {fault_of(error)}")
        else:
            place = f"{host}:{port}"
            named[place] = named.get(place, 0) + 1
        finally:
            sentinel.server.close_idle()
    words = ", ".join(f"{count} of {len(sentinels.known)} name {place}" for place, count in named.items())
    found = "; ".join([words, *(f"no answer from {each}" for each in silent)])
    return Check("Sentinels", True if len(named) == 1 and not silent else None, found)


def _examine_server(settings: Settings, server: Server, prefix: str, *, is_cluster: bool = False) -> Report:
    """Return the report of one server, to which connections are made as a cache makes them."""
    pool = server.remote.pool
    patience = pool.connection_kwargs.get("socket_timeout") or 5.0
    report = Report(address_of(pool), prefix)
    with ExitStack() as open_lines, suppress(Missing):

        def line(pool: Any = pool) -> Line:
            return open_lines.enter_context(closing(Line(pool, patience)))

        try:
            listener = line()
        except UnsupportedServer as error:
            plain = copy(pool)  # only what it says of connections is used
            plain.connection_kwargs = {**pool.connection_kwargs, "protocol": 2}
            with suppress(FleetcacheError, RedisError):  # perhaps the server does not speak RESP2 either
                asked = line(plain)
                greeting = asked.ask("HELLO")
                _who(report, greeting, asked.ask("INFO", "server"))
                if _mode(greeting, {}) == "sentinel":
                    report.note(
                        "role", False, "the server is a Sentinel", "Write redis+sentinel://host:26379/service/0"
                    )
            report.note("RESP3", False, str(error.__cause__ or error), TRACKING_OFFERED)
        user = pool.connection_kwargs.get("username") or "default"
        inquiry = _Inquiry(report, listener, line, user, cluster=is_cluster)
        try:
            inquiry.run()
        except (ServerGone, ServerTimeout) as error:
            report.note(inquiry.at, False, str(error), "See what stands between here and the server")
    return report


class Line:
    """A connection that reads replies and pushes in their order, and waits *patience* seconds at most for each."""

    def __init__(self, pool: Any, patience: float) -> None:
        self.patience = patience
        self.pushed: list[Any] = []
        self._reader = new_parser(encoding="utf-8", errors="replace")
        self._conversation = Conversation(connect(Way(pool)), patience, address_of(pool))
        self._conversation.parser = self._reader
        self.close = self._conversation.close

    def ask(self, *command: str | int) -> Any:
        """Return the reply, or a refusal as an exception; pushes before the reply are appended to ``pushed``."""
        self.send(*command)
        return self.reply()

    def send(self, *command: str | int) -> None:
        """Send a command; its reply is read later."""
        verb, *parts = command
        self._conversation.tell(pack((str(verb).encode(), *parts)))

    def reply(self) -> Any:
        """Return the next reply."""
        while type(arrived := self._next()) is Push:
            self.pushed.append(arrived)
        return arrived

    def hear(self, name: str) -> bool:
        """Wait until a change of *name* is announced; return False if none was in time."""
        until = time.monotonic() + self.patience
        with suppress(ServerTimeout):
            while not (heard := self.heard(name)) and time.monotonic() < until:
                self.pushed.append(self._next())
            return heard
        return False

    def heard(self, name: str) -> bool:
        """Return whether a change of *name* has been announced since the last call."""
        pushed, self.pushed = self.pushed, []
        return any(len(push) > 1 and push[0] == "invalidate" and name in (push[1] or ()) for push in pushed)

    def _next(self) -> Any:
        while (arrived := self._reader.gets()) is NEED_DATA:
            self._conversation.receive()
        return arrived


class _Inquiry:
    """The checks, in their order; the first one that is not passed ends the inquiry."""

    def __init__(
        self, report: Report, listener: Line, line: Callable[[], Line], user: str, *, cluster: bool = False
    ) -> None:
        self.report = report
        self.cluster = cluster
        self.listener = listener
        self.line = line
        self.user = user
        self.name = self._new_name()
        self.number = 0
        self.at = ""

    def _new_name(self) -> str:
        return f"{self.report.prefix}~probe:{secrets.token_hex(8)}"

    def run(self) -> None:
        """Run all checks."""
        for step in (self.server, self.tracking, self.reading_and_writing, self.announcements, self.fence):
            self.at = step.__name__.replace("_", " ")
            step()

    def allow(self, name: str, reply: Any, permission: str) -> None:
        """Go on if *reply* is no error; else end the inquiry with the remedy for it."""
        if not isinstance(reply, Exception):
            return
        if isinstance(reply, NoPermissionError):
            if "access a key" in str(reply):
                permission = f"~{self.report.prefix}*"
            remedy = f"Allow it: ACL SETUSER {self.user} {permission}"
        elif name == "tracking":
            remedy = TRACKING_OFFERED
        else:
            remedy = "Mend that on the server, or use another"
        self.report.note(name, False, f"the server says: {reply}", remedy)

    def write(self) -> Any:
        """Change the key; return the reply."""
        self.send()
        return self.writer.reply()

    def send(self) -> None:
        """Change the key; the reply is read later."""
        self.number += 1
        self.writer.send("SET", self.name, self.number, "PX", LIFE)

    def server(self) -> None:
        """Which server answers, in which role, and whether the library would notice a fail-over."""
        note, listener = self.report.note, self.listener
        greeting, introduction = listener.ask("HELLO"), listener.ask("INFO", "server")
        facts = _who(self.report, greeting, introduction)
        self.mode(_mode(greeting, facts) or ("cluster" if self.cluster else "standalone"))
        protocol = _pairs(greeting).get("proto", 3)  # HELLO 3 was sent when the connection was made
        note("RESP3", protocol == 3, f"the connection speaks RESP{protocol}", "Leave out the option `protocol`")
        self.allow("INFO", introduction, "+info")
        version = facts.get("redis_version", "")
        old = too_old(version)
        found = f"{version} mixes announcements into other replies" if old else f"as Redis {version}"
        note("version", not old, found, "Use Redis 7.0 or later, or Valkey")
        run_id = facts.get("run_id", "")
        note("run id", bool(run_id), run_id or "INFO does not tell it", TRACKING_OFFERED)
        replication = listener.ask("INFO", "replication")
        self.allow("INFO", replication, "+info")
        role = facts_in(replication).get("role", "")
        found = {"master": "primary", "slave": "replica"}.get(role, role or "not told")
        note("role", role in PRIMARY, found, "Give the URL of the primary")
        self.writer = self.line()
        same = facts_in(self.writer.ask("INFO", "server")).get("run_id", "") == run_id
        found = "both connections lead to it" if same else "connections lead to several"
        note("same server", same, found, "Give the URL of one server, not that of a balancer")

    def mode(self, mode: str) -> None:
        """Whether the server is a node of a cluster, as the scheme of the URL says."""
        if mode != "cluster":
            if self.cluster:
                self.report.note("cluster", False, "the server is no node of a cluster", "Write redis:// in the URL")
            return
        facts = facts_in(self.listener.ask("CLUSTER", "INFO"))
        size = facts.get("cluster_size", "an unknown number of")
        if not self.cluster and size != "1":
            found = f"the server is a node of a cluster with {size} primaries"
            self.report.note("cluster", False, found, "Write redis+cluster:// in the URL")
        if facts.get("cluster_state", "ok") != "ok":
            served = facts.get("cluster_slots_ok", "not all")
            self.report.note("slots", None, f"{served} of 16384 are served: a part of the cluster is away")

    def tracking(self) -> None:
        """Whether the server agrees to announce changes."""
        prefix = self.report.prefix
        reply = self.listener.ask("CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", prefix)
        self.allow("tracking", reply, "+client|tracking")
        self.report.note("tracking", True, f"of names that begin with {prefix!r}")

    def reading_and_writing(self) -> None:
        """Whether the user may call the commands of the near cache under the prefix."""
        reply = self.write()
        # A node of a cluster has only some of the names.
        for _ in range(100):
            if not isinstance(reply, (MovedError, AskError)):
                break
            self.name = self._new_name()
            reply = self.write()
        under = f"under {self.report.prefix!r}"
        self.allow(f"SET {under}", reply, "+set")
        for command in ("GET", "MGET", "PTTL"):
            self.allow(f"{command} {under}", self.writer.ask(command, self.name), f"+{command.lower()}")
        self.report.note("reading and writing", True, under)

    def announcements(self) -> None:
        """Whether changes by one connection are announced on the other."""
        lags, listener = self.report.lags, self.listener
        remedy = NOT_HERE.format("whatever drops them, probably a proxy,")
        if not listener.hear(self.name):
            found = f"a change was not announced within {listener.patience:g} s"
            self.report.note("announcements", False, found, remedy)
        until = time.monotonic() + LONGEST / 2
        while len(lags) < LAGS and time.monotonic() < until:
            began = time.monotonic()
            self.send()
            if not listener.hear(self.name):
                found = f"only {len(lags)} of {len(lags) + 1} changes were announced"
                self.report.note("announcements", False, found, remedy)
            lags.append(time.monotonic() - began)
            self.writer.reply()
        found = f"{milliseconds(median(lags))} after sending a write (median of {len(lags)})"
        self.report.note("announcements", True, found)

    def fence(self) -> None:
        """Whether each announcement comes before the answer to a PING that was sent after the write was acknowledged."""
        late = done = 0
        until = time.monotonic() + LONGEST
        while done < FENCES and time.monotonic() < until:
            self.allow("fence", self.write(), "+set")
            self.allow("fence", self.listener.ask("PING"), "+ping")
            done += 1
            if not self.listener.heard(self.name):
                late += 1
                self.listener.hear(self.name)
        found = f"{late} of {done} announcements did not come" if late else f"{done} of {done} announcements came"
        remedy = NOT_HERE.format("whatever changes their order, probably a proxy,")
        self.report.note("fence", not late, f"{found} before the answer to a later PING", remedy)


def _who(report: Report, greeting: Any, introduction: Any) -> dict[str, str]:
    """Note the name and version of the server; return the facts of its INFO."""
    facts, greeted = facts_in(introduction), _pairs(greeting)
    for name, key in (("Valkey", "valkey_version"), ("Dragonfly", "dragonfly_version"), ("Redis", "redis_version")):
        if key in facts:
            report.server = f"{name} {facts[key].removeprefix('df-v')}"
            break
    else:
        if "server" in greeted:  # HELLO says it to users who may not call INFO
            report.server = f"{str(greeted['server']).capitalize()} {greeted.get('version', '')}"
    report.note("server", None, report.server)
    if (mode := _mode(greeting, facts)) not in {"", "standalone"}:
        report.note("mode", None, mode)
    return facts


def _mode(greeting: Any, facts: Mapping[str, str]) -> str:
    """Return the mode in which the server runs: standalone, cluster or sentinel; "" if unknown."""
    return str(_pairs(greeting).get("mode") or facts.get("redis_mode") or facts.get("server_mode") or "")


def _pairs(reply: Any) -> dict[str, Any]:
    """Return the map in *reply*, which RESP2 spells as a list; an empty one for a refusal."""
    if isinstance(reply, list):
        return dict(zip(reply[::2], reply[1::2], strict=False))
    return reply if isinstance(reply, dict) else {}


def milliseconds(seconds: float) -> str:
    """Return *seconds* as text in milliseconds."""
    return f"{seconds * 1000:.2g} ms" if seconds < 0.1 else f"{seconds * 1000:.0f} ms"
