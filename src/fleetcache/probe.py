"""Asks a server whether it gives what the near cache needs, and proves it rather than believing it.

Nothing is harmed: all that is written is one key with a random name, which expires by itself.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from statistics import median
from typing import Any, Self

import hiredis
from redis.exceptions import AskError, MovedError, NoPermissionError, RedisError

from fleetcache.errors import FleetcacheError, ServerGone, ServerTimeout, SettingsError, UnsupportedServer
from fleetcache.exchange.connecting import NEED_DATA, Push, address_of, connect, refusal, socket_of
from fleetcache.exchange.server import facts_in
from fleetcache.near.tracking import PRIMARY, too_old
from fleetcache.pool import ConnectionFactory
from fleetcache.settings import NETWORKED, Options, Settings, clustered, from_url, masked_url, watched
from fleetcache.topology.opening import service_client

LAGS = 20
FENCES = 200
LONGEST = 10.0
"""Seconds after which the repetitions end, wherever they are."""

LIFE = 60_000
"""Milliseconds that the key lives; no repetition may find it expired."""

NOT_HERE = "No setting on this side helps; {} has to offer it, or another server has to be used"
TRACKING_OFFERED = NOT_HERE.format("the server, the service or the proxy before it")


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    passed: bool | None
    """None: only for information, or not known."""
    found: str
    remedy: str = ""


@dataclass
class Report:
    """What `probe` has found."""

    address: str
    prefix: str
    server: str = "unknown"
    checks: list[Check] = field(default_factory=list)
    lags: list[float] = field(default_factory=list)
    """Seconds from sending a write to being told of it, over another connection."""

    @property
    def works(self) -> bool:
        """Whether the near cache would be on."""
        return bool(self.checks) and not self.missing

    @property
    def missing(self) -> list[Check]:
        """What it would need."""
        return [check for check in self.checks if check.passed is False]

    @property
    def conclusion(self) -> str:
        """One line for people."""
        if self.works:
            return "The near cache works here."
        missing = self.missing[0]
        return f"The near cache is off here: {missing.name}: {missing.found}. {missing.remedy}."

    def as_dict(self) -> dict[str, Any]:
        """Return what ``--json`` prints."""
        return {
            "address": self.address,
            "prefix": self.prefix,
            "server": self.server,
            "works": self.works,
            "conclusion": self.conclusion,
            "lag_seconds": median(self.lags) if self.lags else None,
            "checks": [asdict(check) for check in self.checks],
        }

    def note(self, name: str, passed: bool | None, found: str, remedy: str = "") -> bool:
        """Add a check; return whether to go on."""
        self.checks.append(Check(name, passed, found, remedy if passed is False else ""))
        return passed is not False


def probe(url: str, prefix: str | None = None, *, options: Mapping[str, Any] | None = None) -> Report:
    """Return what the server at *url* offers the near cache.

    *url* is one that ``Cache.from_url`` takes, and *options* are further ``OPTIONS``.  *prefix* begins
    the one name that is written, by default the KEY_PREFIX in the URL, or ``fleetcache``.  Where there is no server to ask, or it refuses
    the password, what a cache would raise is raised.
    """
    location, params = from_url(url)
    settings = Settings.read(location, {**params, "OPTIONS": {**params["OPTIONS"], **(options or {})}})
    place = settings.location[0]
    if clustered([place]):
        raise SettingsError(f"{masked_url(place)}: NEAR cannot keep copies of what is in a cluster yet")
    if place.partition("://")[0] not in (*NETWORKED, "unix"):
        raise SettingsError(f"{masked_url(place)}: there is no server to ask; give the URL of one: redis://host:6379/0")

    def pool_of(options: Options) -> Any:
        raw = service_client(place, options) if watched(place) else ConnectionFactory(options.given).connect(place)
        return raw.connection_pool

    pool = pool_of(settings.options)
    patience = pool.connection_kwargs.get("socket_timeout") or 5.0
    report = Report(address_of(pool), prefix or f"{settings.key_prefix or 'fleetcache'}:")
    with ExitStack() as open_lines:

        def line(pool: Any = pool) -> Line:
            return open_lines.enter_context(Line(pool, report.address, patience))

        try:
            listener = line()
        except UnsupportedServer as error:
            report.note("RESP3", False, str(error.__cause__), TRACKING_OFFERED)
            plain = pool_of(replace(settings.options, given={**settings.options.given, "protocol": 2}))
            with suppress(FleetcacheError, RedisError):  # it need not speak RESP2 either
                asked = line(plain)
                _who(report, asked.ask("HELLO"), asked.ask("INFO", "server"))
            return report
        user = pool.connection_kwargs.get("username") or "default"
        inquiry = _Inquiry(report, listener, line, user)
        try:
            inquiry.run()
        except (ServerGone, ServerTimeout) as error:
            report.note(inquiry.at, False, str(error), "See what stands between here and the server")
    return report


class Line:
    """A connection on which replies and pushes are read as they come, each within *patience* seconds."""

    def __init__(self, pool: Any, address: str, patience: float) -> None:
        self.address = address
        self.patience = patience
        self.pushed: list[Any] = []
        self._connection = connect(pool)
        self._socket = socket_of(self._connection)
        self._reader = hiredis.Reader(encoding="utf-8", errors="replace", replyError=refusal, notEnoughData=NEED_DATA)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._connection.disconnect()

    def ask(self, *command: str | int) -> Any:
        """Return the reply, a refusal as an exception; pushes that come first stand in ``pushed``."""
        self.send(*command)
        return self.reply()

    def send(self, *command: str | int) -> None:
        """Send a command, whose reply is read later."""
        with self._failing():
            self._socket.sendall(hiredis.pack_command(command))

    def reply(self) -> Any:
        """Return the next reply."""
        while type(arrived := self._next(self.patience)) is Push:
            self.pushed.append(arrived)
        return arrived

    def hear(self, name: str, patience: float) -> bool:
        """Wait until a change of *name* is announced; return whether it was."""
        until = time.monotonic() + patience
        while not self.heard(name):
            try:
                self.pushed.append(self._next(until - time.monotonic()))
            except ServerTimeout:
                return False
        return True

    def heard(self, name: str) -> bool:
        """Return whether a change of *name* has been announced since the last call."""
        pushed, self.pushed = self.pushed, []
        return any(len(push) > 1 and push[0] == "invalidate" and name in (push[1] or ()) for push in pushed)

    def _next(self, patience: float) -> Any:
        until = time.monotonic() + patience
        while (arrived := self._reader.gets()) is NEED_DATA:
            with self._failing():
                self._socket.settimeout(max(until - time.monotonic(), 0.001))
                data = self._socket.recv(65_536)
            if not data:
                raise ServerGone(f"{self.address}: closed the connection")
            self._reader.feed(data)
        return arrived

    @contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except TimeoutError as error:
            raise ServerTimeout(f"{self.address}: no answer within {self.patience:g} s") from error
        except OSError as error:
            raise ServerGone(f"{self.address}: {error}") from error


class _Inquiry:
    """What is asked, in order; the first thing that is missing ends it."""

    def __init__(self, report: Report, listener: Line, line: Callable[[], Line], user: str) -> None:
        self.report = report
        self.listener = listener
        self.line = line
        self.user = user
        self.name = f"{report.prefix}~probe:{secrets.token_hex(8)}"
        self.number = 0
        self.at = ""

    def run(self) -> None:
        """Ask everything."""
        for name, step in (
            ("server", self.server),
            ("tracking", self.tracking),
            ("reading and writing", self.writing),
            ("announcements", self.announcements),
            ("fence", self.fence),
            ("eviction", self.eviction),
        ):
            self.at = name
            if not step():
                return

    def allowed(self, name: str, reply: Any, permission: str) -> bool:
        """Note whether the server has answered, and if not, why."""
        if not isinstance(reply, Exception):
            return True
        if isinstance(reply, NoPermissionError):
            if "access a key" in str(reply):
                permission = f"~{self.report.prefix}*"
            remedy = f"Allow it: ACL SETUSER {self.user} {permission}"
        elif name == "tracking":
            remedy = TRACKING_OFFERED
        else:
            remedy = "Mend that on the server, or use another"
        return self.report.note(name, False, f"the server says: {reply}", remedy)

    def write(self) -> Any:
        """Change the key; return the reply."""
        self.send()
        return self.writer.reply()

    def send(self) -> None:
        """Change the key; the reply is read later."""
        self.number += 1
        self.writer.send("SET", self.name, self.number, "PX", LIFE)

    def server(self) -> bool:
        """Who answers, in which role, and whether a fail-over would be noticed."""
        report, listener = self.report, self.listener
        greeting, introduction = listener.ask("HELLO"), listener.ask("INFO", "server")
        facts = _who(report, greeting, introduction)
        protocol = _pairs(greeting).get("proto", 3)  # which it was greeted with
        if not report.note(
            "RESP3", protocol == 3, f"the connection speaks RESP{protocol}", "Leave out the option `protocol`"
        ):
            return False
        if not self.allowed("INFO", introduction, "+info"):
            return False
        version = facts.get("redis_version", "")
        old = too_old(version)
        if not report.note(
            "version",
            not old,
            f"{version} mixes announcements into other replies" if old else f"as Redis {version}",
            "Use Redis 7.0 or later, or Valkey",
        ):
            return False
        run_id = facts.get("run_id", "")
        if not report.note("run id", bool(run_id), run_id or "INFO does not tell it", TRACKING_OFFERED):
            return False
        replication = listener.ask("INFO", "replication")
        if not self.allowed("INFO", replication, "+info"):
            return False
        role = facts_in(replication).get("role", "")
        if role in PRIMARY and isinstance(listener.ask("ROLE"), Exception):
            report.note("ROLE", None, "not permitted; INFO serves as well")
        if not report.note(
            "role", role in PRIMARY, {"master": "primary", "slave": "replica"}.get(role, role or "not told"),
            "Give the URL of the primary",
        ):  # fmt: skip
            return False
        self.writer = self.line()
        other = facts_in(self.writer.ask("INFO", "server")).get("run_id", "")
        return report.note(
            "same server", other == run_id, "both connections lead to it" if other == run_id else "connections lead to several",
            "Give the URL of one server, not that of a balancer",
        )  # fmt: skip

    def tracking(self) -> bool:
        """The server says that it will announce changes."""
        prefix = self.report.prefix
        reply = self.listener.ask("CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", prefix)
        if not self.allowed("tracking", reply, "+client|tracking"):
            return False
        self.report.note("tracking", True, f"of names that begin with {prefix!r}")
        flags = _pairs(self.listener.ask("CLIENT", "TRACKINGINFO")).get("flags")
        if flags:
            self.report.note("tracking info", None, " ".join(sorted(map(str, flags))))
        return True

    def writing(self) -> bool:
        """The user may do what the near cache does with entries."""
        reply = self.write()
        # A node of a cluster has only some of the names.
        for _ in range(100):
            if not isinstance(reply, (MovedError, AskError)):
                break
            self.name = f"{self.report.prefix}~probe:{secrets.token_hex(8)}"
            reply = self.write()
        for command, answer in (
            ("SET", reply),
            ("GET", self.writer.ask("GET", self.name)),
            ("MGET", self.writer.ask("MGET", self.name)),
            ("PTTL", self.writer.ask("PTTL", self.name)),
        ):
            if not self.allowed(f"{command} under {self.report.prefix!r}", answer, f"+{command.lower()}"):
                return False
        return self.report.note("reading and writing", True, f"under {self.report.prefix!r}")

    def announcements(self) -> bool:
        """Changes by one connection are announced to the other."""
        report, patience = self.report, self.listener.patience
        if not self.listener.hear(self.name, patience):
            return report.note(
                "announcements", False, f"a change was not announced within {patience:g} s",
                NOT_HERE.format("whatever drops them, probably a proxy,"),
            )  # fmt: skip
        until = time.monotonic() + LONGEST / 2
        while len(report.lags) < LAGS and time.monotonic() < until:
            began = time.monotonic()
            self.send()
            if not self.listener.hear(self.name, patience):
                return report.note(
                    "announcements", False, f"only {len(report.lags)} of {len(report.lags) + 1} changes were announced",
                    NOT_HERE.format("whatever drops them, probably a proxy,"),
                )  # fmt: skip
            report.lags.append(time.monotonic() - began)
            self.writer.reply()
        return report.note(
            "announcements",
            True,
            f"{milliseconds(median(report.lags))} after sending a write (median of {len(report.lags)})",
        )

    def fence(self) -> bool:
        """An announcement comes before the answer to a PING that was sent after the write was acknowledged."""
        late = done = 0
        until = time.monotonic() + LONGEST
        while done < FENCES and time.monotonic() < until:
            if not self.allowed("fence", self.write(), "+set"):
                return False
            if not self.allowed("fence", self.listener.ask("PING"), "+ping"):
                return False
            done += 1
            if not self.listener.heard(self.name):
                late += 1
                self.listener.hear(self.name, self.listener.patience)
        if late:
            return self.report.note(
                "fence", False, f"{late} of {done} announcements did not come before the answer to a later PING",
                NOT_HERE.format("whatever changes their order, probably a proxy,"),
            )  # fmt: skip
        return self.report.note("fence", True, f"{done} of {done} announcements came before the answer to a later PING")

    def eviction(self) -> bool:
        """For information: what the server does when its memory is full."""
        policy = facts_in(self.writer.ask("INFO", "memory")).get("maxmemory_policy")
        if policy:
            self.report.note("eviction", None, policy)
        return True


def _who(report: Report, greeting: Any, introduction: Any) -> dict[str, str]:
    """Note which server it is; return what it tells of itself."""
    facts, greeted = facts_in(introduction), _pairs(greeting)
    for name, key in (("Valkey", "valkey_version"), ("Dragonfly", "dragonfly_version"), ("Redis", "redis_version")):
        if key in facts:
            report.server = f"{name} {facts[key].removeprefix('df-v')}"
            break
    else:
        if "server" in greeted:  # whoever may not call INFO is told this much
            report.server = f"{str(greeted['server']).capitalize()} {greeted.get('version', '')}"
    report.note("server", None, report.server)
    if facts.get("redis_mode", "standalone") != "standalone":
        report.note("mode", None, facts["redis_mode"])
    return facts


def _pairs(reply: Any) -> dict[str, Any]:
    """Return a map, which RESP2 spells as a list; nothing if it was refused."""
    if isinstance(reply, list):
        return dict(zip(reply[::2], reply[1::2], strict=False))
    return reply if isinstance(reply, dict) else {}


def milliseconds(seconds: float) -> str:
    """Return *seconds* as people read them."""
    return f"{seconds * 1000:.2g} ms" if seconds < 0.1 else f"{seconds * 1000:.0f} ms"
