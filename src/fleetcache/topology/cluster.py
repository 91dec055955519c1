"""A cluster: 16384 slots of names, each at one primary, which may change at any time.

A node that is asked about a slot of another one replies with the address of its primary (MOVED), or, while the slot
is being moved, with the node that has this entry by now (ASK).  So a map of the slots may be out of date, and only
makes the first guess good.  It is learnt from a node at the first use, corrected slot by slot, and learnt
anew when a node replied MOVED or did not answer: by one caller at a time, and not twice within 0.2 s.
(https://valkey.io/topics/cluster-spec/, "Redirection and resharding".)

The code above a `Node` sees none of this: a node answers like a server that holds every slot.
"""

from __future__ import annotations

from binascii import crc_hqx
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from time import monotonic
from typing import Any, NoReturn, TypeAlias

from redis import exceptions as redis
from redis.crc import key_slot

from fleetcache.errors import NeverSent, ServerGone, ServerTimeout, TooManyConnections, UnsupportedServer, advised
from fleetcache.exchange.connecting import place_of
from fleetcache.exchange.contract import Command, Redirected, Reply, Server, Verb
from fleetcache.exchange.repeating import to_another_node
from fleetcache.exchange.runtime import AWAITING, BLOCKING, Runtime, attempt
from fleetcache.exchange.wire import SLOTS, MovedError, pack, place_in
from fleetcache.forks import Guard, chance, in_children
from fleetcache.keys import in_utf8
from fleetcache.servers.observed import observed
from fleetcache.servers.remote import RemoteServer
from fleetcache.topology.contract import Share, Topology
from fleetcache.topology.replicas import UNABLE, Reader
from fleetcache.twin import complete

HOPS = 16
"""How often a command is sent again at most: nodes that never agree must not keep a caller for ever."""
MOMENT = 0.2
"""How long, in seconds, a map is used before it may be learnt anew."""
REVIEW = 30.0
"""How often, in seconds, the map is learnt anew where replicas answer: no error tells of a new replica."""
PATIENCE = 5.0
"""Seconds after which a command is not sent again, where there is no SOCKET_TIMEOUT."""

AWAY = (ServerGone, ServerTimeout)
LEARN = (Verb("CLUSTER", harmless=True, key=0), "SLOTS")
READONLY = pack((b"READONLY",))
"""Without it, a replica answers every command with MOVED to its primary."""
ASKING = (Verb("ASKING", harmless=True, key=0),)


def slot_of(name: str | bytes) -> int:
    """Return the slot of *name*, which only the text between its first braces decides, if there is any."""
    data = in_utf8(name) if isinstance(name, str) else name
    return key_slot(data) if b"{" in data else crc_hqx(data, 0) % SLOTS


@dataclass(frozen=True, slots=True)
class Redirect:
    """Why a command is to be sent again, and where: to *node*, or to the node that holds its slot by now."""

    why: str
    node: tuple[str, int] | None = None
    slot: int | None = None
    asking: bool = False


SIGNS = frozenset((MovedError, redis.AskError, redis.TryAgainError, *UNABLE))


def redirected(reply: Reply) -> Redirect | None:
    """Return where to send the command again, given its reply or the error that stands for it; None if that is final."""
    if isinstance(reply, redis.MovedError):
        return Redirect("moved", reply.node_addr, reply.slot_id)
    if isinstance(reply, redis.AskError):
        return Redirect("ask", reply.node_addr, asking=True)
    if isinstance(reply, redis.TryAgainError):
        return Redirect("tryagain")
    if isinstance(reply, (*AWAY, *UNABLE)) and not isinstance(reply, TooManyConnections):
        return Redirect("away")
    return None


def units(commands: Sequence[Command]) -> list[slice]:
    """Return the parts of *commands* that can be sent again by themselves: a command, or a whole transaction."""
    found = []
    began = None
    for place, command in enumerate(commands):
        if command[0] == b"MULTI":
            began = place
        elif began is None or command[0] == b"EXEC":
            found.append(slice(place if began is None else began, place + 1))
            began = None
    return found


class Node(Server):
    """One node of a cluster; what another node has to answer, it asks there."""

    def __init__(self, cluster: Cluster, remote: RemoteServer) -> None:
        self.cluster = cluster
        self.server = observed(remote, in_cluster=True)
        self.address = remote.address
        # READONLY has connections of its own: on the others, a primary that becomes a replica must not answer reads.
        limit, patience = remote.max_connections, remote.patience
        self.readonly = observed(
            RemoteServer(remote.raw, remote.breaker, max_connections=limit, patience=patience, greeting=READONLY),
            in_cluster=True,
        )
        self.place = place_of(remote.pool)

    @property
    def away(self) -> bool:
        return self.server.away

    @property
    def remote(self) -> Any:
        return self.server.remote

    def exchange(self, commands: Sequence[Command]) -> list[Reply]:
        try:
            replies = self.server.exchange(commands)
        except AWAY as error:
            return self._settle(commands, [error] * len(commands))
        for reply in replies:
            if type(reply) in SIGNS:
                return self._settle(commands, replies)
        return replies

    def _settle(self, commands: Sequence[Command], replies: list[Reply]) -> list[Reply]:
        return complete(self.cluster.settle(BLOCKING, self, commands, replies))

    def tell(self, commands: Sequence[Command]) -> Any:
        return attempt(self.server.tell, commands), commands

    def hear(self, told: Any) -> list[Reply]:
        found, commands = told
        replies = found if isinstance(found, Exception) else attempt(self.server.hear, found)
        if isinstance(replies, AWAY):
            return self._settle(commands, [replies] * len(commands))
        if isinstance(replies, Exception):
            raise replies
        return replies if SIGNS.isdisjoint(map(type, replies)) else self._settle(commands, replies)

    def drop(self, told: Any) -> None:
        if not isinstance(told[0], Exception):
            self.server.drop(told[0])

    async def aexchange(self, commands: Sequence[Command]) -> list[Reply]:
        try:
            replies = await self.server.aexchange(commands)
        except AWAY as error:
            return await self.cluster.settle(AWAITING, self, commands, [error] * len(commands))
        for reply in replies:
            if type(reply) in SIGNS:
                return await self.cluster.settle(AWAITING, self, commands, replies)
        return replies

    def client(self) -> Any:
        """Return a raw ``redis.RedisCluster``, of all nodes."""
        return self.cluster.client()

    def close_idle(self) -> None:
        self.server.close_idle()
        self.readonly.close_idle()

    async def aclose_idle(self) -> None:
        await self.server.aclose_idle()
        await self.readonly.aclose_idle()


class ShardReader(Reader):
    """Answers reads for one primary of a cluster, the first of *nodes*, and its replicas, the others."""

    signs = SIGNS

    def __init__(self, cluster: Cluster, nodes: Sequence[Node]) -> None:
        nearest = cluster.read_from == "nearest"
        others = nodes if nearest else nodes[1:] or nodes
        super().__init__(nodes[0], [node.readonly for node in others], nearest=nearest)
        self.cluster = cluster
        self.nodes = {node.readonly: node for node in nodes}

    def _answers(self, server: Server, began: float, found: Any) -> bool:
        return super()._answers(server, began, found) and monotonic() < self.cluster.rest + REVIEW

    async def _elsewhere(self, runtime: Runtime, tried: Any, commands: Sequence[Command], found: Any) -> list[Reply]:
        if tried is self.primary:  # all replicas rest; the primary's node has asked other nodes itself
            if isinstance(found, Exception):
                raise found
            return found  # type: ignore[no-any-return]  # no exception: the replies
        if isinstance(found, list) and UNABLE.isdisjoint(map(type, found)):
            replies = await self.cluster.settle(runtime, self.nodes[tried], commands, found)
            await self.cluster.refresh(runtime)
            return replies
        self.cluster.redirects["away"] += 1
        await self.cluster.refresh(runtime, self.nodes[tried])  # it may not be a replica of this cluster any more
        return await super()._elsewhere(runtime, tried, commands, found)

    def client(self) -> Any:
        return self.cluster.client()


class UnknownNode(Server):
    """Stands for every node while the map is not known: it learns the map, then sends the commands to the right nodes."""

    def __init__(self, cluster: Cluster, address: str) -> None:
        self.cluster = cluster
        self.address = address

    def exchange(self, commands: Sequence[Command]) -> list[Reply]:
        return complete(self._exchange(BLOCKING, commands))

    async def aexchange(self, commands: Sequence[Command]) -> list[Reply]:
        return await self._exchange(AWAITING, commands)

    async def _exchange(self, runtime: Runtime, commands: Sequence[Command]) -> list[Reply]:
        if all(command is LEARN for command in commands):
            await self.cluster.refresh(runtime)
            return [b"OK"] * len(commands)
        unasked = NeverSent(f"{self.address}: no primary is known to hold the slot of this name")
        return await self.cluster.settle(runtime, self, commands, [unasked] * len(commands))

    def client(self) -> Any:
        return self.cluster.client()


class Cluster(Topology):
    """The nodes of a cluster, found by asking *starts*; *connect* makes the server of a host and port."""

    can_move = one_by_one = True

    def __init__(
        self,
        starts: Sequence[RemoteServer],
        connect: Callable[[str, int], RemoteServer],
        make_client: Callable[[], Any],
        read_from: str | None = None,
        remap: Callable[[tuple[str, int]], tuple[str, int]] | None = None,
    ) -> None:
        self.starts = [Node(self, start) for start in starts]
        self.connect = connect
        self.make_client = make_client
        self.read_from = read_from or "primary"
        self.remap = remap
        self.raw: Any = None
        self.nodes: dict[tuple[str, int], Node] = {}
        self.servers: Sequence[Server] = self.starts
        self.primaries: Sequence[Server] = []
        self.unknown = UnknownNode(self, self.starts[0].address)
        self.slots: list[Server] = [self.unknown] * SLOTS
        self.witness = ""
        """The address of the node that sent the map."""
        self.readers = self.slots
        self.shards: dict[tuple[Node, ...], Server] = {}
        self.redirects: Counter[str] = Counter()
        self.watchers: list[Callable[[Iterable[Server]], None]] = []
        self.trouble: Exception | None = None
        """Why the map could not be learnt last time; None while an attempt has not ended."""
        self.timeout = self.starts[0].remote.timeout or PATIENCE
        self.turn, self.busy, self.rest = Guard(), 0.0, 0.0
        in_children(self.after_fork)

    def route(self, command: Command) -> Server:
        at = command[0].key
        if 0 < at < len(command):
            slots, name = self.readers if command[0].reads else self.slots, command[at]
            if type(name) is str and "{" not in name:  # written out: every call comes by here
                try:
                    return slots[crc_hqx(name.encode(), 0) % SLOTS]
                except UnicodeEncodeError:
                    pass  # `slot_of` raises the error with its explanation
            return slots[slot_of(name)]
        return self.primaries[0] if self.primaries else self.unknown

    def home(self, name: str) -> Server:
        return self.slots[slot_of(name)]

    def together(self, names: Sequence[str]) -> bool:
        return len({slot_of(name) for name in names}) <= 1

    def shares(self, names: Sequence[str], reads: bool) -> list[Share]:
        slots, shares = self.readers if reads else self.slots, dict[Server, list[int]]()
        for place, name in enumerate(names):
            shares.setdefault(slots[slot_of(name)], []).append(place)
        return list(shares.items())

    async def survey(self, runtime: Runtime, tried: Server | None = None) -> Sequence[Server]:
        if tried is None:
            # `refresh` waits, which a pipeline's runtime cannot: that one only collects commands.  So the refresh is a
            # command to `UnknownNode`, which runs it when the pipeline is executed.
            await runtime.exchange(self.unknown, (LEARN,))
        else:
            await self.refresh(runtime, tried, insists=True)
            if self.witness in {"", tried.address} and len(self.nodes) > 1:
                self._complain()
        return self.primaries

    def watch(self, moved: Callable[[Iterable[Server]], None]) -> None:
        if moved not in self.watchers:
            self.watchers = [*self.watchers, moved]  # a new list: `_tell` may be iterating over the old one

    def unwatch(self, moved: Callable[[Iterable[Server]], None]) -> None:
        self.watchers = [each for each in self.watchers if each != moved]

    def client(self) -> Any:
        """Return a raw ``redis.RedisCluster``, which learns its own map when it is made."""
        if (
            self.raw is None or self.raw.get_default_node() is None
        ):  # a RedisCluster that was closed is of no use any more
            self.raw = self.make_client()
        return self.raw

    # --- asking again -----------------------------------------------------------------------------

    async def settle(
        self, runtime: Runtime, node: Server, commands: Sequence[Command], replies: list[Reply]
    ) -> list[Reply]:
        """Send again what *node* could not answer: it no longer holds the slot, or is away; return all replies.

        Nothing is sent after the time limit, and nothing that may have run and must not run twice.
        """
        asked = [(span, node) for span in units(commands)]
        until = monotonic() + self.timeout
        best: Node | None = None
        for hop in range(HOPS):
            todo: dict[tuple[Any, bool], list[slice]] = {}
            target: Any
            wait = False
            for span, last in asked:
                redirect = next((found for reply in replies[span] if (found := redirected(reply))), None)
                if redirect is None:
                    continue
                if last is not self.unknown:
                    self.redirects[redirect.why] += 1
                if redirect.node is not None:
                    target = self.node(*redirect.node, last)
                    if redirect.slot is not None:
                        best = target
                        self._assign(redirect.slot, target)
                elif redirect.why == "tryagain":
                    target, wait = self._holder(commands[span], last), True
                else:
                    await self.refresh(runtime, last)
                    target = self._holder(commands[span], last)
                    if target is last or not to_another_node(commands[span], replies[span]):
                        continue
                if target is self.unknown:
                    continue  # no node holds this slot any more
                todo.setdefault((target, redirect.asking), []).append(span)
            if not todo or monotonic() > until:
                break
            if wait or hop > 2:  # TRYAGAIN: half of the keys have moved; or two nodes point at each other
                await runtime.sleep(min(0.1, 0.005 * 2**hop))
            asked = [(span, target) for (target, _), spans in todo.items() for span in spans]
            for (target, asking), spans in todo.items():
                await self._ask_again(runtime, target, asking, spans, commands, replies)
        if best is not None:
            await self.refresh(runtime, best=best)
        for reply in replies:
            if isinstance(reply, AWAY):
                raise reply
        return Redirected(replies)

    def _assign(self, slot: int, node: Node) -> None:
        loser, self.slots[slot] = self.slots[slot], node
        self.readers[slot] = next((self.shards[nodes] for nodes in self.shards if nodes[0] is node), node)
        if loser is not node:
            self._tell({loser})

    def _tell(self, losers: Iterable[Server]) -> None:
        """Tell the watchers that *losers* have lost slots.  The map is right already."""
        for moved in self.watchers:
            moved(losers)

    async def _ask_again(
        self,
        runtime: Runtime,
        node: Node,
        asking: bool,
        spans: Sequence[slice],
        commands: Sequence[Command],
        replies: list[Reply],
    ) -> None:
        """Put the replies of *node* to the *spans* of *commands* into *replies*."""
        permit = (ASKING,) if asking else ()
        batch = [command for span in spans for command in (*permit, *commands[span])]
        try:
            found = iter(await runtime.exchange(node.server, batch))
        except AWAY as error:
            found = iter([error] * len(batch))
        for span in spans:
            replies[span] = list(islice(found, len(permit), len(permit) + span.stop - span.start))

    def _holder(self, commands: Sequence[Command], last: Server) -> Any:
        """Return the node that holds the first name in *commands*; without a name, the node that was asked."""
        for command in commands:
            if command[0].key:
                return self.slots[slot_of(command[command[0].key])]
        return self.primaries[0] if last is self.unknown else last

    # --- the map ----------------------------------------------------------------------------------

    async def refresh(
        self, runtime: Runtime, tried: Server | None = None, best: Node | None = None, *, insists: bool = False
    ) -> None:
        """Learn anew which node holds which slot: not from *tried*, which is away, and from *best* if it is given.

        One caller asks, and the others wait for it; a caller that comes a moment later uses the known map, unless
        it *insists* and the map is from *tried*.
        """
        due = waits = True
        while waits:
            with self.turn.lock:
                now = monotonic()
                busy = now < self.busy
                due = due and now >= self.rest and not busy
                unknown = not self.primaries and self.trouble is None
                mine = not busy and (
                    due or unknown or (insists and tried is not None and tried.address == self.witness)
                )
                if mine:
                    self.busy, self.witness, self.trouble = now + 2 * self.timeout, "", None
            if waits := busy and best is None:  # the caller knows the new holder of its slot
                await runtime.sleep(0.005)
        if mine:
            try:
                await self._learn(runtime, tried, best)
            finally:
                self.rest = monotonic() + MOMENT
                self.busy = 0.0
        if not self.primaries:
            self._complain()

    def after_fork(self) -> None:
        """In a child, count anew; and learn the map anew if a thread of the parent, which is not here, was learning it."""
        self.raw = None
        self.redirects.clear()
        if self.busy:
            self.busy = self.rest = 0.0
            self.slots = self.readers = [self.unknown] * SLOTS
            self.primaries = []

    def _complain(self) -> NoReturn:
        trouble = self.trouble or ServerGone(f"{self.starts[0].address}: no node says which node holds which slot")
        # A new exception for each caller: a shared one would collect tracebacks.
        raise type(trouble)(*trouble.args) from trouble.__cause__

    async def _learn(self, runtime: Runtime, tried: Server | None, best: Node | None) -> None:
        nodes = [*self.nodes.values(), *self.starts]
        trouble = any(node.remote.breaker.failed for node in nodes)
        # If a node is away, all may have been replaced; then the addresses of LOCATION lead to the new ones.
        others = sorted(
            (node for node in chance.sample(nodes, len(nodes)) if node is not tried),
            key=lambda node: (node.remote.breaker.failed, (node in self.starts) != trouble),
        )
        until = monotonic() + self.timeout
        for node in [best] if best else others:
            try:
                (reply,) = await runtime.exchange(node.server, (LEARN,))
            except (redis.ConnectionError, redis.TimeoutError) as error:
                self.trouble = error
            else:
                if (held := slots_in(reply)) is not None:
                    self.witness = node.address
                    self._adopt(held, node)
                    return
                self.trouble = self._no_map(node, reply)
            if monotonic() > until:
                return

    @staticmethod
    def _no_map(node: Node, reply: Reply) -> Exception:
        if not reply:
            return ServerGone(f"{node.address}: no slot of this cluster is assigned to a node")
        if "cluster support disabled" in str(reply) or "unknown command" in str(reply):
            fault = f"{node.address}: the server is no node of a cluster ({reply})."
            advice = (
                "Write redis:// instead of redis+cluster:// in {}, or redis+sentinel://…/service/0 for a Sentinel, and no "
                "CLIENT_CLASS for clusters"
            )
            return UnsupportedServer(advised(fault, advice))
        return reply if isinstance(reply, Exception) else ServerGone(f"{node.address}: sent no map of the slots")

    def _adopt(self, held: Sequence[Held], witness: Node) -> None:
        """Use the map that *witness* sent."""
        slots: list[Server] = [self.unknown] * SLOTS
        readers = slots if self.read_from == "primary" else [*slots]
        shards: dict[tuple[Node, ...], Server] = {}
        primaries: dict[Server, None] = {}
        known: dict[tuple[str, int], Node] = {}
        for first, last, places in held:
            nodes = [self.node(host, port, witness) for host, port in places]
            slots[first : last + 1] = nodes[:1] * (last + 1 - first)
            if readers is not slots:
                shard = (*nodes,)
                shards[shard] = self.shards.get(shard) or ShardReader(self, nodes)
                readers[first : last + 1] = [shards[shard]] * (last + 1 - first)
            primaries[nodes[0]] = None
            known |= {node.place: node for node in nodes}
        gone = [node for node in list(self.nodes.values()) if node not in known.values()]
        self.readers, self.shards = readers, shards
        before, self.slots = self.slots, slots
        self.nodes, self.servers, self.primaries = known, [*known.values()], [*primaries]
        self.redirects["learnt"] += 1
        self._tell({loser for loser, holder in zip(before, slots, strict=True) if loser is not holder})
        kept = {node.remote for node in known.values()}
        for node in (*gone, *self.starts):  # LOCATION may name by a host name a node that the map names by an address
            if node.remote not in kept:
                node.remote.replace_connections()
                node.readonly.remote.replace_connections()

    def node(self, host: str, port: int, asked: Any) -> Node:
        """Return the node at *host* and *port*; an empty *host* means the host of *asked*."""
        if host in {"", "?"}:
            host = asked.place[0]
        if self.remap:
            host, port = self.remap((host, port))
        node = self.nodes.get((host, port))
        if node is None:
            node = self.nodes.setdefault((host, port), Node(self, self.connect(host, port)))
        return node


Held: TypeAlias = tuple[int, int, list[tuple[str, int]]]
"""The first and the last of some slots, and the addresses of the nodes that hold them, the primary's first."""


def slots_in(reply: Reply) -> list[Held] | None:
    """Return the map in the *reply* to CLUSTER SLOTS, in the order of its slots; None if it holds no map."""
    if not isinstance(reply, list) or not 0 < len(reply) <= SLOTS:
        return None
    found: list[Held] = []
    try:
        for first, last, *places in reply:
            nodes = [place_in(host, port) for host, port, *_ in places]
            if not (type(first) is type(last) is int and 0 <= first <= last < SLOTS and nodes):
                return None
            found.append((first, last, nodes))
    except (TypeError, ValueError):
        return None
    return sorted(found)
