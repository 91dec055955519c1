"""Checks across servers: their clocks, replicas, Sentinels, the slots of a cluster."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from fleetcache.inspection.doctor.asking import TROUBLE, Asked, Examination, line_to, permitted
from fleetcache.inspection.doctor.findings import Finding, Severity, finding
from fleetcache.keys import SLOTS

APART = 1.0
"""From how many seconds on clocks are called different."""
LAG = 10
"""From how many seconds on a replica is called behind: it reports once a second."""
SENTINELS = 3
MOMENT = 2.0


def check_clocks(examination: Examination) -> Iterator[Finding]:
    """Whether the clocks of the servers and of this machine agree."""
    told = [asked for asked in examination.primaries if asked.ahead is not None]
    for asked in told:
        ahead = asked.ahead or 0.0
        if abs(ahead) > APART + asked.unsure:
            found = f"its clock is {abs(ahead):.1f} s {'ahead of' if ahead > 0 else 'behind'} this machine's"
            yield finding("clock-apart", asked.address, found, "Run NTP (chrony, systemd-timesyncd) on both.")
    if len(told) < 2:
        return
    first, last = min(told, key=_ahead), max(told, key=_ahead)
    if (apart := _ahead(last) - _ahead(first)) > APART + first.unsure + last.unsure:
        found = f"the clock of {last.address} is {apart:.1f} s ahead of that of {first.address}"
        yield finding("clocks-differ", last.address, found, "Run NTP (chrony, systemd-timesyncd) on all servers.")


def _ahead(asked: Asked) -> float:
    return asked.ahead or 0.0


def check_replicas(examination: Examination) -> Iterator[Finding]:
    """Whether the first server is a primary, and its replicas follow it."""
    primaries = {server.address for server in examination.cache.topology.primaries}
    for asked in examination.answering:
        if asked.role == "slave":
            if asked.address in primaries and not examination.is_cluster:
                of = f"{asked.info.get('master_host')}:{asked.info.get('master_port')}"
                found = f"it is a replica, of {of}"
                advice = f"Name the primary first in {examination.location}, or ask Sentinels: redis+sentinel://."
                yield finding("not-primary", asked.address, found, advice)
            yield from _of_replica(asked)
            continue
        for line in (value for name, value in asked.info.items() if re.fullmatch(r"slave\d+", name)):
            yield from _as_told(asked, dict(re.findall(r"(\w+)=([^,]*)", line)))


def _of_replica(asked: Asked) -> Iterator[Finding]:
    if asked.info.get("master_link_status") == "down":
        seconds = asked.info.get("master_link_down_since_seconds", "?")
        found = f"no connection to its primary for {seconds} s"
        yield finding(
            "replica-away", asked.address, found, "See the replica's log; set READ_FROM to primary until then."
        )


def _as_told(asked: Asked, replica: dict[str, str]) -> Iterator[Finding]:
    """What a primary says of one of its replicas."""
    place = f"{replica.get('ip')}:{replica.get('port')}"
    lag = replica.get("lag", "0")
    if replica.get("state") != "online":
        found = f"{asked.address} says that this replica is {replica.get('state')!r}"
        yield finding("replica-behind", place, found, "Wait until it has received all data, or see its log.", "info")
    elif lag.isdigit() and int(lag) >= LAG:
        found = f"{asked.address} has not heard from it for {lag} s"
        advice = "See the network and the load of the replica; set READ_FROM to primary until then."
        yield finding("replica-behind", place, found, advice)


# --- Sentinels ------------------------------------------------------------------------------------


def check_sentinels(examination: Examination) -> Iterator[Finding]:
    """Whether the Sentinels could promote a replica if the primary failed."""
    seen = set[int]()
    for asked in examination.servers:
        sentinels = getattr(asked.remote, "sentinels", None)
        if sentinels is not None and id(sentinels) not in seen:
            seen.add(id(sentinels))
            yield from _of_service(sentinels, examination.location)


def _of_service(sentinels: Any, where: str) -> Iterator[Finding]:
    answered, unsure = 0, ""
    for sentinel in sentinels.known:
        address = sentinel.server.address
        try:
            with line_to(sentinel.server, MOMENT) as line:
                (reply,) = line.ask(("SENTINEL", "CKQUORUM", sentinels.service))
        except TROUBLE as error:
            yield finding("sentinel-away", address, str(error), f"Start it, or take it out of {where}.")
            continue
        answered += 1
        if not permitted(reply) or "unknown command" in str(reply).lower():
            unsure = f"the Sentinel says to SENTINEL CKQUORUM: {reply}"
        elif isinstance(reply, Exception):
            advice = "Start the missing Sentinels, or lower the quorum: SENTINEL SET SERVICE quorum N."
            yield finding("quorum-missing", address, str(reply), advice)
    if unsure:
        yield finding("not-checked", sentinels.service, unsure, "Allow it: ACL SETUSER USER +sentinel|ckquorum")
    if len(sentinels.known) < SENTINELS:
        found = f"{where} names {len(sentinels.known)} of the Sentinels of {sentinels.service!r}"
        advice = f"Run three or more Sentinels on different machines, and name all in {where}."
        yield finding("sentinels-few", sentinels.service, found, advice)


# --- clusters -------------------------------------------------------------------------------------


def check_cluster(examination: Examination) -> Iterator[Finding]:
    """Whether every slot has a node, and every node answers."""
    told = next((asked for asked in examination.answering if asked.cluster), None)
    if told is not None:
        assigned, failed = (int(told.cluster.get(f"cluster_slots_{name}", 0)) for name in ("assigned", "fail"))
        if assigned < SLOTS or failed:
            found = f"{SLOTS - assigned} slots have no node, {failed} are on nodes that failed"
            advice = "Start the nodes, or give their slots to others: redis-cli --cluster fix."
            yield finding("slots-uncovered", told.address, found, advice)
    nodes = next((asked for asked in examination.answering if asked.nodes), None)
    for line in nodes.nodes.splitlines() if nodes is not None else ():
        _, place, flags, *rest = (*line.split(), "", "", "")
        if "fail" in (words := flags.split(",")) or "fail?" in words:
            slots = " ".join(each for each in rest[5:] if each)
            found = f"{nodes.address if nodes else ''} says that this node has failed" + f"; it holds {slots}" * bool(
                slots
            )
            advice = "Start it, or take it out of the cluster: CLUSTER FORGET."
            severity: Severity | None = "error" if slots else None
            yield finding("node-away", place.partition("@")[0], found, advice, severity)
